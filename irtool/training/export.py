"""From a checkpoint to the safetensors file that ships."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import UsageError
from ..models import loading
from ..models.compact import CompactNet
from . import state
from .recipe import Recipe, build
from .tasks import training_task


def load_checkpoint(checkpoint: Path) -> tuple[nn.Module, Recipe, int]:
    """The averaged network of a checkpoint, ready to use, with its recipe and the steps it was trained for.

    Raises:
        UsageError: the file is no checkpoint of irtool.
    """
    checkpoint_data = state.read(checkpoint)
    recipe = build(checkpoint_data["recipe"], str(checkpoint))
    net = training_task(recipe.kind).build(recipe)
    try:
        net.load_state_dict(checkpoint_data["ema"])
    except RuntimeError as error:
        raise UsageError(f"{checkpoint} does not fit its own recipe: {error}.") from error
    return net.eval().requires_grad_(False), recipe, checkpoint_data["step"]


def export(
    checkpoint: Path,
    target: Path,
    notes: Mapping[str, str] | None = None,
    *,
    blend: Path | None = None,
    share: float = 0.5,
    only: str = "",
) -> Path:
    """Write the averaged weights of a checkpoint as float16 safetensors that describe themselves.

    Args:
        checkpoint: ``checkpoint.pt``, ``best.pt`` or another of a run.
        target: the .safetensors file to write.
        notes: further header entries, such as a license.
        blend: a checkpoint or exported file of a run that continued this one (or started from the same weights), to
            write the mean of both (model soups, Wortsman et al., ICML 2022).
        share: of `blend` in the mean.
        only: a task; only its adapter is blended.

    Raises:
        UsageError: a file is no checkpoint of irtool, or the two are of different networks.
    """
    net, recipe, steps = load_checkpoint(checkpoint)
    header = {"steps": str(steps), "recipe_sha256": recipe.sha256, **(notes or {})}
    if blend is not None:
        header |= _blend(net, blend, share, only) | {"blend_share": f"{share:g}"}
    training_task(recipe.kind).export(net, recipe, target, header)
    return target


@torch.no_grad()
def _blend(net: nn.Module, blend: Path, fraction: float, only: str) -> dict[str, str]:
    """Interpolate a network's weights, or one task's adapter, towards another's; returns header entries."""
    if blend.suffix == ".safetensors":
        other, header = loading.read(blend)
        notes = {"blend_recipe_sha256": header.get("recipe_sha256", "unknown")}
    else:
        other, recipe, _ = load_checkpoint(blend)
        notes = {"blend_recipe_sha256": recipe.sha256}
    if type(other) is not type(net) and hasattr(net, "adopt"):  # of another form of the same network
        try:
            form = copy.deepcopy(net)
            adopt: Any = net.adopt
            form.load_state_dict(adopt(other.state_dict()))
            other = form
        except RuntimeError as error:
            raise UsageError(f"{blend} is of another network: {error}.", "Blend checkpoints of one network.") from error
    other_weights = dict(other.named_parameters())
    weights = {name: p for name, p in net.named_parameters() if not only or name.endswith((".up", ".down"))}
    mismatched = [n for n, p in weights.items() if n not in other_weights or other_weights[n].shape != p.shape]
    if type(other) is not type(net) or mismatched or (not only and len(weights) != len(other_weights)):
        raise UsageError(f"{blend} is of another network.", "Blend checkpoints of one network.")
    row: int | slice = slice(None)
    if only:
        if not isinstance(net, CompactNet) or only not in net.tasks:
            raise UsageError(
                f"There are no offsets of a task {only}.", "Name one of the network's tasks, such as haze."
            )
        row = net.tasks.index(only)
        notes["blend_only"] = only
    for name, weight in weights.items():
        weight[row] = torch.lerp(weight[row], other_weights[name][row].to(weight), fraction)
    return notes
