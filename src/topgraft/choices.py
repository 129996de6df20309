"""What the analyst may say for keep and freeze: a count, a share, a block's name, all, auto."""

from __future__ import annotations

import re

from topgraft.chain import Chain
from topgraft.errors import TopgraftError, did_you_mean

AUTO = "auto"


def resolve_keep(given: str | int, chain: Chain, source: str) -> int | None:
    """The number of blocks that ``keep`` means; ``None`` for ``auto``.

    Parameters
    ----------
    given
        ``auto``, a count, a share such as ``60%`` (rounded, at least 1), a block's name (up to and with it;
        the name of a stage means its last block), or ``all``.
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
    """The number of blocks that ``freeze`` means, of ``keep`` kept ones; ``None`` for ``auto``.

    As :func:`resolve_keep`; a share is of the kept blocks, ``all`` means all kept ones, 0 is allowed.
    """
    return _resolve("freeze", given, chain, source, most=keep, least=0)


def _resolve(
    option: str, given: str | int, chain: Chain, source: str, *, most: int, least: int
) -> int | None:
    word = str(given).strip()
    names = [block.name for block in chain]
    if word == AUTO:
        return None
    if word == "all":
        return most
    share = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", word)
    if share:
        value = float(share[1])
        if value > 100:
            raise TopgraftError(f"{option}={word} is more than all. Give a share from 0% to 100%.")
        return max(least if value == 0 else 1, round(value / 100 * most))
    if re.fullmatch(r"[+-]?\d+", word):
        return _in_range(option, int(word), chain, source, most=most, least=least)
    inside = [i for i, name in enumerate(names, start=1) if name == word or name.startswith(f"{word}.")]
    if not inside:
        raise TopgraftError(
            f"{option}={word} is no block of {source}.{did_you_mean(word, names)} "
            f"`topgraft layers {source}` lists all {len(chain)}."
        )
    count = names.index(word) + 1 if word in names else inside[-1]
    return _in_range(option, count, chain, source, most=most, least=least)


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


def named(chain: Chain, count: int) -> str:
    """A number of blocks with the name of the last, such as ``13 (to blocks.5.0)``.

    Examples
    --------
    ``keep 13 of 18 (to blocks.5.0)`` is printed wherever keep or freeze appears.
    """
    return f"{count} (to {chain.blocks[count - 1].name})" if count else "0"
