"""JORDER: rain streaks removed from the luma by a residual network (Yang et al., CVPR 2017), as its Caffe model has it.

The published model was fed from MATLAB, whose images come transposed; so is what `forward` feeds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..base import SinglePassModel
from .wrap import info

# BT.601 with the range of video: Y of R, G, B in [0, 1], its offset, and what RGB gains of a change of Y.
LUMA, OFFSET, GAIN = (65.481 / 255, 128.553 / 255, 24.966 / 255), 16 / 255, 255 / 219


class JORDER(nn.Module):
    """The network.

    Args:
        width: feature maps.
        layers: convolutions in all.
    """

    def __init__(self, width: int = 64, layers: int = 12) -> None:
        super().__init__()
        self.layers = layers
        for i in range(1, layers + 1):
            a, b = 1 if i == 1 else width, 1 if i == layers else width
            self.add_module(f"Convolution{i}", nn.Conv2d(a, b, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same shape, not clipped; chroma stays as it is."""
        weights = torch.tensor(LUMA, dtype=image.dtype, device=image.device)[:, None, None]
        y = (image * weights).sum(1, keepdim=True) + OFFSET
        restored = self.luma(y.transpose(2, 3)).transpose(2, 3).clamp(0, 1)
        return image + (restored - y) * GAIN

    def luma(self, y: Tensor) -> Tensor:
        """Y (N, 1, W, H), transposed -> the same without rain."""

        def conv(i: int, x: Tensor) -> Tensor:
            out: Tensor = getattr(self, f"Convolution{i}")(x)
            return out

        first = x = torch.relu(conv(1, y))
        for i in range(2, self.layers - 1, 2):
            x = torch.relu(0.5 * x + 0.5 * conv(i + 1, torch.relu(conv(i, x))))
        return y + conv(self.layers, 0.5 * first + 0.5 * x)


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `JORDER` from its tensors, None where these are not its."""
    layers = next(i for i in range(1, len(shapes) + 1) if f"Convolution{i + 1}.weight" not in shapes)
    width = shapes["Convolution1.weight"][0]
    fits = shapes["Convolution1.weight"] == (width, 1, 3, 3) and shapes[f"Convolution{layers}.weight"][0] == 1
    return {"width": width, "layers": layers} if fits and layers % 2 == 0 else None


def restorer(net: Any, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network."""
    live = 4 * net.Convolution1.out_channels
    return SinglePassModel(net, info(net, header, "jorder", "rain", overlap=net.layers, live=live))
