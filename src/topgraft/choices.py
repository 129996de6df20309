"""What the analyst may say for keep and freeze: a count, a share, a block's name, all, auto; or several."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from topgraft.errors import TopgraftError, did_you_mean

if TYPE_CHECKING:
    from topgraft.chain import Chain

AUTO = "auto"
_SHARE = re.compile(r"[+-]?\d{1,9}(\.\d{1,9})?", re.ASCII)
_COUNT = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_DECIMAL = re.compile(r"0?\.\d{1,9}|1\.0+", re.ASCII)


def resolve_keep(given: str | int, chain: Chain, source: str) -> int | None:
    """The number of blocks that ``keep`` means; ``None`` for ``auto``.

    Parameters
    ----------
    given
        ``auto``, a count, a share of the number of blocks such as ``60%`` (rounded to the nearest count,
        halves up, at least 1), a block's name (up to and with it; the name of a stage means its last block),
        or ``all``. A name that is a number is a count.
    chain
        Of the backbone.
    source
        The backbone's name, for messages.

    Raises
    ------
    TopgraftError
        If it is out of range or names no block.
    """
    return _resolve("keep", given, chain, source, most=len(chain), least=1)


def resolve_freeze(given: str | int, chain: Chain, source: str, keep: int) -> int | None:
    """The number of blocks that ``freeze`` means, of ``keep`` kept ones; ``None`` where it is open.

    As :func:`resolve_keep`; a share is of the kept blocks, ``all`` means all kept ones, and 0 is allowed: a
    share over 0 % freezes at least one block, so that it never turns into a mere initialiser by rounding. It
    is open (:func:`is_open`) with ``auto``, and where several are given, each of which must be valid.
    """
    if is_open(given):
        for one in _several(given):
            _resolve("freeze", one, chain, source, most=keep, least=0)
        return None
    return _resolve("freeze", given, chain, source, most=keep, least=0)


def is_open(given: str | int) -> bool:
    """Whether data decide: ``auto``, or several with commas between them.

    Examples
    --------
    >>> is_open("auto"), is_open("12,9,0"), is_open("12")
    (True, True, False)
    """
    return str(given).strip() == AUTO or "," in str(given)


def freezes_to_try(given: str | int, chain: Chain, source: str, keep: int, usual: Sequence[int]) -> list[int]:
    """How many blocks are frozen in each choice of an open ``freeze``, most first; all ``keep`` is none.

    Parameters
    ----------
    given
        ``auto``, or what :func:`resolve_freeze` takes, with commas between; ``auto`` among them adds the
        usual.
    chain, source
        Of the backbone.
    keep
        Blocks kept; what freezes more is left out.
    usual
        What is tried where nothing was named.
    """
    found: set[int] = set()
    for one in _several(given):
        count = resolve_freeze(one, chain, source, keep if one.endswith("%") else len(chain))
        found |= set(usual) if count is None else {count}
    return sorted((freeze for freeze in found if freeze < keep), reverse=True)


def _left_to_data(option: str, given: str | int) -> bool:
    return is_open(given) and (option == "freeze" or str(given).strip() == AUTO)


def _several(given: str | int) -> list[str]:
    return [one.strip() for one in str(given).split(",")]


def resolve_shown(
    keep: str | int | None, freeze: str | int | None, chain: Chain, source: str
) -> tuple[int | None, int | None]:
    """Keep and freeze where no data can decide: each a number, or ``None`` where it was not given.

    Parameters
    ----------
    keep, freeze
        As for :func:`resolve_keep` and :func:`resolve_freeze`; with freeze alone, every block is kept.
    chain, source
        Of the backbone.

    Raises
    ------
    TopgraftError
        As they do, and for ``auto``.
    """
    for option, given in (("keep", keep), ("freeze", freeze)):
        if given is not None and _left_to_data(option, given):
            raise TopgraftError(
                f"{option}={str(given).strip()} is decided on data, as `topgraft fit` does; "
                "`topgraft layers` has none.\n"
                f"{_valid(option, chain, 1 if option == 'keep' else 0, len(chain))}"
            )
    if freeze is None:
        return None if keep is None else resolve_keep(keep, chain, source), None
    kept = resolve_keep("all" if keep is None else keep, chain, source)
    return kept, resolve_freeze(freeze, chain, source, kept or len(chain))


def refuse_auto(option: str, given: str | int, chain: Chain, *, least: int, most: int) -> None:
    """Refuse what data decide where a graft is made without data.

    Raises
    ------
    TopgraftError
        With what decides on data, and what can be given.
    """
    if _left_to_data(option, given):
        raise TopgraftError(
            f"{option}={str(given).strip()} is decided on data, and a graft by itself has none: "
            "`tg.fit` decides, or `tg.probe` and `tg.advise` without a training.\n"
            f"{_valid(option, chain, least, most)}"
        )


def first_of(given: str | int, chain: Chain, source: str, keep: int) -> int:
    """The number of the block that is named, the first one of a stage.

    Parameters
    ----------
    given
        A number from 1 to ``keep``, or a name. A name that is a number is a number.
    chain, source
        Of the backbone.
    keep
        How many blocks there are to choose from.

    Raises
    ------
    TopgraftError
        If it is none of the kept blocks.
    """
    word = str(given).strip()
    names = [block.name for block in chain][:keep]
    if _COUNT.fullmatch(word):
        if 1 <= int(word) <= keep:
            return int(word)
    else:
        for number, name in enumerate(names, start=1):
            if name == word or name.startswith(f"{word}."):
                return number
    raise TopgraftError(
        f"{word} is none of the {keep} kept blocks of {source}.{did_you_mean(word, names)} "
        f'Give 1 to {keep}, or a name; the last one is "{names[-1]}".'
    )


def share_of(share: str, most: int) -> int | None:
    """How many of ``most`` blocks a share is, rounded, halves up, at least 1 of a share over 0 %.

    Parameters
    ----------
    share
        Such as ``60%`` or ``12.5 %``.
    most
        All of them.

    Returns
    -------
    int or None
        ``None`` if it is no share from 0 % to 100 %.

    Examples
    --------
    >>> share_of("60%", 18), share_of("50 %", 3), share_of("0.1%", 18), share_of("0%", 18)
    (11, 2, 1, 0)
    >>> share_of("130%", 18), share_of("half", 18)
    (None, None)
    """
    number = share.strip().removesuffix("%").rstrip()
    if not share.strip().endswith("%") or not _SHARE.fullmatch(number):
        return None
    value = Fraction(number) / 100
    if not 0 <= value <= 1:
        return None
    return max(1, math.floor(value * most + Fraction(1, 2))) if value else 0


def share_in_words(given: str | int, most: int, blocks: str = "blocks") -> str:
    """What a share came to, or nothing for what is no share.

    Parameters
    ----------
    given
        For keep or freeze.
    most
        All that the share is of.
    blocks
        What they are.

    Examples
    --------
    >>> share_in_words("60%", 18)
    '60 % of 18 blocks is 11'
    >>> share_in_words("50%", 11, "kept blocks"), share_in_words("7", 11)
    ('50 % of 11 kept blocks is 6', '')
    """
    count = share_of(str(given), most)
    if count is None:
        return ""
    return f"{str(given).strip().removesuffix('%').rstrip()} % of {most} {blocks} is {count}"


def named(chain: Chain, count: int) -> str:
    """A number of blocks with the name of the last, such as ``13 (to blocks.5.0)``.

    Examples
    --------
    ``keep 13 of 18 (to blocks.5.0)`` is printed wherever keep or freeze appears.
    """
    return f"{count} (to {chain.blocks[count - 1].name})" if count else "0"


def fate(index: int, keep: int | None, freeze: int | None) -> str:
    """What becomes of a block: ``frozen``, ``trained`` or ``dropped``.

    Just ``kept`` where freeze is not given, and nothing where keep isn't either.

    Examples
    --------
    >>> [fate(index, 2, 1) for index in (1, 2, 3)], fate(1, 2, None), fate(1, None, None)
    (['frozen', 'trained', 'dropped'], 'kept', '')
    """
    if keep is None:
        return ""
    if index > keep:
        return "dropped"
    if freeze is None:
        return "kept"
    return "frozen" if index <= freeze else "trained"


def _resolve(
    option: str, given: str | int, chain: Chain, source: str, *, most: int, least: int
) -> int | None:
    word = str(given).strip()
    names = [block.name for block in chain]
    if word == AUTO:
        return None
    if word == "all":
        return most
    if word.endswith("%"):
        return _share(option, word, chain, source, most=most, least=least)
    if _COUNT.fullmatch(word):
        return _in_range(option, int(word), chain, source, most=most, least=least)
    inside = [i for i, name in enumerate(names, start=1) if name == word or name.startswith(f"{word}.")]
    if not inside:
        meant = f" A share has a percent sign: {100 * float(word):g}%." if _DECIMAL.fullmatch(word) else ""
        lists = f"`topgraft layers {source}` lists" if set("/:") & set(source) else "Its `chain` has"
        raise TopgraftError(
            f"{option}={word} is no block of {source}.{meant or did_you_mean(word, names)} "
            f"{lists} all {len(chain)}."
        )
    count = names.index(word) + 1 if word in names else inside[-1]
    return _in_range(option, count, chain, source, most=most, least=least)


def _share(option: str, word: str, chain: Chain, source: str, *, most: int, least: int) -> int:
    count = share_of(word, most)
    number = word.removesuffix("%").rstrip()
    of = f"the {most} blocks that are kept" if most < len(chain) else f"the {most} blocks of {source}"
    if count is not None and count >= least:
        return count
    if count == 0:
        problem = f"none of {of}"
    elif _SHARE.fullmatch(number):
        problem = f"{'less than none' if number.startswith('-') else 'more than all'} of {of}"
    else:
        problem = f"no share of {of}"
    raise TopgraftError(f"{option}={word} is {problem}.\n{_valid(option, chain, least, most)}")


def _valid(option: str, chain: Chain, least: int, most: int) -> str:
    share = (
        "a share of the kept blocks from 0% to 100%" if option == "freeze" else "a share over 0% up to 100%"
    )
    return (
        f"Give {least} to {most}, {share}, such as 60%, or a block's name; "
        f'the last one is "{chain.blocks[most - 1].name}".'
    )


def _in_range(option: str, count: int, chain: Chain, source: str, *, most: int, least: int) -> int:
    if least <= count <= most:
        return count
    last = chain.blocks[most - 1].name
    if option == "freeze" and most < count <= len(chain):
        raise TopgraftError(
            f"freeze={count} is more than the {most} blocks that are kept (to {last}). "
            f"Give 0 to {most}, a share of them such as 50%, or a block's name."
        )
    what = f"the {len(chain)} blocks of {source}" if count > most else f"the least, {least}, for {source}"
    than = "more than" if count > most else "less than"
    raise TopgraftError(
        f"{option}={count} is {than} {what}.\n"
        f'Give {least} to {most}, a share such as 60%, or a block\'s name; the last one is "{last}".'
    )
