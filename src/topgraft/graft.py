"""The new model: kept blocks and a head, upholding the freeze contract."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from topgraft.chain import Chain, Inputs, Segment, State
from topgraft.head import Head
from topgraft.memory import MemoryFormat


def is_norm(module: nn.Module) -> bool:
    """Whether a module keeps running statistics of the batches that it saw."""
    return getattr(module, "running_mean", None) is not None


def _has_own_train(module: nn.Module) -> bool:
    """Whether its very class says what training mode is; what whole networks inherit is about others."""
    return "train" in vars(type(module))


class Graft(nn.Module):
    """``chain[:keep]`` and a head; the first ``freeze`` blocks never change.

    Frozen blocks are in eval mode whatever ``train()`` says, have no gradients and are in nobody's
    optimiser: neither parameters nor buffers change. The blocks between ``freeze`` and ``keep`` train, but
    compute as in eval mode: their batch norms keep the statistics that they came with, unless ``tune_norms``,
    and nothing in them is dropped, unless ``drop``.

    Parameters
    ----------
    chain
        Of the backbone; the graft copies what it keeps.
    keep, freeze
        Numbers of blocks, ``0 <= freeze <= keep <= len(chain)``, ``keep >= 1``.
    head
        Reads the state at cut ``keep``.
    tune_norms
        Whether batch norms of trainable blocks renew their statistics.
    drop
        Whether dropout inside trainable blocks is on in training. The head starts at the probe's solution
        for blocks without dropout, and what little trains then seldom needs it: on the packaged texts the
        loss on the training part began ten times higher with it, and the score ended 1 to 2 points lower.
    """

    def __init__(
        self,
        chain: Chain,
        keep: int,
        freeze: int,
        head: Head,
        *,
        tune_norms: bool = False,
        drop: bool = False,
    ) -> None:
        super().__init__()
        if not (1 <= keep <= len(chain) and 0 <= freeze <= keep):
            raise ValueError(f"keep={keep}, freeze={freeze} do not fit a chain of {len(chain)} blocks")
        self.keep, self.freeze = keep, freeze
        self.tune_norms, self.drop = tune_norms, drop
        self.frozen: Segment | None = copy.deepcopy(chain[:freeze]) if freeze else None
        self.body: Segment | None = copy.deepcopy(chain[freeze:keep]) if freeze < keep else None
        self.frozen_format, self.body_format = MemoryFormat(self.frozen), MemoryFormat(self.body)
        self.head = head
        self._owner = chain.owner_of()
        self.uphold()
        self.eval()

    def uphold(self) -> None:
        """Set what trains; shared weights that a frozen block owns are frozen everywhere."""
        if self.frozen is not None:
            self.frozen.requires_grad_(requires_grad=False)
        if self.body is not None:
            for name, parameter in self.body.network.named_parameters():
                parameter.requires_grad_(self._owner.get(name, self.keep) > self.freeze)

    def train(self, mode: bool = True) -> Graft:  # noqa: FBT001, FBT002 (torch's own signature)
        """Switch what trains to training mode; frozen blocks stay in eval mode.

        So do norms unless they are tuned, and whatever may drop something unless that is asked for. Modules
        with a ``train`` of their own (LeViT's attention) follow: in eval mode they keep what they computed.
        """
        super().train(mode)
        if self.frozen is not None:
            self.frozen.eval()
        if self.body is not None:
            for name, module in self.body.network.named_modules():
                owner = self._owner.get(f"{name}.running_mean", self.keep)
                tuned = self.tune_norms and owner > self.freeze
                module.training = mode and (tuned if is_norm(module) else self.drop or _has_own_train(module))
        return self

    def forward(self, inputs: Inputs | Tensor) -> Tensor:
        """Logits ``(batch, classes)`` of the network's inputs."""
        if self.frozen is None:
            return self.from_state(inputs)
        with torch.no_grad():
            state = self.frozen_format.run(self.frozen, inputs)
        return self.from_state(state)

    def from_state(self, given: State | Inputs | Tensor) -> Tensor:
        """Logits of states at cut ``freeze`` (inputs where nothing is frozen, features where all is)."""
        if self.body is not None:
            given = self.body_format.run(self.body, given)
        logits: Tensor = self.head(given)
        return logits

    def trainable(self) -> Iterator[tuple[str, nn.Parameter, int]]:
        """Each parameter that trains: its name in the network (``head.…`` in the head), itself, its block."""
        if self.body is not None:
            for name, parameter in self.body.network.named_parameters():
                if parameter.requires_grad:
                    yield name, parameter, self._owner.get(name, self.keep)
        for name, parameter in self.head.named_parameters():
            yield f"head.{name}", parameter, self.keep + 1

    def kept_weights(self) -> dict[str, Tensor]:
        """Parameters and buffers of the kept blocks under the names of the original network."""
        weights: dict[str, Tensor] = {}
        for part in (self.body, self.frozen):
            if part is not None:
                weights.update(part.weights())
        return weights
