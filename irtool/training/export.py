"""From a checkpoint to the safetensors file that ships."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
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


def export(
    checkpoint: Path,
    target: Path,
    notes: Mapping[str, str] | None = None,
    *,
    blend: Path | None = None,
    share: float = 0.5,
) -> Path:
    """Write the averaged weights of a checkpoint as float16 safetensors that describe themselves.

    Args:
        checkpoint: ``checkpoint.pt``, ``best.pt`` or another of a run.
        target: the .safetensors file to write.
        notes: further header entries, such as a licence.
        blend: a checkpoint of a run that went on from this one (or of another that began where it began), to write
            the mean of both (model soups, Wortsman et al., ICML 2022).
        share: of `blend` in the mean.

    Raises:
        UsageError: a file is no checkpoint of irtool, or the two are of different networks.
    """
    net, recipe, steps = restored(checkpoint)
    header = {"steps": str(steps), "recipe_sha256": recipe.sha256, **(notes or {})}
    if blend is not None:
        other, recipe_of_other, _ = restored(blend)
        if (recipe.kind, recipe.model) != (recipe_of_other.kind, recipe_of_other.model):
            raise UsageError(f"{blend} is of another network than {checkpoint}.", "Blend checkpoints of one network.")
        with torch.no_grad():
            for mine, its in zip(net.parameters(), other.parameters(), strict=True):
                mine.lerp_(its, share)
        header |= {"blend_recipe_sha256": recipe_of_other.sha256, "blend_share": f"{share:g}"}
    job(recipe.kind).export(net, recipe, target, header)
    return target
