"""irtool finds what is wrong with a photograph and puts it right.

    import irtool

    result = irtool.restore("photo.jpg")        # or a PIL.Image, a NumPy array, a torch tensor, bytes
    result.save("better.jpg")
    irtool.detect("photo.jpg").present          # ("rain", "jpeg")
    model = irtool.load_model("irtool-small", device="cuda")
    model.restore(array, tasks="denoise").array

Everything is loaded at first use: importing irtool does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import clear_cache, detect, instruct, restore, restore_folder
    from .detection.detector import Diagnosis
    from .diffusion.sampling import Sampling
    from .errors import IrtoolError, NothingToDoError, PictureError, UnavailableError, UsageError
    from .loaded import LoadedModel, load_model
    from .picture import Picture
    from .plan import Plan, Step
    from .result import Result

__version__ = "0.1.0"

_HOMES = {
    "detect": "api",
    "restore": "api",
    "instruct": "api",
    "clear_cache": "api",
    "load_model": "loaded",
    "restore_folder": "api",
    "LoadedModel": "loaded",
    "Result": "result",
    "Sampling": "diffusion.sampling",
    "Diagnosis": "detection",
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
    "LoadedModel",
    "NothingToDoError",
    "Picture",
    "PictureError",
    "Plan",
    "Result",
    "Sampling",
    "Step",
    "UnavailableError",
    "UsageError",
    "__version__",
    "clear_cache",
    "detect",
    "instruct",
    "load_model",
    "restore",
    "restore_folder",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'irtool' has no attribute '{name}'")
    value = getattr(import_module(f"irtool.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
