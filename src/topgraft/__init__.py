"""Topgraft: reuse a pretrained network for pictures, texts, sounds or arrays, its depth chosen on evidence.

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
    from topgraft.advise import DepthAdvice as DepthAdvice
    from topgraft.backbones import Backbone as Backbone
    from topgraft.backbones import load as load
    from topgraft.chain import Chain as Chain
    from topgraft.chain import State as State
    from topgraft.console import Console as Console
    from topgraft.cost import Forecast as Forecast
    from topgraft.data import Data as Data
    from topgraft.data import assign_folds as assign_folds
    from topgraft.data import hold_out as hold_out
    from topgraft.data import read as read
    from topgraft.data import read_test as read_test
    from topgraft.errors import RunningError as RunningError
    from topgraft.errors import TopgraftError as TopgraftError
    from topgraft.estimators.classifier import TransferClassifier as TransferClassifier
    from topgraft.estimators.features import TransferFeatures as TransferFeatures
    from topgraft.estimators.regressor import TransferRegressor as TransferRegressor
    from topgraft.evidence import Evidence as Evidence
    from topgraft.evidence import Features as Features
    from topgraft.export import Export as Export
    from topgraft.export import export as export
    from topgraft.features.passes import one_pass as one_pass
    from topgraft.features.store import Store as Store
    from topgraft.fit import Run as Run
    from topgraft.fit import fit as fit
    from topgraft.forecast import forecast as forecast
    from topgraft.graft import Graft as Graft
    from topgraft.grafting import graft as graft
    from topgraft.grafting import parameter_groups as parameter_groups
    from topgraft.lora import add_lora as add_lora
    from topgraft.lora import merge_lora as merge_lora
    from topgraft.plan import Plan as Plan
    from topgraft.predict import Prediction as Prediction
    from topgraft.predict import predict as predict
    from topgraft.probe import probe as probe
    from topgraft.saved import Model as Model
    from topgraft.saved import open_model as open_model
    from topgraft.settings import Settings as Settings
    from topgraft.stages import advise as advise

__version__ = "0.1.0"

_HOMES = {
    "Backbone": "backbones",
    "Chain": "chain",
    "Console": "console",
    "Data": "data",
    "DepthAdvice": "advise",
    "Evidence": "evidence",
    "Export": "export",
    "Features": "evidence",
    "Forecast": "cost",
    "Graft": "graft",
    "Model": "saved",
    "Plan": "plan",
    "Prediction": "predict",
    "Run": "fit",
    "RunningError": "errors",
    "Settings": "settings",
    "State": "chain",
    "Store": "features.store",
    "TopgraftError": "errors",
    "TransferClassifier": "estimators.classifier",
    "TransferFeatures": "estimators.features",
    "TransferRegressor": "estimators.regressor",
    "add_lora": "lora",
    "advise": "stages",
    "assign_folds": "data",
    "export": "export",
    "fit": "fit",
    "forecast": "forecast",
    "graft": "grafting",
    "hold_out": "data",
    "load": "backbones",
    "merge_lora": "lora",
    "one_pass": "features.passes",
    "open_model": "saved",
    "parameter_groups": "grafting",
    "predict": "predict",
    "probe": "probe",
    "read": "data",
    "read_test": "data",
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
