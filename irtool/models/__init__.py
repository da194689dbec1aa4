"""Networks, one file per family, behind one contract (`irtool.models.base`). Importing this imports no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import loading
    from .base import Bound, Condition, Model, ModelInfo
    from .loading import ARCHITECTURES, load, save

_HOMES = {
    "ARCHITECTURES": "architectures",
    "Bound": "base",
    "Condition": "base",
    "Model": "base",
    "ModelInfo": "base",
    "load": "loading",
    "save": "loading",
}
__all__ = ["ARCHITECTURES", "Bound", "Condition", "Model", "ModelInfo", "load", "loading", "save"]


def __getattr__(name: str) -> Any:
    if name == "loading":
        return import_module("irtool.models.loading")
    if name not in _HOMES:
        raise AttributeError(f"module 'irtool.models' has no attribute '{name}'")
    return getattr(import_module(f"irtool.models.{_HOMES[name]}"), name)
