from __future__ import annotations

import pytest

from topgraft.errors import TopgraftError
from topgraft.workers import Item, address_of, elsewhere, led, working_on


class Nobody:
    """Workers that do nothing."""

    def in_order(self, task, items, *, at_once=1):
        del task, at_once
        return iter(items)

    def told(self):
        return {"kind": "nobody"}


@pytest.mark.parametrize("on", ["10.0.0.1:6379", "head.example:6379", "ray://head:10001", "[::1]:6379"])
def test_addresses_are_taken_as_they_are_given(on):
    assert address_of(on) == on


@pytest.mark.parametrize(
    "on",
    ["", "spark", "ray:", "ray://", "head", "head:", "head:port", "http://head:80", "head:0", "head:65536"],
)
def test_what_is_no_address_is_refused_with_what_can_be_given(on):
    with pytest.raises(TopgraftError, match=r"--on .*: give ray, ray://HOST:PORT or HOST:PORT"):
        address_of(on)


def test_workers_lead_in_the_block_only_even_after_an_error():
    workers = Nobody()

    def fails() -> None:
        with led(workers):
            assert elsewhere() is workers
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fails()
    assert elsewhere() is None


def test_here_there_is_nobody_else_and_nothing_to_tell():
    with working_on(None) as told:
        assert elsewhere() is None
        assert told() is None


def test_an_item_needs_no_files_unless_it_says_so():
    item = Item()
    assert item.lacks() == ()
    assert item.filled() is item
    assert item.packed() is item
