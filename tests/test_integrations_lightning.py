"""Short real trainings by Lightning."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging
from packaged_data import pictures_of
from PIL import Image
from small_networks import CLASSES, differing, example_maps, graft_of, kept, maps
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import topgraft as tg
from topgraft.chain import Chain
from topgraft.graft import Graft
from topgraft.integrations.lightning import FreezeContract

CHAIN = Chain.of(maps(), example_maps())


@pytest.fixture(autouse=True)
def _only_our_warnings() -> Iterator[None]:
    """Lightning warns of workers, of short trainings, of its own dependencies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Classifier(lightning.LightningModule):
    """A training as its author may write it, who switches every module to training mode before each step."""

    def __init__(self, graft: Graft, *, everything: bool = False, careless: bool = True) -> None:
        super().__init__()
        self.graft, self.everything, self.careless = graft, everything, careless

    def on_train_batch_start(self, _batch: list[Tensor], _batch_idx: int) -> None:
        for module in self.modules() if self.careless else ():
            module.train()

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self.graft(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor]) -> None:
        self.log("loss", nn.functional.cross_entropy(self.graft(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.everything:
            return torch.optim.AdamW(self.parameters(), lr=0.05)
        return torch.optim.AdamW(tg.parameter_groups(self.graft, rate=0.05))


def fit(model: Classifier, folder: Path, *callbacks: lightning.Callback, epochs: int = 2) -> None:
    x, targets = example_maps(12, seed=8) + 2, torch.arange(12) % CLASSES
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(TensorDataset(x, targets), batch_size=6)
    trainer.fit(model, loader, loader)


def test_frozen_statistics_stay_with_the_callback_and_not_without(tmp_path: Path) -> None:
    for callbacks in ([], [FreezeContract()]):
        model = Classifier(graft_of(CHAIN, 4, 3))
        frozen, rest = kept(model.graft.frozen), kept(model.graft.body)
        fit(model, tmp_path, *callbacks)
        changed = differing(kept(model.graft.frozen), frozen)
        assert changed == set() if callbacks else "network.blocks.1.norm.running_mean" in changed
        assert {n for n, _ in model.graft.body.named_parameters()} <= differing(kept(model.graft.body), rest)


def test_a_frozen_parameter_in_the_optimizer_ends_it_before_the_first_step(tmp_path: Path) -> None:
    model = Classifier(graft_of(CHAIN, 4, 2), everything=True)
    before = kept(model)
    with pytest.raises(tg.TopgraftError, match=r"5 parameters of frozen blocks are in the optimizer AdamW"):
        fit(model, tmp_path, FreezeContract())
    assert differing(kept(model), before) == set()


def test_averaging_that_resets_the_statistics_of_frozen_norms_is_told(tmp_path: Path) -> None:
    model = Classifier(graft_of(CHAIN, 4, 3), careless=False)
    averaging = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)
    with pytest.raises(tg.RunningError, match=r"tensors of frozen blocks changed.*running_"):
        fit(model, tmp_path, averaging, FreezeContract(), epochs=3)


def test_real_weights_keep_every_bit_where_they_are_frozen(tmp_path: Path) -> None:
    backbone = tg.load("timm/tf_efficientnet_lite0")
    graft = tg.graft(backbone, keep="blocks.2.0", freeze="blocks.1.0", head=2)
    model = Classifier(graft)
    pictures = [Image.open(path) for name in ("food", "tools") for path in pictures_of(name, 0, 2)]
    inputs = backbone.preprocess.batch(pictures)
    frozen, rest = graft.frozen_tensors(), kept(graft.body)
    before = {name: tensor.clone() for name, tensor in frozen.items()}
    assert len(frozen) > 20
    trainer = lightning.Trainer(
        max_steps=2,
        accelerator="cpu",
        callbacks=[FreezeContract()],
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    (key,) = inputs
    data = TensorDataset(inputs[key], torch.tensor([0, 0, 1, 1]))
    trainer.fit(model, DataLoader(data, batch_size=2))
    assert trainer.global_step == 2
    assert differing(graft.frozen_tensors(), before) == set()
    assert differing(kept(graft.body), rest) == {n for n, _ in graft.body.named_parameters()}


def test_without_lightning_the_extra_is_named() -> None:
    code = """
import sys
sys.modules["lightning"] = None
import topgraft as tg
try:
    import topgraft.integrations.lightning
except tg.TopgraftError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'topgraft[lightning]'" in done.stdout
