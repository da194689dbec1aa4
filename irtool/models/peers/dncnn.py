"""DnCNN: Gaussian noise removed by residual learning (Zhang et al., TIP 2017).

Plain 3x3 convolutions; the network gives the noise, which is taken off the picture. The published colour networks have
their batch norms merged into the convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..base import SinglePassModel
from .wrap import info


class DnCNN(nn.Module):
    """The network.

    Args:
        depth: convolutions.
        width: feature maps.
    """

    def __init__(self, depth: int = 20, width: int = 64) -> None:
        super().__init__()
        self.depth, self.width = depth, width
        for i in range(depth):
            layer = nn.Conv2d(3 if i == 0 else width, 3 if i == depth - 1 else width, 3, padding=1)
            setattr(self, f"conv{i}", layer)

    def forward(self, noisy: Tensor) -> Tensor:
        """(N, 3, H, W), [0, 1] plus noise -> the same shape, not clipped."""
        x = noisy
        for i in range(self.depth):
            x = getattr(self, f"conv{i}")(x)
            x = torch.relu(x) if i < self.depth - 1 else x
        return noisy - x


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `DnCNN` from its tensors, None where these are not its."""
    width, depth = shapes["conv0.weight"][0], len(shapes) // 2
    ends = shapes["conv0.weight"] == (width, 3, 3, 3) and shapes.get(f"conv{depth - 1}.weight") == (3, width, 3, 3)
    return {"depth": depth, "width": width} if ends and set(shapes) == _names(depth) else None


def _names(depth: int) -> set[str]:
    return {f"conv{i}.{kind}" for i in range(depth) for kind in ("weight", "bias")}


def restorer(net: DnCNN, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network."""
    return SinglePassModel(net, info(net, header, "dncnn", "noise", overlap=net.depth, live=3 * net.width))
