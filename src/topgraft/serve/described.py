"""What the service says of its model, and the description of its requests for OpenAPI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from topgraft.predict import number_columns
from topgraft.saved import Model
from topgraft.serve.inputs import FIELD, KEYS
from topgraft.serve.limits import Limits


@dataclass(frozen=True)
class Health:
    """Whether the service answers."""

    status: str
    waiting: int


@dataclass(frozen=True)
class ServedModel:
    """What is served.

    Parameters
    ----------
    name
        Of the model.
    modality
        ``picture``, ``text`` or ``array``.
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
    """

    name: str
    modality: str
    classes: tuple[str, ...]
    outputs: tuple[str, ...]
    separator: str
    backbone: str
    blocks: int
    keep: int
    freeze: int
    score: dict[str, Any] | None
    limits: Limits


def described(model: Model, name: str, score: dict[str, Any] | None, limits: Limits) -> ServedModel:
    """What is told of a model."""
    known = model.description
    return ServedModel(
        name=name,
        modality=model.modality,
        classes=model.classes,
        outputs=model.outputs,
        separator=model.separator,
        backbone=str(known["backbone"]["source"]),
        blocks=len(known["blocks"]),
        keep=int(known["keep"]),
        freeze=int(known["freeze"]),
        score=score,
        limits=limits,
    )


def predict_schema(model: Model, limits: Limits) -> dict[str, Any]:
    """The body and the replies of ``POST /predict``, as OpenAPI describes them."""
    if model.modality == "picture":
        files = {"type": "array", "items": {"type": "string", "format": "binary"}}
        content = {"multipart/form-data": _object(FIELD, files, limits)}
    else:
        item: dict[str, Any] = {"type": "string"} if model.modality == "text" else {"type": "array"}
        of = {"type": "array", "items": item}
        content = {"application/json": _object(KEYS[model.modality], of, limits)}
    row = _row_schema(model)
    rows = {"type": "array", "items": {"type": "object", "properties": row, "required": list(row)}}
    error = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
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
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {
                "description": "A row for each input.",
                "content": {"application/json": {"schema": rows}},
            },
            **{
                status: {"description": why, "content": {"application/json": {"schema": error}}}
                for status, why in told.items()
            },
        },
    }


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
    return {"input": {"type": "string"}, **said, "error": {"type": ["string", "null"]}}
