"""NAFNet (Chen et al., "Simple Baselines for Image Restoration", ECCV 2022), pooling over the whole picture or locally.

The network is trained on crops, and its channel attention pools over all it is given; on whole pictures it then meets
statistics it never saw. The test-time local converter (Chu et al., "Improving Image Restoration by Revisiting Global
Information Aggregation", ECCV 2022) pools over a window around each pixel instead. It has no weights of its own, and
tiles then agree with the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import pad_to_multiple
from .base import SinglePassModel, describe, settings
from .macs import gmacs_per_megapixel
from .unet_blocks import PixelConv

Shapes = Mapping[str, tuple[int, ...]]


def gate(x: Tensor, dim: int = 1) -> Tensor:
    """The product of the two halves of the channels: all that is not linear in these networks."""
    a, b = x.chunk(2, dim=dim)
    return a * b


class LocalPool(nn.Module):
    """The mean over a window around each pixel, the values at the border continued outwards.

    Args:
        window: height and width of the window; a picture that is smaller is averaged whole. None for always whole.
        steps: rows and columns to look at every so many pixels at most, for the published fast mode, which is
            approximate (and, with steps of 1, still leaves out the first row and column); None for exact means.
    """

    def __init__(self, window: tuple[int, int] | None = None, steps: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.window, self.steps = window, steps

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape, or (N, C, 1, 1) where the window holds the whole."""
        height, width = x.shape[-2:]
        if self.window is None or (self.window[0] >= height and self.window[1] >= width):
            return x.mean(dim=(2, 3), keepdim=True)
        # Sums of any window from one table of sums (Crow, 1984). The tables grow with the picture: float32 at least.
        if self.steps is None:
            table = F.pad(x.float().cumsum(-1).cumsum(-2), (1, 0, 1, 0))
            rows, columns = (min(s, k) for s, k in zip((height, width), self.window, strict=True))
            means = _windows(table, rows, columns)
        else:
            down, right = (
                min(most, next(r for r in (5, 4, 3, 2, 1) if s % r == 0))
                for s, most in zip((height, width), self.steps, strict=True)
            )
            table = x[:, :, ::down, ::right].float().cumsum(-1).cumsum(-2)
            rows = min(table.shape[-2] - 1, self.window[0] // down)
            columns = min(table.shape[-1] - 1, self.window[1] // right)
            means = F.interpolate(_windows(table, rows, columns), scale_factor=(down, right))
        missing_rows, missing_columns = height - means.shape[-2], width - means.shape[-1]
        edges = (missing_columns // 2, (missing_columns + 1) // 2, missing_rows // 2, (missing_rows + 1) // 2)
        return F.pad(means, edges, mode="replicate").to(x.dtype)


def _windows(table: Tensor, rows: int, columns: int) -> Tensor:
    sums = table[:, :, rows:, columns:] - table[:, :, :-rows, columns:]
    sums = sums - table[:, :, rows:, :-columns] + table[:, :, :-rows, :-columns]
    return sums / (rows * columns)


def windows(train_size: Sequence[int], levels: int, fast: bool = False) -> list[LocalPool]:
    """The pooling of each level, the middle last, for a network trained on crops of `train_size` (height, width).

    The published window is one and a half times the crop.
    """
    pools = []
    for level in range(levels + 1):
        sides = [s >> level for s in train_size]
        high, wide = (a * int(1.5 * s) // s for a, s in zip(sides, train_size, strict=True))
        # The fast mode looks the closer the smaller a level is.
        down, right = (max(1, 5 * a // s) for a, s in zip(sides, train_size, strict=True))
        pools.append(LocalPool((high, wide), (down, right) if fast else None))
    return pools


class LayerNorm2d(nn.Module):
    """Normalisation over the channels of each pixel, eps 1e-6."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, 1e-6)
        return y.permute(0, 3, 1, 2)


class Block(nn.Module):
    """A NAFNet block: gated depthwise convolution with channel attention, then a gated 1x1 pair."""

    def __init__(self, c: int, pool: LocalPool) -> None:
        super().__init__()
        self.conv1 = PixelConv(c, 2 * c)
        self.conv2 = nn.Conv2d(2 * c, 2 * c, 3, 1, 1, groups=2 * c)
        self.conv3 = PixelConv(c, c)
        self.sca = nn.Sequential(pool, nn.Conv2d(c, c, 1))
        self.conv4, self.conv5 = PixelConv(c, 2 * c), PixelConv(c, c)
        self.norm1, self.norm2 = LayerNorm2d(c), LayerNorm2d(c)
        self.beta, self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1)), nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = gate(self.conv2(self.conv1(self.norm1(x))))
        x = x + self.conv3(y * self.sca(y)) * self.beta
        return x + self.conv5(gate(self.conv4(self.norm2(x)))) * self.gamma


def add_stages(
    net: Any,
    width: int,
    middle: int,
    encoders: Sequence[int],
    decoders: Sequence[int],
    stage: Callable[[int, int], nn.Module],
) -> None:
    """Give a network the stages of the NAFNet layout, under their published names, and the steps between them.

    Args:
        net: the network.
        width: channels of the first level; they double per level.
        middle, encoders, decoders: numbers of blocks; decoders from the deepest level up.
        stage: ``(level, blocks) -> module``, of `width << level` channels; the middle is one level below the last.
    """
    net.encoders, net.decoders = nn.ModuleList(), nn.ModuleList()
    net.ups, net.downs = nn.ModuleList(), nn.ModuleList()
    for level, count in enumerate(encoders):
        c = width << level
        net.encoders.append(stage(level, count))
        net.downs.append(nn.Conv2d(c, 2 * c, 2, 2))
    net.middle_blks = stage(len(encoders), middle)
    for level, count in zip(reversed(range(len(encoders))), decoders, strict=True):
        c = width << level
        net.ups.append(nn.Sequential(PixelConv(2 * c, 4 * c, bias=False), nn.PixelShuffle(2)))
        net.decoders.append(stage(level, count))


class NAFNet(nn.Module):
    """NAFNet; with `train_size` its test-time local form.

    Args:
        img_channel: of pictures in and out.
        width: channels of the first level; they double per level.
        middle_blk_num, enc_blk_nums, dec_blk_nums: blocks in the middle and at each level.
        train_size: (height, width) of the crops it was trained on, for local pooling; None pools over all.
        fast_imp: the published approximate form of local pooling.
    """

    encoders: nn.ModuleList
    decoders: nn.ModuleList
    ups: nn.ModuleList
    downs: nn.ModuleList
    middle_blks: nn.Sequential

    def __init__(
        self,
        img_channel: int = 3,
        width: int = 32,
        middle_blk_num: int = 12,
        enc_blk_nums: Sequence[int] = (2, 2, 4, 8),
        dec_blk_nums: Sequence[int] = (2, 2, 2, 2),
        train_size: Sequence[int] | None = None,
        fast_imp: bool = False,
    ) -> None:
        super().__init__()
        levels = len(enc_blk_nums)
        pools = windows(train_size, levels, fast_imp) if train_size else [LocalPool()] * (levels + 1)
        self.multiple = 2**levels
        self.intro, self.ending = nn.Conv2d(img_channel, width, 3, 1, 1), nn.Conv2d(width, img_channel, 3, 1, 1)

        def stage(level: int, count: int) -> nn.Module:
            return nn.Sequential(*(Block(width << level, pools[level]) for _ in range(count)))

        add_stages(self, width, middle_blk_num, enc_blk_nums, dec_blk_nums, stage)

    def forward(self, x: Tensor) -> Tensor:
        """(N, img_channel, H, W) in [0, 1], any size -> the same shape, not clamped."""
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple, "zeros").contiguous(memory_format=torch.channels_last)
        y, skips = self.intro(x), []
        for encoder, further in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(y))
            y = further(skips[-1])
        y = self.middle_blks(y)
        for decoder, back in zip(self.decoders, self.ups, strict=True):
            y = decoder(back(y) + skips.pop())
        return (self.ending(y) + x)[..., :height, :width]


def localize(net: Any, side: int) -> Any:
    """Make a loaded `NAFNet` pool locally, as its test-time form trained on crops of `side` pixels; returns it."""
    levels = len(net.encoders)
    pools = windows((side, side), levels)
    for stages, order in ((net.encoders, range(levels)), (net.decoders, reversed(range(levels)))):
        for stage, level in zip(stages, order, strict=True):
            for block in stage:
                block.sca[0] = pools[level]
    for block in net.middle_blks:
        block.sca[0] = pools[levels]
    return net


def layout(shapes: Shapes) -> dict[str, Any]:
    """Channels, width and block counts from the tensors of any network of the NAFNet layout."""

    def blocks(stage: str) -> list[int]:
        found: dict[int, int] = {}
        for name in shapes:
            if name.startswith(stage + "."):
                level, block = (int(part) for part in name.split(".")[1:3])
                found[level] = max(found.get(level, 0), block + 1)
        return [found[i] for i in sorted(found)]

    middle = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("middle_blks."))
    return {
        "img_channel": shapes["ending.weight"][0], "width": shapes["intro.weight"][0], "middle_blk_num": middle,
        "enc_blk_nums": blocks("encoders"), "dec_blk_nums": blocks("decoders"),
    }  # fmt: skip


def recognize(shapes: Shapes) -> dict[str, Any] | None:
    """The configuration of a `NAFNet` from its tensors; None where they are another network's of its layout."""
    found = layout(shapes)
    # InstructIR, the conditional NAFNet of Refusion and stereo networks carry more.
    known = (".conv", ".sca.1.", ".norm", ".beta", ".gamma")
    own = ("intro.", "ending.", "ups.", "downs.", "encoders.", "decoders.", "middle_blks.")
    if any(not name.startswith(own) for name in shapes) or any(
        not any(part in name for part in known) for name in shapes if name.startswith(own[4:])
    ):
        return None
    return found if shapes["intro.weight"][1] == found["img_channel"] else None


TRAIN_SIZE = 256
"""Side of the crops that the published networks were trained on."""


def restorer(net: Any, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded `NAFNet` as published: pooling locally, padded with zeros.

    "settings" of the header may name the "train_size", and "padding" = "reflect" for weights that learned with it.
    """
    header_settings = settings(header)
    side = int(header_settings.get("train_size", TRAIN_SIZE))
    net = localize(net, side)
    # A window reaches three quarters of the crop to each side; the convolutions reach further by some pixels.
    info = describe(
        net, header, "nafnet", overlap=side * 3 // 4 + 32, bytes_per_pixel=4 * 9 * net.intro.out_channels,
        multiple=net.multiple, gmacs=gmacs_per_megapixel(net), task_agnostic=True,
        padding=header_settings.get("padding", "zeros"),
    )  # fmt: skip
    return SinglePassModel(net, info)
