"""From a checkpoint to the safetensors file that ships."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from ..errors import UsageError
from . import state
from .jobs import job
from .recipe import Recipe, build


def restored(checkpoint: Path) -> tuple[nn.Module, Recipe, int]:
    """The averaged network of a checkpoint, ready to use, with its recipe and the steps it was trained for.

    Raises:
        UsageError: the file is no checkpoint of irtool.
    """
    held = state.read(checkpoint)
    recipe = build(held["recipe"], str(checkpoint))
    net = job(recipe.kind).build(recipe)
    try:
        net.load_state_dict(held["ema"])
    except RuntimeError as error:
        raise UsageError(f"{checkpoint} does not fit its own recipe: {error}.") from error
    return net.eval().requires_grad_(False), recipe, held["step"]


def export(checkpoint: Path, target: Path, notes: Mapping[str, str] | None = None) -> Path:
    """Write the averaged weights of a checkpoint as float16 safetensors that describe themselves.

    Args:
        checkpoint: ``checkpoint.pt``, ``best.pt`` or another of a run.
        target: the .safetensors file to write.
        notes: further header entries, such as a licence.

    Raises:
        UsageError: the file is no checkpoint of irtool.
    """
    net, recipe, steps = restored(checkpoint)
    header = {"steps": str(steps), "recipe_sha256": recipe.sha256, **(notes or {})}
    job(recipe.kind).export(net, recipe, target, header)
    return target
