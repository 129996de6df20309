"""Small networks and data for tests of the chain, the graft and training; made in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from topgraft.backbones import load
from topgraft.backbones.types import Backbone
from topgraft.chain import Chain
from topgraft.data import read
from topgraft.data.types import Data
from topgraft.features.passes import one_pass
from topgraft.features.store import Store
from topgraft.graft import Graft
from topgraft.head import Head
from topgraft.objective import encoded, scale_of
from topgraft.pooling import width
from topgraft.search import Material
from topgraft.settings import Settings

CLASSES = 3


class Residual(nn.Module):
    """A residual block of maps with batch norms, and with dropout and a shared weight where asked for."""

    def __init__(self, channels: int, *, dropout: float = 0.0, conv: nn.Conv2d | None = None) -> None:
        super().__init__()
        self.conv = conv if conv is not None else nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(torch.relu(self.norm(self.conv(x))))


class Maps(nn.Module):
    """A small residual network of maps: stem, blocks, average, output layer."""

    def __init__(
        self, depth: int = 3, *, channels: int = 6, dropout: float = 0.0, shared: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, channels, 3, padding=1)
        one = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList(
            Residual(channels, dropout=dropout, conv=one if i in shared else None) for i in range(depth)
        )
        self.fc = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean((2, 3)))


def maps(seed: int = 0, **options: object) -> Maps:
    """:class:`Maps` with statistics of its batch norms that are not those of a new one."""
    torch.manual_seed(seed)
    network = Maps(**options)  # type: ignore[arg-type] (the options of Maps)
    return settled(network)


def settled(network: nn.Module) -> nn.Module:
    """The network in eval mode, its batch norms with statistics and weights of their own."""
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert module.running_mean is not None
            assert module.running_var is not None
            assert module.num_batches_tracked is not None
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.num_batches_tracked.fill_(7)
    return network.eval()


def small_rows() -> nn.Module:
    """The network of ``small_networks:small_rows``: plain layers for rows of eight numbers."""
    torch.manual_seed(11)
    layers: list[nn.Module] = []
    for size in (8, 16, 16):
        layers += [nn.Linear(size, 16), nn.BatchNorm1d(16), nn.ReLU()]
    return settled(nn.Sequential(*layers, nn.Linear(16, CLASSES)))


def blind_rows() -> nn.Module:
    """The network of ``small_networks:blind_rows``: as large, but it sees one number of the eight."""
    network = small_rows()
    with torch.no_grad():
        next(network.parameters())[:, 1:] = 0
    return network


def example_maps(count: int = 4, seed: int = 1) -> Tensor:
    """``(count, 2, 6, 6)`` float32."""
    return torch.randn(count, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def labelled(inputs: Tensor, *, classes: int = CLASSES, seed: int = 3) -> Data:
    """Arrays whose classes differ in the mean of their inputs, so that there is something to learn."""
    noise = torch.Generator().manual_seed(seed)
    targets = torch.arange(len(inputs)) % classes
    shifted = inputs + 0.6 * targets.view(-1, *[1] * (inputs.ndim - 1)).float()
    shifted = shifted + 0.1 * torch.randn(shifted.shape, generator=noise)
    return read((shifted.numpy(), [f"class {t}" for t in targets.tolist()]))


def data_of_maps(count: int = 36, seed: int = 3) -> Data:
    """Labelled arrays for :class:`Maps`."""
    return labelled(example_maps(count, seed), seed=seed)


def data_of_rows(count: int = 60, seed: int = 3) -> Data:
    """Labelled arrays for :func:`small_rows`."""
    return labelled(torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)), seed=seed)


def backbone_of(network: nn.Module, example: Tensor) -> Backbone:
    """A module of one's own as a backbone for arrays."""
    return load(network, modality="array", example=example)


def head_for(chain: Chain, keep: int, *, seed: int = 5, **options: object) -> Head:
    """A head with random weights for cut ``keep``."""
    torch.manual_seed(seed)
    block = chain.blocks[keep - 1]
    return Head(block.layout, width(block), CLASSES, **options)  # type: ignore[arg-type] (those of Head)


def graft_of(
    chain: Chain,
    keep: int,
    freeze: int,
    *,
    tune_norms: bool = False,
    drop: bool = False,
    **options: object,
) -> Graft:
    """A graft with a head of random weights."""
    return Graft(chain, keep, freeze, head_for(chain, keep, **options), tune_norms=tune_norms, drop=drop)


def material_of(backbone: Backbone, data: Data, root: Path, **settings: object) -> Material:
    """What trainings share; every third example validates."""
    store = Store(root)
    features, _ = one_pass(backbone, data, store)
    fold = np.arange(len(data)) // CLASSES % 3
    return Material(
        backbone=backbone,
        data=data,
        store=store,
        settings=Settings.of(settings),
        features=features,
        targets=encoded(data, scale_of(data)),
        rows=np.flatnonzero(fold != 0).tolist(),
        validation=np.flatnonzero(fold == 0).tolist(),
    )


def kept(module: nn.Module | None) -> dict[str, Tensor]:
    """Every parameter and buffer, copied: also those that a state dict leaves out."""
    if module is None:
        return {}
    named = (*module.named_parameters(), *module.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in named}


def bits(tensor: Tensor) -> bytes:
    """The bytes of a tensor, so that not-a-numbers and negative zeros are compared too."""
    plain = tensor.detach().cpu().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""


def differing(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> set[str]:
    """Names of tensors that differ in type, shape or any bit, or are in one of the two only."""
    both = a.keys() & b.keys()
    same = {n for n in both if (a[n].dtype, a[n].shape, bits(a[n])) == (b[n].dtype, b[n].shape, bits(b[n]))}
    return set(a.keys() | b.keys()) - same


def tensors_of(optimizer_groups: Iterable[Mapping[str, object]]) -> set[int]:
    """The identities of the parameters in an optimiser's groups."""
    return {id(p) for group in optimizer_groups for p in group["params"]}  # type: ignore[attr-defined] (a list)
