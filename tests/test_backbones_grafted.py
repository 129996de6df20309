"""A saved graft is a backbone again: its kept blocks, bit for bit, without what it was made from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Job, called, tiny_job
from exported_grafts import arrays, fresh_batch, pictures, saved, texts
from small_networks import differing

from topgraft.backbones import load
from topgraft.backbones.grafted import DESCRIPTION, WEIGHTS, is_graft
from topgraft.errors import TopgraftError
from topgraft.files import DamagedFile, read_tensors
from topgraft.saved import Model, open_model

pytestmark = pytest.mark.usefixtures("own_store_one_thread")


@pytest.mark.parametrize("made", [pictures, texts], ids=["pictures", "texts"])
def test_its_chain_is_the_kept_blocks_as_they_ended(made: Any, tmp_path: Path) -> None:
    model: Model = made()
    folder = saved(model, tmp_path / "big.topgraft")
    backbone = load(str(folder))
    assert backbone.modality == model.modality
    keep = model.graft.keep
    assert len(backbone.chain) == keep
    assert [block.name for block in backbone.chain] == model.description["kept"]
    assert backbone.report.share == 1
    assert backbone.report.missing == backbone.report.left_over == ()
    assert "the saved graft, which was made from" in backbone.report.weights
    batch = fresh_batch(model, 3)
    whole = open_model(folder).graft
    with torch.no_grad():
        for cut in range(1, keep + 1):
            state = backbone.chain[:cut].eval()(batch)
            if cut == whole.freeze:
                frozen = whole.frozen(batch)
                for mine, theirs in zip(state.tensors, frozen.tensors, strict=True):
                    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)  # channels last
        torch.testing.assert_close(whole(batch), whole.head(state), rtol=1e-4, atol=1e-4)
    kept = {n: t for n, t in backbone.network.state_dict().items() if n in whole.kept_weights()}
    assert differing(kept, whole.kept_weights()) == set()


def test_what_is_fitted_on_it_needs_neither_it_nor_its_source(tmp_path: Path) -> None:
    job = tiny_job(tmp_path / "here")
    first = job.fit(tmp_path / "big.topgraft", "--keep", "2", "--freeze", "1", "--epochs", "2")
    assert first.status == 0, first.err
    second = Job(job.table, str(tmp_path / "big.topgraft")).fit(
        tmp_path / "small.topgraft", "--freeze", "all"
    )
    assert second.status == 0, second.err
    assert "made from hf/" in second.out
    assert "2 of 2" in second.out or "of 2 (to" in second.out
    big, small = (read_tensors(tmp_path / name / WEIGHTS)[0] for name in ("big.topgraft", "small.topgraft"))
    shared = {name for name in small if name.startswith("backbone.")}
    assert shared
    assert shared <= big.keys()
    assert differing({n: small[n] for n in shared}, {n: big[n] for n in shared}) == set()
    shutil.rmtree(tmp_path / "big.topgraft")
    shutil.rmtree(tmp_path / "here" / "bert")
    predicted = called("predict", tmp_path / "small.topgraft", job.table)
    assert predicted.status == 0, predicted.err
    assert len(predicted.out.splitlines()) == 46
    layers = called("layers", tmp_path / "small.topgraft")
    assert layers.status == 0, layers.err


def test_random_values_keep_its_shape_and_are_said(tmp_path: Path) -> None:
    folder = str(saved(pictures(), tmp_path / "big.topgraft"))
    trained, blank = load(folder), load(folder, weights="none", seed=3)
    assert blank.report.matched == "random"
    assert [b.shape for b in blank.chain] == [b.shape for b in trained.chain]
    assert (
        differing(blank.network.state_dict(), load(folder, weights="none", seed=3).network.state_dict())
        == set()
    )
    assert blank.report.digest != trained.report.digest


def test_what_it_is_not_for_is_refused(tmp_path: Path) -> None:
    folder = saved(pictures(), tmp_path / "big.topgraft")
    with pytest.raises(TopgraftError, match="reads pictures, and the data are texts"):
        load(str(folder), modality="text")
    with pytest.raises(TopgraftError, match="is a saved graft, which brings its own"):
        load(str(folder), weights=folder / WEIGHTS)
    own = saved(arrays(), tmp_path / "own.topgraft")
    with pytest.raises(TopgraftError, match="module"):
        load(str(own))
    (tmp_path / "empty").mkdir()
    assert not is_graft(str(tmp_path / "empty"))
    with pytest.raises(TopgraftError, match="the folder of a saved graft"):
        load(str(tmp_path / "empty"))


@pytest.mark.parametrize("what", ["tensors", "description"])
def test_a_damaged_one_is_refused(what: str, tmp_path: Path) -> None:
    folder = saved(pictures(), tmp_path / "big.topgraft")
    if what == "tensors":
        file = folder / WEIGHTS
        file.write_bytes(file.read_bytes()[:-9])
    else:
        (folder / DESCRIPTION).write_text('{"form": 1, "keep": 2}')
    with pytest.raises(DamagedFile):
        load(str(folder))
