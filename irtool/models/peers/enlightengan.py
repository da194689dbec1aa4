"""EnlightenGAN: the generator, a U-Net guided by the darkness of the image (Jiang et al., TIP 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...synth.ops import pad_reflect
from ..base import SinglePassModel
from .wrap import info

LEVELS, MULTIPLE = 5, 16


class EnlightenGAN(nn.Module):
    """The network.

    Args:
        width: channels at full size.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        add = self.add_module
        widths = [width << i for i in range(LEVELS)]
        for i in range(1, 2 * LEVELS):
            level = i - 1 if i <= LEVELS else 2 * LEVELS - 1 - i
            wide = widths[level]
            before = 4 if i == 1 else widths[level - 1] if i <= LEVELS else 2 * wide
            add(f"conv{i}_1", nn.Conv2d(before, wide, 3, padding=1))
            add(f"bn{i}_1", nn.BatchNorm2d(wide))
            add(f"conv{i}_2", nn.Conv2d(wide, wide, 3, padding=1))
            if i < 2 * LEVELS - 1:
                add(f"bn{i}_2", nn.BatchNorm2d(wide))
            if i > LEVELS:
                add(f"deconv{i - 1}", nn.Conv2d(2 * wide, wide, 3, padding=1))
        self.conv10 = nn.Conv2d(width, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], any size -> the same shape, not clipped; both ends are mirrored."""
        height, width = image.shape[-2:]
        down, right = (-side % MULTIPLE for side in (height, width))
        left, top = right // 2, down // 2
        x = pad_reflect(image, left, right - left, top, down - top) * 2 - 1
        weights = torch.tensor([0.299, 0.587, 0.114], dtype=x.dtype, device=x.device)[:, None, None]
        dark = [1 - ((x + 1) * weights).sum(1, keepdim=True) / 2]
        for _ in range(1, LEVELS):
            dark.append(F.max_pool2d(dark[-1], 2))
        skips, y = [], torch.cat([x, dark[0]], dim=1)
        for i in range(1, LEVELS):
            skips.append(self._step(i, 2, self._step(i, 1, y)))
            y = F.max_pool2d(skips[-1], 2)
        y = self._step(LEVELS, 2, self._step(LEVELS, 1, y) * dark[-1])
        for i in range(LEVELS + 1, 2 * LEVELS):
            level = 2 * LEVELS - 1 - i
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
            y = torch.cat([getattr(self, f"deconv{i - 1}")(y), skips[level] * dark[level]], dim=1)
            y = self._step(i, 2, self._step(i, 1, y))
        lit = self.conv10(y) * dark[0] + x
        return (lit * 0.5 + 0.5)[..., top : top + height, left : left + width]

    def _step(self, i: int, j: int, x: Tensor) -> Tensor:
        x = F.leaky_relu(getattr(self, f"conv{i}_{j}")(x), 0.2)
        norm = getattr(self, f"bn{i}_{j}", None)
        return x if norm is None else norm(x)


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `EnlightenGAN` from its tensors, None where these are not its."""
    width = shapes["conv1_1.weight"][0]
    return {"width": width} if shapes["conv1_1.weight"] == (width, 4, 3, 3) else None


def restorer(net: Any, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network."""
    live = 7 * net.conv10.in_channels
    return SinglePassModel(
        net, info(net, header, "enlightengan", "lowlight", overlap=128, live=live, multiple=16, tiling="blended")
    )
