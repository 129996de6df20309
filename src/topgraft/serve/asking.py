"""From a request to what the model says of each of its inputs, as soon as its turn has come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from topgraft.backbones.row_preprocess import RowPreprocess
from topgraft.data.unlabelled import Row
from topgraft.errors import RunningError, TopgraftError
from topgraft.predict import column_notes
from topgraft.saved import Model
from topgraft.serve.batching import Batcher, Closed, Full
from topgraft.serve.guard import SOON
from topgraft.serve.inputs import (
    FIELD,
    FILES,
    KEYS,
    Refused,
    column_names,
    file_row,
    refuse_count,
    rows_of_json,
    weights,
)
from topgraft.serve.limits import Limits

Result = TypeVar("Result")
SMALL = 65_536
"""Bytes of a body that is read at once, without a thread for it."""


@dataclass(frozen=True)
class Given:
    """What a request holds.

    Parameters
    ----------
    rows
        Its inputs, in order.
    notes
        How their columns fit those that the model knows.
    """

    rows: Sequence[Row]
    notes: Sequence[str] = ()


async def given(request: Request, model: Model, limits: Limits, one_at_a_time: asyncio.Lock) -> Given:
    """The inputs of a request.

    Raises
    ------
    Refused
        If they are not what the model takes, or do not come in time.
    """
    late = Refused(408, f"The request was not read within {limits.seconds:g} s.")
    return await within(limits.seconds, _read(request, model, limits, one_at_a_time), late)


async def _read(request: Request, model: Model, limits: Limits, one_at_a_time: asyncio.Lock) -> Given:
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_form = model.modality in FILES
    expected = "multipart/form-data" if is_form else "application/json"
    if sent != expected:
        how = f'files in the field "{FIELD}"' if is_form else f'{{"{KEYS[model.modality]}": [...]}}'
        raise Refused(415, f"This model takes {expected} with {how}, not {sent or 'a body without a type'}.")
    if is_form:
        return Given(await _files(request, model.modality, limits))
    body = await request.body()
    if len(body) <= SMALL:
        return _of_json(body, model, limits)
    async with one_at_a_time:  # lists of JSON take many times the memory of their text
        return await run_in_threadpool(_of_json, body, model, limits)


def _of_json(body: bytes, model: Model, limits: Limits) -> Given:
    rows = rows_of_json(body, model.modality, most=limits.inputs)
    known = model.preprocess
    if not isinstance(known, RowPreprocess) or not any(isinstance(row.value, Mapping) for row in rows):
        return Given(rows)
    try:
        return Given(rows, column_notes(model, column_names(rows, known.kinds), "the request"))
    except TopgraftError as error:
        raise Refused(422, str(error)) from None


async def _files(request: Request, modality: str, limits: Limits) -> list[Row]:
    async with request.form(max_files=limits.inputs, max_fields=1) as form:
        parts = form.multi_items()
        for field, part in parts:
            if field != FIELD or isinstance(part, str):
                what = "a field without a file" if isinstance(part, str) else "a file in the field"
                raise Refused(
                    422, f'Expected {modality}s as files in the field "{FIELD}", got {what} "{field:.80}".'
                )
        refuse_count(len(parts), limits.inputs)
        return [
            file_row(part.filename, await part.read(), i)
            for i, (_, part) in enumerate(parts)
            if not isinstance(part, str)
        ]


async def answers(
    batcher: Batcher[Row, Result], rows: Sequence[Row], model: Model, limits: Limits
) -> list[Result | str]:
    """What the model says of each row, or why it can't be run on it, in few words.

    Raises
    ------
    Refused
        If too much waits already, or it takes too long.
    """
    busy = Refused(503, "Too many inputs wait already. Try again.", retry_after=SOON)
    is_form = model.modality in FILES
    known = (
        await run_in_threadpool(weights, rows, model.modality) if is_form else weights(rows, model.modality)
    )
    try:
        waiting = batcher.submit(known)
    except Full:
        raise busy from None
    except Closed:
        raise Refused(503, "The service is ending.", retry_after=SOON) from None
    late = Refused(504, f"There was no answer within {limits.seconds:g} s.", retry_after=SOON)
    found = await within(limits.seconds, _all(waiting), late)
    return [_reason(one, model) if isinstance(one, BaseException) else one for one in found]


async def _all(waiting: Sequence[Future[Result]]) -> list[Result | BaseException]:
    return await asyncio.gather(*map(asyncio.wrap_future, waiting), return_exceptions=True)


def _reason(found: BaseException, model: Model) -> str:
    """Why the model can't be run on an input; a failure of the service itself is raised."""
    # Which shapes of arrays a network takes only the network knows, and it says so in many ways.
    of_input = (TopgraftError, ValueError, RuntimeError) if model.modality == "array" else TopgraftError
    if isinstance(found, of_input) and not isinstance(found, RunningError):
        said = " ".join(str(found).split())
        return f"can't be run: {said:.200}"
    raise found


async def within(seconds: float, work: Awaitable[Result], otherwise: Refused) -> Result:
    """The result of ``work``, if it comes in time."""
    try:
        return await asyncio.wait_for(work, seconds)
    except asyncio.TimeoutError:
        raise otherwise from None
