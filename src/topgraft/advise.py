"""How many blocks to keep: the cheapest depth that the evidence can't tell from the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal, get_args

import numpy as np

from topgraft.confidence import Paired, any_better, confidence_set
from topgraft.errors import TopgraftError
from topgraft.evidence import Evidence
from topgraft.objective import are_labels, are_numbers, are_steps

Prefer = Literal["small", "accuracy"]

POWER = NormalDist().inv_cdf(0.8)

UNSTABLE = 5.0
"""Over the root of the number of examples: what luck in training adds to the variance of differences.

In simulations of this package's probe that variance was 1.2 to 1.6 times the examples' own at n = 100 and
1.0 to 1.7 at 300, more for the loss than for accuracy, and 0.8 to 1.4 at 1,000.
"""


@dataclass(frozen=True)
class DepthAdvice:
    """How many blocks to keep, and why.

    Parameters
    ----------
    keep
        The advice.
    best
        The cut with the highest score.
    in_set
        Cuts that can't be told from the best, ascending: they hold the truly best one with 95 % confidence.
    p_best
        By cut: share of bootstrap samples in which it has the highest score.
    smallest_difference
        In percentage points: a difference in score between the advised cut and the best (or, where that
        is the one advised, the next best) that data like these show with a chance of 80 %.
    beats_chance
        Whether any cut does measurably better than knowing only how frequent each class is.
    reason
        In plain words, to stand behind "keep N of M: ".
    """

    keep: int
    best: int
    in_set: tuple[int, ...]
    p_best: Mapping[int, float]
    smallest_difference: float
    beats_chance: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        """As what the ``json`` module can write; cuts become text where they are keys."""
        document = asdict(self)
        document["in_set"] = list(self.in_set)
        document["p_best"] = {str(keep): share for keep, share in self.p_best.items()}
        return document

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        from topgraft.notebook import advice

        return advice(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> DepthAdvice:
        """The advice that :meth:`to_json` wrote."""
        fields = dict(document)
        fields["in_set"] = tuple(fields["in_set"])
        fields["p_best"] = {int(keep): float(share) for keep, share in fields["p_best"].items()}
        return cls(**fields)


def advise_depth(
    evidence: Evidence,
    cost: Mapping[int, float],
    *,
    saving: str = "fewer parameters",
    prefer: Prefer = "small",
    margin: tuple[float, float] = (math.inf, math.inf),
    whole: float | None = None,
    seed: int = 0,
) -> DepthAdvice:
    """Advise the cheapest cut that neither accuracy nor loss can tell from the best.

    Cuts are compared on the same examples, and groups are drawn whole. Of predicted numbers the loss is the
    one measure. Of classes and labels it tells apart what the score alone could not; one max-t bootstrap
    over both measures and all pairs allows for using two and for the best having been chosen (see
    :func:`topgraft.confidence.confidence_set`).

    Parameters
    ----------
    evidence
        Of :func:`topgraft.probe.probe`.
    cost
        What each measured cut costs; smaller is cheaper. Of equal costs the smaller ``keep`` is cheaper.
    saving
        What a smaller cost is called in the reason.
    prefer
        "small": the cheapest of the set. "accuracy": the one of the set with the highest score.
    margin
        Score points (percentage) and nats by which the advised cut may have measured worse than the best of
        the set. With few examples the set is wide, and its cheapest member, though it can't be told from the
        best, is expected to be worse by what was measured; a margin bounds that.
    whole
        Cost that the saving is a share of; that of the last cut by default.
    seed
        Of the bootstrap.

    Raises
    ------
    TopgraftError
        If a measured cut has no cost.
    """
    keeps = [cut.keep for cut in evidence.cuts]
    if missing := [keep for keep in keeps if keep not in cost]:
        raise TopgraftError(f"cost lacks keep={missing[0]}; it needs {', '.join(map(str, keeps))}.")
    if prefer not in get_args(Prefer):
        raise TopgraftError(f"prefer={prefer!r} is unknown. Give one of {', '.join(get_args(Prefer))}.")
    measures, chance = [np.column_stack([cut.losses for cut in evidence.cuts])], [evidence.chance_losses]
    if not are_numbers(evidence.targets):
        measures.insert(0, np.column_stack([1 - cut.marks.astype(float) for cut in evidence.cuts]))
        chance.insert(0, 1 - evidence.chance_marks.astype(float))
    beats_chance = any_better(measures, chance, evidence.groups, seed=seed)
    paired = Paired.of(measures, evidence.groups, seed=seed, unstable=UNSTABLE)
    found = confidence_set(paired)
    in_set = tuple(keeps[k] for k in found.members)
    if prefer == "small":
        scores, lost = [cut.score for cut in evidence.cuts], [cut.loss for cut in evidence.cuts]
        near = [keeps[k] for k in near_best(scores, lost, found.members, margin)]
        keep = min(near, key=lambda k: (cost[k], k))
    else:
        keep = min(in_set, key=lambda k: (-evidence[k].score, evidence[k].loss, cost[k], k))
    shares = paired.shares_best()
    best = evidence.best.keep
    here, other = keeps.index(keep), keeps.index(best)
    if here == other and len(keeps) > 1:
        others = (k for k in range(len(keeps)) if k != here)
        other = min(others, key=lambda k: tuple(paired.means[:, k]))
    width = float(found.critical[here]) + POWER
    saved = _saved(cost, keep, cost[max(keeps)] if whole is None else whole, saving)
    return DepthAdvice(
        keep,
        best,
        in_set,
        {k: float(share) for k, share in zip(keeps, shares, strict=True)},
        100 * width * float(paired.errors[0, here, other]),
        beats_chance,
        _reason(evidence, keep, in_set, saved, beats_chance=beats_chance),
    )


def near_best(
    scores: Sequence[float], losses: Sequence[float], members: Sequence[int], margin: tuple[float, float]
) -> list[int]:
    """The members of a confidence set that measured at most ``margin`` worse than its best; never empty.

    Parameters
    ----------
    scores, losses
        Of every candidate.
    members
        Numbers of the candidates in the set.
    margin
        Percentage points of score, then nats of loss.

    Examples
    --------
    >>> near_best([0.80, 0.795, 0.70], [0.5, 0.51, 0.9], [0, 1, 2], (1.0, 0.02))
    [0, 1]
    """
    top = max(scores[k] for k in members)
    near = [k for k in members if scores[k] >= top - margin[0] / 100]
    least = min(losses[k] for k in near)
    return [k for k in near if losses[k] <= least + margin[1]]


def cut_rows(
    evidence: Evidence,
    advice: DepthAdvice,
    names: Sequence[str],
    parameters: Sequence[float],
    work: Sequence[float],
) -> list[dict[str, Any]]:
    """One entry a cut, in the fixed form of ``probe --json``; names and shares are by block."""
    return [
        {
            "keep": cut.keep,
            "block": names[cut.keep - 1],
            "score": cut.score,
            "low": cut.low,
            "high": cut.high,
            "loss": cut.loss,
            "in_set": cut.keep in advice.in_set,
            "p_best": advice.p_best[cut.keep],
            "parameters": float(parameters[cut.keep - 1]),
            "work": float(work[cut.keep - 1]),
        }
        for cut in evidence.cuts
    ]


def _constant(evidence: Evidence) -> str:
    """What is answered where nothing is known of the inputs."""
    if are_numbers(evidence.targets):
        return "the mean"
    share = 100 * float(np.mean(evidence.chance_marks))
    if are_labels(evidence.targets):
        return f"how frequent each label is ({share:.1f} %)"
    return f"the {'median' if are_steps(evidence.targets) else 'most frequent'} class ({share:.1f} %)"


def _saved(cost: Mapping[int, float], keep: int, whole: float, saving: str) -> str:
    percent = round(100 * (1 - cost[keep] / whole)) if whole > 0 else 0
    return f"{percent} % {saving}" if percent > 0 else ""


def _reason(evidence: Evidence, keep: int, in_set: tuple[int, ...], saved: str, *, beats_chance: bool) -> str:
    count, best = len(evidence.cuts), evidence.best.keep
    if not beats_chance:
        return (
            f"no depth does measurably better than always answering {_constant(evidence)}, so this data "
            "can't tell how many blocks to keep"
        )
    if count == 1:
        return "the only depth measured"
    if len(in_set) == count:
        words = f"this data can't tell the {count} depths apart, so the cheapest will do"
    elif keep == best and in_set == (best,):
        words = f"the best of {count} depths, and every other is measurably worse"
    elif keep == best:
        words = f"the best of {count} depths"
    elif best in in_set:
        words = "as good as the best within noise"
    else:
        words = (
            f"the loss is measurably lower than that of keep {best}, whose score is highest only within noise"
        )
    return f"{words}, {saved}" if saved else words
