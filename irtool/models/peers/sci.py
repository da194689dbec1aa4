"""SCI: low light raised by a self-calibrated illumination (Ma et al., CVPR 2022).

The illumination is the picture plus a learned residual, and the result is the picture divided by it. The calibration
network taught in training is in the published files and has no part in the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..base import SinglePassModel
from .wrap import info


def conv(channels: int, out: int, *after: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), *after)


class Enhance(nn.Module):
    """Illumination of (N, 3, H, W)."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.in_conv = conv(3, width, nn.ReLU())
        self.conv = conv(width, width, nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.ModuleList([self.conv] * layers)  # one and the same: the weights lie in the file twice
        self.out_conv = conv(width, 3, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        y = self.in_conv(x)
        for block in self.blocks:
            y = y + block(y)
        return (self.out_conv(y) + x).clamp(1e-4, 1)


class Calibrate(nn.Module):
    """Used in training alone; here for its weights to have a place."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.in_conv = conv(3, width, nn.BatchNorm2d(width), nn.ReLU())
        pair = (nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))
        self.convs = conv(width, width, *pair, nn.ReLU())
        self.blocks = nn.ModuleList([self.convs] * layers)
        self.out_conv = conv(width, 3, nn.Sigmoid())


class SCI(nn.Module):
    """The network.

    Args:
        width, layers: of the illumination network.
        calibrate_width, calibrate_layers: of the calibration network.
    """

    def __init__(self, width: int = 3, layers: int = 1, calibrate_width: int = 16, calibrate_layers: int = 3) -> None:
        super().__init__()
        self.enhance = Enhance(width, layers)
        self.calibrate = Calibrate(calibrate_width, calibrate_layers)

    def forward(self, dark: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same."""
        return (dark / self.enhance(dark)).clamp(0, 1)


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `SCI` from its tensors, None where these are not its."""
    width, other = shapes["enhance.in_conv.0.weight"][0], shapes["calibrate.in_conv.0.weight"][0]
    if shapes["enhance.out_conv.0.weight"] != (3, width, 3, 3):
        return None
    layers = [sum(f"{part}.blocks.{i}.0.weight" in shapes for i in range(9)) for part in ("enhance", "calibrate")]
    return {"width": width, "layers": layers[0], "calibrate_width": other, "calibrate_layers": layers[1]}


def restorer(net: SCI, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network."""
    return SinglePassModel(net, info(net, header, "sci", "lowlight", overlap=4, live=24))
