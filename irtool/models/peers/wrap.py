"""What the peers' restorers share: their capability record, and what a record in weights.toml says beside tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..base import Capability
from ..macs import counted

SIDE = 128  # of the picture that costs are counted on


def capability(
    net: nn.Module, header: Mapping[str, str], name: str, *tasks: str, margin: int, live: int, multiple: int = 1
) -> Capability:
    """The record of a network that is told nothing.

    Args:
        net: it is called with (1, 3, H, W).
        header: of its file; "tasks" there goes before `tasks`.
        name: of the family.
        tasks: ids of the degradations that networks of its family remove.
        margin: how far it looks, in pixels.
        live: float32 feature maps alive at once at full resolution.
        multiple: tiles start at multiples of this; 1 so that no border is added to the picture.
    """
    return Capability(
        name=name,
        tasks=tuple(json.loads(header.get("tasks", "[]"))) or tasks,
        multiple=multiple,
        margin=margin,
        parameters=sum(p.numel() for p in net.parameters()),
        gmacs_per_megapixel=counted(net, torch.empty(1, 3, SIDE, SIDE, device="meta")),
        bytes_per_pixel=4 * live,
        blind=True,
    )


def settings(header: Mapping[str, str]) -> dict[str, Any]:
    """What the record of a file says beside its tensors."""
    return dict(json.loads(header.get("settings", "{}")))
