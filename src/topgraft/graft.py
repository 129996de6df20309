"""The new model: kept blocks and a head, upholding the freeze contract."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from topgraft.chain import Chain, Inputs, Segment, State
from topgraft.choices import first_of, refuse_auto, resolve_freeze
from topgraft.errors import TopgraftError
from topgraft.head import Head, OwnHead
from topgraft.memory import MemoryFormat
from topgraft.pooling import pool


def is_norm(module: nn.Module) -> bool:
    """Whether a module keeps running statistics of the batches that it saw."""
    return getattr(module, "running_mean", None) is not None


def _has_own_train(module: nn.Module) -> bool:
    """Whether its very class says what training mode is; what whole networks inherit is about others."""
    return "train" in vars(type(module))


def named_tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name; a shared one under each of its names."""
    parameters = network.named_parameters(remove_duplicate=False)
    return [*parameters, *network.named_buffers(remove_duplicate=False)]


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
        head: Head | OwnHead,
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
        # What asks for a head's own layers (saving, calibration) has grafts whose heads were made here.
        self.head = cast("Head", head)
        self._owner = chain.owner_of()
        self.bare = chain.holding({})
        """The chain without weights, of which the parts can be made anew."""
        nn.Module.register_load_state_dict_pre_hook(self, Graft._sort)
        nn.Module.register_load_state_dict_post_hook(self, Graft._pass_over_counters)
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

    def features(self, given: State | Inputs) -> Tensor:
        """What the head reads of states as :meth:`from_state` takes them, ``(batch, width)`` float32."""
        if self.body is not None:
            given = self.body_format.run(self.body, given)
        assert isinstance(given, State)
        return pool(given, self.head.layout)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter, int]]:
        """Each parameter that trains: its name in the network (``head.…`` in the head), itself, its block."""
        if self.body is not None:
            for name, parameter in self.body.network.named_parameters():
                if parameter.requires_grad:
                    yield name, parameter, self._owner.get(name, self.keep)
        for name, parameter in self.head.named_parameters():
            yield f"head.{name}", parameter, self.keep + 1

    def freeze_to(self, what: str | int) -> None:
        """Freeze the first blocks, up to and with ``what``; all kept blocks after it train.

        Parameters stay the very same objects, so that an optimizer made before goes on. It does not know
        those that train only now: give it ``tg.parameter_groups(graft, ..., beside=optimizer)``. What is
        frozen now has no gradient any more, so that no optimizer changes it. Gradients are not compared with
        those of the whole network again, as ``tg.graft`` does it at the border that it makes.

        Parameters
        ----------
        what
            A number of blocks (0: nothing is frozen), a share of the kept ones such as ``50%``, a block's
            name (that of a stage means its last block), or ``all``.

        Raises
        ------
        TopgraftError
            If it is no kept block (with the nearest names), or if the blocks hold other parameters than those
            that they were made with, such as those of LoRA.

        Examples
        --------
        >>> import topgraft as tg
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> graft = tg.graft(network, freeze="all", head=3, example=torch.randn(2, 4))
        >>> graft.freeze_to("0")  # the count wins over the block of this name
        >>> graft.freeze
        0
        >>> graft.freeze_to(1)
        >>> [name for name, _, _ in graft.trainable()]
        ['2.weight', '2.bias', 'head.linear.weight', 'head.linear.bias']
        """
        source = type(self.bare.network).__name__
        refuse_auto("freeze", what, self.bare, least=0, most=self.keep)
        freeze = resolve_freeze(what, self.bare, source, self.keep)
        assert freeze is not None
        self._cut(freeze)

    def unfreeze_from(self, what: str | int) -> None:
        """Train the last blocks, from ``what`` on; all blocks before it are frozen.

        Parameters
        ----------
        what
            A block's number, 1 (nearest the input) to ``keep``, or its name (that of a stage means its first
            block).

        Raises
        ------
        TopgraftError
            As :meth:`freeze_to`.
        """
        first = first_of(what, self.bare, type(self.bare.network).__name__, self.keep)
        self._cut(first - 1)

    def _cut(self, freeze: int) -> None:
        """Let the frozen part end after block ``freeze``, of the same parameters and buffers."""
        strange = self._strangers()
        if strange:
            raise TopgraftError(
                f"The blocks hold {len(strange)} parameters that they were not made with, such as "
                f"{strange[0]}. What is frozen can't be changed while they do: merge them first, or choose "
                "freeze before."
            )
        self.take(self.bare.holding(self.kept_tensors()), freeze, self.bare.owner_of())

    def take(self, chain: Chain, freeze: int, owner: Mapping[str, int]) -> None:
        """Make the blocks anew, of the modules and tensors of a chain.

        Parameters
        ----------
        chain
            :attr:`bare`, holding tensors.
        freeze
            How many blocks are frozen.
        owner
            Per parameter and buffer its block; 0 for what never changes though its block is not frozen.
        """
        device = next((tensor.device for tensor in self.kept_tensors().values()), None)
        self.freeze, self._owner = freeze, dict(owner)
        self.frozen = chain[:freeze].to(device) if freeze else None
        self.body = chain[freeze : self.keep].to(device) if freeze < self.keep else None
        self.frozen_format, self.body_format = MemoryFormat(self.frozen), MemoryFormat(self.body)
        self.uphold()
        self.train(self.training)
        for _, parameter in self.frozen_parameters():
            parameter.grad = None

    def _places(self) -> dict[str, list[str]]:
        """Per saved tensor of the blocks the parts that hold it."""
        places: dict[str, list[str]] = {}
        for part, segment in (("frozen", self.frozen), ("body", self.body)):
            if segment is not None:
                for name in segment.weights():
                    places.setdefault(name, []).append(part)
        return places

    def _sort(self, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        """Sort what is to be loaded into the parts of now: it may have been saved with another ``freeze``."""
        places = self._places()
        given: dict[str, Tensor] = {}
        for part in ("body", "frozen"):
            start = f"{prefix}{part}.network."
            for key in [key for key in state_dict if key.startswith(start)]:
                if key.removeprefix(start) in places:
                    given[key.removeprefix(start)] = state_dict.pop(key)
        for name, tensor in given.items():
            state_dict |= {f"{prefix}{part}.network.{name}": tensor for part in places[name]}

    def _pass_over_counters(self, incompatible: Any) -> None:
        """Batch norms make up a counter, which parts leave out, where a file names no versions of modules."""
        held, unexpected = self._places(), incompatible.unexpected_keys
        for key in [key for key in unexpected if key.endswith(".num_batches_tracked")]:
            name = key.rpartition("frozen.network.")[2].rpartition("body.network.")[2]
            if f"{name.removesuffix('num_batches_tracked')}running_mean" in held:
                unexpected.remove(key)

    def _strangers(self) -> list[str]:
        """Parameters in the blocks that the network hasn't."""
        known = {name for name, _ in self.bare.network.named_parameters(remove_duplicate=False)}
        parts = [part for part in (self.frozen, self.body) if part is not None]
        return [n for part in parts for n, _ in part.network.named_parameters() if n not in known]

    @property
    def taps(self) -> list[int]:
        """Earlier cuts that the head also reads, see :mod:`topgraft.taps`."""
        return [cut for cut in self.bare.taps if cut < self.keep]

    def kept_tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers of the kept blocks themselves, each under its first name in the network.

        One that several blocks share is that of the first of them.
        """
        first: dict[int, str] = {}
        of_first = {
            name: first.setdefault(id(tensor), name) for name, tensor in named_tensors(self.bare.network)
        }
        tensors: dict[str, Tensor] = {}
        mine = (0, *range(self.freeze + 1, self.keep + 1))
        for part, owned in ((self.frozen, range(1, self.freeze + 1)), (self.body, mine)):
            if part is not None:
                named = [pair for pair in named_tensors(part.network) if self._owner.get(pair[0]) in owned]
                tensors |= {of_first.get(name, name): tensor for name, tensor in named}
        return tensors

    def frozen_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Each parameter that never changes, and its name in the network; copies of shared ones too."""
        for part in (self.frozen, self.body):
            if part is not None:
                for name, parameter in part.network.named_parameters():
                    if self._owner.get(name, self.keep) <= self.freeze:
                        yield name, parameter

    def frozen_tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers of the frozen blocks, as :meth:`kept_tensors` gives them."""
        return {
            name: t
            for name, t in self.kept_tensors().items()
            if self._owner.get(name, self.keep) <= self.freeze
        }

    def kept_weights(self) -> dict[str, Tensor]:
        """Parameters and buffers of the kept blocks under the names of the original network."""
        weights: dict[str, Tensor] = {}
        for part in (self.body, self.frozen):
            if part is not None:
                weights.update(part.weights())
        return weights
