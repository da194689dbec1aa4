"""A restorer in memory: `load_model` and what it gives."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import singledispatch
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from . import engine
from .api import Planner, Wanted, cached_model, load_reference, restore_with
from .errors import UsageError
from .inputs import Image
from .models import loading
from .models.base import Model, ModelInfo
from .plan import Plan
from .result import Result
from .weights import locate, needs

if TYPE_CHECKING:
    from typing_extensions import Unpack


class LoadedModel:
    """A restorer in memory, freed when it is dropped. Made by `load_model`.

    Attributes:
        info: what the network does and needs.
        device, dtype: where and in which type it computes unless told otherwise.
    """

    def __init__(self, model: Model, reference: str, device: str, dtype: str) -> None:
        engine.pick_device(device)
        self._model, self._reference, self.device, self.dtype = model, reference, device, dtype
        self.info: ModelInfo = model.info

    def __repr__(self) -> str:
        size = f"{self.info.parameters / 1e6:.1f} M parameters"
        return f"<irtool.LoadedModel {self._reference} ({self.info.name}, {size}) on {self.device}>"

    def restore(
        self,
        image: Image,
        *,
        tasks: Sequence[str] | str | None = None,
        plan: Plan | None = None,
        planner: Planner | None = None,
        **options: Unpack[Wanted],
    ) -> Result:
        """As `irtool.restore`, with this model."""
        own: Wanted = {"device": self.device, "dtype": self.dtype}
        return restore_with(self._of, image, tasks, plan, planner, self._reference, {**own, **options})

    def _of(self, reference: str, controller: str = "") -> Model:
        return self._model if reference == self._reference else cached_model(reference, controller)


def load_model(
    source: str | PathLike[str] | Mapping[str, Tensor],
    *,
    device: str = "auto",
    dtype: str = "auto",
    controller: str = "",
    **hyperparameters: object,
) -> LoadedModel:
    """Load a restorer once, to restore many images.

    Args:
        source: the id of a record in weights.toml ("irtool-small"), ``local:PATH``, ``hf-hub:REPO``, a `Path`, or a
            state dict with published names.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "auto", "fp32", "bf16" or "fp16".
        controller: id or ``local:PATH`` of the DA-CLIP that steers the model; empty for its own.
        hyperparameters: what the file does not tell, such as ``num_heads=12``; they go before what is read off its
            tensors.

    Raises:
        UsageError: an unknown id or device.
        UnavailableError: the weights are not here or fit no architecture, or tensors do not tell a hyperparameter.
    """
    model, reference = _model_of(source, controller, hyperparameters)
    if model.info.assumed:
        warnings.warn(
            f"{reference}: its tensors do not tell {', '.join(model.info.assumed)}; assumed, as published. "
            "Give it to load_model to be sure.",
            stacklevel=2,
        )
    return LoadedModel(model, reference, device, dtype)


@singledispatch
def _model_of(source: object, controller: str, hyperparameters: Mapping[str, Any]) -> tuple[Model, str]:
    raise UsageError(f"`source` is {type(source).__name__}, no model.", "Give an id, a path, or a state dict.")


@_model_of.register
def _(source: str, controller: str, hyperparameters: Mapping[str, Any]) -> tuple[Model, str]:
    return load_reference(source, controller, hyperparameters), source


@_model_of.register
def _(source: PathLike, controller: str, hyperparameters: Mapping[str, Any]) -> tuple[Model, str]:
    return _model_of(f"local:{Path(source)}", controller, hyperparameters)


@_model_of.register
def _(source: Mapping, controller: str, hyperparameters: Mapping[str, Any]) -> tuple[Model, str]:
    net, header = loading.from_tensors(source, **hyperparameters)
    companion_ids = (controller,) if controller else needs("local:", header["architecture"])
    companions = [loading.read(locate(companion))[0] for companion in companion_ids]
    return loading.wrap(net, header, companions), f"tensors:{header['architecture']}"
