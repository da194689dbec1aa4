"""irtool finds what is wrong with a photograph and puts it right.

    import irtool

    result = irtool.restore("photo.jpg")
    result.save("better.jpg")
    irtool.detect("photo.jpg").present        # ("rain", "jpeg")

Everything is loaded at first use: importing irtool does not import torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Result, detect, instruct, restore
    from .detect.detector import Diagnosis
    from .errors import IrtoolError, NothingToDoError, PictureError, UnavailableError, UsageError
    from .picture import Picture
    from .plan import Plan, Step

__version__ = "0.1.0"

_HOMES = {
    "detect": "api",
    "restore": "api",
    "instruct": "api",
    "Result": "api",
    "Diagnosis": "detect",
    "IrtoolError": "errors",
    "NothingToDoError": "errors",
    "PictureError": "errors",
    "UnavailableError": "errors",
    "UsageError": "errors",
    "Picture": "picture",
    "Plan": "plan",
    "Step": "plan",
}
__all__ = [
    "Diagnosis",
    "IrtoolError",
    "NothingToDoError",
    "Picture",
    "PictureError",
    "Plan",
    "Result",
    "Step",
    "UnavailableError",
    "UsageError",
    "__version__",
    "detect",
    "instruct",
    "restore",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'irtool' has no attribute '{name}'")
    value = getattr(import_module(f"irtool.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        # The function irtool.detect and the room irtool/detect share a name. Importing the room sets it as an
        # attribute here, which must not hide the function; `from irtool.detect import ...` does not need it.
        if not (name == "detect" and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
