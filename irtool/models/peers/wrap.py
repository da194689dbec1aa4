"""What the peers' restorers share: one pass over the picture, in tiles only where memory asks for it.

A network that looks a bounded way is an `Expert`: its tiles carry as much around them, and agree with the whole. One
that looks at the whole picture is a `WholeExpert`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..base import Capability, Sweep
from ..macs import counted
from ..single import Single

SIDE = 128  # of the picture that costs are counted on


def capability(
    net: nn.Module, header: Mapping[str, str], name: str, task: str, *, margin: int, live: int, multiple: int = 1
) -> Capability:
    """The record of a network that undoes one thing and is told nothing.

    Args:
        net: it is called with (1, 3, H, W).
        header: of its file; "tasks" there goes before `task`.
        name: of the family.
        task: id of the degradation it removes.
        margin: how far it looks, in pixels.
        live: float32 feature maps alive at once at full resolution.
        multiple: tiles start at multiples of this; 1 so that no border is added to the picture.
    """
    return Capability(
        name=name,
        tasks=tuple(json.loads(header.get("tasks", "[]"))) or (task,),
        multiple=multiple,
        margin=margin,
        parameters=sum(p.numel() for p in net.parameters()),
        gmacs_per_megapixel=counted(net, torch.empty(1, 3, SIDE, SIDE, device="meta")),
        bytes_per_pixel=4 * live,
        blind=True,
    )


class Local(Single):
    """A network that looks a bounded way (`Restorer` and `Expert`)."""

    def context(self, pixels: Tensor) -> Tensor:
        """Nothing: (1, 0)."""
        return torch.zeros(1, 0)

    def __call__(self, tile: Tensor, context: Tensor) -> Tensor:
        with torch.inference_mode():
            out: Tensor = self.net(tile.to(self.dtype)).float()
            return out


class Peer(Single):
    """A network that looks at the whole picture (`Restorer` and `WholeExpert`)."""

    def context(self, pixels: Tensor) -> Tensor:
        """Nothing: (1, 0)."""
        return torch.zeros(1, 0)

    def restore(self, pixels: Tensor, context: Tensor, sweep: Sweep, on_progress: Callable[[int, int], None]) -> Tensor:
        on_progress(0, 1)
        with torch.inference_mode():
            out: Tensor = sweep(lambda x: self.apply(x.to(self.dtype)).float(), pixels)
        on_progress(1, 1)
        return out

    def apply(self, x: Tensor) -> Tensor:
        """What the network makes of tiles (N, 3, h, w) in [0, 1]."""
        made: Tensor = self.net(x)
        return made


def settings(header: Mapping[str, str]) -> dict[str, Any]:
    """What the record of a file says beside its tensors."""
    return dict(json.loads(header.get("settings", "{}")))
