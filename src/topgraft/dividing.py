"""Among how many workers each step of a training is divided."""

from __future__ import annotations

from dataclasses import replace

from topgraft.console import counted
from topgraft.device import has_gpu
from topgraft.underway import Underway
from topgraft.workers import elsewhere

DECISION = "training_workers"


def settle_workers(at: Underway) -> None:
    """Decide it once, and say so; where nobody asks for workers nothing is said and nothing divided.

    As many as were asked for, or one a machine of the cluster. Whether there still are as many when it goes
    on changes no bit, see :mod:`topgraft.data_parallel`.
    """
    workers, settings, plan = elsewhere(), at.settings, at.plan
    if workers is None and settings.training_workers is None and DECISION not in plan.decisions:
        return

    def choose() -> tuple[int, str]:
        if settings.training_workers is not None:
            return settings.training_workers, "as asked (--training-workers)"
        if settings.tune_norms or workers is None:
            return 1, "batch norms renew their statistics from whole batches (--tune-norms)"
        if has_gpu():
            return 1, "the GPU of this machine trains; workers compute by cores"
        return workers.for_training()

    count = plan.decide(DECISION, choose)
    at.ready = replace(at.ready, settings=replace(settings, training_workers=count))
    here = ", all in this process" if workers is None and count > 1 else ""
    at.console.line("Workers", f"training on {counted(count, 'worker')}{here}: {plan.reason(DECISION)}")
