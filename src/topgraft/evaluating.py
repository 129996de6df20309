"""What a graft says of examples that a source gives, and how well that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from topgraft.data_parallel import ALONE, Team, of_every_part
from topgraft.features.sources import Source
from topgraft.graft import Graft
from topgraft.objective import marks, mean_loss


def predict_logits(
    graft: Graft, source: Source, rows: Sequence[int], *, batch_size: int = 64, team: Team = ALONE
) -> Tensor:
    """Logits ``(len(rows), classes)`` float32 on the CPU, in eval mode; the graft's modes are put back.

    The processes of a ``team`` compute some of the batches each, and all get all of them.
    """
    was_training = graft.training
    graft.eval()
    device = next(graft.head.parameters()).device
    batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    own = []
    with torch.no_grad():
        for some in batches[team.rank :: team.size]:
            batch = on_device(source.batch(some, training=False), device)
            own.append(graft.from_state(batch).float().cpu())
    graft.train(was_training)
    return torch.cat(own if team.size == 1 else shared(team, own, batches, graft.head.linear.out_features))


def shared(team: Team, own: Sequence[Tensor], batches: Sequence[Sequence[int]], outputs: int) -> list[Tensor]:
    """The logits of every batch, from those of ``team.rank``, ``team.rank + team.size``, and so on."""
    most = max(map(len, batches), default=0)
    padded = [torch.cat([logits, torch.zeros(most - len(logits), outputs)]) for logits in own]
    every = of_every_part(team, padded or [torch.zeros(most, outputs)], len(batches))
    return [logits[: len(some)] for logits, some in zip(every, batches, strict=True)]


def on_device(batch: Any, device: torch.device | str) -> Any:
    """A batch of a source, all of its tensors on a device."""
    if isinstance(batch, Mapping):
        return {n: t.to(device) for n, t in batch.items()}
    return batch.to(device=device)


def evaluate(
    graft: Graft,
    source: Source,
    targets: Tensor,
    rows: Sequence[int],
    weights: Tensor | None = None,
    *,
    team: Team = ALONE,
) -> tuple[float, float, Tensor]:
    """Mean loss, score, and by example what the score is the mean of, see :mod:`topgraft.objective`."""
    logits = predict_logits(graft, source, rows, team=team)
    wanted = targets[list(rows)]
    weights = None if weights is None else weights.to(logits.device)
    loss, found = float(mean_loss(logits, wanted, weights)), marks(logits, wanted).float()
    return loss, float(found.mean()), found
