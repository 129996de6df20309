from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from packaged_data import pictures_of
from PIL import Image

from topgraft.serve.inputs import Refused, array_row, column_names, file_row, pixels, rows_of_json, weights


def test_texts_and_their_errors_are_those_of_predict(tmp_path: Path):
    from topgraft.data.unlabelled import rows

    texts = ["a film", "", "  ", None, 7, 0.5, "ä\n\0", "x" * 5000]
    table = tmp_path / "texts.jsonl"
    table.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts if t not in (7, 0.5)))
    found = rows_of_json(json.dumps({"texts": texts}).encode(), "text", most=9)
    assert [row.name for row in found] == [str(i) for i in range(8)]
    same = [(row.value, row.error) for row, text in zip(found, texts, strict=True) if text not in (7, 0.5)]
    assert same == [(row.value, row.error) for row in rows([str(table)], modality="text", column="text")]
    assert [found[i].value for i in (4, 5)] == ["7", "0.5"]


@pytest.mark.parametrize("value", [["a"], {"a": 1}, "\ud800"])
def test_what_is_no_text_is_the_error_of_its_row(value: object):
    (row, other) = rows_of_json(json.dumps({"texts": [value, "b"]}).encode(), "text", most=2)
    assert row.value is None
    assert "not a text" in str(row.error)
    assert (other.value, other.error) == ("b", None)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "can't be read as JSON"),
        (b'{"texts": ["a"', 400, "can't be read as JSON"),
        (b"\xff\xfe\x00", 400, "can't be read as JSON"),
        (b'{"texts": [NaN]}', 400, "NaN is not a number of JSON"),
        (b"[" * 200_000, 400, "can't be read as JSON"),
        (b'{"texts": [' + b"9" * 5000 + b"]}", 400, "can't be read as JSON"),
        (b'["a"]', 422, "got a list"),
        (b"null", 422, "got null"),
        (b"{}", 422, "got no such key"),
        (b'{"texts": "a"}', 422, "a list, got a text"),
        (b'{"texts": {"0": "a"}}', 422, "a list, got an object"),
        (b'{"text": ["a"]}', 422, 'got the key "text". Nearest: texts.'),
        (b'{"texts": ["a"], "more": 1}', 422, 'got the key "more"'),
        (b'{"texts": []}', 422, "holds no input"),
        (b'{"texts": ["a", "b", "c"]}', 413, "3 inputs in one request. Expected at most 2"),
    ],
)
def test_what_is_no_list_of_texts_is_refused_with_its_reason(body: bytes, status: int, said: str):
    with pytest.raises(Refused, match=r".") as refused:
        rows_of_json(body, "text", most=2)
    assert refused.value.status == status
    assert said in refused.value.message


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([[1, 2], [3]], "lists of different lengths"),
        ([], "no numbers"),
        ([[]], "no numbers"),
        (["1"], "not a list of numbers"),
        ([None], "not a list of numbers"),
        ([10**400], "not a list of numbers"),
        ([1e39], "too large"),
        (3, "a number, not a list"),
        ("1 2", "a text, not a list"),
        ({"0": 1}, "an object, not a list"),
    ],
)
def test_what_is_no_array_is_the_error_of_its_row(value: object, said: str):
    row = array_row("4", value)
    assert (row.name, row.value) == ("4", None)
    assert said in str(row.error)


def test_arrays_have_the_numbers_and_the_shape_that_were_sent():
    given = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    row = array_row("0", json.loads(json.dumps(given.tolist())))
    assert row.error is None
    assert np.array_equal(np.asarray(row.value), given)


def test_a_picture_keeps_the_name_that_it_was_sent_with():
    assert file_row("../a.png", b"x", 3).name == "../a.png"
    assert [file_row(name, b"x", 3).name for name in (None, "")] == ["3", "3"]
    assert file_row("\udcff.png", b"x", 0).name == "\\udcff.png"


def test_the_weight_of_a_picture_is_its_pixels_even_where_a_few_bytes_claim_many():
    picture = pictures_of("food", 0, 1)[0]
    with Image.open(picture) as opened:
        width, height = opened.size
    sent = [file_row("a", picture.read_bytes(), 0), file_row("b", b"nothing", 1)]
    assert [weight for _, weight in weights(sent, "picture")] == [width * height, 0]
    assert pixels(bomb(9000, 9000)) == 81_000_000


def test_the_weight_of_a_sound_is_its_seconds():
    written = io.BytesIO()
    soundfile.write(written, np.zeros((17_000, 2), dtype=np.float32), 8_000, format="FLAC")
    sent = [file_row("a", written.getvalue(), 0), file_row("b", b"nothing", 1), file_row("c", b"", 2)]
    assert [weight for _, weight in weights(sent, "sound")] == [3, 0, 0]


def test_rows_are_objects_and_what_is_none_is_the_error_of_its_row():
    sent = [{"age": 31, "town": None}, {}, [31], None, "age", 3]
    rows = rows_of_json(json.dumps({"rows": sent}).encode(), "row", most=6)
    assert [row.value for row in rows] == [sent[0], {}, None, None, None, None]
    assert [row.error is None for row in rows] == [True, True, False, False, False, False]
    assert str(rows[2].error).startswith("a list, not an object with cells")


def test_of_columns_that_are_not_known_only_some_are_named_and_shortened():
    many = {f"{i}-{'x' * 200}": 1 for i in range(5_000)} | {"age": 1}
    names = column_names(
        rows_of_json(json.dumps({"rows": [many]}).encode(), "row", most=1), {"age": "number"}
    )
    assert len(names) == 101
    assert names[-1] == "age"
    assert max(map(len, names)) == 80


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that claims many pixels."""
    written = io.BytesIO()
    Image.new("L", (1, 1)).save(written, "PNG")
    content = bytearray(written.getvalue())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    return bytes(content)
