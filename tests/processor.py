"""What tests must know of the processor that they run on."""

from __future__ import annotations

import contextlib

import pytest

from topgraft.features.engine import EngineWarning
from topgraft.features.openvino import has_bf16


def told_without_bf16() -> contextlib.AbstractContextManager[object]:
    """In the block OpenVINO is asked for bf16: where the processor has none, that must be told."""
    return (
        contextlib.nullcontext()
        if has_bf16()
        else pytest.warns(EngineWarning, match="fp32 on this processor")
    )


needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="this processor has no instructions for bf16")

either_way = pytest.mark.filterwarnings("ignore:OpenVINO computes in fp32 on this processor")
"""For a test that holds with and without bf16: which it was need not be told."""
