"""GCANet: haze removed by a gated context aggregation network (Chen et al., WACV 2019).

Dilated convolutions are smoothed beforehand by one small kernel shared by all channels, against gridding. Three levels
are weighed by learned maps and summed. A fourth input channel tells edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import SinglePassModel
from .wrap import info, settings


class SharedKernel(nn.Module):
    """Every channel convolved with one kernel, which begins as the identity."""

    def __init__(self, side: int) -> None:
        super().__init__()
        weight = torch.zeros(1, 1, side, side)
        weight[0, 0, side // 2, side // 2] = 1
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        channels, side = x.shape[1], self.weight.shape[-1]
        return F.conv2d(x, self.weight.expand(channels, 1, side, side), padding=side // 2, groups=channels)


def norm(width: int) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(width, affine=True)


class Block(nn.Module):
    """Residual block, dilated and smoothed where `dilation` is above one."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        smoothed = dilation > 1
        self.pre_conv1, self.pre_conv2 = (
            SharedKernel(2 * dilation - 1) if smoothed else nn.Identity() for _ in range(2)
        )
        self.conv1, self.conv2 = (
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False) for _ in range(2)
        )
        self.norm1, self.norm2 = norm(width), norm(width)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(self.pre_conv1(x))))
        return torch.relu(x + self.norm2(self.conv2(self.pre_conv2(y))))


class GCANet(nn.Module):
    """The network.

    Args:
        width: feature maps.
        residual: its output is added to its input, as in the dehazing model; not told by the weights.
    """

    def __init__(self, width: int = 64, residual: bool = True) -> None:
        super().__init__()
        self.residual = residual
        self.conv1 = nn.Conv2d(4, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False)
        self.norm1, self.norm2, self.norm3, self.norm4, self.norm5 = (norm(width) for _ in range(5))
        for i, dilation in enumerate((2, 2, 2, 4, 4, 4, 1), 1):
            setattr(self, f"res{i}", Block(width, dilation))
        self.gate = nn.Conv2d(3 * width, 3, 3, padding=1)
        self.deconv3 = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)
        self.deconv2 = nn.Conv2d(width, width, 3, padding=1)
        self.deconv1 = nn.Conv2d(width, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same shape, not clipped. Sides that are odd lose nothing: they are padded."""
        height, width = image.shape[-2:]
        x = F.pad(image, (0, width % 2, 0, height % 2), mode="replicate") * 255
        x = torch.cat([x, edges(x)], dim=1) - 128
        x = torch.relu(self.norm1(self.conv1(x)))
        x = torch.relu(self.norm2(self.conv2(x)))
        low = torch.relu(self.norm3(self.conv3(x)))
        middle = low
        for i in (1, 2, 3):
            middle = getattr(self, f"res{i}")(middle)
        high = middle
        for i in (4, 5, 6, 7):
            high = getattr(self, f"res{i}")(high)
        levels = [low, middle, high]
        gates = self.gate(torch.cat(levels, dim=1)).chunk(3, dim=1)
        x = sum(gate * level for gate, level in zip(gates, levels, strict=True))
        x = torch.relu(self.norm4(self.deconv3(x)))
        x = torch.relu(self.norm5(self.deconv2(x)))
        out = self.deconv1(x)[..., :height, :width] / 255
        return image + out if self.residual else torch.relu(out)


def edges(x: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 1, H, W): mean over the channels of the differences to the four neighbours, over four."""
    across, down = (x[..., 1:] - x[..., :-1]).abs(), (x[..., 1:, :] - x[..., :-1, :]).abs()
    total = F.pad(across, (1, 0)) + F.pad(across, (0, 1)) + F.pad(down, (0, 0, 1, 0)) + F.pad(down, (0, 0, 0, 1))
    return total.mean(dim=1, keepdim=True) / 4


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `GCANet` from its tensors, None where these are not its."""
    width = shapes["conv1.weight"][0]
    if shapes["conv1.weight"] != (width, 4, 3, 3) or shapes["gate.weight"] != (3, 3 * width, 3, 3):
        return None
    return {"width": width}


def restorer(net: GCANet, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network; "settings" of the header may say that it is not "residual".

    Its norms see the whole picture: cut in tiles it gives other colours.
    """
    net.residual = bool(settings(header).get("residual", net.residual))
    return SinglePassModel(
        net,
        info(net, header, "gcanet", "haze", overlap=96, tiling="blended", live=6 * net.conv1.out_channels, multiple=8),
    )
