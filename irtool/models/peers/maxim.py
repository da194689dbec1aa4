"""MAXIM: a stack of U-Nets whose blocks mix pixels along two axes by gated MLPs (Tu et al., CVPR 2022, arXiv 2201.02973).

Tensors have the names and layouts of the official flax parameters. Feature maps are (N, H, W, C) inside. Both kinds of
mixing are one matrix product over a strip of windows, so that beside the features only a strip is in memory. Linear
maps that follow each other with nothing but a resize between them are multiplied first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...synth.tools import pad_reflect
from ..single import Whole
from .flax import use_flax_names
from .wrap import capability

Size = Sequence[int]
SCALES, FINE = 3, 2  # sizes of the picture; the first so many have the large windows
STRIP = 1 << 17  # values of a strip that stays in a CPU's cache


def gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def layer_norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6)


def conv(a: int, b: int, side: int = 1, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(a, b, side, stride, padding=(side - stride + 1) // 2)


def named(**layers: nn.Module) -> nn.Module:
    """A module that holds others."""
    module = nn.Module()
    for name, layer in layers.items():
        module.add_module(name, layer)
    return module


def pointwise(layer: nn.Module, x: Tensor) -> Tensor:
    """A 1x1 convolution of (N, H, W, C)."""
    return F.linear(x, layer.weight.flatten(1), layer.bias)


def spatial(layer: nn.Module, x: Tensor) -> Tensor:
    """Another convolution of (N, H, W, C)."""
    return layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def double(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """A transposed 2x2 convolution with stride 2 of (N, H, W, C) -> (N, 2 H, 2 W, C')."""
    n, h, w, _ = x.shape
    x = F.linear(x, layer.weight.permute(2, 3, 1, 0).flatten(0, 2), layer.bias.repeat(4)).view(n, h, w, 2, 2, -1)
    return x.transpose(2, 3).reshape(n, 2 * h, 2 * w, -1)


def resize(x: Tensor, size: Size) -> Tensor:
    """Bilinear with half-pixel centers, antialiased where it shrinks, of (N, H, W, C)."""
    x = F.interpolate(x.permute(0, 3, 1, 2), size=tuple(size), mode="bilinear", antialias=x.shape[1] > size[0])
    return x.permute(0, 2, 3, 1)


def merge(signal: Sequence[tuple[nn.Module, Tensor]], layer: nn.Conv2d, size: Size, first: Tensor | None) -> Tensor:
    """``layer(cat([first, *(resize(conv1x1(x)) for conv1x1, x in signal)]))``, `layer` being 1x1 too."""
    start = 0 if first is None else first.shape[-1]
    weight, bias = layer.weight.flatten(1), layer.bias
    parts = weight[:, start:].split([ratio.Conv_0.out_channels for ratio, _ in signal], dim=1)
    for (ratio, _), part in zip(signal, parts, strict=True):
        bias = bias + part @ ratio.Conv_0.bias
    total = bias if first is None else F.linear(first, weight[:, :start], bias)
    for (ratio, x), part in zip(signal, parts, strict=True):
        both, shrinks = part @ ratio.Conv_0.weight.flatten(1), x.shape[1] > size[0]
        x = F.linear(resize(x, size) if shrinks else x, both)
        total = total + (x if x.shape[1] == size[0] else resize(x, size))
    return total


def strips(x: Tensor, cells: Size, grid: bool) -> Iterator[Tensor]:
    """Views (b, b', N, k, W', C) of (N, H, W, C): all pixels that mix lie along the first two axes.

    A grid has `cells` windows, and pixels at the same place of each mix; blocks have `cells` pixels, which mix.
    """
    n, height, width, channels = x.shape
    a, b = cells
    if grid:
        view = x.view(n, a, height // a, b, width // b, channels).permute(1, 3, 0, 2, 4, 5)
    else:
        view = x.view(n, height // a, a, width // b, b, channels).permute(2, 4, 0, 1, 3, 5)
    many = max(1, STRIP * (64 if x.is_cuda else 1) // (a * b * n * view.shape[4] * channels))
    yield from view.split(many, dim=3)


def mix(layer: nn.Linear, x: Tensor) -> Tensor:
    """A dense layer along the pixels that mix, the first axis of (n, m, C)."""
    return torch.addmm(layer.bias[:, None], layer.weight, x.flatten(1)).view_as(x)


def over_strips(x: Tensor, total: Tensor, cells: Size, grid: bool, inside: Callable[[Tensor], Tensor]) -> None:
    """Add what `inside` makes of each strip (n, m, C) of x to `total`."""
    for strip, target in zip(strips(x, cells, grid), strips(total, cells, grid), strict=True):
        target += inside(strip.reshape(math.prod(cells), -1, x.shape[-1])).view(strip.shape)


class Branch(nn.Module):
    """The gated MLP along one axis ("Block" or "Grid")."""

    def __init__(self, kind: str, width: int, cells: Size, factor: int) -> None:
        super().__init__()
        half, self.kind = width * factor // 2, kind
        self.LayerNorm = layer_norm(width)
        self.in_project, self.out_project = nn.Linear(width, width * factor), nn.Linear(half, width)
        unit = nn.Module()
        unit.intermediate_layernorm, unit.Dense_0 = layer_norm(half), nn.Linear(*[math.prod(cells)] * 2)
        self.add_module(f"{kind}GatingUnit", unit)

    def forward(self, x: Tensor) -> Tensor:
        unit = getattr(self, f"{self.kind}GatingUnit")
        u, v = gelu(self.in_project(self.LayerNorm(x))).chunk(2, dim=-1)
        v = mix(unit.Dense_0, unit.intermediate_layernorm(v))
        return x + self.out_project(v.add_(1).mul_(u))


class MultiAxis(nn.Module):
    """Half of the channels are mixed over the grid, half in blocks; with the MLPs of a block, or bare, for gating."""

    def __init__(self, width: int, block: Size, grid: Size, factor: int = 2, bare: bool = False) -> None:
        super().__init__()
        self.cells, self.half, self.bare = (grid, block), width * factor // 2, bare
        self.LayerNorm_in = layer_norm(width)
        self.in_project, self.out_project = nn.Linear(width, width * factor), nn.Linear(width * factor, width)
        if bare:
            self.Dense_0, self.Dense_1 = (nn.Linear(*[math.prod(cells)] * 2) for cells in self.cells)
        else:
            self.GridGmlpLayer = Branch("Grid", self.half, grid, 2)
            self.BlockGmlpLayer = Branch("Block", self.half, block, 2)

    def forward(self, x: Tensor) -> Tensor:
        total = (torch.zeros_like(x) if self.bare else x) + self.out_project.bias
        for i, cells in enumerate(self.cells):
            part = slice(i * self.half, (i + 1) * self.half)
            weight, bias, back = self.in_project.weight[part], self.in_project.bias[part], self.out_project.weight[:, part]
            if self.bare:
                branch: Callable[[Tensor], Tensor] = lambda v, dense=(self.Dense_0, self.Dense_1)[i]: mix(dense, v)
            else:
                branch = (self.GridGmlpLayer, self.BlockGmlpLayer)[i]
            over_strips(
                x, total, cells, i == 0, lambda v: F.linear(branch(gelu(F.linear(self.LayerNorm_in(v), weight, bias))), back)
            )
        return total


class Attention(nn.Module):
    """A residual block with channel attention; inside it 3x3 convolutions, or dense layers."""

    def __init__(self, width: int, reduction: int, dense: bool = False) -> None:
        super().__init__()
        self.dense, self.LayerNorm = dense, layer_norm(width)
        self.channel_attention = named(Conv_0=conv(width, width // reduction), Conv_1=conv(width // reduction, width))
        if dense:
            self.channel_mixing = named(Dense_0=nn.Linear(width, width), Dense_1=nn.Linear(width, width))
        else:
            self.conv1, self.conv2 = conv(width, width, 3), conv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.LayerNorm(x)
        if self.dense:
            y = self.channel_mixing.Dense_1(gelu(self.channel_mixing.Dense_0(y)))
        else:
            y = spatial(self.conv2, F.leaky_relu_(spatial(self.conv1, y), 0.2))
        gate = torch.relu(pointwise(self.channel_attention.Conv_0, y.mean(dim=(1, 2), keepdim=True)))
        return torch.addcmul(x, y, torch.sigmoid(pointwise(self.channel_attention.Conv_1, gate)))


class CrossGating(nn.Module):
    """Two maps that gate each other; with `above` channels the second one is doubled in size first."""

    def __init__(self, width: int, before: int, block: Size, grid: Size, above: int = 0) -> None:
        super().__init__()
        if above:
            self.ConvTranspose_0 = nn.ConvTranspose2d(above, width, 2, 2)
        self.Conv_0, self.Conv_1 = conv(before, width), conv(width, width)
        for axis in "xy":
            self.add_module(f"LayerNorm_{axis}", layer_norm(width))
            self.add_module(f"in_project_{axis}", nn.Linear(width, width))
            self.add_module(f"SplitHeadMultiAxisGating_{axis}", MultiAxis(width, block, grid, bare=True))
            self.add_module(f"out_project_{axis}", nn.Linear(width, width))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """x after `Conv_0`, y (N, H, W, C) -> both, gated."""
        y = pointwise(self.Conv_1, double(self.ConvTranspose_0, y) if hasattr(self, "ConvTranspose_0") else y)
        u = gelu(self.in_project_x(self.LayerNorm_x(x)))
        v = gelu(self.in_project_y(self.LayerNorm_y(y)))
        y = self.out_project_y(self.SplitHeadMultiAxisGating_x(u).mul_(v)).add_(y)
        x = self.out_project_x(self.SplitHeadMultiAxisGating_y(v).mul_(u)).add_(y).add_(x)
        return x, y


class Level(nn.Module):
    """What encoder, decoder and bottleneck do at one size, after their first 1x1 convolution."""

    def __init__(
        self, before: int, width: int, block: Size, grid: Size, groups: int, reduction: int, *,
        gated: bool = False, down: bool = False, bottom: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.groups, self.bottom = range(groups), bottom
        self.add_module("input_proj" if bottom else "Conv_0", conv(before, width))
        for i in self.groups:
            self.add_module(f"SplitHeadMultiAxisGmlpLayer_{i}", MultiAxis(width, block, grid))
            self.add_module(self._attention(i), Attention(width, reduction, dense=bottom))
        if gated:
            self.cross_gating_block = CrossGating(width, width, block, grid)
        if down:
            self.Conv_1 = conv(width, width, 4, 2)

    def _attention(self, i: int) -> str:
        return f"channel_attention_block_1{'_' if self.bottom else ''}{i}"  # as the official names have it

    def forward(self, x: Tensor, previous: Tensor | None = None) -> Tensor:
        first = x
        for i in self.groups:
            x = getattr(self, self._attention(i))(getattr(self, f"SplitHeadMultiAxisGmlpLayer_{i}")(x))
        x = x + first
        if previous is not None:
            gating = self.cross_gating_block
            x = gating(pointwise(gating.Conv_0, x), previous)[0]
        return x


class MAXIM(nn.Module):
    """The network.

    Args:
        features: channels at full size.
        stages: U-Nets one after the other.
        groups: blocks at each size.
        bottlenecks: of the smallest size.
        block, grid: windows at full and half size, in pixels and in number; `block_low` for both below.
        reduction: of the channel attention.
        all_heads: the last stage has its heads for the two small sizes, which change nothing at full size.
    """

    def __init__(
        self, features: int = 32, stages: int = 2, groups: int = 2, bottlenecks: int = 2, block: Size = (16, 16),
        grid: Size = (16, 16), block_low: Size = (8, 8), reduction: int = 4, all_heads: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stage_count, self.bottlenecks, self.all_heads = stages, bottlenecks, all_heads
        widths = [features << i for i in range(SCALES)]
        windows = [(block, grid) if i < FINE else (block_low, block_low) for i in range(SCALES + 1)]
        self.multiple = math.lcm(*(side << i for i, pair in enumerate(windows) for size in pair for side in size))
        add, shape = self.add_module, (groups, reduction)
        for k in range(stages):
            for i, (width, pair) in enumerate(zip(widths, windows, strict=False)):
                add(f"stage_{k}_input_conv_{i}", conv(3, width, 3))
                before = width + (widths[i - 1] if i else width)
                encoder = Level(before, width, *pair, *shape, gated=k > 0, down=True)
                above = widths[min(i + 1, SCALES - 1)]
                decoder = named(
                    ConvTranspose_0=nn.ConvTranspose2d(above, width, 2, 2),
                    UNetEncoderBlock_0=Level(4 * width, width, *pair, *shape),
                )
                add(f"stage_{k}_encoder_block_{i}", encoder)
                add(f"stage_{k}_decoder_block_{i}", decoder)
                add(f"stage_{k}_cross_gating_block_{i}", CrossGating(width, 3 * width, *pair, above))
                if k > 0:
                    add(f"stage_{k}_input_fuse_sam_{i}", CrossGating(width, width, *pair))
                if k < stages - 1:
                    sam = named(Conv_0=conv(width, width, 3), Conv_1=conv(width, 3, 3), Conv_2=conv(3, width, 3))
                    add(f"stage_{k}_supervised_attention_module_{i}", sam)
                elif all_heads or i == 0:
                    add(f"stage_{k}_output_conv_{i}", conv(width, 3, 3))
            for j in range(bottlenecks):
                bottom = Level(widths[-1], widths[-1], block_low, block_low, *shape, bottom=True)
                add(f"stage_{k}_global_block_{j}", bottom)
            for m, (target, source) in enumerate([(t, s) for t in (2, 1, 0) for s in (0, 1, 2)] * 2):
                source = source if m < 9 else SCALES - 1 - source
                ratio = named(Conv_0=conv(widths[source], widths[target]))
                add(f"UpSampleRatio_{18 * k + m}", ratio)
        use_flax_names(self)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], any size -> the same shape, not clipped.

        Odd sides get one line more, then both ends are mirrored up to the next multiple, as in the official code.
        """
        height, width = image.shape[-2:]
        even = [side + side % 2 for side in (height, width)]
        top, left = (-side % self.multiple // 2 for side in even)
        x = pad_reflect(image, 0, even[1] - width, 0, even[0] - height)
        x = pad_reflect(x, left, left, top, top)
        return self.outputs(x)[-1][-1][..., top : top + height, left : left + width]

    def outputs(self, image: Tensor) -> list[list[Tensor]]:
        """Every picture that is made, [stage][size] from the smallest size to the largest (N, 3, h, w).

        Sides of the image are multiples of `multiple`. The last stage has only the largest without `all_heads`.
        """
        images = [image, image[..., 1::2, 1::2], image[..., 2::4, 2::4]]
        images = [x.permute(0, 2, 3, 1).contiguous() for x in images]
        found: list[list[Tensor]] = []
        encoded: list[Tensor] = []
        decoded: list[Tensor] = []
        attended: list[Tensor] = []
        for k in range(self.stage_count):
            last = k == self.stage_count - 1
            pictures, encoded, decoded, attended = self._stage(k, images, encoded, decoded, attended, last)
            found.append([x.permute(0, 3, 1, 2) for x in reversed(pictures)])
        return found

    def _stage(
        self, k: int, images: list[Tensor], encoded: list[Tensor], decoded: list[Tensor], attended: list[Tensor], last: bool
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        def part(name: str, i: int) -> Any:
            return getattr(self, f"stage_{k}_{name}_{i}")

        def ratios(first: int) -> list[nn.Module]:
            return [getattr(self, f"UpSampleRatio_{18 * k + first + j}") for j in range(SCALES)]

        skips = [spatial(part("input_conv", i), image) for i, image in enumerate(images)]
        if attended:
            fuse = [part("input_fuse_sam", i) for i in range(SCALES)]
            skips = [f(pointwise(f.Conv_0, skip), x)[0] for f, skip, x in zip(fuse, skips, attended, strict=True)]
        x, features = skips[0], []
        for i, skip in enumerate(skips):
            block = part("encoder_block", i)
            x = block(pointwise(block.Conv_0, torch.cat([x, skip], -1)), encoded[i] + decoded[i] if encoded else None)
            features.append(x)
            x = spatial(block.Conv_1, x)
        for j in range(self.bottlenecks):
            block = part("global_block", j)
            x = block(pointwise(block.input_proj, x))
        gate, skips = x, []
        for at, i in enumerate(reversed(range(SCALES))):
            block = part("cross_gating_block", i)
            signal = list(zip(ratios(3 * at), features, strict=True))
            skip, gate = block(merge(signal, block.Conv_0, images[i].shape[1:3], None), gate)
            skips.append(skip)
        pictures: list[Tensor] = [images[0]] * SCALES
        decoded, attended = [x] * SCALES, [x] * SCALES
        for at, i in enumerate(reversed(range(SCALES))):
            block = part("decoder_block", i)
            x, level = double(block.ConvTranspose_0, x), block.UNetEncoderBlock_0
            signal = list(zip(ratios(9 + 3 * at), skips, strict=True))
            decoded[i] = x = level(merge(signal, level.Conv_0, images[i].shape[1:3], x))
            if not last:
                sam = part("supervised_attention_module", i)
                pictures[i] = spatial(sam.Conv_1, x) + images[i]
                attended[i] = spatial(sam.Conv_0, x) * torch.sigmoid(spatial(sam.Conv_2, pictures[i])) + x
            elif i == 0 or self.all_heads:
                pictures[i] = spatial(part("output_conv", i), x) + images[i]
        return (pictures if self.all_heads or not last else pictures[:1]), features, decoded, attended


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `MAXIM` from its tensors, None where these are not its.

    Of windows only the number of pixels is told: they are taken to be square, or as nearly so as that number allows.
    """
    first = "stage_0_encoder_block_0/SplitHeadMultiAxisGmlpLayer_0"
    features = shapes["stage_0_input_conv_0/kernel"][-1]
    try:
        low = shapes["stage_0_global_block_0/SplitHeadMultiAxisGmlpLayer_0/BlockGmlpLayer/BlockGatingUnit/Dense_0/bias"]
        sizes = [shapes[f"{first}/{kind}GmlpLayer/{kind}GatingUnit/Dense_0/bias"][0] for kind in ("Block", "Grid")]
        reduced = shapes["stage_0_encoder_block_0/channel_attention_block_10/channel_attention/Conv_0/bias"][0]
    except KeyError:
        return None
    count: Callable[[str], int] = lambda pattern: next(i for i in range(99) if pattern.format(i) not in shapes)
    stages = count("stage_{}_input_conv_0/kernel")
    block, grid, block_low = (_nearly_square(size) for size in (*sizes, low[0]))
    return {
        "features": features,
        "stages": stages,
        "groups": count("stage_0_encoder_block_0/SplitHeadMultiAxisGmlpLayer_{}/in_project/kernel"),
        "bottlenecks": count("stage_0_global_block_{}/input_proj/kernel"),
        "block": block,
        "grid": grid,
        "block_low": block_low,
        "reduction": features // reduced,
        "all_heads": f"stage_{stages - 1}_output_conv_1/kernel" in shapes,
    }


def _nearly_square(size: int) -> list[int]:
    side = next(i for i in range(math.isqrt(size), 0, -1) if size % i == 0)
    return [side, size // side]


def restorer(net: MAXIM, header: Mapping[str, str]) -> Whole:
    """The restorer of a loaded network. Its grids and its attention span all they see: it is cut only for memory."""
    return Whole(net, capability(net, header, "maxim", "rain", margin=64, live=512, multiple=net.multiple))
