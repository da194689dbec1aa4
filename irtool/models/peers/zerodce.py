"""Zero-DCE: low light raised by curves estimated per pixel (Guo et al., CVPR 2020).

A small network gives eight maps A_n per channel; the picture goes through LE_n(x) = LE_{n-1} + A_n LE_{n-1} (1 -
LE_{n-1}) eight times (eq. 3). The published code writes the same curve with the sign of A turned round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..base import SinglePassModel
from .wrap import info


class ZeroDCE(nn.Module):
    """The network: seven convolutions with skips between the first and the last.

    Args:
        width: feature maps.
        curves: times the curve is applied.
    """

    def __init__(self, width: int = 32, curves: int = 8) -> None:
        super().__init__()
        self.width, self.curves = width, curves
        inputs = (3, width, width, width, 2 * width, 2 * width, 2 * width)
        for i, channels in enumerate(inputs, 1):
            setattr(self, f"e_conv{i}", nn.Conv2d(channels, width if i < 7 else 3 * curves, 3, padding=1))

    def forward(self, dark: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same shape."""
        features = [dark]
        for i in range(1, 5):
            features.append(torch.relu(getattr(self, f"e_conv{i}")(features[-1])))
        x = features[4]
        for i in (5, 6, 7):
            x = getattr(self, f"e_conv{i}")(torch.cat([features[8 - i], x], dim=1))
            x = torch.relu(x) if i < 7 else torch.tanh(x)
        image = dark
        for a in x.chunk(self.curves, dim=1):
            image = image + a * (image**2 - image)
        return image


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `ZeroDCE` from its tensors, None where these are not its."""
    width, out = shapes["e_conv1.weight"][0], shapes["e_conv7.weight"][0]
    if shapes["e_conv1.weight"] != (width, 3, 3, 3) or shapes["e_conv7.weight"] != (out, 2 * width, 3, 3) or out % 3:
        return None
    return {"width": width, "curves": out // 3}


def restorer(net: ZeroDCE, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network."""
    return SinglePassModel(net, info(net, header, "zerodce", "lowlight", overlap=8, live=8 * net.width))
