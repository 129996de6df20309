"""The model card: what a person should know before using the model."""

from __future__ import annotations

from typing import Any

from topgraft.backbones.types import Backbone
from topgraft.console import percent
from topgraft.data.types import Data, Task
from topgraft.score import judged_on
from topgraft.show import constant_answer, in_unit, is_share


def model_card(result: dict[str, Any], backbone: Backbone, data: Data, *, command_seed: int) -> str:
    """The card in Markdown, with the metadata that Hugging Face reads.

    Parameters
    ----------
    result
        Of the fit.
    backbone, data
        What it was made from.
    command_seed
        The seed.
    """
    import topgraft

    kind = task_tag(data.modality, data.task)
    score = result["score"]
    kept, frozen = result["blocks"]["kept"], result["blocks"]["frozen"]
    counts = "\n".join(f"- {plain_text(name)}: {n:,}" for name, n in data.counts.items())
    if data.outputs:
        counts = f"To be predicted: {', '.join(map(plain_text, data.outputs))}."
    in_units = [one for one in result["scores"] if not is_share(one["metric"])]
    errors = [f"; {one['metric']} {in_unit(one['value'])}" for one in in_units]
    by = "knowing only" if data.separator else "always answering"
    constant = f"{by} {constant_answer(score['metric'])} gives {percent(result['majority'], 1)}"
    licence = backbone.licence or "not known"
    return f"""---
library_name: topgraft
pipeline_tag: {kind}
---

# {plain_text(str(result["model"]))}

Made by Topgraft {topgraft.__version__} from {plain_text(backbone.source)}
(weights: {plain_text(backbone.report.weights)}; licence of the weights: {plain_text(licence)}).

- keeps {result["keep"]} of {len(result["blocks"]["all"])} blocks, to `{kept[-1]}`
- of these {result["freeze"]} never changed{f", to `{frozen[-1]}`" if frozen else ""}
- {_reads(result["taps"])}{result["trained_parameters"]:,} parameters were trained

## Score

{score["metric"]} {percent(score["value"], 1)} on {score["n"]} {judged_on(result.get("nested", 0))}
(95 % interval {percent(score["low"], 1)} to {percent(score["high"], 1)}); {constant}{"".join(errors)}.

## Data

{len(data):,} examples; fingerprint `{data.fingerprint}`; seed {command_seed}.

{counts}

## Limits

Scores hold for data like those above. {_limits(data)}
"""


def task_tag(modality: str, task: Task) -> str:
    """The hub's name for what a model does, ``pipeline_tag``; of numbers it has one for tables only.

    Examples
    --------
    >>> task_tag("sound", "multilabel"), task_tag("row", "regression"), task_tag("text", "regression")
    ('audio-classification', 'tabular-regression', 'other')
    """
    if task == "regression":
        return "tabular-regression" if modality in ("array", "row") else "other"
    return {
        "picture": "image-classification",
        "text": "text-classification",
        "sound": "audio-classification",
    }.get(modality, "tabular-classification")


def _limits(data: Data) -> str:
    """What the answers are not."""
    if data.separator:
        return (
            "Probabilities are those of data with the same shares of the labels, each\nfor itself; a label "
            "is given above a half. What has none of them may get one all the same."
        )
    if data.outputs:
        return "Any input gets numbers, also one that is like none of those above."
    return (
        "Probabilities are those of data with the same shares of the classes. The classes\nare the only "
        "answers that it knows: what belongs to none of them gets one all the same."
    )


def _reads(taps: list[int]) -> str:
    """The line on earlier cuts that the head reads, where it does."""
    return f"the head also reads what comes out of blocks {', '.join(map(str, taps))}\n- " if taps else ""


def plain_text(text: str) -> str:
    """A text without what Markdown or HTML would act on."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|&" else " " if c in "\r\n" else c for c in text)
