"""Data sets of the Hugging Face hub: from its cache, offline, and from folders laid out the same way."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import soundfile
from hub_datasets import CLASSES, pictures, snapshot_of, use_datasets, write_pictures, write_texts
from made_sounds import tone
from packaged_data import pictures_of
from pyarrow import parquet
from served_hub import served_hub

from topgraft.data import open_picture, read, read_test, rows
from topgraft.data.hub import is_hub_name
from topgraft.errors import TopgraftError


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_datasets(tmp_path, monkeypatch)


def test_pictures_of_the_hubs_cache_with_the_names_of_their_classes(hub: Path) -> None:
    write_pictures(snapshot_of(hub, "org/pictures"))
    data = read("hf/org/pictures")
    assert (data.modality, data.classes, len(data)) == ("picture", CLASSES, 16)
    assert data.columns == {"path": "image", "label": "label"}
    expected = open_picture(pictures_of("food", 0, 1)[0])
    assert np.array_equal(np.asarray(data.decode(0)), np.asarray(expected))
    assert any("revision 0123456789ab" in note for note in data.notes)
    assert any('"train" is read; there are also test' in note for note in data.notes)
    test = read_test("hf/org/pictures:test", data)
    assert (len(test), test.classes) == (8, CLASSES)
    assert set(test.digests).isdisjoint(data.digests)


def test_its_split_is_predicted_row_by_row(hub: Path) -> None:
    write_pictures(snapshot_of(hub, "org/pictures"))
    found = list(rows(["hf/org/pictures:test"], modality="picture"))
    assert [row.name for row in found] == [str(i) for i in range(8)]
    assert found[0].value == pictures_of("food", 8, 1)[0].read_bytes()


def test_code_beside_the_data_never_runs(hub: Path, tmp_path: Path) -> None:
    snapshot = write_pictures(snapshot_of(hub, "org/coded"))
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w').close()\n"
    for name in ("coded.py", "org.py", "__init__.py", "conftest.py"):
        (snapshot / name).write_text(code)
    assert len(read("hf/org/coded")) == 16
    (snapshot / f"{snapshot.name}.py").write_text(code)
    with pytest.raises(TopgraftError, match="code of its own, which is never run"):
        read("hf/org/coded")
    (snapshot_of(hub, "org/script") / "script.py").write_text(code)
    with pytest.raises(TopgraftError, match=r"code of its own .* never run.*refs/convert/parquet"):
        read("hf/org/script")
    assert not ran.exists()


def test_texts_with_configurations_described_by_the_card(hub: Path) -> None:
    snapshot = snapshot_of(hub, "texts")
    write_texts(snapshot / "a" / "some.jsonl")
    write_texts(snapshot / "b" / "more.jsonl", ("person", "food"))
    (snapshot / "README.md").write_text(
        "---\nconfigs:\n- config_name: a\n  data_files: a/*.jsonl\n"
        "- config_name: b\n  data_files:\n  - split: validation\n    path: b/*.jsonl\n---\n"
    )
    assert read("hf/texts:a").classes == ("animal", "food")
    assert read("hf/texts:b").classes == ("food", "person")
    assert read("hf/texts:b:validation").modality == "text"
    for given, said in {
        "hf/texts": "several configurations. Give one of a, b",
        "hf/texts:c": 'no configuration "c"',
        "hf/texts:b:test": 'no configuration or split "test".* Its splits: validation',
        "hf/texts:x:y:z": "no name of a data set",
    }.items():
        with pytest.raises(TopgraftError, match=said):
            read(given)


@pytest.mark.parametrize("pattern", ["../../secret.csv", "/etc/passwd", "https://127.0.0.1:9/a.csv"])
def test_a_card_never_leads_out_of_its_folder(hub: Path, pattern: str) -> None:
    snapshot = write_pictures(snapshot_of(hub, "org/leads"))
    (snapshot.parent.parent / "secret.csv").write_text("text,label\na,b\nc,d\n")
    (snapshot / "README.md").write_text(f"---\nconfigs:\n- config_name: a\n  data_files: {pattern}\n---\n")
    with pytest.raises(TopgraftError, match="names files out of its folder"):
        read("hf/org/leads")


def test_a_card_that_is_too_large_to_be_looked_through_is_refused(hub: Path) -> None:
    snapshot = write_pictures(snapshot_of(hub, "org/large"))
    leads = "---\nconfigs:\n- config_name: a\n  data_files: https://127.0.0.1:9/a.csv\n---\n"
    (snapshot / "README.md").write_text(leads + "x" * (1 << 24))
    with pytest.raises(TopgraftError, match=r"its README.md has more than 16 MB, and is not read"):
        read("hf/org/large")


def test_files_that_are_found_out_of_the_folder_are_not_read(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = write_pictures(snapshot_of(hub, "org/leads"))
    (snapshot.parent.parent / "secret.csv").write_text("text,label\na,b\nc,d\n")
    (snapshot / "README.md").write_text(
        "---\nconfigs:\n- config_name: a\n  data_files: ../../secret.csv\n---\n"
    )
    monkeypatch.setattr("topgraft.data.hub._card", lambda _: {})  # as if the library read the card otherwise
    with pytest.raises(TopgraftError, match="names files out of its folder"):
        read("hf/org/leads")


def test_paths_in_its_cells_never_lead_out_of_the_folder(hub: Path, photos: Path) -> None:
    inside = snapshot_of(hub, "org/paths")
    (inside / "data").mkdir()
    outside = next((photos / "food").iterdir())
    mine = pictures_of("tools", 0, 1)[0]
    (inside / "mine.webp").write_bytes(mine.read_bytes())
    cells = [{"bytes": None, "path": path} for path in (str(outside), "mine.webp", "../../refs/main")]
    known = [{"bytes": path.read_bytes(), "path": "x"} for path in pictures_of("food", 0, 3)]
    columns = {"image": [*cells, *known], "label": [0, 1, 0, 0, 0, 1]}
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
    )
    schema = datasets.Dataset.from_dict(columns, features=features).data.table
    parquet.write_table(schema, inside / "data" / "train.parquet")
    data = read("hf/org/paths", max_unreadable=0.5)
    assert [out.reason for out in data.left_out] == ["leads out of the folder of the data"] * 2
    assert len(data) == 4


def test_sounds_and_columns_that_are_declared(hub: Path) -> None:
    snapshot = snapshot_of(hub, "org/sounds")
    contents = []
    for number in range(6):
        file = io.BytesIO()
        soundfile.write(file, tone("bell" if number % 2 else "organ", number), 16_000, format="FLAC")
        contents.append({"bytes": file.getvalue(), "path": f"{number}.flac"})
    columns = {"clip": contents, "kind": [0, 1] * 3, "n": list(range(6))}
    kinds = {"clip": {"_type": "Audio"}, "kind": {"names": ["organ", "bell"], "_type": "ClassLabel"}}
    number = {"n": {"dtype": "int64", "_type": "Value"}}
    described = json.dumps({"info": {"features": kinds | number}})
    table = pa.table(columns).replace_schema_metadata({"huggingface": described})
    parquet.write_table(table, snapshot / "train.parquet")
    data = read("hf/org/sounds")
    assert (data.modality, data.classes, len(data)) == ("sound", ("organ", "bell"), 6)
    assert data.columns == {"path": "clip", "label": "kind"}


def test_a_folder_laid_out_as_one_and_one_that_was_saved(hub: Path, tmp_path: Path) -> None:
    del hub
    folder = write_pictures(tmp_path / "mine")
    given = read(str(folder))
    named = read(f"hf/{folder}:test")
    assert (len(given), len(named)) == (16, 8)
    pictures(0, 8).save_to_disk(tmp_path / "saved")
    assert read(tmp_path / "saved").digests == given.digests


def test_a_folder_of_pictures_is_no_repository_and_a_path_that_is_there_is_no_name(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "photos").symlink_to(photos)
    (photos / "README.md").write_text("# Photos\n")
    try:
        assert not is_hub_name("hf/photos")
        assert len(read("hf/photos")) == 36
    finally:
        (photos / "README.md").unlink()


def test_what_is_neither_cached_nor_within_reach(hub: Path) -> None:
    write_pictures(snapshot_of(hub, "org/pictures"))
    with pytest.raises(
        TopgraftError, match=r"neither in the local cache .* HF_HUB_OFFLINE.* Nearest: org/pictures"
    ):
        read("hf/org/picture")
    with pytest.raises(TopgraftError, match="at v9 is neither"):
        read("hf/org/pictures@v9")
    with pytest.raises(TopgraftError, match="no name of a data set"):
        read("hf/a b!")


def test_data_on_disk_that_is_cut_short_is_told(hub: Path) -> None:
    snapshot = write_pictures(snapshot_of(hub, "org/cut"))
    for path in (snapshot / "data").iterdir():
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(TopgraftError, match="org/cut can't be read as a Hugging Face data set"):
        read("hf/org/cut")


def test_a_split_of_the_data_holds_none_of_the_pictures(hub: Path) -> None:
    write_pictures(snapshot_of(hub, "org/pictures"))
    data = read("hf/org/pictures")
    part = data.subset(range(3, 9))
    assert not isinstance(part.inputs, list)
    assert part.decode(0).tobytes() == data.decode(3).tobytes()


READ = """
import json, sys
from topgraft.data import read
from topgraft.errors import TopgraftError
for given in sys.argv[1:]:
    try:
        data = read(given)
        print(json.dumps([len(data), list(data.classes), data.digests[0], list(data.notes)]))
    except TopgraftError as error:
        print(json.dumps(str(error)))
