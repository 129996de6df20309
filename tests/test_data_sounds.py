from __future__ import annotations

import contextlib
import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from made_sounds import tone, write_sounds
from packaged_data import pictures_of, write_table

from topgraft.data import ExampleError, Sound, SoundError, open_sound, read
from topgraft.data.sounds import is_sound_name, sound_of
from topgraft.data.unlabelled import rows
from topgraft.errors import TopgraftError

RATE = 16_000


def encoded(samples: np.ndarray, kind: str = "WAV", rate: int = RATE, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


SAMPLES = np.clip(tone("pluck", 0, seconds=1.5), -1, 1)
WAV = encoded(SAMPLES)
FLAC, OGG, OPUS, MP3, AIFF = (
    encoded(SAMPLES, kind, subtype=subtype)
    for kind, subtype in (("FLAC", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None), ("AIFF", None))
)


@pytest.mark.parametrize(
    ("content", "exact"), [(WAV, True), (FLAC, True), (AIFF, True), (OGG, False), (OPUS, False), (MP3, False)]
)
def test_each_format_gives_the_samples_that_were_written(content: bytes, exact: bool) -> None:
    sound = open_sound(content)
    assert (sound.rate, sound.samples.dtype, sound.samples.shape) == (RATE, np.float32, SAMPLES.shape)
    if exact:
        assert np.abs(sound.samples - SAMPLES).max() <= 1 / 2**15
    else:
        assert np.corrcoef(sound.samples, SAMPLES)[0, 1] > 0.95
    assert sound.seconds == 1.5


def test_several_channels_become_their_mean() -> None:
    sound = open_sound(encoded(np.stack([SAMPLES, np.zeros_like(SAMPLES), -0.5 * SAMPLES], axis=1), "FLAC"))
    assert np.abs(sound.samples - SAMPLES / 6).max() <= 1 / 2**15


def test_a_file_is_what_its_content_says_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(FLAC)
    assert np.array_equal(open_sound(tmp_path / "a.mp3").samples, open_sound(FLAC).samples)


def chunk(content: bytes, size: int) -> bytes:
    """A WAV file whose data chunk and whole say another size, as programs that write to a pipe do."""
    at = content.index(b"data") + 4
    return content[:4] + struct.pack("<I", size) + content[8:at] + struct.pack("<I", size) + content[at + 4 :]


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_from_a_pipe_that_does_not_know_its_length_is_whole(size: int) -> None:
    assert np.array_equal(open_sound(chunk(WAV, size)).samples, open_sound(WAV).samples)


def damaged(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(len(content) - middle)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file (0 bytes)"),
        (b"hello, I am no sound" * 20, "not a sound in a format that libsndfile reads"),
        (pictures_of("food", 0, 1)[0].read_bytes(), "not a sound in a format that libsndfile reads"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer, not the sound itself"),
        (WAV[: len(WAV) // 2], f"truncated after {len(WAV) // 2:,} bytes"),
        (WAV[:-1], f"truncated after {len(WAV) - 1:,} bytes"),
        (WAV[:40], "truncated after 40 bytes"),
        (AIFF[: len(AIFF) // 2], f"truncated after {len(AIFF) // 2:,} bytes"),
        (OGG[: len(OGG) * 2 // 3], f"truncated after {len(OGG) * 2 // 3:,} bytes"),
        (OPUS[: len(OPUS) * 2 // 3], f"truncated after {len(OPUS) * 2 // 3:,} bytes"),
        (MP3[: len(MP3) // 2], f"truncated after {len(MP3) // 2:,} bytes"),
        (FLAC[: len(FLAC) // 2], f"truncated or damaged (FLAC of {len(FLAC) // 2:,} bytes)"),
        (encoded(SAMPLES[:0]), "0 samples"),
        (encoded(np.full(100, np.nan), subtype="FLOAT"), "holds samples that are not finite"),
        (encoded(SAMPLES, "AU"), "a sound in the format AU; expected WAV, FLAC, OGG, MP3 or AIFF"),
        (encoded(SAMPLES, rate=400), "400 samples a second, not 1,000 to 192,000"),
        (encoded(np.zeros((10, 65))), "65 channels, over the limit of 64"),
    ],
)
def test_what_is_no_whole_sound_is_refused_with_its_reason(content: bytes, said: str) -> None:
    with pytest.raises(SoundError) as caught:
        open_sound(content)
    assert caught.value.reason == said


def test_a_sound_that_is_too_long_is_refused_by_its_header_before_it_is_decoded() -> None:
    silent = encoded(np.zeros(1_000 * 601, dtype=np.int16), "FLAC", rate=1_000)
    with pytest.raises(SoundError, match=r"^601\.0 s, over the limit of 600 s$"):
        open_sound(damaged(silent))  # decoding would say that it is damaged
    with pytest.raises(SoundError, match=r"^1\.5 s, over the limit of 1 s$"):
        open_sound(WAV, max_seconds=1)


def test_a_path_that_is_no_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(SoundError, match=r"nothing\.wav: no such file$"):
        open_sound(tmp_path / "nothing.wav")
    with pytest.raises(SoundError, match="a folder, not a file"):
        open_sound(tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([WAV, FLAC, OGG, OPUS, AIFF]), st.data())
def test_any_damage_is_an_error_of_its_example_or_a_finite_sound(content: bytes, data: st.DataObject) -> None:
    bad = bytearray(content)
    for at in data.draw(st.lists(st.integers(0, min(len(content), 600) - 1), min_size=1, max_size=6)):
        bad[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(SoundError):
        sound = open_sound(bytes(bad))
        assert len(sound.samples) > 0
        assert np.isfinite(sound.samples).all()


def test_decoded_sounds_are_checked_too() -> None:
    assert sound_of(Sound(SAMPLES.astype(np.float64), RATE)).samples.dtype == np.float32
    for wrong, said in (
        (Sound(np.zeros((2, 3), dtype=np.float32), RATE), "one channel"),
        (Sound(SAMPLES, 5), "samples a second"),
        (Sound(np.full(3, np.inf, dtype=np.float32), RATE), "not finite"),
        (Sound(np.zeros(601_000, dtype=np.float32), 1_000), "over the limit"),
        (3, "a int, not a sound"),
        (ExampleError("", "no sound"), "no sound"),
    ):
        with pytest.raises(ExampleError, match=said):
            sound_of(wrong)


def test_names_of_sounds() -> None:
    assert all(map(is_sound_name, ("a.wav", "b.c.FLAC", "a.ogg", "a.opus", "a.Mp3", "a.aiff")))
    assert not any(map(is_sound_name, ("a.txt", "wav", ".wav", "a.mp4", "a.png")))


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = write_sounds(tmp_path / "sounds", 2)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    for asked in (lambda: read(root), lambda: rows([str(root)], modality="sound"), lambda: open_sound(WAV)):
        with pytest.raises(TopgraftError, match=r"pip install 'topgraft\[sound\]'") as caught:
            asked()
        assert not isinstance(caught.value, ExampleError)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sounds(tmp_path_factory.mktemp("sounds") / "notes", 4)


def test_a_folder_of_sounds_is_read_in_all_formats(folder: Path) -> None:
    data = read(folder)
    assert (data.modality, data.classes) == ("sound", ("bell", "organ", "pluck"))
    assert [Path(n).name for n in data.names[:4]] == ["00.wav", "01.flac", "02.ogg", "03.mp3"]
    assert data.seconds is not None
    assert data.seconds.tolist() == [data.decode(i).seconds for i in range(len(data))]
    assert data.decode(2).rate == 44_100
    assert any("near duplicates of sounds are not looked for" in note for note in data.notes)
    some = data.subset([5, 0])
    assert some.seconds is not None
    assert some.seconds.tolist() == [data.seconds[5], data.seconds[0]]


def test_sounds_that_can_not_be_used_are_left_out_by_name_and_copies_are_found(tmp_path: Path) -> None:
    root = write_sounds(tmp_path, 4)
    (root / "bell" / "bad.wav").write_bytes(WAV[:5000])
    (root / "bell" / "empty.mp3").write_bytes(b"")
    (root / "bell" / "cover.jpg").write_bytes(pictures_of("food", 0, 1)[0].read_bytes())
    copy = root / "organ" / "copy.wav"
    copy.write_bytes((root / "bell" / "00.wav").read_bytes())
    data = read(root, max_unreadable=0.2)
    assert {Path(out.name).name: out.reason for out in data.left_out} == {
        "bad.wav": "truncated after 5,000 bytes",
        "empty.mp3": "an empty file (0 bytes)",
    }
    assert any("1 file is not a sound and was skipped" in note for note in data.notes)
    ((first, second),) = data.duplicates
    assert {data.names[first], data.names[second]} == {str(root / "bell" / "00.wav"), str(copy)}
    assert data.conflicts == data.duplicates
    assert data.groups[first] == data.groups[second]


def test_a_folder_of_both_is_read_as_what_is_asked_for(folder: Path, tmp_path: Path) -> None:
    root = write_sounds(tmp_path, 1)
    for number, name in enumerate(("bell", "organ")):
        (root / name / "a.webp").write_bytes(pictures_of("food", number, 1)[0].read_bytes())
    (root / "cover.webp").write_bytes(pictures_of("food", 2, 1)[0].read_bytes())
    sounds = read(root)
    assert (sounds.modality, len(sounds)) == ("sound", 3)
    assert any("3 files are not sounds and were skipped" in note for note in sounds.notes)
    assert not any("lies in" in note for note in sounds.notes)
    pictures = read(root, modality="picture")
    assert (pictures.modality, len(pictures)) == ("picture", 2)
    assert any("1 picture lies in" in note for note in pictures.notes)
    with pytest.raises(TopgraftError, match="holds sounds, not texts"):
        read(folder, modality="text")


def test_a_table_of_paths_of_sounds_is_recognised(folder: Path) -> None:
    paths = sorted(folder.rglob("*.*"))
    lines = [(str(p.relative_to(folder.parent)), p.parent.name) for p in paths]
    table = write_table(folder.parent / "notes.csv", [("file", "label"), *lines])
    data = read(table)
    assert data.modality == "sound"
    assert data.columns == {"path": "file", "label": "label"}
    assert any('paths of sounds are read from the column "file"' in note.lower() for note in data.notes)
    assert set(data.digests) == set(read(folder).digests)
    with pytest.raises(TopgraftError, match="which are not texts"):
        read(table, path="file", modality="text")
    (row, *_) = rows([str(table)], modality="sound", column="file")
    assert row.value == paths[0]


def test_lists_and_data_sets_from_python(folder: Path) -> None:
    paths = sorted(folder.rglob("*.*"))
    labels = [p.parent.name for p in paths]
    by_path = read([str(p) for p in paths], targets=labels)
    in_memory = read([open_sound(p) for p in paths], targets=labels)
    as_bytes = read([p.read_bytes() for p in paths], targets=labels, modality="sound")
    for data in (by_path, in_memory, as_bytes):
        assert data.modality == "sound"
        assert np.array_equal(data.decode(3).samples, open_sound(paths[3]).samples)
    assert by_path.digests == as_bytes.digests
    assert len(set(in_memory.digests)) == len(paths)
    with pytest.raises(TopgraftError, match=r"Expected a list of paths or of topgraft\.data\.Sound"):
        read(np.zeros((4, 100)), targets=[0, 1, 0, 1], modality="sound")


def test_columns_of_hugging_face_say_themselves_that_they_hold_sounds(folder: Path, tmp_path: Path) -> None:
    import datasets

    paths = sorted(folder.rglob("*.*"))
    cells = [{"bytes": p.read_bytes(), "path": p.stem} for p in paths]
    columns = {"audio": cells, "label": [p.parent.name for p in paths]}
    source = datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio(decode=False))
    source.to_parquet(tmp_path / "sounds.parquet")
    wanted = set(read(folder).digests)
    for where in (source, tmp_path / "sounds.parquet"):
        data = read(where)
        assert (data.modality, set(data.digests)) == ("sound", wanted)


def test_rows_for_prediction_are_files_and_folders_of_sounds(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no sound")
    found = list(rows([str(folder), str(tmp_path / "a.txt")], modality="sound"))
    assert len(found) == 13
    assert found[-1].error == 'not a sound (its name ends in ".txt")'
    with pytest.raises(TopgraftError, match="holds no sounds"):
        rows([str(tmp_path)], modality="sound")
