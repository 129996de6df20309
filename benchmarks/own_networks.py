"""Networks as people write them for themselves, one for each way of wiring that a chain must understand."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )


class Nested(nn.Module):
    """Containers in containers in dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        inner = [nn.Sequential(nn.Sequential(conv(8, 8), conv(8, 8)), conv(8, 8)) for _ in range(2)]
        self.parts = nn.ModuleDict({"stem": conv(3, 8), "body": nn.ModuleList(inner)})
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.parts["stem"](x)
        for part in self.parts["body"]:
            x = part(x)
        return self.head(x.mean((2, 3)))


class Residual(nn.Module):
    """Sums written in the network's own forward, not in a block."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = conv(3, 8), conv(8, 8), conv(8, 8), conv(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = self.b(x) + x
        z = self.c(y) + y
        return self.head((self.d(z) + z + x).mean((2, 3)))


class Dense(nn.Module):
    """Every layer sees all earlier ones."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(conv(3 + 4 * i, 4) for i in range(4))
        self.head = nn.Linear(19, 4)

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for layer in self.layers:
            seen.append(layer(torch.cat(seen, 1)))
        return self.head(torch.cat(seen, 1).mean((2, 3)))


class Recurrent(nn.Module):
    """A recurrent network of three layers, read at its last step."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.rnn = kind(6, 8, num_layers=3, batch_first=True, **options)
        self.head = nn.Linear(8 * (2 if self.rnn.bidirectional else 1), 4)

    def forward(self, x: Tensor) -> Tensor:
        given, _ = self.rnn(x)
        return self.head(given[:, -1])


class LastStates(nn.Module):
    """It uses the last states of every layer, not the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(6, 8, num_layers=3, batch_first=True)
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        _, (hidden, _) = self.rnn(x)
        return self.head(hidden.transpose(0, 1).flatten(1))


class SequenceFirst(nn.Module):
    """Inside, time comes before the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(6, 8)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16) for _ in range(3))
        self.rnn = nn.GRU(8, 8, num_layers=2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x).transpose(0, 1)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.rnn(x)[0][-1])


class Encoder(nn.Module):
    """torch's own transformer with a class token and positions."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.places = nn.Parameter(torch.randn(1, 32, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, norm=nn.LayerNorm(8), enable_nested_tensor=False)
        self.head = nn.Linear(8, 4)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(ids), -1, -1), self.words(ids)], 1)
        x = x + self.places[:, : x.shape[1]]
        hidden = torch.cat([torch.zeros_like(mask[:, :1]), 1 - mask], 1).bool()
        return self.head(self.encoder(x, src_key_padding_mask=hidden)[:, 0])


class SeveralInputs(nn.Module):
    """A picture and a row of numbers, joined late."""

    def __init__(self) -> None:
        super().__init__()
        self.eye = nn.Sequential(conv(3, 8, 2), conv(8, 8, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.ear = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8))
        self.joint = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU())
        self.head = nn.Linear(12, 4)

    def forward(self, image: Tensor, row: Tensor) -> Tensor:
        return self.head(self.joint(torch.cat([self.eye(image), self.ear(row)], 1)))


class OneDictionary(SeveralInputs):
    """A dictionary is the one input."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward(batch["image"], batch["meta"])


class Shared(nn.Module):
    """A module that is called twice, with others between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.between = conv(3, 8), conv(8, 8), conv(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.first(x))
        x = self.again(self.between(x))
        return self.head(x.mean((2, 3)))


class SharedInALoop(nn.Module):
    """One layer, called four times in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.layer, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        for _ in range(4):
            x = torch.tanh(self.layer(x)) + x
        return self.head(x.mean(1))


class Functional(nn.Module):
    """Operations between modules that are no modules."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Linear(16, 12)
        self.scale = nn.Parameter(torch.ones(16))
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.gelu(self.a(x)), 2)
        x = functional.normalize(self.b(x), dim=1) * self.scale[:, None, None]
        x = functional.adaptive_avg_pool2d(functional.pad(x, (1, 1, 1, 1)), 1).squeeze(-1).squeeze(-1)
        return functional.log_softmax(self.head(functional.dropout(self.c(x), 0.5, self.training)), dim=-1)


