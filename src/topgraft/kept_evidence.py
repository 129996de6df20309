"""Evidence that is there already: in the folder of a run that goes on, or in the store from an earlier one.

Probing again with other settings of the training (``topgraft probe``, then ``topgraft fit``; one fit after
another) would give the same numbers from the same activations, targets and folds.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from topgraft.backbones.types import Backbone
from topgraft.data.types import Data
from topgraft.errors import TopgraftError, warn_of_damage
from topgraft.evidence import Evidence, Features
from topgraft.features.kept import Kept
from topgraft.features.store import Store
from topgraft.files import DamagedFile, read_json, write_json
from topgraft.objective import encoded, scale_of
from topgraft.probe import probe

Array = np.ndarray[Any, np.dtype[Any]]

CODE = (
    *("chunked", "evidence", "linear", "number_scores", "objective", "ordered", "probe", "ridge", "score"),
    *("side_by_side", "softmax", "temperature"),
)
"""Modules from which the numbers come: what others computed than those of today is not taken."""
_ONLY = "evidence"


def probe_all(
    features: Features,
    development: Data,
    fold_of: Array,
    *,
    store: Store | None = None,
    of: Backbone | None = None,
    path: Path | None = None,
    advance: Callable[[int], None] | None = None,
) -> tuple[Evidence, float | None]:
    """Score a head at every cut, or take the evidence that was made from the same before.

    Parameters
    ----------
    features, development, fold_of
        As for :func:`topgraft.probe.probe`.
    store
        Where evidence of earlier runs is looked for, and kept.
    of
        The network, by which the store tells people what it holds.
    path
        Of the file in a run's folder, which is looked into first, and written.
    advance
        Called with the number of blocks of each cut that is done.

    Returns
    -------
    Evidence, float or None
        And the seconds that making it took an earlier process, where it was there already.
    """
    made_from = _made_from(features, development, fold_of)
    if path is not None and (known := _in_file(path, made_from)) is not None:
        return known, 0.0
    kept = None
    if store is not None:
        described = {"what": "evidence", "code": _code(), **_digested(made_from, features, development)}
        if of is not None:
            described["recipe"] = dict(of.recipe)
        kept = Kept(store, described, only=_ONLY, said="The evidence")
        if (found := _in_store(kept)) is not None:
            if path is not None:
                keep_evidence(path, found[0], features, development, fold_of)
            return found
    began = time.monotonic()
    evidence = probe(
        features,
        encoded(development, scale_of(development)),
        fold_of,
        development.logits,
        groups=development.groups,
        done=advance,
    )
    if path is not None:
        keep_evidence(path, evidence, features, development, fold_of)
    if kept is not None:
        _put_in_store(kept, evidence, time.monotonic() - began)
    return evidence, None


def keep_evidence(
    path: Path, evidence: Evidence, features: Features, development: Data, fold_of: Array
) -> None:
    """Write evidence where :func:`probe_all` finds it, with what it was made from."""
    made_from = _made_from(features, development, fold_of)
    write_json(path, {"made_from": made_from, "evidence": evidence.to_json()})


def _in_file(path: Path, made_from: Mapping[str, Any]) -> Evidence | None:
    """What an earlier process wrote; ``None`` where nothing whole is there, or it is of something else."""
    if not path.is_file():
        return None
    try:
        document = read_json(path)
    except DamagedFile as error:
        warn_of_damage(path, error.reason, "the probes are fitted again")
        return None
    if not isinstance(document, dict) or document.get("made_from") != made_from:
        return None
    try:
        return Evidence.from_json(document["evidence"])
    except (TopgraftError, KeyError, AttributeError) as error:
        warn_of_damage(path, f"it can't be used: {error}", "the probes are fitted again")
        return None


def _put_in_store(kept: Kept, evidence: Evidence, seconds: float) -> None:
    """Arrays as they are, since they can be large, and beside them the document that refers to them."""
    arrays: dict[str, Tensor | list[Tensor]] = {}

    def name_of(array: Array) -> str:
        name = f"array.{len(arrays):04}"
        arrays[name] = torch.from_numpy(np.require(array, requirements=["C", "W"]))[None]
        return name

    written = json.dumps({"evidence": evidence.to_json(name_of), "seconds": seconds}).encode()
    kept.keep({**arrays, _ONLY: [torch.frombuffer(bytearray(written), dtype=torch.uint8)]})


def _in_store(kept: Kept) -> tuple[Evidence, float] | None:
    """What an earlier run kept, and its seconds; the store has compared the bytes with their checksum."""
    arrays = kept.read() or {}
    written = arrays.get(_ONLY)
    if not isinstance(written, list):
        return None
    document = json.loads(written[0].numpy().tobytes())

    def array_of(name: str) -> Array:
        found = arrays[name]
        assert isinstance(found, Tensor)
        return found[0].numpy()

    return Evidence.from_json(document["evidence"], array_of), float(document["seconds"])


def _made_from(features: Features, development: Data, fold_of: Array) -> dict[str, Any]:
    return {"features": features.key, "data": development.fingerprint, "folds": fold_of.tolist()}


def _digested(made_from: Mapping[str, Any], features: Features, development: Data) -> dict[str, Any]:
    """The same in few words, with everything that a run's own folder need not tell apart."""
    folds = hashlib.sha256(json.dumps([made_from["folds"], development.groups.tolist()]).encode())
    widths = {str(cut): list(x.shape[1:]) for cut, x in features.cuts.items()}
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    return {**made_from, "folds": folds.hexdigest(), "widths": widths, **versions}


@lru_cache(maxsize=1)
def _code() -> str:
    digest = hashlib.sha256()
    for name in CODE:
        spec = find_spec(f"topgraft.{name}")
        assert spec is not None
        assert spec.origin is not None
        digest.update(Path(spec.origin).read_bytes())
    return digest.hexdigest()