"""


def said_of(root: Path, *given: str, **more: str) -> list[Any]:
    """What is read in a program of its own, whose caches lie below ``root``."""
    environment = {**os.environ, "HF_HOME": str(root / "home"), "PYTHONWARNINGS": "ignore"}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-c", READ, *given]
    run = subprocess.run(command, env=environment | more, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_a_data_set_is_fetched_from_the_hub_and_then_found_without_it(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "there")
    (folder / "code.py").write_text("raise SystemExit('ran')")
    (folder / "model.pkl").write_bytes(b"no data")
    with served_hub(folder, "org/pictures") as (address, asked):
        train, gone = said_of(tmp_path, "hf/org/pictures", "hf/org/nothing", HF_ENDPOINT=address)
    expected = hashlib.sha256(pictures_of("food", 0, 1)[0].read_bytes()).hexdigest()
    assert (train[0], train[1], train[2]) == (16, list(CLASSES), expected)
    assert "The hub has no data set org/nothing" in gone
    assert not any(".py" in path or ".pkl" in path for path in asked)
    (again,) = said_of(tmp_path, "hf/org/pictures:test", HF_HUB_OFFLINE="1")
    assert again[0] == 8, again


def test_of_several_configurations_only_what_is_needed_is_fetched(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    for name in "abc":
        write_texts(folder / name / "some.jsonl", ("person" if name == "b" else "animal", "food"))
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*.jsonl\n" for name in "abc")
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    with served_hub(folder, "texts") as (address, asked):
        (found,) = said_of(tmp_path, "hf/texts:b", HF_ENDPOINT=address)
    assert found[1] == ["food", "person"]
    assert {path.rpartition("resolve/")[2].partition("/")[2] for path in asked if ".jsonl" in path} == {
        "a/some.jsonl",
        "b/some.jsonl",
    }
