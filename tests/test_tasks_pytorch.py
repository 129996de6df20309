"""Every task on every kind of data in one's own training: a loop, Lightning, Transformers' Trainer, LoRA.

Real weights where there are some; `make test` runs a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from every_task import LEVELS, MADE, SEPARATOR, TASKS, cases, limits_of, names_of, network_for
from small_networks import differing, kept
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

import topgraft as tg
from topgraft.backbones.types import Backbone
from topgraft.contract import Contract
from topgraft.data.columns import Rows
from topgraft.data.objects import frame_cells
from topgraft.data.sounds import sound_of
from topgraft.graft import Graft
from topgraft.integrations.lightning import FreezeContract as ForLightning
from topgraft.integrations.transformers import FreezeContract as ForTrainer
from topgraft.integrations.transformers import Labelled
from topgraft.objective import mean_loss
from topgraft.ordered import steps_of

KEPT = {"picture": (4, 3), "text": (3, 2), "sound": (4, 3), "row": (3, 2), "array": (2, 1)}
"""How many blocks are kept, and how many of them frozen."""
SAMPLE = {("array", "multilabel"), ("array", "ordinal")}
COUNT = 8
CASES = cases(KEPT, TASKS, SAMPLE)
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # Lightning warns of workers, of short trainings, of its own dependencies.
    pytest.mark.filterwarnings("ignore"),
]


@dataclass(frozen=True)
class Given:
    """A backbone, eight examples as it reads them, and what each task is to learn of them."""

    backbone: Backbone
    items: list[Any]
    targets: dict[str, Tensor]

    def inputs(self, rows: list[int]) -> dict[str, Tensor]:
        return dict(self.backbone.preprocess.batch([self.items[i] for i in rows]))

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        labels = torch.stack([row["labels"] for row in rows])
        return {**self.inputs([row["row"] for row in rows]), "labels": labels}

    def rows(self, task: str) -> list[dict[str, Any]]:
        return [{"row": i, "labels": label} for i, label in enumerate(self.targets[task])]

    def graft(self, modality: str, task: str, **options: Any) -> Graft:
        keep, freeze = KEPT[modality]
        label = self.targets[task]
        torch.manual_seed(5)
        head = int(label.max()) + 1 if label.ndim == 1 else label.shape[1]
        return tg.graft(self.backbone, keep=keep, freeze=freeze, head=head, **options)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory):
    class Made(dict[str, Given]):
        def __missing__(self, modality: str) -> Given:
            self[modality] = made(modality, tmp_path_factory.mktemp(modality))
            return self[modality]

    return Made()


def made(modality: str, place: Path) -> Given:
    """Eight examples spread over all."""
    examples = MADE[modality](place)
    limits, backbone = limits_of(examples), network_for(modality, examples)
    few = examples.part(np.linspace(0, len(examples) - 1, COUNT).astype(int))
    if modality == "row":
        items: list[Any] = list(Rows.of(frame_cells(few.inputs)))
    elif modality == "picture":
        from topgraft.data.pictures import open_picture

        items = [open_picture(path) for path in few.inputs]
    else:
        items = [sound_of(path) for path in few.inputs] if modality == "sound" else list(few.inputs)
    names = {task: names_of(task, few, limits) for task in TASKS}
    kinds = sorted(set(names["classification"]))
    has = [[name in cell.split(SEPARATOR) for name in ("first", "large")] for cell in names["multilabel"]]
    levels = torch.tensor([LEVELS.index(name) for name in names["ordinal"]])
    numbers = torch.tensor([[float(cell)] for cell in names["regression"]])
    targets = {
        "classification": torch.tensor([kinds.index(name) for name in names["classification"]]),
        "multilabel": torch.tensor(has),
        "regression": (numbers - numbers.mean()) / numbers.std(),
        "ordinal": steps_of(levels, len(LEVELS)),
    }
    return Given(backbone, items, targets)


def loop(graft: Graft, given: Given, task: str, steps: int = 4) -> list[float]:
    """Losses of a plain loop over all examples at once."""
    optimizer = torch.optim.AdamW(tg.parameter_groups(graft, rate=3e-3))
    inputs, losses = given.inputs(list(range(COUNT))), []
    for _ in range(steps):
        loss = mean_loss(graft(inputs), given.targets[task])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    return losses


def must_have_trained(graft: Graft, before: dict[str, Tensor]) -> None:
    """What is not frozen changed, and nothing else."""
    changed = differing(dict(graft.kept_tensors()), before)
    assert changed
    assert changed == {name for name, _, _ in graft.trainable() if not name.startswith("head")}


@pytest.mark.parametrize(("modality", "task"), CASES)
def test_a_loop_of_ones_own(given, modality: str, task: str) -> None:
    known = given[modality]
    graft = known.graft(modality, task)
    before = {name: tensor.clone() for name, tensor in graft.kept_tensors().items()}
    with Contract(graft):
        losses = loop(graft, known, task)
    assert losses[-1] < losses[0]
    must_have_trained(graft, before)


class Module(lightning.LightningModule):
    def __init__(self, graft: Graft) -> None:
        super().__init__()
        self.graft = graft

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        return mean_loss(self.graft({n: t for n, t in batch.items() if n != "labels"}), batch["labels"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(tg.parameter_groups(self.graft, rate=3e-3))


@pytest.mark.parametrize(("modality", "task"), CASES)
def test_lightning(given, modality: str, task: str, tmp_path: Path) -> None:
    known = given[modality]
    module = Module(known.graft(modality, task))
    before = {name: tensor.clone() for name, tensor in module.graft.kept_tensors().items()}
    trainer = lightning.Trainer(
        max_steps=2,
        accelerator="cpu",
        callbacks=[ForLightning()],
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(known.rows(task), batch_size=4, collate_fn=known.collate))
    assert trainer.global_step == 2
    must_have_trained(module.graft, before)


@pytest.mark.parametrize(("modality", "task"), CASES)
def test_the_trainer_of_transformers(given, modality: str, task: str, tmp_path: Path) -> None:
    known = given[modality]
    model = Labelled(known.graft(modality, task))
    before = {name: tensor.clone() for name, tensor in model.graft.kept_tensors().items()}
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=4,
        per_device_eval_batch_size=4,
        learning_rate=3e-3,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        report_to=[],
        remove_unused_columns=False,
    )
    rows = known.rows(task)
    trainer = Trainer(
        model,
        arguments,
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=known.collate,
        callbacks=[ForTrainer()],
    )
    trainer.train()
    must_have_trained(model.graft, before)
    with torch.no_grad():
        wanted = mean_loss(model.graft.eval()(known.inputs(list(range(COUNT)))), known.targets[task])
    assert trainer.evaluate()["eval_loss"] == pytest.approx(float(wanted), rel=1e-3)


@pytest.mark.parametrize(("modality", "task"), CASES)
def test_lora_and_its_merge(given, modality: str, task: str) -> None:
    known = given[modality]
    graft = known.graft(modality, task, lora=2)
    before = kept(graft)
    loop(graft, known, task, steps=2)
    changed = differing(kept(graft), before)
    assert {name for name in changed if ".lora_B" in name}
    assert all(".lora_" in name or name.startswith("head.") for name in changed)
    inputs = known.inputs(list(range(COUNT)))
    expected = graft.eval()(inputs)
    tg.merge_lora(graft)
    assert torch.allclose(graft(inputs), expected, atol=1e-4)
    assert graft.kept_weights().keys() == known.graft(modality, task).kept_weights().keys()


def test_labels_of_another_shape_are_refused(given) -> None:
    known = given["array"]
    model, inputs = Labelled(known.graft("array", "multilabel")), known.inputs(list(range(COUNT)))
    for labels in (torch.zeros(COUNT), torch.zeros(COUNT, 3), torch.zeros(COUNT, 2, dtype=torch.long)):
        with pytest.raises(tg.TopgraftError, match=r"and the graft gives \(8, 2\). Expected whole numbers"):
            model(labels=labels, **inputs)
    bytes_ = torch.zeros(COUNT, dtype=torch.uint8)
    assert torch.equal(model(labels=bytes_, **inputs)["loss"], model(labels=bytes_.long(), **inputs)["loss"])