class UNet(nn.Module):
    """Skip connections from the way down to the way up."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([conv(3, 4), conv(4, 8), conv(8, 12)])
        self.middle = conv(12, 12)
        self.up = nn.ModuleList([conv(24, 8), conv(16, 6), conv(10, 6)])
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = []
        for part in self.down:
            x = part(x)
            seen.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.middle(x)
        for part in self.up:
            x = functional.interpolate(x, scale_factor=2.0)
            x = part(torch.cat([x, seen.pop()], 1))
        return self.last(x)


class Siamese(nn.Module):
    """The same encoder for two inputs, and a comparison."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(conv(3, 8, 2), conv(8, 8, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.compare = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU())
        self.head = nn.Linear(12, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        a, b = self.encoder(left), self.encoder(right)
        return self.head(self.compare(torch.cat([(a - b).abs(), a * b], 1)))


class Answer(NamedTuple):
    """What a network may give."""

    classes: Tensor
    features: Tensor


class TupleOutput(nn.Module):
    """A tuple with names is given, and pairs go from block to block."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Pair() for _ in range(3))
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Answer:
        pair = (x, x.flip(1))
        for block in self.blocks:
            pair = block(pair)
        features = torch.cat(pair, -1).mean(1)
        return Answer(self.head(features), features)


class Pair(nn.Module):
    """From two activations to two, as reversible networks have it."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.g = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        a, b = pair
        a = a + torch.tanh(self.f(b))
        return a, b + torch.tanh(self.g(a))


class DictionaryOutput(Residual):
    """A dictionary is given."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": super().forward(x), "shape": torch.tensor(x.shape)}


class InPlace(nn.Module):
    """What one layer gives is changed in place by the next lines."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), conv(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        functional.relu_(y)
        z = self.b(y)
        z += y
        y.mul_(0.5)
        z[:, 0] = y[:, 1]
        return self.head((self.c(z) + y).mean((2, 3)))


class Branching(nn.Module):
    """The way goes by the numbers of an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(conv(8 if i else 3, 8) for i in range(4))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks[1](self.blocks[0](x))
        if x.mean() > 0.6:
            x = x * 2
        for block in self.blocks[2:]:
            x = block(x)
        return self.head(x.mean((2, 3)))


class SavedAttribute(nn.Module):
    """An early activation is kept as an attribute and used late."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(conv(8 if i else 3, 8) for i in range(4))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i == 0:
                self.kept = x
        return self.head((x * torch.sigmoid(self.kept)).mean((2, 3)))


class Heads(nn.Module):
    """Two output layers whose outputs are averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU())
        self.left, self.right = nn.Linear(12, 4), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x.mean(1))
        return (self.left(x) + self.right(x)) / 2


class Attention(nn.Module):
    """Attention written with torch's functions, queries learned, residuals in the network's forward."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(6, 8)
        self.mixers = nn.ModuleList(nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(2))
        self.queries = nn.Parameter(torch.randn(1, 3, 8))
        self.reader = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        for mixer, norm in zip(self.mixers, self.norms, strict=True):
            x = x + mixer(norm(x), norm(x), norm(x), need_weights=False)[0]
        asked = self.queries.expand(len(x), -1, -1)
        return self.head(self.reader(asked, x, x, need_weights=False)[0].flatten(1))


class Reshaping(nn.Module):
    """Places are folded into the batch and unfolded again."""

    def __init__(self) -> None:
        super().__init__()
        self.local, self.across = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8)), nn.GRUCell(8, 8)
        self.mix = nn.Conv1d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        y = self.local(x.reshape(batch * length, width)).view(batch, length, 8)
        y = self.mix(y.transpose(1, 2)).transpose(1, 2)
        state = y.new_zeros(batch, 8)
        for step in range(length):
            state = self.across(y[:, step], state)
        return self.head(state)
