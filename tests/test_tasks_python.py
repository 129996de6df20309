"""Every task on every kind of data from Python: `tg.fit` on objects, where blocks train, and `tg.predict`.

Real weights where there are some; `make test` runs a sample.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from every_task import (
    LEVELS,
    MADE,
    SEPARATOR,
    TASKS,
    Examples,
    cases,
    limits_of,
    names_of,
    network_for,
    targets_of,
)
from small_networks import differing, kept

import topgraft as tg
from topgraft.backbones.types import Backbone
from topgraft.files import read_json

SAMPLE = {("array", "multilabel"), ("array", "ordinal")}
TRAINED = {"picture": (6, 5), "text": (2, 1), "sound": (3, 2), "row": (7, 5), "array": (2, 1)}
"""How many blocks are kept, and how many of them frozen: one or two train."""
CASES = cases(TRAINED, TASKS, SAMPLE)
pytestmark = pytest.mark.usefixtures("own_store_one_thread")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory):
    """Examples and their backbone by modality, made when they are first asked for."""

    class Given(dict[str, tuple[Examples, Backbone]]):
        def __missing__(self, modality: str) -> tuple[Examples, Backbone]:
            examples = MADE[modality](tmp_path_factory.mktemp(modality))
            self[modality] = examples, network_for(modality, examples)
            return self[modality]

    return Given()


@pytest.mark.parametrize(("modality", "task"), CASES)
def test_what_is_frozen_keeps_its_bits_and_predict_gives_the_scored_answers(
    given, modality: str, task: str, tmp_path: Path
) -> None:
    examples, backbone = given[modality]
    keep, freeze = TRAINED[modality]
    before = kept(backbone.network)
    limits = limits_of(examples)
    targets = targets_of(task, examples, limits)
    source, named = (examples.inputs, targets), {}
    if modality == "row":
        source = examples.inputs.assign(said=names_of(task, examples, limits))
        named = {"label": "said", "columns": "all"}
    run = tg.fit(
        source,
        tmp_path / "run",
        **named,
        backbone=backbone,
        task=task,
        order=LEVELS if task == "ordinal" else None,
        keep=keep,
        freeze=freeze,
        epochs=1,
        folds=3,
        augment="none",
        resize="pretrained",
        refit=False,
    )
    assert (run.keep, run.freeze, run.result["task"]) == (keep, freeze, task)

    own = {"module": network_for(modality, examples).network} if modality == "array" else {}
    model = tg.open_model(run.folder, **own)
    now = dict(model.backbone_weights())
    changed = differing(now, {name: before[name] for name in now})
    trained = set(run.result["trained_names"]) & set(now)
    assert trained
    assert changed == trained

    untouched = read_json(run.folder / "untouched.json")
    at = untouched_rows(untouched["names"], examples)
    said = tg.predict(model, examples.part(at).inputs)
    if task == "regression":
        found = [list(p.values) for p in said]
        assert np.allclose(found, untouched["predictions"], rtol=1e-4, atol=1e-4)
        assert [[v] for v in np.array(targets)[at].tolist()] == untouched["targets"]
    elif task == "multilabel":
        assert np.allclose([p.probabilities for p in said], untouched["probabilities"], atol=1e-4)
        wanted = [[name in targets[i] for name in model.classes] for i in at]
        assert np.array(untouched["targets"]).astype(bool).tolist() == wanted
        assert {name for p in said for name in p.label.split(SEPARATOR)} <= {"", "first", "large"}
    else:
        assert [model.classes.index(p.label) for p in said] == untouched["predictions"]
        assert [model.classes[i] for i in untouched["targets"]] == [targets[i] for i in at]


def untouched_rows(names: list[str], examples: Examples) -> np.ndarray:
    """Where the untouched examples stand in what was given."""
    if examples.modality in ("picture", "sound"):
        places = {str(path): i for i, path in enumerate(examples.inputs)}
        return np.array([places[name] for name in names])
    return np.array([int(name) for name in names])
