"""What a run gives once it is exported to ONNX, in 8 bits too, compared with what ``predict`` says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Job, done

from topgraft.export.int8 import told_by
from topgraft.export.outputs import score_of
from topgraft.predict import predict
from topgraft.saved import open_model


def said_by_an_export(run: Path, job: Job, place: Path) -> dict[str, Any]:
    """Export a run of texts by the command; what 8 bits cost, in the metric that is told first.

    The file in fp32 gives what ``predict`` says in fp32, and the score told of it is that of these answers.
    """
    import onnxruntime

    told = done("export", run, "--to", "onnx", "-o", place / "fp32", "--json").json
    model = replace(open_model(run), engine="torch", precision="fp32")
    data = told_by(model, str(job.table), to="onnx").data
    said = np.array([p.values or p.probabilities for p in predict(model, list(data.inputs))])
    batch = {name: tensor.numpy() for name, tensor in model.preprocess.batch(data.inputs[:7]).items()}
    session = onnxruntime.InferenceSession(place / "fp32" / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run([told["answer"]["from"]], batch)
    unit = np.array(model.spread if model.outputs else [1.0])
    assert np.abs((found - said[:7]) / unit).max() <= 3 * min(told["tolerance"].values())
    arguments = ("--to", "onnx", "--int8", "--check", job.table, "-o", place / "int8", "--json")
    outcome = done("export", run, *arguments)
    made = outcome.json["int8"]
    scored: dict[str, Any] = made["score"]
    metric, value = score_of(model.task, np.asarray(data.targets), said)
    assert scored["metric"] == metric
    assert scored["fp32"] == pytest.approx(value, abs=2e-3)
    assert scored["loss"] == scored["fp32"] - scored["int8"]
    assert f"{metric} there" in " ".join(outcome.err.split())
    assert ("agreement" in made) == (model.task != "regression")
    return scored
