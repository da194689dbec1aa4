"""MIRNet: three sizes that exchange features through selective kernels (Zamir et al., ECCV 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...synth.ops import pad_reflect
from ..base import SinglePassModel
from .dehaze_unet import named
from .wrap import info

SIZES = 3


def point(a: int, b: int) -> nn.Conv2d:
    return nn.Conv2d(a, b, 1, bias=False)


def conv(a: int, b: int, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(a, b, 3, padding=1, bias=False, **more)


class Fusion(nn.Module):
    """Maps of one shape weighed by channel, the weights read off the mean of their sum."""

    def __init__(self, width: int, maps: int, act: nn.Module) -> None:
        super().__init__()
        inner = max(width // 8, 4)
        self.conv_du = nn.Sequential(point(width, inner), act)
        self.fcs = nn.ModuleList(point(inner, width) for _ in range(maps))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        stacked = torch.stack(list(maps), dim=1)
        inner = self.conv_du(stacked.sum(1).mean(dim=(2, 3), keepdim=True))
        return (stacked * torch.stack([layer(inner) for layer in self.fcs], dim=1).softmax(dim=1)).sum(1)


class Dual(nn.Module):
    """Spatial and channel attention, side by side."""

    def __init__(self, width: int, act: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(width, width), act, conv(width, width))
        self.SA = named(spatial=named(conv=nn.Conv2d(2, 1, 5, padding=2, bias=False)))
        self.CA = named(
            conv_du=nn.Sequential(point(width, width // 8), nn.ReLU(), point(width // 8, width), nn.Sigmoid())
        )
        self.conv1x1 = point(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        pooled = torch.cat([y.amax(1, keepdim=True), y.mean(1, keepdim=True)], dim=1)
        spatial = y * torch.sigmoid(self.SA.spatial.conv(pooled))
        channel = y * self.CA.conv_du(y.mean(dim=(2, 3), keepdim=True))
        return self.conv1x1(torch.cat([spatial, channel], dim=1)) + x


class Blur(nn.Module):
    """Every second pixel after a fixed binomial filter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("filt", (taps[:, None] * taps).repeat(width, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        filt = self.get_buffer("filt")
        return F.conv2d(pad_reflect(x, 1, 1, 1, 1), filt, stride=2, groups=x.shape[1])


class Resize(nn.Module):
    """One halving with twice the channels, or one doubling with half of them."""

    def __init__(self, width: int, up: bool) -> None:
        super().__init__()
        if up:
            step, other = nn.ConvTranspose2d(width, width, 3, 2, 1, 1, bias=False), width // 2
            self.top = nn.Sequential(point(width, width), nn.PReLU(), step, nn.PReLU(), point(width, other))
            self.bot = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), point(width, other))
        else:
            before = (point(width, width), nn.PReLU(), conv(width, width), nn.PReLU())
            self.top = nn.Sequential(*before, Blur(width), point(width, 2 * width))
            self.bot = nn.Sequential(Blur(width), point(width, 2 * width))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.top(x) + self.bot(x)
        return y


def resizes(width: int, steps: int, up: bool) -> nn.Module:
    widths = [width >> i if up else width << i for i in range(steps)]
    return named(body=nn.Sequential(*(Resize(wide, up) for wide in widths)))


class MultiScale(nn.Module):
    """A block over three sizes; the columns of a size share their weights, as published."""

    def __init__(self, width: int, columns: int, act: nn.Module) -> None:
        super().__init__()
        widths = [width << i for i in range(SIZES)]
        self.columns = columns
        self.blocks = nn.ModuleList(nn.ModuleList([Dual(wide, act)] * columns) for wide in widths)
        self.last_up = nn.ModuleDict({str(i): resizes(widths[i], i, up=True) for i in range(1, SIZES)})
        self.down = nn.ModuleDict(
            {
                f"{widths[i]}_{1 << n}": resizes(widths[i], n, up=False)
                for i in range(SIZES)
                for n in range(1, SIZES - i)
            }
        )
        self.up = nn.ModuleDict(
            {f"{widths[i]}_{1 << n}": resizes(widths[i], n, up=True) for i in range(SIZES) for n in range(1, i + 1)}
        )
        self.conv_out = conv(width, width)
        self.selective_kernel = nn.ModuleList(Fusion(wide, SIZES, nn.PReLU()) for wide in widths)

    def forward(self, x: Tensor) -> Tensor:
        maps: list[Tensor] = []
        for i, row in enumerate(self.blocks):
            maps.append(row[0](self._resized(maps[-1], i - 1, i) if i else x))  # type: ignore[index]
        for column in range(1, self.columns):
            fused = [
                self.selective_kernel[i]([self._resized(y, j, i) for j, y in enumerate(maps)]) for i in range(SIZES)
            ]
            maps = [row[column](y) for row, y in zip(self.blocks, fused, strict=True)]  # type: ignore[index]
        raised = [maps[0]]
        for i in range(1, SIZES):
            raised.append(self.last_up[str(i)].body(maps[i]))  # type: ignore[operator]
        y: Tensor = self.conv_out(self.selective_kernel[0](raised)) + x
        return y

    def _resized(self, x: Tensor, source: int, target: int) -> Tensor:
        if source == target:
            return x
        way: Any = self.up if target < source else self.down
        y: Tensor = way[f"{x.shape[1]}_{1 << abs(source - target)}"].body(x)
        return y


class Group(nn.Module):
    """Blocks and a convolution, added to what they get."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class MIRNet(nn.Module):
    """The network.

    Args:
        width: channels at full size.
        groups: recursive residual groups.
        blocks: in each of them.
        columns: of each block.
    """

    def __init__(self, width: int = 64, groups: int = 3, blocks: int = 2, columns: int = 2) -> None:
        super().__init__()
        act = nn.PReLU()  # one for all attention blocks
        self.conv_in, self.conv_out = conv(3, width), conv(width, 3)
        self.body = nn.Sequential(
            *(
                Group([*(MultiScale(width, columns, act) for _ in range(blocks)), conv(width, width)])
                for _ in range(groups)
            )
        )

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], any size -> the same shape, not clipped."""
        height, width = image.shape[-2:]
        x = pad_reflect(image, 0, -width % 4, 0, -height % 4)
        return (x + self.conv_out(self.body(self.conv_in(x))))[..., :height, :width]


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `MIRNet` from its tensors, None where these are not its."""
    blocks = sum(name.startswith("body.0.body.") and name.endswith(".blocks.0.0.conv1x1.weight") for name in shapes)
    columns = sum(name.startswith("body.0.body.0.blocks.0.") and name.endswith(".conv1x1.weight") for name in shapes)
    groups = len({name.split(".")[1] for name in shapes if name.startswith("body.")})
    return {"width": shapes["conv_in.weight"][0], "groups": groups, "blocks": blocks, "columns": columns}


def restorer(net: Any, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network; its attention sees all it is given."""
    live = 12 * net.conv_in.out_channels
    return SinglePassModel(
        net, info(net, header, "mirnet", "noise", overlap=64, live=live, multiple=4, tiling="blended")
    )
