"""From a checkpoint to the safetensors file that ships."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from ..errors import UsageError
from ..models import loading
from . import loop, recipe


def restored(checkpoint: Path) -> tuple[nn.Module, recipe.Recipe, int]:
    """The averaged network of a checkpoint, ready to use, with its recipe and the steps it was trained for.

    Raises:
        UsageError: the file is no checkpoint of irtool.
    """
    try:
        held = torch.load(checkpoint, map_location="cpu", weights_only=True)
        made = recipe.build(held["recipe"], str(checkpoint))
        net = loop.network(made)
        net.load_state_dict(held["ema"])
    except (OSError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
        raise UsageError(f"{checkpoint} is no checkpoint of irtool ({error}).") from error
    return net.eval().requires_grad_(False), made, held["step"]


def export(checkpoint: Path, target: Path, notes: Mapping[str, str] | None = None) -> Path:
    """Write the averaged weights of a checkpoint as float16 safetensors that describe themselves.

    Args:
        checkpoint: `checkpoint.pt` of a run.
        target: the .safetensors file to write.
        notes: further header entries.

    Raises:
        UsageError: the file is no checkpoint of irtool.
    """
    net, made, steps = restored(checkpoint)
    told = json.dumps(dataclasses.asdict(made), sort_keys=True)
    architecture = "compact" if made.kind == "restorer" else "detector"
    header = {"steps": str(steps), "recipe_sha256": hashlib.sha256(told.encode()).hexdigest(), **(notes or {})}
    loading.save(net, target, architecture=architecture, config=made.model, notes=header)
    return target
