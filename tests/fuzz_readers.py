"""Everything that topgraft opens, each with a small valid example and what uses all that is in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fuzz_checked import Reader

from topgraft.errors import TopgraftError


def _tensors(folder: Path) -> None:
    import torch

    from topgraft.files import write_tensors

    tensors = {
        "a": torch.arange(12.0).reshape(3, 4),
        "b": torch.tensor([True, False]),
        "c": torch.empty(0, 2),
    }
    write_tensors(folder / "some.safetensors", tensors, {"made": "by us"})


def _open_tensors(folder: Path) -> Any:
    from topgraft.files import read_tensors

    tensors, metadata = read_tensors(folder / "some.safetensors")
    return {n: (str(t.dtype), t.tolist()) for n, t in tensors.items()}, metadata


def _weights(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.arange(5)}
    save_file(tensors, folder / "part-1.safetensors")
    torch.save(tensors, folder / "zipped.pth")
    torch.save({"state_dict": tensors}, folder / "old.pth", _use_new_zipfile_serialization=False)
    index = {"weight_map": {"a": "part-1.safetensors", "b": "part-1.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _open_weights(folder: Path) -> Any:
    from topgraft.backbones.weights import read_weights

    return _first_error(
        lambda: read_weights(folder),
        *(lambda n=n: read_weights(folder / n) for n in ("zipped.pth", "old.pth")),
    )


def _first_error(*calls: Callable[[], Any]) -> Any:
    """The results of all calls, each made whatever became of those before; then the first error."""
    found, errors = [], []
    for call in calls:
        try:
            found.append(call())
        except TopgraftError as error:  # noqa: PERF203 (each is tried whatever became of the others)
            errors.append(error)
    if errors:
        raise errors[0]
    return found


def _network() -> Any:
    from small_networks import maps

    return maps(depth=1, channels=4)


def _graft(folder: Path) -> None:
    from served import CLASSES
    from small_networks import backbone_of, example_maps, graft_of

    from topgraft.saved import describe, save

    backbone = backbone_of(_network(), example_maps())
    graft = graft_of(backbone.chain, 2, 1, hidden=[4])
    told = describe(
        graft,
        backbone,
        classes=CLASSES,
        columns={},
        precision="fp32",
        calibration={"temperature": 1.0, "scores": [0.1, 0.5], "examples": "2 examples"},
    )
    save(folder, graft, backbone.preprocess, told)


def _open_graft(folder: Path, module: Any = None) -> Any:
    from small_networks import example_maps

    from topgraft.data.unlabelled import Row

    rows = [Row("0", example_maps(1)[0].numpy())]
    return _predicted(folder, rows, module if module is not None else _network())


def _predicted(folder: Path, rows: list[Any], module: Any = None) -> Any:
    from topgraft.predict import Predictor
    from topgraft.saved import open_model
    from topgraft.serve.described import described, predict_schema
    from topgraft.serve.limits import Limits

    model = open_model(folder, module=module)
    if model.modality != "row":  # which are not served
        json.dumps([predict_schema(model, Limits()), str(described(model, "m", None, Limits()))])
    threshold = None if model.calibration is None else model.calibration.threshold(0.9)
    found = Predictor(model).batch(rows)
    return [p.row(model.classes, model.outputs) for p in found], threshold


def _rows_graft(folder: Path) -> None:
    from made_rows import as_read, table
    from small_networks import graft_of

    from topgraft.backbones import load
    from topgraft.backbones.row_preprocess import RowPreprocess
    from topgraft.data.columns import Rows
    from topgraft.saved import describe, save

    frame = table(40)[["age", "town"]]
    columns = as_read(frame)
    backbone = load("rows/resnet", preprocess=RowPreprocess.of(Rows.of(columns)))
    graft = graft_of(backbone.chain, 2, 1)
    save(
        folder,
        graft,
        backbone.preprocess,
        describe(graft, backbone, classes="abc", columns={}, precision="fp32"),
    )


def _open_rows_graft(folder: Path) -> Any:
    from topgraft.data.unlabelled import Row

    return _predicted(folder, [Row("0", {"age": 41.5, "town": "Ulm"}), Row("1", {"age": None, "town": None})])


def _run(folder: Path) -> None:
    """A finished fit on texts, and the file of a comparison beside it."""
    from command_line import called, tiny_job
    from compared import comparison_file

    place = folder.parent / f"{folder.name}-job"
    job = tiny_job(place)
    done = called(
        *job.arguments(folder / "run", "--keep", "2", "--freeze", "1", "--epochs", "1", "--budget", "20")
    )
    assert done.status == 0, done.err
    comparison_file(folder / "compared.json")


def _open_run(folder: Path) -> Any:
    """All that reads a run but its figures, which take seconds."""
    from topgraft.plan import Plan
    from topgraft.report.comparison import gather_comparison
    from topgraft.run import RunFolder

    run = folder / "run"
    return _first_error(
        lambda: Plan.read(run / "plan.json"),
        lambda: RunFolder.check(run, overwrite=True),
        lambda: _gathered(run),
        lambda: gather_comparison(folder / "compared.json"),
    )


def _gathered(run: Path) -> Any:
    """The numbers of a report, without its figures."""
    from topgraft.report.damage import drawing, told_damaged
    from topgraft.report.numbers import gather
    from topgraft.report.reports import weights_title

    with told_damaged(run):
        document = gather(run)
        json.dumps([document, weights_title(document["weights"]), drawing(run / "chain.svg")])


def _open_whole_report(folder: Path) -> Any:
    from topgraft.report.reports import write_report

    write_report(folder / "run", folder / "page.html")
    write_report(folder / "compared.json", folder / "compared.html")


def _trained() -> Any:
    import torch
    from served import graft_model
    from small_networks import backbone_of, example_maps

    model = graft_model(backbone_of(_network(), example_maps()), 2, 1)
    groups = [
        {"params": [p], "names": [n]}
        for n, p in model.graft.named_parameters()
        if p.requires_grad and n.startswith(("body.", "head."))
    ]
    return model.graft, torch.optim.AdamW(groups)


def _checkpoint(folder: Path) -> None:
    """Its texts as JSON files, so that they are changed as JSON; opening packs them with valid checksums."""
    from topgraft.health import Reading
    from topgraft.history import Epoch, History

    epochs = [Epoch(i, 1.0, 1.0, 0.5, 1e-3, 0.1) for i in range(2)]
    readings = [Reading(**dict.fromkeys(Reading.__dataclass_fields__, 1))]
    history = History(epochs=epochs, marks=[1.0, 0.0], readings=readings)
    (folder / "history.json").write_text(json.dumps(history.to_json()))
    (folder / "amid.json").write_text(json.dumps([3, 1.5, 8, 0.5]))


def _open_checkpoint(folder: Path) -> Any:
    from topgraft.checkpoint import restore, save
    from topgraft.files import read_tensors, write_tensors
    from topgraft.history import History

    graft, optimizer = _trained()
    place = folder / "state.safetensors"
    save(place, graft, optimizer, History(), {})
    tensors, metadata = read_tensors(place)
    for name in ("history", "amid"):
        with _as_error(folder / f"{name}.json"):
            metadata[name] = (folder / f"{name}.json").read_text()
    import torch

    write_tensors(place, tensors | {"random.0": torch.get_rng_state()}, metadata)
    found = restore(place, graft, optimizer)
    return None if found is None else found[0].to_json()


@contextmanager
def _as_error(path: Path) -> Iterator[None]:
    """What the example itself, not topgraft, can't read ends like a refusal."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise TopgraftError(f"{path} can't be read") from error


