"""The blocks of MAXIM, on feature maps (N, H, W, C).

Both kinds of mixing are one matrix product over a strip of windows, so that beside the features only a strip is in
memory. Linear maps that follow each other with nothing but a resize between them are multiplied first, and the linear
map after a layer norm takes over all of it but the division by the standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = Sequence[int]
EPS = 1e-6
STRIP = 1 << 17  # values of a strip that stays in a CPU's cache


def gelu(x: Tensor) -> Tensor:
    """The tanh approximation, as ``x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))``: faster on a CPU."""
    scale = 2 * math.sqrt(2 / math.pi)
    return torch.addcmul(x.new_tensor(scale), x, x, value=0.044715 * scale).mul_(x).sigmoid_().mul_(x)


def layer_norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=EPS)


def scaled(x: Tensor) -> Tensor:
    """x / sqrt(variance + eps) over the last axis, its mean not taken away."""
    mean = x.mean(-1, keepdim=True)
    variance = torch.linalg.vecdot(x, x)[..., None].div_(x.shape[-1]).addcmul_(mean, mean, value=-1)
    return x * variance.clamp_min_(0).add_(EPS).rsqrt_()


def after_norm(norm: nn.LayerNorm, layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear map of `scaled` that gives ``layer(norm(x))``: its rows sum to 0, so that a mean is
    nothing to it."""
    weight = layer.weight * norm.weight
    return weight - weight.mean(1, keepdim=True), torch.addmv(layer.bias, layer.weight, norm.bias)


def square(width: int) -> nn.Linear:
    return nn.Linear(width, width)


