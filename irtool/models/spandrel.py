"""Community networks: what the package spandrel can load, behind irtool's tiling, metadata and folders.

It comes with the extra "spandrel" and is asked only where no family of irtool's own fits a file. Licences are split:
the package and the architectures in it are MIT, Apache-2.0 or BSD; those in the separate package spandrel_extra_arches
(Restormer, MPRNet, MIRNet-v2 and others) are non-commercial. irtool never installs the second one; where a user has,
its networks are taken too, and their names begin with "spandrel-nc:". The licence of weights is another matter, which
their publisher states.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..degradation import IDS
from ..errors import UnavailableError, UsageError
from .base import ModelInfo, Placed, SinglePassModel

EXTRA = "pip install 'irtool[spandrel]' runs many more community networks."
FREE, NON_COMMERCIAL = "spandrel", "spandrel-nc"
OVERLAP = 48
"""Surroundings of a tile where the picture does not fit; spandrel says whether tiles are sound, not how far a network
looks."""


class PlacedDescriptor(Placed):
    """spandrel's descriptor of a network, which is no module: it moves its own."""

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        from spandrel import UnsupportedDtypeError

        try:
            self.net.to(device, dtype)
            self.device, self.dtype = device, dtype
        except UnsupportedDtypeError:  # the network is wrong in it
            self.net.to(device, torch.float32)
            self.device, self.dtype = device, torch.float32


class SpandrelModel(SinglePassModel):
    """A network that keeps the size of its image."""

    def __init__(self, net: Any, info: ModelInfo) -> None:
        self.info, self.placed = info, PlacedDescriptor(net)

    def adapted(self, adapter: Path) -> Any:
        raise UsageError(f"A {self.info.name} model takes no task adapter.", "Use the model it was learned on.")


def terms(name: str) -> str:
    """What the architecture's name says of its license, for people; empty for irtool's own architectures."""
    kind, _, architecture = name.partition(":")
    if kind == FREE:
        return f"{architecture}, by spandrel; architecture under MIT, Apache-2.0 or BSD terms"
    if kind == NON_COMMERCIAL:
        return f"{architecture}, by spandrel_extra_arches; its architecture is not for commercial use"
    return ""


def load(path: Path, unknown: UnavailableError) -> SpandrelModel:
    """The model of a file that is of no family of irtool's own.

    Args:
        path: safetensors.
        unknown: what is raised where spandrel does not know it either.

    Raises:
        UnavailableError: spandrel is not installed or not loadable, does not know the file, or it holds a network that
            does something else to a picture, such as enlarging it.
    """
    try:
        import spandrel
    except (ImportError, RuntimeError):
        raise UnavailableError(unknown.message, f"{unknown.hint} {EXTRA}".strip()) from unknown
    free = {support.architecture.id for support in spandrel.MAIN_REGISTRY.architectures()}
    _add_extra()
    try:
        model = spandrel.ModelLoader("cpu").load_from_state_dict(load_file(path))
    except Exception as error:  # it looks at key after key, and raises whatever a foreign file makes it trip over
        raise unknown from error
    name = model.architecture.name
    if not isinstance(model, spandrel.ImageModelDescriptor) or model.scale != 1:
        what = f"enlarges {model.scale} times" if getattr(model, "scale", 1) != 1 else "needs more than a picture"
        raise UnavailableError(f"{path} holds {name}, which {what}; irtool restores pictures at their own size.")
    if (model.input_channels, model.output_channels) != (3, 3):
        raise UnavailableError(f"{path} holds {name} for {model.input_channels} channels; irtool gives three, RGB.")
    sizes = model.size_requirements
    whole = model.tiling is not spandrel.ModelTiling.SUPPORTED
    full_name = f"{FREE if model.architecture.id in free else NON_COMMERCIAL}:{name}"
    return SpandrelModel(
        model,
        ModelInfo(
            name=full_name,
            tasks=IDS,
            multiple=max(8, sizes.multiple_of),
            overlap=max(OVERLAP, sizes.minimum) * (2 if whole else 1),
            parameters=sum(p.numel() for p in model.model.parameters()),
            gmacs_per_megapixel=0.0,
            # Not told: as much as a wide network at full resolution takes.
            bytes_per_pixel=4 * 512,
            task_agnostic=True,
            tiling="blended",
            remarks=(terms(full_name),),
        ),
    )


def _add_extra() -> None:
    try:
        import spandrel_extra_arches
    except (ImportError, RuntimeError):
        return
    spandrel_extra_arches.install(ignore_duplicates=True)
