"""What the user is told about the data, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from topgraft.errors import TopgraftError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from topgraft.data.types import Found, LeftOut

_NOUNS = {"picture": "picture", "text": "text", "sound": "sound", "array": "example", "row": "row"}


def printable(name: str) -> str:
    """The name with bytes that are not UTF-8 written as escapes, so that it can be printed and saved."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def listed(names: Sequence[str], *, limit: int = 3) -> str:
    """The first few names, and how many more there are.

    Examples
    --------
    >>> listed(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit:,} more"


def number(count: int, one: str, several: str | None = None) -> str:
    """A count with its noun.

    Examples
    --------
    >>> number(1, "picture"), number(1200, "picture")
    ('1 picture', '1,200 pictures')
    """
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def sound_notes(seconds: NDArray[np.float64]) -> list[str]:
    r"""How long sounds last, and what is not looked for in them.

    Examples
    --------
    >>> import numpy as np
    >>> print(*sound_notes(np.array([0.52, 3.0])), sep="\n")
    They last 0.5 to 3.0 s, 3.5 s together.
    Duplicates are found by the bytes of the files; near duplicates of sounds are not looked for.
    """
    if not len(seconds):
        return []
    last = f"{seconds.min():,.1f} to {seconds.max():,.1f} s, {seconds.sum():,.1f} s together"
    return [
        f"They last {last}.",
        "Duplicates are found by the bytes of the files; near duplicates of sounds are not looked for.",
    ]


def left_out_notes(found: Found, left_out: Sequence[LeftOut], total: int, max_unreadable: float) -> list[str]:
    """What was left out, and why.

    Raises
    ------
    TopgraftError
        If that is everything, or more than the share ``max_unreadable`` of ``total``.
    """
    if not left_out:
        return []
    noun = _NOUNS[found.modality]
    of = f"{len(left_out):,} of {number(total, noun)} could not be used"
    limit = f"limit {max_unreadable * 100:g} %, see --max-unreadable"
    width = max(len(out.name) for out in left_out[:5])
    lines = [f"  {out.name:<{width}}  {out.reason}" for out in left_out[:5]]
    if len(left_out) > 5:
        lines.append(f"  ... and {len(left_out) - 5:,} more")
    shown = "\n".join(lines)
    if len(left_out) == total:
        raise TopgraftError(f"{found.origin}: none of {number(total, noun)} could be used:\n{shown}")
    if len(left_out) > max_unreadable * total:
        raise TopgraftError(f"{found.origin}: {of}, which is too many ({limit}):\n{shown}")
    return [f"{of} and {'was' if len(left_out) == 1 else 'were'} left out ({limit}):\n{shown}"]


def duplicate_notes(
    names: Sequence[str],
    sets: Sequence[Sequence[int]],
    exact: Sequence[Sequence[int]],
    *,
    conflicts: Sequence[Sequence[int]],
    labels: Sequence[str] | None,
) -> list[str]:
    """How many duplicates there are, and which of them have different labels."""
    notes = []
    if sets:
        shown = [" ~ ".join(names[i] for i in s[:2]) for s in sets]
        exactly = sum(len(s) for s in exact)
        notes.append(
            f"{number(sum(len(s) for s in sets), 'example')} in {number(len(sets), 'set')} are duplicates "
            f"({exactly:,} exact, the others nearly so) and stay on one side of every split: {listed(shown)}."
        )
        largest = max(len(s) for s in sets)
        if largest > 50 and largest > 0.1 * len(names):
            notes.append(
                f"One set of duplicates holds {number(largest, 'example')}; if these differ in what matters, "
                "read the data without near duplicates (near_duplicates=False)."
            )
    if labels is None:
        return notes

    def with_labels(indices: Sequence[int], sign: str) -> str:
        return sign.join(f"{names[i]} ({labels[i]})" for i in indices)

    if conflicts:
        same_input = number(len(conflicts), "input has", "inputs have")
        shown = [with_labels(s[:3], " = ") for s in conflicts]
        notes.append(f"{same_input} different labels at different places: {listed(shown)}.")
    told = {i for s in conflicts for i in s}
    mixed = [s for s in sets if len({labels[i] for i in s}) > 1 and told.isdisjoint(s)]
    if mixed:
        nearly = number(len(mixed), "set of near duplicates has", "sets of near duplicates have")
        shown = [with_labels(s[:2], " ~ ") for s in mixed]
        notes.append(f"{nearly} different labels: {listed(shown)}.")
    return notes
