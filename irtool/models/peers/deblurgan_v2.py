"""DeblurGAN-v2: the generator with a feature pyramid over MobileNetV2 (Kupyn et al., ICCV 2019).

It was published to be run with the statistics of the image itself in every norm; so it is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import SinglePassModel
from .wrap import info

# MobileNetV2: expansion, channels, blocks, stride of the first; the pyramid looks at five places.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
PLACES, LATERAL = (0, 2, 4, 7, 11, 16), (16, 24, 32, 64, 160)
MULTIPLE = 32


class Norm(nn.BatchNorm2d):
    """A batch norm that takes the statistics of what it is given, also in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() == x.shape[1]:  # one value is its own mean; batch_norm refuses it
            return self.bias[None, :, None, None].expand_as(x)
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)


class PlainNorm(nn.InstanceNorm2d):
    """An instance norm whose published statistics are kept in the file, but not used."""

    def __init__(self, width: int) -> None:
        super().__init__(width, track_running_stats=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, eps=self.eps)


def step(a: int, b: int, side: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    layer = nn.Conv2d(a, b, side, stride, side // 2, groups=groups, bias=False)
    return [layer, Norm(b), nn.ReLU6()]


class Inverted(nn.Module):
    """An inverted residual block."""

    def __init__(self, a: int, b: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden, self.residual = a * expansion, stride == 1 and a == b
        wider = step(a, hidden, 1) if expansion > 1 else []
        self.conv = nn.Sequential(*wider, *step(hidden, hidden, 3, stride, hidden), *step(hidden, b, 1)[:2])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


def smooth(a: int, b: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(a, b, 3, padding=1), PlainNorm(b), nn.ReLU())


class Pyramid(nn.Module):
    """Five maps, at 1/2 to 1/32 of the size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(*step(3, 32, 3, 2))]
        channels = 32
        for expansion, wide, count, stride in STAGES:
            for i in range(count):
                layers.append(Inverted(channels, wide, stride if i == 0 else 1, expansion))
                channels = wide
        self.features = nn.Sequential(*layers, nn.Sequential(*step(channels, 1280, 1)))
        for i, wide in enumerate(LATERAL):
            self.add_module(f"enc{i}", nn.Sequential(*layers[PLACES[i] : PLACES[i + 1]]))  # the same modules again
            self.add_module(f"lateral{i}", nn.Conv2d(wide, width if i else width // 2, 1, bias=False))
        self.td1, self.td2, self.td3 = (smooth(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for i in range(len(LATERAL)):
            x = getattr(self, f"enc{i}")(x)
            maps.append(getattr(self, f"lateral{i}")(x))
        for i, layer in zip((3, 2, 1), (self.td1, self.td2, self.td3), strict=True):
            maps[i] = layer(maps[i] + enlarge(maps[i + 1], 2))
        return maps


def enlarge(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="nearest")


class DeblurGANv2(nn.Module):
    """The network.

    Args:
        width: channels of the heads.
        pyramid: of the feature pyramid.
    """

    def __init__(self, width: int = 64, pyramid: int = 128) -> None:
        super().__init__()
        self.fpn = Pyramid(pyramid)
        for i in range(1, 5):
            head = nn.Module()
            head.block0 = nn.Conv2d(pyramid, width, 3, padding=1, bias=False)
            head.block1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.add_module(f"head{i}", head)
        self.smooth, self.smooth2 = smooth(4 * width, width), smooth(width, width // 2)
        self.final = nn.Conv2d(width // 2, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], any size -> the same shape, in [0, 1]; padded with zeros, as published."""
        height, width = image.shape[-2:]
        # At least one line more, as published: zeros stand for mid-gray in [-1, 1].
        down, right = (MULTIPLE - side % MULTIPLE for side in (height, width))
        x = F.pad(image * 2 - 1, (0, right, 0, down))
        first, *maps = self.fpn(x)
        heads: list[Tensor] = []
        for i, y in enumerate(maps, 1):
            head: Any = getattr(self, f"head{i}")
            heads.insert(0, enlarge(torch.relu(head.block1(torch.relu(head.block0(y)))), 1 << (i - 1)))
        y = enlarge(self.smooth(torch.cat(heads, dim=1)), 2)
        y = self.final(enlarge(self.smooth2(y + first), 2))
        restored = torch.clamp(torch.tanh(y) + x, -1, 1) * 0.5 + 0.5
        return restored[..., :height, :width]


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `DeblurGANv2` from its tensors, None where these are not its."""
    width, pyramid = shapes["head1.block0.weight"][:2]
    return {"width": width, "pyramid": pyramid}


def restorer(net: Any, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network; its norms see all it is given."""
    live = 4 * net.final.in_channels
    return SinglePassModel(
        net, info(net, header, "deblurgan-v2", "blur", overlap=64, live=live, multiple=MULTIPLE, tiling="blended")
    )
