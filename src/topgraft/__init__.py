"""Topgraft: reuse a pretrained network for pictures, texts or arrays, its depth chosen on evidence.

``import topgraft`` loads nothing heavy: each public name is imported from its module when it is first
used. ``_HOMES`` says where each name lives; the same names stand under ``TYPE_CHECKING`` for type
checkers and editors, and a test holds the two together.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topgraft.errors import RunningError as RunningError
    from topgraft.errors import TopgraftError as TopgraftError

__version__ = "0.1.0"

_HOMES = {
    "RunningError": "errors",
    "TopgraftError": "errors",
}
"""Public name -> the module of this package that holds it under the same name."""

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604 (the keys of the table above are strings)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """The package as a module, where a public name such as ``probe`` wins over the module of the same name.

    Importing ``topgraft.probe`` anywhere makes Python set ``topgraft.probe`` to that module, which would
    hide the function. The module stays within reach by ``from topgraft.probe import ...``.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
