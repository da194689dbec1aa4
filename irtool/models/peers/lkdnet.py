"""LKD-Net: haze removed with large kernels taken apart into small and dilated ones (Luo et al., ICME 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..base import SinglePassModel
from .dehaze_unet import DehazeUNet, Row, depths, named, reflect, standardize
from .wrap import info


class FeedForward(nn.Module):
    """Two 1x1 convolutions around one by channel, normed over the whole map and scaled by channel attention."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        hidden, reduced = ratio * width, width // 8
        self.mlp = named(
            mlp=nn.Sequential(
                nn.Conv2d(width, hidden, 1),
                nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
                nn.ReLU(),
                nn.Conv2d(hidden, width, 1),
            )
        )
        self.norm: Any = nn.Module()
        self.norm.weight, self.norm.bias = (nn.Parameter(torch.ones(1, width, 1, 1)) for _ in range(2))
        self.ca = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, reduced, 1),
            nn.ReLU(),
            nn.Conv2d(reduced, width, 1),
            nn.Sigmoid(),
        )
        self.scaler = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = standardize(self.mlp.mlp(x))[0] * self.norm.weight + self.norm.bias
        return y * (self.scaler * self.ca(x))


class Block(nn.Module):
    """A 21x21 kernel as 5x5 and dilated 7x7, and a feed-forward network, each with its residual."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.Linear1, self.Linear2 = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.DWConv = reflect(width, width, 5, groups=width)
        self.DWDConv = reflect(width, width, 7, groups=width, dilation=3)
        self.cemlp = FeedForward(width, ratio)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.Linear2(self.DWDConv(self.DWConv(self.Linear1(self.norm1(x)))))
        return x + self.cemlp(self.norm2(x))


class LKDNet(DehazeUNet):
    """The network.

    Args:
        width: channels at full size.
        depths: blocks in each of the five rows.
        ratio: of the hidden width of the feed-forward networks.
    """

    def __init__(self, width: int = 24, depths: Sequence[int] = (1, 1, 2, 1, 1), ratio: int = 4) -> None:
        # The dilated kernel mirrors 9 pixels at a quarter of the size.
        super().__init__(width, lambda wide, i: Row([Block(wide, ratio) for _ in range(depths[i])]), least=40)


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `LKDNet` from its tensors, None where these are not its."""
    width = shapes["patch_embed.proj.weight"][0]
    ratio = shapes["layer1.blocks.0.cemlp.mlp.mlp.0.weight"][0] // width
    return {"width": width, "depths": depths(shapes), "ratio": ratio}


def restorer(net: Any, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network; its norms and its attention see all it is given."""
    width = net.skip1.out_channels
    return SinglePassModel(
        net, info(net, header, "lkdnet", "haze", overlap=64, live=14 * width, multiple=4, tiling="blended")
    )
