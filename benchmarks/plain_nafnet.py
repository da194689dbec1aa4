"""A plain NAFNet (Chen et al., ECCV 2022, arXiv 2204.04676), the yardstick of the speed benchmark.

Width 32 with 2, 2, 4, 8 | 4 | 2, 2, 2, 2 blocks is the image network of InstructIR without its text modulation.
Weights do not change the time a pass takes, so they stay random here and nothing is restored with them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (N, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        scale = (centred.square().mean(1, keepdim=True) + 1e-6).rsqrt()
        return centred * scale * self.weight[:, None, None] + self.bias[:, None, None]


class NAFBlock(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(c), ChannelNorm(c)
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv2d(c, 2 * c, 1),
            nn.Conv2d(2 * c, 2 * c, 3, 1, 1, groups=2 * c),
            nn.Conv2d(c, c, 1),
        )
        self.attention = nn.Conv2d(c, c, 1)
        self.conv4, self.conv5 = nn.Conv2d(c, 2 * c, 1), nn.Conv2d(c, c, 1)
        self.beta, self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1)), nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv2(self.conv1(self.norm1(x))).chunk(2, 1)
        y = a * b
        y = x + self.beta * self.conv3(y * self.attention(y.mean((2, 3), keepdim=True)))
        a, b = self.conv4(self.norm2(y)).chunk(2, 1)
        return y + self.gamma * self.conv5(a * b)


class NAFNet(nn.Module):
    def __init__(
        self,
        width: int = 32,
        encoder: tuple[int, ...] = (2, 2, 4, 8),
        middle: int = 4,
        decoder: tuple[int, ...] = (2, 2, 2, 2),
    ) -> None:
        super().__init__()
        self.multiple = 2 ** len(encoder)
        self.intro, self.ending = nn.Conv2d(3, width, 3, 1, 1), nn.Conv2d(width, 3, 3, 1, 1)
        self.encoders, self.downs, self.ups, self.decoders = (nn.ModuleList() for _ in range(4))
        for count in encoder:
            self.encoders.append(nn.Sequential(*(NAFBlock(width) for _ in range(count))))
            self.downs.append(nn.Conv2d(width, 2 * width, 2, 2))
            width *= 2
        self.middle = nn.Sequential(*(NAFBlock(width) for _ in range(middle)))
        for count in decoder:
            self.ups.append(nn.Sequential(nn.Conv2d(width, 2 * width, 1, bias=False), nn.PixelShuffle(2)))
            width //= 2
            self.decoders.append(nn.Sequential(*(NAFBlock(width) for _ in range(count))))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, 3, H, W) in [0, 1] -> the same shape."""
        h, w = x.shape[-2:]
        x = F.pad(x, (0, -w % self.multiple, 0, -h % self.multiple))
        y, skips = self.intro(x), []
        for stage, down in zip(self.encoders, self.downs, strict=True):
            y = stage(y)
            skips.append(y)
            y = down(y)
        y = self.middle(y)
        for up, stage, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            y = stage(up(y) + skip)
        return (x + self.ending(y))[..., :h, :w]
