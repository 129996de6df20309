from __future__ import annotations

from topgraft.data.kinds import as_kind, kind_of, most_are


def test_a_tie_and_nothing_at_all_are_pictures() -> None:
    assert most_are([]) == most_are(["a.wav", "b.png"]) == most_are(["a.txt"]) == "picture"
    assert most_are(["a.wav", "b.txt"]) == "sound"


def test_only_pictures_and_sounds_are_files() -> None:
    assert [as_kind(m) for m in ("picture", "sound", "text", "array", None)] == [
        "picture",
        "sound",
        None,
        None,
        None,
    ]
    assert [kind_of(n) for n in ("a.webp", "a.opus", "a.csv")] == ["picture", "sound", None]
