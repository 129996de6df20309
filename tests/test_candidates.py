"""A candidate that is sent to another process is trained to the bits of a training here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from one_by_one import OneByOne
from small_networks import backbone_of, bits, data_of_maps, example_maps, maps, material_of

from topgraft.candidates import Candidate, Outcome, Trying
from topgraft.search import Material, Trial, run_trial, source_at

KEEP, EPOCHS = 4, 2
SETTINGS = {"engine": "torch", "batch_size": 10, "rate": 0.01, "mixup": 0.5}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    backbone = backbone_of(maps(), example_maps())
    return material_of(backbone, data_of_maps(36), tmp_path_factory.mktemp("store"), **SETTINGS)


def with_settings(material: Material, **settings: Any) -> Material:
    return replace(material, settings=replace(material.settings, **settings))


def trained_here(material: Material, freeze: int) -> Trial:
    _, trial = run_trial(
        material,
        KEEP,
        freeze,
        source_at(material, KEEP, freeze)[0],
        epochs=EPOCHS,
        stop_after=None,
        checkpoint=None,
        deadline=None,
        from_start=False,
        advance=None,
    )
    return trial


def trained_elsewhere(material: Material, freeze: int, *, threads: int = 1) -> Outcome:
    waiting = Candidate(material, KEEP, freeze, views=0, epochs=EPOCHS, seconds=600.0)
    (outcome,) = OneByOne().in_order(Trying(threads), [waiting])
    assert isinstance(outcome, Outcome)
    return outcome


@pytest.mark.parametrize("settings", [{}, {"seed": 3, "dropout": 0.3, "class_weights": "balanced"}])
@pytest.mark.parametrize("freeze", [0, 2, KEEP])
@pytest.mark.usefixtures("one_thread")
def test_another_process_trains_to_the_same_bits(
    material: Material, freeze: int, settings: dict[str, Any]
) -> None:
    own = with_settings(material, **settings)
    here, there = trained_here(own, freeze), trained_elsewhere(own, freeze)
    assert here.logits is not None
    assert bits(there.logits) == bits(here.logits)
    of_epochs = [
        [(epoch.validation_loss, epoch.validation_score) for epoch in history.epochs]
        for history in (here.history, there.history)
    ]
    assert of_epochs[0] == of_epochs[1]
    assert len(of_epochs[0]) == EPOCHS + 1
    assert of_epochs[0][-1] != of_epochs[0][0]  # else it trained nothing


@pytest.mark.usefixtures("one_thread")
def test_a_worker_trains_with_the_threads_of_the_plan_and_then_has_its_own(material: Material) -> None:
    seen = []

    class Noting(Trying):
        def _train(self, sent: Any) -> Outcome:
            found = super()._train(replace(sent, training=replace(sent.training, source=Source(sent))))
            seen.append(torch.get_num_threads())
            return found

    class Source:
        def __init__(self, sent: Any) -> None:
            self.source = sent.training.source

        def batch(self, rows: Any, *, training: bool) -> Any:
            seen.append(torch.get_num_threads())
            return self.source.batch(rows, training=training)

    work = Noting(3).start()
    work(Candidate(material, KEEP, 2, views=0, epochs=1, seconds=600.0).packed())
    assert set(seen[:-1]) == {3}
    assert seen[-1] == 1


def test_what_is_sent_has_no_frozen_part_and_needs_no_store(material: Material, tmp_path: Path) -> None:
    here = replace(material, store=type(material.store)(tmp_path))
    sent = Candidate(here, KEEP, 2, views=0, epochs=1, seconds=600.0).packed()
    graft = sent.training.graft
    assert graft.frozen is None
    assert {block for _, _, block in graft.trainable()} == {3, 4, 5}
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert len(sent.training.source.batch([0, 3], training=True).tensors[0]) == 2  # type: ignore[union-attr] (a state)