def _store(folder: Path) -> None:
    import torch

    from topgraft.features.store import Store

    store = Store(folder)
    shelf = store.shelf({"what": "state", "cut": 2, "blocks": [{"module": "a", "when": "exit"}] * 2})
    shelf.append(["e1", "e2"], {"x": torch.arange(6.0).reshape(2, 3), "t": [torch.ones(1), torch.ones(4)]})
    store.set_limit(10**9)


def _open_store(folder: Path) -> Any:
    from topgraft.features.store import Store

    store = Store(folder)
    for shelf in store.shelves():
        str(shelf)
        shelf.examples()
    _ = store.size(), str(store.limit)
    shelf = store.shelf({"what": "state", "cut": 2, "blocks": [{"module": "a", "when": "exit"}] * 2})
    found = shelf.read(["e2", "e1"])
    return {name: [row.tolist() for row in rows] for name, rows in found.items()}


def _bert(folder: Path) -> None:
    from hub_cache import tiny_bert

    tiny_bert(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"feature_extractor_type": "x"}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16}))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")


def _open_bert(folder: Path) -> Any:
    from topgraft.backbones import load

    backbone = load(f"hf/{folder}")
    return len(backbone.chain), backbone.lines() and None, backbone.preprocess.batch(["a film"]) and None


def _catalogue(folder: Path) -> None:
    from hub_cache import snapshot, tiny_bert

    place = snapshot(folder / "hub", "us/tiny")
    tiny_bert(place)
    (place / "preprocessor_config.json").write_text(
        json.dumps({"feature_extractor_type": "x", "sampling_rate": 1})
    )


def _open_catalogue(folder: Path) -> Any:
    from unittest.mock import patch

    from huggingface_hub import constants

    from topgraft.backbones.catalogue import _modality_of
    from topgraft.backbones.hub import cached_models

    with patch.object(constants, "HF_HUB_CACHE", str(folder / "hub")):
        return [(name, _modality_of(name)) for name in cached_models()]


def _preprocessing(folder: Path) -> None:
    from hub_cache import tiny_bert

    from topgraft.backbones import load
    from topgraft.backbones.picture_preprocess import PicturePreprocess
    from topgraft.backbones.sound_preprocess import SoundPreprocess

    (folder / "bert").mkdir()
    tiny_bert(folder / "bert")
    kinds = {
        "picture": PicturePreprocess((8, 8), (9, 9)),
        "sound": SoundPreprocess(),
        "text": load(f"hf/{folder / 'bert'}").preprocess,
    }
    for name, one in kinds.items():
        (folder / name).mkdir()
        one.save(folder / name)
    import shutil

    shutil.rmtree(folder / "bert")


