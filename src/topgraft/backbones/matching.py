"""Pairing the tensors of a file with those of a network, and the honest count of what arrived."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from topgraft.backbones.types import Filled, LoadReport, Matched, percent, some
from topgraft.errors import TopgraftError, did_you_mean
from topgraft.tensorfile import bytes_of

if TYPE_CHECKING:
    from torch import nn

    from topgraft.backbones.weights import Weights

    Rename = Callable[[Mapping[str, Tensor], nn.Module], Mapping[str, Tensor]]

ENOUGH = 0.95
"""Share of the kept part's parameters, and of its running statistics, that has to arrive."""
COUNTER = "num_batches_tracked"
"""Counts training batches, changes nothing in use, and is absent from older files."""
STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Match:
    """Which tensor of the weights fills which of the network.

    Parameters
    ----------
    pairs
        Network's name -> name in the weights.
    matched
        ``"name"`` or ``"order and shape"``.
    misshapen
        Network's name -> a sentence on the shapes, where the name is there but the shape differs.
    """

    pairs: Mapping[str, str]
    matched: Matched
    misshapen: Mapping[str, str]


def match(network: nn.Module, weights: Weights) -> Match:
    """Pair by name; where hardly anything fits by name, by order and shape if everything fits so.

    By order and shape is tried for files that keep the order in which modules were made. It holds only if
    all tensors of both sides, up to the counters of batch norms, have the same shapes and the same last
    names (``weight``, ``bias``, ``running_mean``) in the same order.
    """
    own = network.state_dict()
    given = weights.tensors
    inside = _inside(own, given)
    named = {n: f"{inside}{n}" for n in own if f"{inside}{n}" in given}
    by_name = {n: m for n, m in named.items() if given[m].shape == own[n].shape}
    misshapen = {
        n: f"{n} has shape {_shape(given[m])} in the weights, {_shape(own[n])} in the network"
        for n, m in named.items()
        if n not in by_name
    }
    if weights.ordered and len(by_name) < len(own) / 2:
        mine = [(n, t) for n, t in own.items() if not n.endswith(COUNTER)]
        theirs = [(n, t) for n, t in given.items() if not n.endswith(COUNTER)]
        same = len(mine) == len(theirs) and all(
            a.shape == b.shape and _last(n) == _last(m) for (n, a), (m, b) in zip(mine, theirs, strict=True)
        )
        if same:
            pairs = {n: m for (n, _), (m, _) in zip(mine, theirs, strict=True)}
            counters = {
                f"{m.rpartition('.')[0]}.{COUNTER}": f"{n.rpartition('.')[0]}.{COUNTER}"
                for n, m in pairs.items()
            }
            pairs |= {mine: theirs for theirs, mine in counters.items() if theirs in given and mine in own}
            return Match(pairs, "order and shape", {})
    return Match(by_name, "name", misshapen)


def _inside(own: Collection[str], given: Collection[str]) -> str:
    """The prefix of a wrapper, such as ``model.``, under which most of the network's names are found."""
    prefixes = {name.partition(".")[0] + "." for name in given}
    counts = {prefix: sum(f"{prefix}{n}" in given for n in own) for prefix in ("", *sorted(prefixes))}
    best = max(counts, key=lambda prefix: counts[prefix])
    return best if counts[best] > counts[""] and counts[best] >= len(own) / 2 else ""


def install(network: nn.Module, weights: Weights, pairs: Mapping[str, str]) -> None:
    """Copy the paired tensors into the network, in its own types.

    Raises
    ------
    TopgraftError
        If a parameter or a running statistic would not be finite.
    """
    parameters = dict(network.named_parameters(remove_duplicate=False))
    for mine, theirs in pairs.items():
        checked = mine in parameters or _last(mine) in STATISTICS
        tensor = weights.tensors[theirs]
        if checked and tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise TopgraftError(f"{weights.origin}: {theirs} holds values that are not finite numbers.")
    network.load_state_dict({mine: weights.tensors[theirs] for mine, theirs in pairs.items()}, strict=False)


def fill(network: nn.Module, weights: Weights, rename: Rename | None = None) -> Filled:
    """Pair weights with a network's tensors and copy them in.

    Parameters
    ----------
    network
        Filled in place, in its own types.
    weights
        As read.
    rename
        From published names and shapes to those of the network.

    Raises
    ------
    TopgraftError
        If a parameter or a running statistic would not be finite.
    """
    notes = ""
    if rename is not None:
        try:
            weights = replace(weights, tensors=rename(weights.tensors, network))
        except (KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError):
            notes = ", under the names that the file has"  # made for published files; this is another
    paired = match(network, weights)
    install(network, weights, paired.pairs)
    return Filled(
        origin=weights.origin + notes,
        matched=paired.matched,
        arrived=frozenset(paired.pairs),
        unused=frozenset(weights.tensors) - frozenset(paired.pairs.values()),
        misshapen=paired.misshapen,
    )


