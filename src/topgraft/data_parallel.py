"""Data parallel training: each step's batch in parts, whose gradients are added in their order.

How many parts there are belongs to the plan. Who computes them does not: one process all of them, one after
the other, or several processes some each (torch.distributed, gloo). The gradients of all parts go to all
processes and are added in the order of the parts, so that the bits depend on the number of parts alone.
DistributedDataParallel and an all-reduce would add them in an order that depends on how many processes there
are, and on how they put gradients into buckets, which is found anew when a training goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed
from torch import Tensor, nn

MEETING = timedelta(seconds=60)
"""In which processes must have found one another."""
WAITING = timedelta(minutes=30)
"""In which the slowest must have done its parts of a step."""

_dist: Any = torch.distributed


class Parted(Exception):
    """Another process of the same training is gone."""


class Team(Protocol):
    """The processes that train together."""

    rank: int
    size: int

    def gathered(self, own: Tensor) -> list[Tensor]:
        """A tensor of each process, by its rank; all of one shape and dtype, on the CPU.

        Raises
        ------
        Parted
            If one of them is gone.
        """


class Alone:
    """A process by itself."""

    rank, size = 0, 1

    def gathered(self, own: Tensor) -> list[Tensor]:
        """Just its own."""
        return [own]


ALONE = Alone()


class Gloo:
    """Processes that talk to one another by gloo, each with each.

    Parameters
    ----------
    rank, size
        Which one this is, from 0, of how many.
    address
        Of this machine, as the others reach it.
    meeting
        Host and port of what :func:`opened` gave.

    Raises
    ------
    Parted
        If the others aren't there.
    """

    def __init__(self, rank: int, size: int, address: str, meeting: tuple[str, int]) -> None:
        self.rank, self.size = rank, size
        gloo = _dist.ProcessGroupGloo
        options = gloo._Options()
        options._timeout = WAITING
        try:
            # by address: the name of a machine often means nothing, or itself, to the others
            options._devices = [gloo.create_device(hostname=address)]
            store = _dist.TCPStore(meeting[0], meeting[1], is_master=False, timeout=MEETING)
            self._group = gloo(store, rank, size, options)
        except RuntimeError as error:
            raise Parted(str(error)) from error

    def gathered(self, own: Tensor) -> list[Tensor]:
        """As :meth:`Team.gathered`."""
        found = [torch.empty_like(own) for _ in range(self.size)]
        try:
            self._group.allgather([found], [own.contiguous()]).wait()
        except RuntimeError as error:
            raise Parted(str(error)) from error
        return found

    def close(self) -> None:
        """Leave: the others notice at once, should they wait."""
        self._group = None  # which closes its connections; `abort` and `shutdown` leave the others waiting


def opened(address: str) -> Any:
    """A place where processes find one another, as long as it is held; its ``port`` is free."""
    return _dist.TCPStore(address, 0, is_master=True, wait_for_workers=False)


def part_of(rows: Sequence[int], part: int, parts: int) -> list[int]:
    """The examples of one part of a batch; all parts are as long as one another, give or take one.

    Examples
    --------
    >>> [part_of([7, 8, 9], part, 4) for part in range(4)]
    [[7], [8], [9], []]
    """
    return list(rows[part::parts])


def seed_of(seed: int, step: int, part: int) -> int:
    """Of what is drawn at random for a part of a batch, whoever computes it, on going on too."""
    return int(hashlib.sha256(f"{seed} {step} {part}".encode()).hexdigest()[:8], 16)


def of_every_part(team: Team, own: Sequence[Tensor], parts: int) -> list[Tensor]:
    """What all processes made of their parts, in the order of the parts.

    Parameters
    ----------
    own
        Of the parts ``team.rank``, ``team.rank + team.size``, …: tensors of one shape, one at least.
    parts
        How many there are in all.
    """
    room = torch.zeros(-(-parts // team.size), *own[0].shape)
    for place, tensor in enumerate(own):
        room[place] = tensor
    every = team.gathered(room)
    return [every[part % team.size][part // team.size] for part in range(parts)]


def flat(parameters: Sequence[nn.Parameter], loss: float) -> Tensor:
    """Gradients one after the other, float32 on the CPU; then which there are, then the loss."""
    parts = [
        (torch.zeros(p.numel()) if p.grad is None else p.grad.detach().float().cpu().flatten())
        for p in parameters
    ]
    there = torch.tensor([float(p.grad is not None) for p in parameters])
    return torch.cat([*parts, there, torch.tensor([loss])])


def put_sum(parameters: Sequence[nn.Parameter], vectors: Sequence[Tensor]) -> float:
    """Give the parameters the sum of what :func:`flat` gave, added in this order; the sum of the losses."""
    total = vectors[0].clone()
    for vector in vectors[1:]:
        total += vector
    place, there = 0, total[-1 - len(parameters) : -1]
    for number, parameter in enumerate(parameters):
        values = total[place : place + parameter.numel()]
        place += parameter.numel()
        parameter.grad = None
        if there[number] > 0:
            parameter.grad = values.view_as(parameter).to(parameter.device, parameter.dtype)
    return float(total[-1])
