"""What the service says of its model, and the description of its requests for OpenAPI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from topgraft.backbones.row_preprocess import RowPreprocess
from topgraft.predict import number_columns
from topgraft.saved import Model
from topgraft.serve.inputs import FIELD, FILES, KEYS
from topgraft.serve.limits import Limits

NOTES = "topgraft-notes"
"""Header of a reply that tells of columns."""
TEXT = {"type": "string"}
TEXT_OR_NOTHING = {"type": ["string", "null"]}
SIDES = ("left", "top", "right", "bottom")
"""Of what the network saw of a picture."""


@dataclass(frozen=True)
class Health:
    """Whether the service answers."""

    status: str
    waiting: int


@dataclass(frozen=True)
class ServedColumn:
    """A column of the rows that a model takes.

    Parameters
    ----------
    name
        In the table that it learned from.
    kind
        ``number`` or ``category``.
    names
        Categories that the model knows; empty for numbers.
    mean, spread
        Of numbers, in what it learned from; ``None`` for categories.
    """

    name: str
    kind: str
    names: tuple[str, ...]
    mean: float | None
    spread: float | None


@dataclass(frozen=True)
class ServedModel:
    """What is served.

    Parameters
    ----------
    name
        Of the model.
    modality
        ``picture``, ``text``, ``sound``, ``array`` or ``row``.
    pairs
        Whether each text is a pair of them.
    columns
        Of rows; empty for other modalities.
    classes
        In the order of the columns ``p_<class>``; empty where numbers are predicted.
    outputs
        Names of predicted numbers, in the order of the columns; empty where classes are predicted.
    separator
        Between the labels of one input where it may have several; else empty.
    backbone
        Where the pretrained network came from.
    blocks, keep, freeze
        Of the backbone: how many there were, how many were kept, and how many of those never changed.
    score
        On untouched examples, as the fit told it; ``None`` where it is not known.
    limits
        What is refused.
    examples
        How many examples ``POST /nearest`` compares with; 0 where it was started without.
    not_looked
        Why ``POST /looked`` does not say where in a picture it looked; empty where it does.
    """

    name: str
    modality: str
    pairs: bool
    columns: tuple[ServedColumn, ...]
    classes: tuple[str, ...]
    outputs: tuple[str, ...]
    separator: str
    backbone: str
    blocks: int
    keep: int
    freeze: int
    score: dict[str, Any] | None
    limits: Limits
    examples: int
    not_looked: str


def described(
    model: Model,
    name: str,
    score: dict[str, Any] | None,
    limits: Limits,
    *,
    examples: int = 0,
    not_looked: str = "",
) -> ServedModel:
    """What is told of a model."""
    known = model.description
    return ServedModel(
        name=name,
        modality=model.modality,
        pairs=model.takes_pairs,
        columns=served_columns(model),
        classes=model.classes,
        outputs=model.outputs,
        separator=model.separator,
        backbone=str(known["backbone"]["source"]),
        blocks=len(known["blocks"]),
        keep=int(known["keep"]),
        freeze=int(known["freeze"]),
        score=score,
        limits=limits,
        examples=examples,
        not_looked=not_looked,
    )


def served_columns(model: Model) -> tuple[ServedColumn, ...]:
    """The columns that a model of rows takes."""
    known = model.preprocess
    if not isinstance(known, RowPreprocess):
        return ()
    return tuple(
        ServedColumn(
            column.name,
            column.kind,
            column.names,
            column.mean if column.kind == "number" else None,
            column.spread if column.kind == "number" else None,
        )
        for column in known.columns
    )


def predict_schema(model: Model, limits: Limits) -> dict[str, Any]:
    """The body and the replies of ``POST /predict``, as OpenAPI describes them."""
    return _operation(model, limits, _row_schema(model))


def nearest_schema(model: Model, limits: Limits) -> dict[str, Any]:
    """The same of ``POST /nearest``."""
    near = {
        "index": {"type": "integer", "minimum": 0},
        "name": TEXT,
        "label": TEXT_OR_NOTHING,
        "similarity": {"type": "number", "minimum": -1, "maximum": 1},
        "text": TEXT_OR_NOTHING,
        "row": {"type": ["object", "null"]},
        "picture": TEXT_OR_NOTHING,
    }
    return _operation(model, limits, {"input": TEXT, "nearest": _list_of(near), "error": TEXT_OR_NOTHING})


def looked_schema(model: Model, limits: Limits) -> dict[str, Any]:
    """The same of ``POST /looked``."""
    share = {"type": "number", "minimum": 0, "maximum": 1}
    sides = {side: {"type": "number"} for side in SIDES}
    row = {
        "input": TEXT,
        "of": TEXT_OR_NOTHING,
        "map": {"type": "array", "items": {"type": "array", "items": share}},
        "seen": {"type": ["object", "null"], "properties": sides, "required": list(sides)},
        "where": TEXT_OR_NOTHING,
        "error": TEXT_OR_NOTHING,
    }
    return _operation(model, limits, row)


def _list_of(row: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "object", "properties": row, "required": list(row)}}


def _operation(model: Model, limits: Limits, row: dict[str, Any]) -> dict[str, Any]:
    """A request with inputs, and its replies: such a row for each of them, or why it is refused."""
    rows = _list_of(row)
    error = {"type": "object", "properties": {"error": TEXT}, "required": ["error"]}
    told = {
        "400": "The body can't be read.",
        "408": "The body did not come in time.",
        "413": "The body is too large, or holds too many inputs.",
        "415": "The body is of another type.",
        "422": "The body holds something else than inputs.",
        "503": "Too much waits already; see Retry-After.",
        "504": "There was no answer in time.",
    }
    return {
        "requestBody": {"required": True, "content": _content(model, limits)},
        "responses": {
            "200": {
                "description": "A row for each input.",
                "headers": _headers(model),
                "content": {"application/json": {"schema": rows}},
            },
            **{
                status: {"description": why, "content": {"application/json": {"schema": error}}}
                for status, why in told.items()
            },
        },
    }


def _content(model: Model, limits: Limits) -> dict[str, Any]:
    """The body of a request, by its type."""
    if model.modality in FILES:
        files = {"type": "array", "items": {"type": "string", "format": "binary"}}
        return {"multipart/form-data": _object(FIELD, files, limits)}
    pair = {"type": "array", "items": TEXT, "minItems": 2, "maxItems": 2}
    items: dict[str, dict[str, Any]] = {
        "text": pair if model.takes_pairs else TEXT,
        "array": {"type": "array"},
    }
    of = {"type": "array", "items": items.get(model.modality) or _record_schema(model)}
    return {"application/json": _object(KEYS[model.modality], of, limits)}


def _record_schema(model: Model) -> dict[str, Any]:
    """A row that is sent: cells by column, at least one of them known."""
    cells = {"number": ["number", "null"], "category": ["string", "number", "boolean", "null"]}
    columns = {column.name: {"type": cells[column.kind]} for column in served_columns(model)}
    return {
        "type": "object",
        "properties": columns,
        "anyOf": [{"required": [name]} for name in columns],
    }


def _headers(model: Model) -> dict[str, Any]:
    if model.modality != "row":
        return {}
    told = "Columns that are missing or not known, in words, as a JSON list; absent where all fit."
    return {NOTES: {"description": told, "schema": {"type": "string"}}}


def _object(key: str, value: dict[str, Any], limits: Limits) -> dict[str, Any]:
    several = {**value, "minItems": 1, "maxItems": limits.inputs}
    schema = {
        "type": "object",
        "properties": {key: several},
        "required": [key],
        "additionalProperties": False,
    }
    return {"schema": schema}


def _row_schema(model: Model) -> dict[str, Any]:
    """The columns of a row of ``predict``."""
    said: dict[str, Any] = {name: {"type": ["number", "null"]} for name in number_columns(model.outputs)}
    if not model.outputs:
        shares = ("confidence", *(f"p_{name}" for name in model.classes))
        one: dict[str, Any] = {} if model.separator else {"enum": [*model.classes, None]}
        said = {"label": {"type": ["string", "null"], **one}}
        said |= {name: {"type": ["number", "null"], "minimum": 0, "maximum": 1} for name in shares}
    return {"input": TEXT, **said, "error": TEXT_OR_NOTHING}
