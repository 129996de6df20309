from __future__ import annotations

import subprocess
import sys

import pytest

import topgraft.data


def test_importing_it_loads_nothing_heavy_until_a_name_is_asked_for() -> None:
    program = (
        "import sys, topgraft.data; heavy = {'torch', 'numpy', 'PIL', 'pyarrow', 'datasets', 'pandas'};"
        "print(sorted(heavy & set(sys.modules))); topgraft.data.read; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "False"]


def test_every_public_name_is_there_and_no_other() -> None:
    for name in topgraft.data.__all__:
        assert getattr(topgraft.data, name) is not None
        assert name in dir(topgraft.data)
    with pytest.raises(AttributeError, match="has no attribute 'reed'"):
        _ = topgraft.data.reed
