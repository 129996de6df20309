"""A graft as a program of ``torch.export`` (``.pt2``)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from topgraft.export.checking import measured
from topgraft.export.job import ExportJob, Written

FILE = "model.pt2"


def write(job: ExportJob) -> Written:
    """Write the program, and open it again."""
    path = job.folder / FILE
    names = list(job.examples.traced)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch about itself
        torch.export.save(job.program(guarded=True), path, extra_files=job.notes())
        opened = torch.export.load(path)
        network = opened.module()

    def run(batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            return tuple(network(*(batch[n] for n in names)))

    difference = measured(run, job.model, job.examples.checked)
    return Written(f"torch.export of PyTorch {torch.__version__}", difference, {})