def _open_preprocessing(folder: Path) -> Any:
    import numpy as np
    from PIL import Image

    from topgraft.backbones import open_preprocess
    from topgraft.data.sounds import Sound

    examples = {
        "picture": Image.new("RGB", (12, 9)),
        "sound": Sound(np.zeros(16_000, np.float32), 16_000),
        "text": "a good film",
    }

    def used(name: str) -> None:
        found = open_preprocess(folder / name)
        found.batch([examples[name]])
        json.dumps([found.lines(), found.describe()])

    return _first_error(*(lambda n=n: used(n) for n in examples))


TABLES = {
    "commas.csv": 'text,label\na film,good\n"quoted, and\nlong",bad\nthird,good\nfourth,bad\n',
    "tabs.tsv": "text\tlabel\na film\tgood\nother\tbad\nthird\tgood\nfourth\tbad\n",
    "lines.jsonl": '{"text": "a", "label": "x"}\n{"text": "b", "label": 3}\n' * 3,
    "list.json": '[{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]',
}


def _tables(folder: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    for name, text in TABLES.items():
        (folder / name).write_text(text)
    features = {"info": {"features": {"label": {"names": ["x", "y"], "_type": "ClassLabel"}}}}
    table = pa.table({"text": list("abcd"), "label": [0, 1, 1, 0], "n": [0.5, None, 2.0, 1.0]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    parquet.write_table(table, folder / "table.parquet")


def _open_tables(folder: Path) -> Any:
    from topgraft.data import read

    names = [*TABLES, "table.parquet"]
    return _first_error(*(lambda n=n: len(read(folder / n)) for n in names))


PICTURES = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO")


def _pictures(folder: Path) -> None:
    from PIL import Image

    for form in PICTURES:
        picture = Image.linear_gradient("L").resize((24, 16)).convert("P" if form == "GIF" else "RGB")
        picture.save(folder / f"picture.{form.lower()}", form)


def _open_pictures(folder: Path) -> Any:
    from topgraft.data.pictures import as_rgb, open_picture, thumbnail
    from topgraft.serve.inputs import pixels

    def opened(name: str) -> Any:
        found = as_rgb(open_picture(folder / name))
        thumbnail(found)
        pixels((folder / name).read_bytes())
        return found.size

    return _first_error(*(lambda f=f: opened(f"picture.{f.lower()}") for f in PICTURES))


def _sounds(folder: Path) -> None:
    import soundfile
    from made_sounds import FORMATS, tone

    for form, rate in FORMATS:
        soundfile.write(folder / f"sound.{form}", tone("bell", 1, rate=rate, seconds=0.1), rate)
    soundfile.write(folder / "sound.aiff", tone("bell", 1, seconds=0.05), 16_000)


def _open_sounds(folder: Path) -> Any:
    from topgraft.data.sounds import open_sound

    names = ("wav", "flac", "ogg", "mp3", "aiff")
    return _first_error(*(lambda n=n: open_sound(folder / f"sound.{n}").seconds for n in names))


def _json_lines(folder: Path) -> None:
    (folder / "request.json").write_text(json.dumps({"arrays": [[[1, 2], [3, 4]], [[0.5, 1], [1, 1]]]}))
    (folder / "texts.json").write_text(json.dumps({"texts": ["a", "b"]}))


def _open_json_lines(folder: Path) -> Any:
    from topgraft.serve.inputs import Refused, rows_of_json

    with _as_error(folder):
        bodies = [(folder / f"{name}.json").read_bytes() for name in ("request", "texts")]
    try:
        for body, modality in zip(bodies, ("array", "text"), strict=True):
            [str(row) for row in rows_of_json(body, modality, most=8)]
    except Refused as error:
        raise TopgraftError(error.message) from error


READERS: dict[str, Reader] = {
    "safetensors": Reader(_tensors, _open_tensors),
    "weights": Reader(_weights, _open_weights),
    "graft": Reader(_graft, _open_graft),
    "graft of rows": Reader(_rows_graft, _open_rows_graft),
    "run": Reader(_run, _open_run),
    "checkpoint": Reader(_checkpoint, _open_checkpoint, turned=False),
    "store": Reader(_store, _open_store, exact=True),
    "hub folder": Reader(_bert, _open_bert),
    "catalogue": Reader(_catalogue, _open_catalogue),
    "preprocessing": Reader(_preprocessing, _open_preprocessing),
    "tables": Reader(_tables, _open_tables),
    "pictures": Reader(_pictures, _open_pictures),
    "sounds": Reader(_sounds, _open_sounds),
    "requests": Reader(_json_lines, _open_json_lines, turned=False),
}
SLOW = {"whole report": Reader(_run, _open_whole_report)}
"""Those that take seconds each time."""