def conv(a: int, b: int, side: int = 1, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(a, b, side, stride, padding=(side - stride + 1) // 2)


def named(**layers: nn.Module) -> Any:
    """A module that holds others."""
    module = nn.Module()
    for name, layer in layers.items():
        module.add_module(name, layer)
    return module


def pointwise(layer: Any, x: Tensor) -> Tensor:
    """A 1x1 convolution of (N, H, W, C)."""
    return F.linear(x, layer.weight.flatten(1), layer.bias)


def spatial(layer: Any, x: Tensor) -> Tensor:
    """Another convolution of (N, H, W, C)."""
    return layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def double(layer: Any, x: Tensor) -> Tensor:
    """A transposed 2x2 convolution with stride 2 of (N, H, W, C) -> (N, 2 H, 2 W, C')."""
    n, h, w, _ = x.shape
    x = F.linear(x, layer.weight.permute(2, 3, 1, 0).flatten(0, 2), layer.bias.repeat(4)).view(n, h, w, 2, 2, -1)
    return x.transpose(2, 3).reshape(n, 2 * h, 2 * w, -1)


def resize(x: Tensor, size: Size) -> Tensor:
    """Bilinear with half-pixel centers, antialiased where it shrinks by an even factor, of (N, H, W, C)."""
    if x.shape[1] <= size[0]:
        return F.interpolate(x.permute(0, 3, 1, 2), size=tuple(size), mode="bilinear").permute(0, 2, 3, 1)
    # A triangle twice as wide as the factor, of which an eighth lies outside at an edge; several times as fast as
    # interpolate with antialias.
    factor, channels = x.shape[1] // size[0], x.shape[-1]
    side = torch.arange(1, 2 * factor, 2, device=x.device, dtype=x.dtype) / (2 * factor**2)
    taps = torch.cat([side, side.flip(0)])
    kernel = torch.outer(taps, taps).expand(channels, 1, -1, -1)
    x = F.conv2d(x.permute(0, 3, 1, 2), kernel, stride=factor, padding=factor // 2, groups=channels)
    for edge in (x[:, :, 0], x[:, :, -1], x[..., 0], x[..., -1]):
        edge.mul_(8 / 7)
    return x.permute(0, 2, 3, 1)


def merge(signal: Sequence[tuple[Any, Tensor]], layer: Any, size: Size, first: Tensor | None) -> Tensor:
    """``layer(cat([first, *(resize(conv1x1(x)) for conv1x1, x in signal)]))``, `layer` being 1x1 too."""
    start = 0 if first is None else first.shape[-1]
    weight, bias = layer.weight.flatten(1), layer.bias
    parts = weight[:, start:].split([ratio.Conv_0.out_channels for ratio, _ in signal], dim=1)
    for (ratio, _), part in zip(signal, parts, strict=True):
        bias = bias + part @ ratio.Conv_0.bias
    total = bias if first is None else F.linear(first, weight[:, :start], bias)
    for (ratio, x), part in zip(signal, parts, strict=True):
        both, shrinks = part @ ratio.Conv_0.weight.flatten(1), x.shape[1] > size[0]
        y = F.linear(resize(x, size) if shrinks else x, both)
        total = total + (y if y.shape[1] == size[0] else resize(y, size))
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


def mix(layer: Any, x: Tensor) -> Tensor:
    """A dense layer without its bias along the pixels that mix, the first axis of (n, m, C)."""
    return (layer.weight @ x.flatten(1)).view_as(x)


class Branch(nn.Module):
    """The gated MLP along one axis ("Block" or "Grid"), without the last bias."""

    def __init__(self, kind: str, width: int, cells: Size, factor: int) -> None:
        super().__init__()
        half, self.kind = width * factor // 2, kind
        self.LayerNorm = layer_norm(width)
        self.in_project, self.out_project = nn.Linear(width, width * factor), nn.Linear(half, width)
        unit = nn.Module()
        unit.intermediate_layernorm, unit.Dense_0 = layer_norm(half), square(math.prod(cells))
        self.add_module(f"{kind}GatingUnit", unit)

    def prepared(self) -> Callable[[Tensor], Tensor]:
        """What it does with a strip (n, m, C)."""
        unit: Any = getattr(self, f"{self.kind}GatingUnit")
        weight, bias = after_norm(self.LayerNorm, self.in_project)
        (first, second), (b, c), back = weight.chunk(2), bias.chunk(2), self.out_project.weight.t()
        gate_bias = unit.Dense_0.bias[:, None, None] + 1

        def run(x: Tensor) -> Tensor:
            y = scaled(x)
            v = unit.intermediate_layernorm(gelu(F.linear(y, second, c)))
            v = mix(unit.Dense_0, v).add_(gate_bias).mul_(gelu(F.linear(y, first, b)))
            return torch.addmm(x.flatten(0, 1), v.flatten(0, 1), back).view_as(x)

        return run


class MultiAxis(nn.Module):
    """Half of the channels are mixed over the grid, half in blocks; with the MLPs of a block, or bare, for gating."""

    def __init__(self, width: int, block: Size, grid: Size, factor: int = 2, bare: bool = False) -> None:
        super().__init__()
        self.cells, self.width, self.bare = (tuple(grid), tuple(block)), width * factor // 2, bare
        self.LayerNorm_in = layer_norm(width)
        self.in_project, self.out_project = nn.Linear(width, width * factor), nn.Linear(width * factor, width)
        if bare:
            self.Dense_0, self.Dense_1 = (square(math.prod(cells)) for cells in self.cells)
        else:
            self.GridGmlpLayer = Branch("Grid", self.width, grid, 2)
            self.BlockGmlpLayer = Branch("Block", self.width, block, 2)

    @property
    def branches(self) -> list[Any]:
        return [self.Dense_0, self.Dense_1] if self.bare else [self.GridGmlpLayer, self.BlockGmlpLayer]

    def forward(self, x: Tensor) -> Tensor:
        halves = [slice(0, self.width), slice(self.width, None)]
        bias: Tensor = self.out_project.bias
        for branch, half in zip(self.branches, halves, strict=True):
            if not self.bare:
                bias = bias + self.out_project.weight[:, half] @ branch.out_project.bias
        total = bias.expand_as(x).contiguous() if self.bare else x + bias
        weight, bias = after_norm(self.LayerNorm_in, self.in_project)
        x = scaled(x)
        for branch, half, cells in zip(self.branches, halves, self.cells, strict=True):
            run = _mixing(branch) if self.bare else branch.prepared()
            back, grid = self.out_project.weight[:, half], half.start == 0
            for strip, target in zip(strips(x, cells, grid), strips(total, cells, grid), strict=True):
                y = strip.reshape(math.prod(cells), -1, x.shape[-1])
                y = run(gelu(F.linear(y, weight[half], bias[half])))
                target.add_(F.linear(y, back).view(strip.shape))
        return total


def _mixing(layer: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: mix(layer, x).add_(layer.bias[:, None, None])


class Attention(nn.Module):
    """A residual block with channel attention; inside it 3x3 convolutions, or dense layers."""

    channel_attention: Any
    channel_mixing: Any

    def __init__(self, width: int, reduction: int, dense: bool = False) -> None:
        super().__init__()
        self.dense, self.LayerNorm = dense, layer_norm(width)
        self.channel_attention = named(Conv_0=conv(width, width // reduction), Conv_1=conv(width // reduction, width))
        if dense:
            self.channel_mixing = named(Dense_0=square(width), Dense_1=square(width))
        else:
            self.conv1, self.conv2 = conv(width, width, 3), conv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.dense:
            y = F.linear(scaled(x), *after_norm(self.LayerNorm, self.channel_mixing.Dense_0))
            y = self.channel_mixing.Dense_1(gelu(y))
        else:
            y = spatial(self.conv2, F.leaky_relu_(spatial(self.conv1, self.LayerNorm(x)), 0.2))
        gate = torch.relu(pointwise(self.channel_attention.Conv_0, y.mean(dim=(1, 2), keepdim=True)))
        return torch.addcmul(x, y, torch.sigmoid(pointwise(self.channel_attention.Conv_1, gate)))


class CrossGating(nn.Module):
    """Two maps that gate each other; with `above` channels the second one is doubled in size first."""

    in_project_x: Any
    in_project_y: Any
    out_project_x: Any
    out_project_y: Any
    LayerNorm_x: Any
    LayerNorm_y: Any
    SplitHeadMultiAxisGating_x: Any
    SplitHeadMultiAxisGating_y: Any

    def __init__(self, width: int, before: int, block: Size, grid: Size, above: int = 0) -> None:
        super().__init__()
        if above:
            self.ConvTranspose_0 = nn.ConvTranspose2d(above, width, 2, 2)
        self.Conv_0, self.Conv_1 = conv(before, width), conv(width, width)
        for axis in "xy":
            self.add_module(f"LayerNorm_{axis}", layer_norm(width))
            self.add_module(f"in_project_{axis}", square(width))
            self.add_module(f"SplitHeadMultiAxisGating_{axis}", MultiAxis(width, block, grid, bare=True))
            self.add_module(f"out_project_{axis}", square(width))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """x after `Conv_0`, y (N, H, W, C) -> both, gated."""
        y = pointwise(self.Conv_1, double(self.ConvTranspose_0, y) if hasattr(self, "ConvTranspose_0") else y)
        u = gelu(F.linear(scaled(x), *after_norm(self.LayerNorm_x, self.in_project_x)))
        v = gelu(F.linear(scaled(y), *after_norm(self.LayerNorm_y, self.in_project_y)))
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
