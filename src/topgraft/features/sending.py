"""What a training reads, as it is sent to another process: stored numbers, or examples with their files."""

from __future__ import annotations

from pathlib import Path

from topgraft.console import size
from topgraft.data.lazily import Member
from topgraft.errors import TopgraftError
from topgraft.features.engine import Engine
from topgraft.features.reading import Batch
from topgraft.features.remote import VARIABLE
from topgraft.features.shared import SharedShelf
from topgraft.features.sources import IN_MEMORY, LiveSource, Source, StateSource, ViewSource


class NotSendable(TopgraftError):
    """What a training reads can't be sent to another process, so that it is done in this one."""


def sendable(source: Source) -> Source:
    """The source with all that another process needs for it, whatever is stored there.

    Stored numbers travel themselves: the store is the leading process's alone. More than are held in memory
    are found by the other process where the store is shared through an address. Of examples it is what
    decoding reads; files are looked for where they are named, see :func:`named_files`.

    Raises
    ------
    NotSendable
        If stored numbers are more than are held in memory and not all at an address, or an engine converts
        the network for itself.
    """
    if isinstance(source, ViewSource):
        return ViewSource([sent for sent in map(sendable, source.views) if isinstance(sent, StateSource)])
    if isinstance(source, StateSource):
        if source.is_held:
            return source.by_itself()
        more = f"the activations that it reads are more than {size(IN_MEMORY)}"
        if not isinstance(source.shelf, SharedShelf):
            raise NotSendable(f"{more}, and the store has no address ({VARIABLE})")
        if not source.shelf.has_all_there(source.digests):
            raise NotSendable(f"{more}, and not all of them are at {source.shelf.remote.said}")
        return source
    if isinstance(source, LiveSource):
        if source.engine is not None and type(source.engine) is not Engine:
            raise NotSendable(f"{source.engine.name} runs the frozen part in each step")
        data = Batch.of(source.data, range(len(source.data))).data
        return LiveSource(data, source.preprocess, engine=source.engine, augment=source.augment)
    return source


def named_files(source: Source) -> tuple[str, ...]:
    """Files of examples that it reads, and shards."""
    if not isinstance(source, LiveSource):
        return ()
    batch = Batch(source.data)
    return (*batch.paths(), *batch.shards())


def with_files(source: Source) -> Source:
    """The same with the content of files in it, which must be what it was when they were read.

    Raises
    ------
    NotSendable
        If that is more than is held in memory.
    """
    if not isinstance(source, LiveSource):
        return source
    batch = Batch(source.data)
    total = sum(Path(path).stat().st_size for path in batch.paths())
    total += sum(value.size for value in source.data.inputs if isinstance(value, Member))
    if total > IN_MEMORY:
        raise NotSendable(f"its files, {size(total)}, are not there for the workers")
    return LiveSource(batch.filled().data, source.preprocess, engine=source.engine, augment=source.augment)
