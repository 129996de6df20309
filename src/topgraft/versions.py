"""Which releases made a result."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("topgraft", "torch", "torchvision", "timm", "transformers", "openvino", "numpy", "scikit-learn")


def versions() -> dict[str, str]:
    """Python and the packages on which numbers depend, those that are installed.

    Examples
    --------
    >>> {"python", "torch"} <= versions().keys()
    True
    """
    releases = {name: _release(name) for name in PACKAGES}
    return {"python": platform.python_version(), **{name: r for name, r in releases.items() if r}}


def _release(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
