"""From a checkpoint to the safetensors file that ships."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch

from ..errors import UsageError
from ..models import loading
from . import loop, recipe


def export(checkpoint: Path, target: Path, notes: Mapping[str, str] | None = None) -> Path:
    """Write the averaged weights of a checkpoint as float16 safetensors that describe themselves.

    Args:
        checkpoint: `checkpoint.pt` of a run.
        target: the .safetensors file to write.
        notes: further header entries.

    Raises:
        UsageError: the file is no checkpoint of irtool.
    """
    try:
        held = torch.load(checkpoint, map_location="cpu", weights_only=True)
        made = recipe.build({k: v for k, v in held["recipe"].items()}, str(checkpoint))
    except (OSError, KeyError, TypeError, RuntimeError) as error:
        raise UsageError(f"{checkpoint} is no checkpoint of irtool ({error}).") from error
    net = loop.network(made)
    net.load_state_dict(held["ema"])
    told = json.dumps(dataclasses.asdict(made), sort_keys=True)
    loading.save(
        net,
        target,
        architecture="compact" if made.kind == "restorer" else "detector",
        config=made.model,
        notes={"steps": str(held["step"]), "recipe_sha256": hashlib.sha256(told.encode()).hexdigest(), **(notes or {})},
    )
    return target