def under(names: Iterable[str], modules: Iterable[str]) -> set[str]:
    """Those ``names`` that lie in one of the ``modules``.

    Examples
    --------
    >>> sorted(under(["fc.weight", "fc.bias", "fc2.bias"], ["fc"]))
    ['fc.bias', 'fc.weight']
    """
    heads = tuple(f"{m}." for m in modules if m)
    return {n for n in names if n.startswith(heads)} if heads else set()


def allowed_names(allow: Sequence[str], names: Collection[str]) -> set[str]:
    """The tensors that may be missing: by name, by the name of a module, or by a pattern.

    Raises
    ------
    TopgraftError
        If one of them fits no name, with the nearest.

    Examples
    --------
    >>> sorted(allowed_names(["a.*", "b"], ["a.weight", "b.bias", "c.bias"]))
    ['a.weight', 'b.bias']
    """
    found: set[str] = set()
    for pattern in allow:
        fits = {
            n for n in names if n == pattern or n.startswith(f"{pattern}.") or fnmatch.fnmatchcase(n, pattern)
        }
        if not fits:
            modules = {n.rpartition(".")[0] for n in names} - {""}
            raise TopgraftError(
                f"allow_missing={pattern!r} fits no tensor of the backbone."
                f"{did_you_mean(pattern, [*names, *modules])}"
            )
        found |= fits
    return found


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over names, types, shapes and bytes, whatever the order.

    Examples
    --------
    >>> a, b = torch.zeros(2), torch.ones(1)
    >>> digest_of({"a": a, "b": b}) == digest_of({"b": b, "a": a})
    True
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()


def report_on(
    network: nn.Module,
    filled: Filled,
    kept: Collection[str],
    *,
    source: str,
    beside: Sequence[str] = (),
    allow_missing: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> LoadReport:
    """Count what arrived in the kept part, and refuse where it is too little.

    Parameters
    ----------
    network
        As filled.
    filled
        What was put into it.
    kept
        Names in its state dict that belong to the kept part; the others are the old output layer's.
    source
        The backbone as the user gave it.
    beside
        Patterns of names that weights may hold beside the backbone.
    allow_missing
        Names, modules or patterns that may be missing.
    notes
        More sentences for the report.

    Raises
    ------
    TopgraftError
        If less than 95 % of the kept part's parameters, or of its running statistics, arrived or may be
        missing; if ``allow_missing`` names nothing.
    """
    arrived, matched = filled.arrived, filled.matched
    whole = network.state_dict()
    state = {n: t for n, t in whole.items() if n in kept}
    old = set(whole) - set(state)
    not_needed = old & (filled.arrived | filled.unused) if matched not in ("as given", "random") else set()
    rest = filled.unused - not_needed
    aside = {n for n in rest if any(fnmatch.fnmatchcase(n, pattern) for pattern in beside)}
    parameters = dict(network.named_parameters())
    sizes = {n: t.numel() for n, t in state.items() if n in parameters}
    statistics = {n: t.numel() for n, t in state.items() if _last(n) in STATISTICS}
    missing = tuple(n for n in state if n not in arrived and not n.endswith(COUNTER))
    allowed = allowed_names(allow_missing, state)
    notes = [*notes, *(filled.misshapen[n] for n in missing if n in filled.misshapen)]
    if excused := [n for n in missing if n in allowed]:
        notes.append(f"allowed to be missing, and left at random values: {some(tuple(excused))}")
    report = LoadReport(
        source=source,
        weights=filled.origin,
        digest=digest_of(state),
        tensors=len(state),
        arrived=sum(n in arrived for n in state),
        parameters=sum(sizes.values()),
        arrived_parameters=sum(size for n, size in sizes.items() if n in arrived),
        missing=missing,
        left_over=tuple(sorted(rest - aside)),
        not_needed=tuple(sorted(not_needed)),
        beside=tuple(sorted(aside)),
        matched=matched,
        notes=tuple(notes),
    )
    if matched in ("name", "order and shape"):
        for what, counted in (("parameters", sizes), ("running statistics", statistics)):
            here = sum(size for n, size in counted.items() if n in arrived or n in allowed)
            if counted and here < ENOUGH * sum(counted.values()):
                raise TopgraftError(_too_little(report, what, here / sum(counted.values())))
    return report


def _too_little(report: LoadReport, what: str, share: float) -> str:
    wrong = [n for n in report.notes if " has shape " in n][:3]
    lines = [
        f"The weights do not fit {report.source}: {percent(share)} of the {what} of the backbone arrived, "
        f"at least {ENOUGH:.0%} is expected.".replace("95%", "95 %"),
        f"Weights: {report.weights}",
        f"Did not arrive ({len(report.missing)} of {report.tensors} tensors): {some(report.missing)}",
        *wrong,
    ]
    if report.left_over:
        lines.append(f"Left over in the weights ({len(report.left_over)}): {some(report.left_over)}")
    lines.append(
        "Give the weights of this very network, or say with --allow-missing NAME what may be missing."
    )
    return "\n".join(lines)


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _last(name: str) -> str:
    return name.rpartition(".")[2]
