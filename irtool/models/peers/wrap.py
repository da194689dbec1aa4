"""What the `ModelInfo` of all peers have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..base import ModelInfo, describe, settings

__all__ = ["info", "settings"]


def info(net: nn.Module, header: Mapping[str, str], name: str, *tasks: str, live: int, **more: Any) -> ModelInfo:
    """The record of a network that is not told what to remove.

    Args:
        net: it is called with (1, 3, H, W).
        header: of its file; "tasks" there goes before `tasks`.
        name: of the architecture.
        tasks: ids of the degradations that networks of the architecture remove.
        live: float32 feature maps alive at once at full resolution.
        more: as of `describe`: overlap, multiple (1 by default, so that nothing is padded), tiling.
    """
    return describe(net, header, name, tasks=tasks, bytes_per_pixel=4 * live, task_agnostic=True, **more)
