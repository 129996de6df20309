"""A graft as a folder for the Hugging Face hub, which works as it is once it is downloaded again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from topgraft.backbones.packaged import HUB_NAMES
from topgraft.backbones.preprocess import TOKENIZER_FILE, TextPreprocess
from topgraft.card import plain_text, task_tag
from topgraft.export.checking import measured
from topgraft.export.job import ExportJob, Written
from topgraft.export.outputs import answer_json, outputs_of
from topgraft.files import DamagedFile, read_json, write_json, write_whole
from topgraft.saved import Model, open_model, save

CARD, RESULT, PICTURE = "README.md", "result.json", "chain.svg"
"""What a run has beside its graft."""
CONFIG = "config.json"
PROBLEMS = {
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}
"""Task -> its name in Transformers, which has none for ordered classes."""
_FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def write(job: ExportJob) -> Written:
    """Write the saved graft, its card and its tokenizer, and open it as ``predict`` does."""
    model, folder = job.model, job.folder
    save(folder, model.graft, model.preprocess, model.description)
    name = job.source.resolve().name if job.source is not None else "graft"
    result = _result(job.source)
    if result:
        write_json(folder / RESULT, {**result, "model": name})  # and not where it lay on somebody's disk
    if job.source is not None and (job.source / PICTURE).is_file():
        write_whole(folder / PICTURE, (job.source / PICTURE).read_bytes())
    if model.classes:
        write_json(folder / "labels.json", list(model.classes))
    write_json(folder / CONFIG, config_of(model))
    if isinstance(model.preprocess, TextPreprocess):
        _write_tokenizer(folder, model.preprocess)
    write_whole(folder / CARD, _card(model, name, result, _body(job.source, model, name)).encode())
    opened = open_model(folder, module=job.module, trust_code=job.trust_code)

    def run(batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            return outputs_of(model.task, opened.graft(dict(batch)).float())

    difference = measured(run, model, job.examples.checked)
    return Written("topgraft", difference, {"problem_type": PROBLEMS.get(model.task)})


def config_of(model: Model) -> dict[str, Any]:
    """The part of Transformers' configuration that says what is answered, under its names there.

    It names no class of Transformers, which could not open the folder: what it holds is some blocks of a
    network, and a head of ours.
    """
    names = dict(enumerate(model.classes or model.outputs))
    problem = PROBLEMS.get(model.task)
    return {
        **({} if problem is None else {"problem_type": problem}),
        "id2label": {str(i): name for i, name in names.items()},
        "label2id": {name: i for i, name in names.items()},
    }


def _result(source: Path | None) -> dict[str, Any]:
    """What the run found out; nothing where the graft comes without its run."""
    if source is None or not (source / RESULT).is_file():
        return {}
    found = read_json(source / RESULT)
    if not isinstance(found, dict):
        raise DamagedFile(source / RESULT, "not the result of a run")
    return found


def _write_tokenizer(folder: Path, preprocess: TextPreprocess) -> None:
    """Beside the preprocessing, in the form in which Transformers looks for it."""
    write_whole(folder / TOKENIZER_FILE, preprocess.tokenizer.encode())
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": preprocess.max_length,
        "pad_token": preprocess.pad_token,
        "pad_token_type_id": preprocess.pad_type_id,
        "padding_side": preprocess.padding_side,
        "truncation_side": preprocess.truncation_side,
        "model_input_names": list(preprocess.keys),
    }
    write_json(folder / "tokenizer_config.json", settings)


def _card(model: Model, name: str, result: Mapping[str, Any], body: str) -> str:
    """The card: metadata as the hub reads them, then what people read."""
    from huggingface_hub import EvalResult, ModelCardData

    task = task_tag(model.modality, model.task)
    scores = [
        EvalResult(
            task_type=task,
            dataset_type="untouched-part",
            dataset_name="untouched part of the data",
            metric_type=str(score["metric"]).replace(" ", "_").lower(),
            metric_value=round(float(score["value"]), 4),
        )
        for score in result.get("scores", [])
    ]
    licence = licence_fields(model.description["backbone"]["licence"])
    data = ModelCardData(
        library_name="topgraft",
        pipeline_tag=task,
        base_model=base_model(model.description["backbone"]),
        tags=["topgraft", "transfer-learning", task],
        metrics=[score.metric_type for score in scores] or None,
        model_name=name if scores else None,
        eval_results=scores or None,
        license=licence.get("license"),
        license_name=licence.get("license_name"),
    )
    return f"---\n{data.to_yaml()}\n---\n{body}"


def licence_fields(licence: str | None) -> dict[str, str]:
    """The licence of the weights as the hub has it; one without a plain short name is another one.

    Examples
    --------
    >>> licence_fields("Apache-2.0"), licence_fields("see LICENSE"), licence_fields(None)
    ({'license': 'apache-2.0'}, {'license': 'other', 'license_name': 'see LICENSE'}, {})
    """
    if not licence:
        return {}
    if re.fullmatch(r"[\w.+-]+", licence):
        return {"license": licence.lower()}
    return {"license": "other", "license_name": licence}


def base_model(backbone: Mapping[str, Any]) -> str | None:
    """The model on the hub whose weights the graft began with; ``None`` unless that is known for certain.

    Parameters
    ----------
    backbone
        Of a graft's description.
    """
    weights = backbone["weights"]
    origin = str(weights["weights"])
    if weights["matched"] == "random" or not (
        origin.startswith("the package ") or "of the Hugging Face hub" in origin
    ):
        return None
    kind, _, name = str(backbone["source"]).partition("/")
    if kind == "timm":
        cfg = backbone["recipe"]["pretrained_cfg"]
        return f"timm/{cfg['architecture']}.{cfg['tag']}" if cfg.get("tag") else None
    if kind == "hf":
        model = HUB_NAMES.get(name, name).partition("@")[0]
        return model if re.fullmatch(r"[\w.-]+/[\w.-]+", model) else None
    return None


def _body(source: Path | None, model: Model, name: str) -> str:
    """What the run's own card says, else the plain facts; then how to use it."""
    written = source / CARD if source is not None else None
    if written is not None and written.is_file():
        body = _FRONT.sub("", written.read_text("utf-8"), count=1)
    else:
        body = _facts(model, name)
    inputs = {"picture": "new/*.jpg", "sound": "new/*.wav", "array": "new.npz"}.get(model.modality, "new.csv")
    return f"""{body.rstrip()}

## Use

Downloaded again, the folder is a saved graft like any other:

```sh
pip install topgraft
hf download OWNER/NAME --local-dir downloaded
topgraft predict downloaded {inputs}
```
"""


def _facts(model: Model, name: str) -> str:
    description = model.description
    backbone, kept = description["backbone"], description["kept"]
    names = "\n".join(f"- {plain_text(name)}" for name in model.classes or model.outputs)
    return f"""
# {plain_text(name)}

Made by Topgraft {description["topgraft"]} from {plain_text(str(backbone["source"]))}
(weights: {plain_text(str(backbone["weights"]["weights"]))};
licence of the weights: {plain_text(str(backbone["licence"] or "not known"))}).
It keeps {description["keep"]} of {len(description["blocks"])} blocks, to `{kept[-1]}`; of these
{description["freeze"]} never changed.

## {"Numbers" if model.outputs else "Labels" if model.separator else "Classes"}

{names}

## How it answers

{plain_text(answer_json(model)["told"])}.
"""
