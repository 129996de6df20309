"""Short real trainings by the Trainer of Transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_networks import CLASSES, differing, example_maps, graft_of, kept, maps
from torch import Tensor, nn
from transformers import BertConfig, BertModel, Trainer, TrainerCallback, TrainingArguments

import topgraft as tg
from topgraft.chain import Chain
from topgraft.integrations.transformers import FreezeContract, Labelled

CHAIN = Chain.of(maps(), example_maps())


class Careless(Labelled):
    """A model that switches every module of its graft to training mode whenever it is asked to train."""

    def train(self, mode: bool = True) -> Careless:
        for module in self.modules():
            module.training = mode
        return self


def trainer_of(model: nn.Module, folder: Path, *callbacks: TrainerCallback, **options: object) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        **{
            "max_steps": 3,
            "per_device_train_batch_size": 6,
            "learning_rate": 0.05,
            "weight_decay": 0.1,
            "save_strategy": "no",
            "use_cpu": True,
            "disable_tqdm": True,
            "report_to": [],
            "remove_unused_columns": False,
            **options,
        },
    )
    x = example_maps(12, seed=8) + 2
    rows = [{"x": one, "labels": i % CLASSES} for i, one in enumerate(x)]
    return Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, callbacks=list(callbacks))


def test_frozen_statistics_stay_with_the_callback_and_not_without(tmp_path: Path) -> None:
    for callbacks in ([], [FreezeContract()]):
        model = Careless(graft_of(CHAIN, 4, 3))
        frozen, rest = kept(model.graft.frozen), kept(model.graft.body)
        trainer_of(model, tmp_path, *callbacks).train()
        changed = differing(kept(model.graft.frozen), frozen)
        assert changed == set() if callbacks else "network.blocks.1.norm.running_mean" in changed
        assert {n for n, _ in model.graft.body.named_parameters()} <= differing(kept(model.graft.body), rest)


def test_a_frozen_parameter_in_the_optimizer_ends_it_before_the_first_step(tmp_path: Path) -> None:
    model = Labelled(graft_of(CHAIN, 4, 2))
    before = kept(model)
    trainer = trainer_of(model, tmp_path, FreezeContract())
    trainer.optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    with pytest.raises(tg.TopgraftError, match=r"5 parameters of frozen blocks are in the optimizer AdamW"):
        trainer.train()
    assert differing(kept(model), before) == set()


class Meddler(TrainerCallback):
    """Writes to a frozen block in the middle of the training."""

    def on_step_end(self, _args: object, _state: object, _control: object, **kwargs: object) -> None:
        model = kwargs["model"]
        assert isinstance(model, Labelled)
        with torch.no_grad():
            model.graft.frozen.network.stem.bias.add_(1e-3)


def test_a_frozen_block_that_something_else_wrote_to_is_told_at_the_end(tmp_path: Path) -> None:
    model = Labelled(graft_of(CHAIN, 4, 2))
    with pytest.raises(
        tg.RunningError, match=r"1 tensor of frozen blocks changed in the training: stem.bias"
    ):
        trainer_of(model, tmp_path, Meddler(), FreezeContract()).train()


def test_it_trains_scores_saves_and_goes_on(tmp_path: Path) -> None:
    model = Labelled(graft_of(CHAIN, 4, 2))
    trainer = trainer_of(model, tmp_path, FreezeContract(), save_strategy="steps", save_steps=2, max_steps=4)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before
    found = trainer.predict(trainer.eval_dataset).predictions
    expected = model.graft.eval()(example_maps(12, seed=8) + 2)
    assert torch.allclose(torch.as_tensor(found), expected, atol=1e-5)
    again = Labelled(graft_of(CHAIN, 4, 2))
    more = trainer_of(again, tmp_path, FreezeContract(), max_steps=4)
    more.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert more.state.global_step == 4
    assert differing(again.graft.kept_tensors(), model.graft.kept_tensors()) == set()


def test_a_text_network_trains_by_the_names_of_its_inputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    ids, mask = torch.randint(0, 30, (12, 6)), torch.ones(12, 6, dtype=torch.long)
    example: dict[str, Tensor] = {"input_ids": ids[:4], "attention_mask": mask[:4]}
    graft = tg.graft(BertModel(config, add_pooling_layer=False), freeze=2, head=2, example=example)
    trainer = trainer_of(Labelled(graft), tmp_path, FreezeContract())
    trainer.train_dataset = [
        {"input_ids": one, "attention_mask": mask[0], "labels": i % 2} for i, one in enumerate(ids)
    ]
    before = {name: tensor.clone() for name, tensor in graft.kept_tensors().items()}
    trainer.train()
    now = graft.kept_tensors()
    changed = {name for name in now if not torch.equal(now[name], before[name])}
    assert changed == {name for name, _, _ in graft.trainable() if not name.startswith("head")}
    assert changed
