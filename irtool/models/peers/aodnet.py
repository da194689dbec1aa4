"""AOD-Net: haze removed by one estimated map (Li et al., ICCV 2017).

Transmission and airlight are joined in one quantity K, so that the scene is K(x) I(x) - K(x) + 1 (eq. 5 with b = 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..base import SinglePassModel
from .wrap import info


class AODNet(nn.Module):
    """The network: five convolutions of three channels, each seeing what some before it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.e_conv1 = nn.Conv2d(3, 3, 1)
        self.e_conv2 = nn.Conv2d(3, 3, 3, padding=1)
        self.e_conv3 = nn.Conv2d(6, 3, 5, padding=2)
        self.e_conv4 = nn.Conv2d(6, 3, 7, padding=3)
        self.e_conv5 = nn.Conv2d(12, 3, 3, padding=1)

    def forward(self, hazy: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same shape, at least 0."""
        x1 = torch.relu(self.e_conv1(hazy))
        x2 = torch.relu(self.e_conv2(x1))
        x3 = torch.relu(self.e_conv3(torch.cat([x1, x2], dim=1)))
        x4 = torch.relu(self.e_conv4(torch.cat([x2, x3], dim=1)))
        k = torch.relu(self.e_conv5(torch.cat([x1, x2, x3, x4], dim=1)))
        return torch.relu(k * hazy - k + 1)


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """No configuration to read: {} where these are the tensors of `AODNet`, else None."""
    fits = shapes["e_conv1.weight"] == (3, 3, 1, 1) and shapes["e_conv5.weight"] == (3, 12, 3, 3)
    return {} if fits else None


def restorer(net: AODNet, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network."""
    return SinglePassModel(net, info(net, header, "aodnet", "haze", overlap=8, live=36))
