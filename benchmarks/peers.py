"""What a good practitioner does without Topgraft: logistic regression, and a plain PyTorch loop.

Only weights, preprocessing and the split come from Topgraft, so that every method starts from the same. The
networks are run by their own code, and nothing of Topgraft's chain, store, probe, head or training is used.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from topgraft.backbones.types import Backbone
from topgraft.data.types import Data

Array = np.ndarray[Any, np.dtype[Any]]
PENALTIES = tuple(10.0**power for power in range(-5, 2))
"""Values of scikit-learn's C."""
RATES = (1e-4, 3e-4, 1e-3)
"""Peak rates of the old block; the new head learns ten times as fast."""
EPOCHS, PATIENCE, BATCH = 15, 5, 32


class LastOfPictures(nn.Module):
    """The last block of EfficientNet: ``blocks.6`` and ``conv_head`` with its norm, then average pooling."""

    width = 1280

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.blocks = copy.deepcopy(network.blocks[6])
        self.conv_head, self.bn2 = copy.deepcopy(network.conv_head), copy.deepcopy(network.bn2)

    def forward(self, maps: Tensor) -> Tensor:
        features: Tensor = self.bn2(self.conv_head(self.blocks(maps))).mean((2, 3))
        return features

    @staticmethod
    def before(network: Any, inputs: dict[str, Tensor]) -> list[Tensor]:
        """What the block reads, per example ``(192, 7, 7)``."""
        return list(network.blocks[:6](network.bn1(network.conv_stem(inputs["x"]))))

    @staticmethod
    def features(network: Any, inputs: dict[str, Tensor]) -> Tensor:
        """What the whole network gives before its old output layer, by its own code."""
        features: Tensor = network.forward_head(network.forward_features(inputs["x"]), pre_logits=True)
        return features

    def of(self, states: Sequence[Tensor]) -> Tensor:
        return self.forward(torch.stack(list(states)))


class LastOfTexts(nn.Module):
    """The last layer of a BERT-like encoder, then the mean over real tokens."""

    width = 384

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.layer = copy.deepcopy(network.encoder.layer[-1])

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        hidden = self.layer(tokens, attention_mask=mask[:, None, None, :])
        return masked_mean(hidden, mask)

    @staticmethod
    def before(network: Any, inputs: dict[str, Tensor]) -> list[Tensor]:
        """What the layer reads, per example ``(tokens, 384)`` without padding."""
        caught: list[Tensor] = []
        hook = network.encoder.layer[-1].register_forward_pre_hook(lambda _, given: caught.append(given[0]))
        try:
            network(**inputs)
        finally:
            hook.remove()
        lengths = inputs["attention_mask"].sum(1).tolist()
        return [tokens[:length].clone() for tokens, length in zip(caught[0], lengths, strict=True)]

    @staticmethod
    def features(network: Any, inputs: dict[str, Tensor]) -> Tensor:
        """What the whole network gives before its old output layer, by its own code."""
        return masked_mean(network(**inputs).last_hidden_state, inputs["attention_mask"].bool())

    def of(self, states: Sequence[Tensor]) -> Tensor:
        mask = torch.arange(max(map(len, states))) < torch.tensor([len(s) for s in states])[:, None]
        return self.forward(pad_sequence(list(states), batch_first=True), mask)


Last = LastOfPictures | LastOfTexts


def masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over the steps where ``mask`` is true: ``(batch, steps, width)`` to ``(batch, width)``."""
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)


@dataclass(frozen=True)
class Seen:
    """All examples as the frozen part of the network sees them.

    Parameters
    ----------
    last
        The last old block with its old weights.
    states
        What it reads, one tensor an example.
    features
        ``(n, width)`` float32, what it gives, pooled.
    seconds
        How long making both took.
    """

    last: Last
    states: Sequence[Tensor]
    features: Tensor
    seconds: float


def see(backbone: Backbone, data: Data) -> Seen:
    """Run the frozen network once over all examples; fine-tuning and logistic regression both read this.

    Raises
    ------
    AssertionError
        If the last block by itself does not give what the whole network gives.
    """
    network: Any = backbone.network.eval()
    kind = LastOfPictures if backbone.modality == "picture" else LastOfTexts
    last: Last = kind(network).eval()
    began = time.monotonic()
    order = list(range(len(data)))
    if backbone.modality == "text":
        order = sorted(order, key=lambda i: len(str(data.inputs[i])))
    states: list[Tensor] = [torch.empty(0)] * len(data)
    features = torch.empty(len(data), last.width)
    with torch.inference_mode():
        for start in range(0, len(data), BATCH):
            rows = order[start : start + BATCH]
            inputs = backbone.preprocess.batch([data.decode(i) for i in rows])
            some = kind.before(network, inputs)
            for row, state in zip(rows, some, strict=True):
                states[row] = state
            features[rows] = last.of(some)
            if start == 0:
                whole = kind.features(network, inputs)
                assert torch.allclose(features[rows], whole, atol=1e-4), "the last block was cut out wrongly"
    # Tensors made in inference mode can't be read by training; copies can.
    return Seen(last, [s.clone() for s in states], features.clone(), time.monotonic() - began)


def logistic(
    features: Array, targets: Array, groups: Array, development: Array, untouched: Array, *, seed: int
) -> tuple[Array, dict[str, Any]]:
    """Logistic regression on standardised features, C chosen by cross-validation on the development part.

    Returns
    -------
    predictions, told
        ``(len(untouched),)`` int64; and what was chosen.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        {"logisticregression__C": PENALTIES},
        cv=StratifiedGroupKFold(5, shuffle=True, random_state=seed),
    )
    search.fit(features[development], targets[development], groups=groups[development])
    chosen = search.best_params_["logisticregression__C"]
    return search.predict(features[untouched]), {"C": chosen, "validation": float(search.best_score_)}


def fine_tune(
    seen: Seen, targets: Array, groups: Array, development: Array, untouched: Array, *, seed: int
) -> tuple[Array, dict[str, Any]]:
    """Fine-tune the last old block with a new linear head, everything before it frozen.

    Rate and number of epochs are chosen on a fifth of the development part; the model is then trained again
    on all of it with that choice, since that is cheap and gives it a quarter more examples.

    Returns
    -------
    predictions, told
        ``(len(untouched),)`` int64; and what was chosen.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    inner, held = next(folds.split(development, targets[development], groups[development]))
    train, validation = development[inner], development[held]
    found: list[tuple[float, float, int]] = []
    for rate in RATES:
        _, score, epochs = _loop(seen, targets, train, validation, rate=rate, seed=seed)
        found.append((score, rate, epochs))
    score, rate, epochs = max(found, key=lambda each: each[0])
    model, _, _ = _loop(seen, targets, development, None, rate=rate, seed=seed, stop_after=epochs)
    told = {"rate": rate, "epochs": epochs, "validation": score, "tried": found}
    return model.predict(seen.states, untouched), told


class _Model(nn.Module):
    def __init__(self, last: Last, classes: int) -> None:
        super().__init__()
        self.last = copy.deepcopy(last)
        self.head = nn.Linear(last.width, classes)

    def train(self, mode: bool = True) -> _Model:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.head(self.last.of(states))
        return logits

    def predict(self, states: Sequence[Tensor], rows: Array) -> Array:
        self.eval()
        with torch.no_grad():
            parts = [
                self([states[i] for i in rows[start : start + 64]]).argmax(1)
                for start in range(0, len(rows), 64)
            ]
        return torch.cat(parts).numpy()


def _loop(
    seen: Seen,
    targets: Array,
    train: Array,
    validation: Array | None,
    *,
    rate: float,
    seed: int,
    stop_after: int = EPOCHS,
) -> tuple[_Model, float, int]:
    """A training; the model, and the best score on the validation part with its epoch."""
    torch.manual_seed(seed)
    model = _Model(seen.last, int(targets.max()) + 1)
    wanted = torch.as_tensor(targets)
    optimizer = torch.optim.AdamW(
        [
            {"params": model.last.parameters(), "lr": rate},
            {"params": model.head.parameters(), "lr": 10 * rate},
        ],
        weight_decay=0.01,
    )
    steps = -(-len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * steps)
    best, best_epoch = -1.0, 0
    for epoch in range(1, stop_after + 1):
        model.train()
        order = train[torch.randperm(len(train)).numpy()]
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            loss = nn.functional.cross_entropy(model([seen.states[i] for i in rows]), wanted[rows])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        if validation is not None:
            score = float((model.predict(seen.states, validation) == targets[validation]).mean())
            if score > best:
                best, best_epoch = score, epoch
            elif epoch - best_epoch >= PATIENCE:
                break
    return model, best, best_epoch
