from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from topgraft.chunked import Rows, rows_at_once


@given(n=st.integers(0, 40), width=st.integers(1, 9), most=st.integers(1, 60), chosen=st.booleans())
def test_chunks_are_all_rows_in_order(n: int, width: int, most: int, chosen: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("topgraft.chunked.CHUNKED", most)
        x = torch.arange(n * width, dtype=torch.float32).reshape(n, width)
        index = torch.arange(0, n, 2) if chosen else None
        wanted = (x if index is None else x[index]).double()
        rows = Rows.of(x, n, index)
        assert rows.count == len(wanted)
        assert torch.equal(rows.whole(), wanted)
        assert all(0 < len(chunk) <= rows_at_once(width) for chunk in rows.chunks())
        some = torch.arange(0, len(wanted), 3)
        parts = [chunk.clone() for chunk in rows.some(some)]
        assert torch.equal(torch.cat([torch.empty(0, width).double(), *parts]), wanted[some])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_changed_in_a_chunk_changes_nothing_that_was_given(dtype: torch.dtype) -> None:
    x = torch.randn(10, 3, dtype=dtype)
    before = x.clone()
    for rows in (Rows.of(x, 10), Rows.of(x, 5, torch.arange(5)), Rows.of(lambda: iter(x.split(4)), 10)):
        for chunk in rows.chunks():
            chunk.zero_()
        assert torch.equal(x, before)
        assert torch.equal(rows.whole(), before[: rows.count].double())
