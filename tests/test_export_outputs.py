"""What each task's export gives: what ``predict`` says of the same examples, and how it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from exported_grafts import MORE, SCALE, arrays, fresh, fresh_batch, model_of, real
from safetensors.torch import load_file
from small_networks import backbone_of, example_maps, maps
from torch import Tensor

from topgraft.data.types import Task
from topgraft.errors import RunningError
from topgraft.export import export
from topgraft.export.outputs import answers_of, names_of, outputs_of
from topgraft.head import Head
from topgraft.ordered import class_logits
from topgraft.predict import Prediction, predict
from topgraft.saved import Model

TASKS: tuple[Task, ...] = ("multilabel", "ordinal", "regression")


def in_onnx_runtime(folder: Path, batch: dict[str, Tensor]) -> dict[str, np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    return dict(zip(names, session.run(names, {n: t.numpy() for n, t in batch.items()}), strict=True))


def in_pytorch(folder: Path, batch: dict[str, Tensor]) -> dict[str, np.ndarray]:
    found = torch.export.load(folder / "model.pt2").module()(*batch.values())
    ports = json.loads((folder / "export.json").read_text(encoding="utf-8"))["outputs"]
    return {port["name"]: one.numpy() for port, one in zip(ports, found, strict=True)}


def in_openvino(folder: Path, batch: dict[str, Tensor]) -> dict[str, np.ndarray]:
    from topgraft.features.openvino import new_core

    compiled = new_core().compile_model(folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({name: tensor.numpy() for name, tensor in batch.items()})
    return {port.get_any_name(): found[port] for port in compiled.outputs}


RUN = {"onnx": in_onnx_runtime, "torch": in_pytorch, "openvino": in_openvino}


def must_say_what_predict_says(
    model: Model, outputs: dict[str, np.ndarray], told: Any, said: list[Prediction]
) -> None:
    """Numbers and answers, the answers read as the document says."""
    assert tuple(outputs) == names_of(model.task) == tuple(port["name"] for port in told["outputs"])
    last, answer = outputs[told["answer"]["from"]], told["answer"]
    assert [list(one.shape) for one in outputs.values()] == [
        [len(said), *port["shape"][1:]] for port in told["outputs"]
    ]
    if model.task == "regression":
        off = (last - np.array([p.values for p in said])) / np.array(SCALE.spread)
        assert np.abs(off).max() < 1e-4
        return
    np.testing.assert_allclose(last, [p.probabilities for p in said], atol=1e-5)
    for row, p in zip(last, said, strict=True):
        if answer["rule"] == "above":
            given = [n for n, share in zip(told["classes"], row, strict=True) if share > answer["threshold"]]
            assert "|".join(given) == p.label
        elif answer["rule"] == "largest":
            assert told["classes"][int(row.argmax())] == p.label
        else:
            assert answer["rule"] == "median"
            assert told["classes"][int((row.cumsum()[:-1] < answer["threshold"]).sum())] == p.label


@pytest.mark.parametrize(
    ("task", "to"),
    [
        *[(task, "onnx") for task in TASKS],
        *[("ordinal", to) for to in ("torch", "openvino")],
        *[
            pytest.param(task, to, marks=pytest.mark.exhaustive)
            for task in ("multilabel", "regression")
            for to in ("torch", "openvino")
        ],
    ],
)
def test_the_runtime_gives_what_predict_says(task: Task, to: str, tmp_path: Path) -> None:
    model = arrays(task=task)
    told = export(model, to, tmp_path / "out").document
    assert told["task"] == task
    assert set(told["difference"]) == set(told["tolerance"])
    for count in (1, 4):
        outputs = RUN[to](tmp_path / "out", fresh_batch(model, count))
        must_say_what_predict_says(model, outputs, told, predict(model, fresh(model, count)))


@pytest.mark.parametrize("task", TASKS)
def test_the_head_beside_the_weights_gives_what_its_document_says(task: Task, tmp_path: Path) -> None:
    model = arrays(task=task)
    told = export(model, "state-dict", tmp_path / "out", module=maps(seed=8)).document
    shape = told["head"]
    head = Head(shape["layout"], shape["width"], shape["outputs"], hidden=shape["hidden"])
    head.load_state_dict(load_file(tmp_path / "out" / "head.safetensors"))
    batch = fresh_batch(model, 4)
    with torch.no_grad():
        given = head.eval()(model.graft.frozen(batch))
        wanted = outputs_of(task, model.graft(batch))[-1].numpy()
    if task == "ordinal":
        assert shape["outputs"] == len(told["classes"]) - 1
        above = torch.sigmoid(given.sort(dim=1, descending=True).values)
        ends = torch.ones(4, 1)
        found = torch.cat([ends, above], 1) - torch.cat([above, 0 * ends], 1)
    else:
        found = torch.sigmoid(given) if task == "multilabel" else given
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    words = {"ordinal": "sorted falling", "multilabel": "sigmoid", "regression": "width, height, depth"}
    assert words[task] in shape["gives"]


@pytest.mark.parametrize("task", TASKS)
def test_the_folder_for_the_hub_is_opened_with_its_task(task: Task, tmp_path: Path) -> None:
    from topgraft.saved import open_model

    model = arrays(task=task)
    told = export(model, "huggingface", tmp_path / "out", module=maps(seed=8)).document
    opened = open_model(tmp_path / "out", module=maps(seed=8))
    assert opened.task == task
    assert predict(opened, fresh(model, 4)) == predict(model, fresh(model, 4))
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    problem = {"multilabel": "multi_label_classification", "regression": "regression", "ordinal": None}[task]
    assert config.get("problem_type") == told["problem_type"] == problem
    names = list(model.classes or model.outputs)
    assert config["id2label"] == {str(i): name for i, name in enumerate(names)}
    assert config["label2id"] == {name: i for i, name in enumerate(names)}
    assert (tmp_path / "out" / "labels.json").exists() == (task != "regression")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert {"regression": "tabular-regression"}.get(task, "tabular-classification") in card
    assert {"multilabel": "above 0.5", "ordinal": "median", "regression": "width"}[task] in card


def test_files_say_how_they_are_read(tmp_path: Path) -> None:
    told = export(arrays(task="regression"), "onnx", tmp_path / "out").document
    document = onnx.load(tmp_path / "out" / "model.onnx")
    notes = {entry.key: entry.value for entry in document.metadata_props}
    assert json.loads(notes["topgraft.answer"]) == told["answer"]
    assert json.loads(notes["topgraft.numbers"]) == ["width", "height", "depth"] == told["numbers"]
    assert (notes["topgraft.task"], notes["topgraft.classes"]) == ("regression", "[]")


def test_numbers_that_are_off_are_refused_and_not_left(tmp_path: Path) -> None:
    from test_export_exporting import Scaled

    model = model_of(backbone_of(Scaled(1.0), example_maps()), 3, 1, task="regression")
    with pytest.raises(RunningError, match=r"numbers by .* of their standard deviation(.|\n)*Nothing was"):
        export(model, "state-dict", tmp_path / "out", module=Scaled(1.5))
    assert list(tmp_path.iterdir()) == []


def test_ordered_classes_far_from_the_border_and_at_it_are_as_exact_as_in_pytorch(tmp_path: Path) -> None:
    import onnxruntime

    class Alone(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return class_logits(x)

    given = torch.tensor([[80.0, 80.0], [-80.0, 80.0], [120.0, -130.0], [0.1, 0.1000001], [17.0, 5.0]])
    program = torch.export.export(Alone(), (given,), strict=False)
    torch.onnx.export(program, dynamo=True, verbose=False).save(tmp_path / "steps.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "steps.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: given.numpy()})[0]
    np.testing.assert_allclose(found, class_logits(given.double()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("task", "answers"), [("classification", [1, 0]), ("ordinal", [1, 1])])
def test_answers_are_those_of_predict(task: Task, answers: list[int]) -> None:
    said = np.array([[0.3, 0.45, 0.25], [0.4, 0.35, 0.25]])
    assert answers_of(task, said).tolist() == answers
    assert (answers_of("multilabel", said) == (said > 0.5)).all()
    assert answers_of("regression", said) is said


@pytest.mark.exhaustive
@pytest.mark.parametrize("to", list(RUN))
@pytest.mark.parametrize(
    ("modality", "task"), [("picture", "regression"), ("text", "ordinal"), ("text", "multilabel")]
)
def test_so_it_is_for_the_packaged_weights(modality: str, task: Task, to: str, tmp_path: Path) -> None:
    model = real(modality, task)
    told = export(model, to, tmp_path / "out").document
    outputs = RUN[to](tmp_path / "out", fresh_batch(model, 4))
    must_say_what_predict_says(model, outputs, told, predict(model, fresh(model, 4)))


def test_every_task_has_a_model_here() -> None:
    assert set(MORE) == {"classification", *TASKS}
