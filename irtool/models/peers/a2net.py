"""A2Net: raindrops removed by a pyramid with one decoder for luma and one for chroma (Lin et al., ACCV 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..base import SinglePassModel
from .wrap import info

# Rows of BT.601: Y of R, G, B; and the factors of B - Y and R - Y, as OpenCV has them.
LUMA, BLUE, RED = (0.299, 0.587, 0.114), 0.492, 0.877


def conv(a: int, b: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU())


class Down(nn.Module):
    """Halves a map twice, before and after a convolution, and joins both."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(width, width), conv(2 * width, width)
        self.down1, self.down2 = (nn.Sequential(nn.Conv2d(width, width, 4, 2, 1), nn.ReLU()) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> (N, C, H / 2, W / 2) and what is kept at full size (N, C, H, W)."""
        kept = self.conv1(x)
        return self.conv2(torch.cat([self.down1(x), self.down2(kept)], dim=1)), kept


class Up(nn.Module):
    """Doubles a map twice, before and after a convolution, and joins both with what was kept."""

    def __init__(self, before: int, width: int, kept: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(before, width), conv(2 * width + kept, width)
        self.up1 = nn.Sequential(nn.ConvTranspose2d(width, width, 2, 2), nn.ReLU())
        self.up2 = nn.Sequential(nn.ConvTranspose2d(before, width, 2, 2), nn.ReLU())

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        y: Tensor = self.conv2(torch.cat([self.up1(self.conv1(x)), self.up2(x), kept], dim=1))
        return y


class A2Net(nn.Module):
    """The network.

    Args:
        width: channels of the encoder and of the luma decoder.
        chroma: of the chroma decoder.
    """

    def __init__(self, width: int = 32, chroma: int = 24) -> None:
        super().__init__()
        self.inc = conv(3, width)
        self.down1, self.down2, self.down3 = (Down(width) for _ in range(3))
        self.up1, self.up2, self.up3 = (Up(width, width, width) for _ in range(3))
        self.up_UV1, self.up_UV2, self.up_UV3 = (Up(b, chroma, width) for b in (width, chroma, chroma))
        self.outc_Y, self.outc_UV = (
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.Tanh()) for a, b in ((width, 1), (chroma, 2))
        )

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], sides multiples of 8 -> the same shape, not clipped."""
        y, uv = self.components(to_yuv(image))
        return to_rgb(torch.cat([y, uv], dim=1))

    def components(self, yuv: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W): Y, U, V in [0, 1] -> the restored Y (N, 1, H, W) and U, V (N, 2, H, W)."""
        x, first = self.down1(self.inc(yuv))
        x, second = self.down2(x)
        x, third = self.down3(x)
        luma = self.up3(self.up2(self.up1(x, third), second), first)
        chroma = self.up_UV3(self.up_UV2(self.up_UV1(x, third), second), first)
        return yuv[:, :1] + self.outc_Y(luma), yuv[:, 1:] + self.outc_UV(chroma)


def to_yuv(rgb: Tensor) -> Tensor:
    """RGB (N, 3, H, W) in [0, 1] -> Y, U, V in [0, 1]; chroma is around a half."""
    red, green, blue = rgb.unbind(1)
    y = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return torch.stack([y, BLUE * (blue - y) + 0.5, RED * (red - y) + 0.5], dim=1)


def to_rgb(yuv: Tensor) -> Tensor:
    """The inverse of `to_yuv`."""
    y, u, v = yuv.unbind(1)
    red, blue = y + (v - 0.5) / RED, y + (u - 0.5) / BLUE
    return torch.stack([red, (y - LUMA[0] * red - LUMA[2] * blue) / LUMA[1], blue], dim=1)


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `A2Net` from its tensors, None where these are not its."""
    if shapes["outc_UV.0.weight"][0] != 2:
        return None
    return {"width": shapes["inc.0.weight"][0], "chroma": shapes["outc_UV.0.weight"][1]}


def restorer(net: Any, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network."""
    live = 9 * net.inc[0].out_channels
    return SinglePassModel(net, info(net, header, "a2net", "raindrop", overlap=64, live=live, multiple=8))
