"""A recipe that takes no time, for the tests of training."""

from __future__ import annotations

from typing import Any

import torch

from irtool.training import recipe

CPU = torch.device("cpu")
TINY: dict[str, Any] = {
    "model": {"width": 8, "encoder": [1], "middle": 1, "decoder": [1], "rank": 1, "hidden": 8},
    "data": ["clean"],
    "minutes": 0.0,
    "steps": 6,
    "region": 48,
    "precision": "fp32",
    "save_every": 3,
    "report_every": 2,
    "preview_every": 1000,
    "warmup": 1,
    "rate": 1e-3,
    "seed": 0,
    "ema": 0.999,
    "phases": [{"until": 0.5, "crop": 16, "batch": 8}, {"until": 1.0, "crop": 32, "batch": 4}],
    "weights": {"noise": 1.0, "jpeg": 1.0, "mixed": 0.5, "clean": 0.5},
}


def tiny(**changes: Any) -> recipe.Recipe:
    """The recipe with changes."""
    return recipe.build({**TINY, **changes}, "tiny")
