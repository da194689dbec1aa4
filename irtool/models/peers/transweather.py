"""TransWeather: rain, snow and raindrops removed by a transformer with learned queries (Valanarasu et al., CVPR 2022).

A pyramid of transformer stages, each joined by a branch that looks inside the patches of the one before; a decoder
whose queries are learned and not made of the picture; convolutions back to full resolution. No weights were published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import SinglePassModel
from .wrap import info

HEADS, REDUCTIONS, DEPTH, RATIO = (1, 2, 4, 4), (4, 2, 2, 1), 2, 2
# The inner branches take their heads from one stage and their reduction from another.
INNER_HEADS, INNER_REDUCTIONS = (1, 2, 2), (4, 2, 2)
DECODER_HEADS, DECODER_DEPTH, DECODER_RATIO, QUERIES = 8, 3, 4, 48
TAIL = (16, 8)
MULTIPLE, SMALLEST = 16, 64
EPS = 1e-6


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def image(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x.transpose(1, 2).unflatten(2, size)


class PatchEmbed(nn.Module):
    """Overlapping patches, as an image."""

    def __init__(self, channels: int, width: int, side: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, side, stride=stride, padding=side // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        return image(self.norm(tokens(x)), (x.shape[2], x.shape[3]))


class DepthWise(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return tokens(self.dwconv(image(x, size)))


class MLP(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.dwconv, self.fc2 = nn.Linear(width, hidden), DepthWise(hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.fc2(F.gelu(self.dwconv(self.fc1(x), size)))


class Attention(nn.Module):
    """Tokens attend to tokens of a picture reduced by a strided convolution."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q, self.kv, self.proj = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        if reduction > 1:
            self.sr, self.norm = nn.Conv2d(width, width, reduction, stride=reduction), nn.LayerNorm(width)

    def queries(self, x: Tensor, count: int) -> Tensor:
        return self._heads(self.q(x))

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        keys = self.norm(tokens(self.sr(image(x, size)))) if self.reduction > 1 else x
        k, v = (self._heads(part) for part in self.kv(keys).chunk(2, dim=2))
        out = F.scaled_dot_product_attention(self.queries(x, k.shape[2]), k, v)
        return self.proj(out.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class QueryAttention(Attention):
    """Queries are learned, and repeated until there is one for each token."""

    def __init__(self, width: int, heads: int, queries: int) -> None:
        super().__init__(width, heads, 1)
        self.task_query = nn.Parameter(torch.randn(1, queries, width))

    def queries(self, x: Tensor, count: int) -> Tensor:
        q = self._heads(self.q(self.task_query.expand(x.shape[0], -1, -1)))
        return F.interpolate(q, (count, q.shape[3]))


class Block(nn.Module):
    def __init__(self, width: int, attention: Attention, ratio: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=EPS), nn.LayerNorm(width, eps=EPS)
        self.attn, self.mlp = attention, MLP(width, ratio * width)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = x + self.attn(self.norm1(x), size)
        return x + self.mlp(self.norm2(x), size)


def through(blocks: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """An image through blocks of tokens and a norm, as an image."""
    size = (x.shape[2], x.shape[3])
    t = tokens(x)
    for block in blocks:  # type: ignore[attr-defined]
        t = block(t, size)
    return image(norm(t), size)


class Encoder(nn.Module):
    """Four images, each half as large as the one before, beginning at a quarter."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        channels = (3, *widths)
        for i, width in enumerate(widths, 1):
            setattr(self, f"patch_embed{i}", PatchEmbed(channels[i - 1], width, 7 if i == 1 else 3, 4 if i == 1 else 2))
            heads, reduction = HEADS[i - 1], REDUCTIONS[i - 1]
            blocks = (Block(width, Attention(width, heads, reduction), RATIO) for _ in range(DEPTH))
            setattr(self, f"block{i}", nn.ModuleList(blocks))
            setattr(self, f"norm{i}", nn.LayerNorm(width, eps=EPS))
        for i, (a, b) in enumerate(pairwise(widths), 1):
            setattr(self, f"mini_patch_embed{i}", PatchEmbed(a, b, 3, 2))
            inner = Attention(b, INNER_HEADS[i - 1], INNER_REDUCTIONS[i - 1])
            setattr(self, f"patch_block{i}", nn.ModuleList([Block(b, inner, RATIO)]))
            setattr(self, f"pnorm{i}", nn.LayerNorm(b, eps=EPS))
        self.mini_patch_embed4 = PatchEmbed(widths[0], widths[3], 3, 2)  # in the published code, and used nowhere

    def forward(self, x: Tensor) -> list[Tensor]:
        stages = []
        inner: Tensor | None = None
        for i in range(1, 5):
            x = getattr(self, f"patch_embed{i}")(x)
            x = x if inner is None else x + inner
            if i < 4:
                looked = getattr(self, f"mini_patch_embed{i}")(x)
                inner = through(getattr(self, f"patch_block{i}"), getattr(self, f"pnorm{i}"), looked)
            x = through(getattr(self, f"block{i}"), getattr(self, f"norm{i}"), x)
            stages.append(x)
        return stages


class Decoder(nn.Module):
    def __init__(self, width: int, queries: int) -> None:
        super().__init__()
        self.patch_embed1 = PatchEmbed(width, width, 3, 2)
        blocks = (
            Block(width, QueryAttention(width, DECODER_HEADS, queries), DECODER_RATIO) for _ in range(DECODER_DEPTH)
        )
        self.block1 = nn.ModuleList(blocks)
        self.norm1 = nn.LayerNorm(width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return through(self.block1, self.norm1, self.patch_embed1(x))


class Conv(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(channels, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2d(x)


class Double(nn.Module):
    """Twice the size."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv2d = nn.ConvTranspose2d(channels, out, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2d(x)


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = Conv(width, width), Conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * self.conv2(torch.relu(self.conv1(x)))


class Tail(nn.Module):
    """Back to full resolution, with the encoder's images joined on the way."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        a, b, c, d = widths
        e, f = TAIL
        self.convd32x, self.convd16x, self.convd8x = Double(d, d), Double(d, c), Double(c, b)
        self.convd4x, self.convd2x, self.convd1x = Double(b, a), Double(a, e), Double(e, f)
        self.dense_4, self.dense_3, self.dense_2, self.dense_1 = (
            nn.Sequential(Residual(width)) for width in (c, b, a, e)
        )
        self.conv_output = Conv(f, 3)  # in the published code, and used nowhere

    def forward(self, stages: Sequence[Tensor], decoded: Tensor) -> Tensor:
        one, two, three, four = stages
        x = like(self.convd32x(decoded), four) + four
        x = self.dense_4(like(self.convd16x(x), three)) + three
        x = self.dense_3(self.convd8x(x)) + two
        x = self.dense_2(self.convd4x(x)) + one
        return self.convd1x(self.dense_1(self.convd2x(x)))


def like(x: Tensor, other: Tensor) -> Tensor:
    """Without the last row or column where the other has one less."""
    return x[..., : other.shape[2], : other.shape[3]]


class TransWeather(nn.Module):
    """The network.

    Args:
        widths: of the four stages.
        queries: learned weather queries.
    """

    def __init__(self, widths: Sequence[int] = (64, 128, 320, 512), queries: int = QUERIES) -> None:
        super().__init__()
        self.width = widths[0]
        self.Tenc, self.Tdec, self.convtail = Encoder(widths), Decoder(widths[3], queries), Tail(widths)
        self.clean = Conv(TAIL[1], 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1], sides multiples of 16 -> the same shape, what it should be in [0, 1]."""
        stages = self.Tenc(x)
        return torch.tanh(self.clean(self.convtail(stages, self.Tdec(stages[3]))))

    def restore(self, picture: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], any size -> the same shape."""
        height, width = picture.shape[-2:]
        down, right = (max(-side % MULTIPLE, SMALLEST - side) for side in (height, width))
        padded = F.pad(picture, (0, right, 0, down), mode="replicate")
        return self(2 * padded - 1)[..., :height, :width]


class TransWeatherModel(SinglePassModel):
    """A picture in [0, 1] instead of [-1, 1]."""

    def forward(self, tile: Tensor, context: Tensor) -> Tensor:
        restored: Tensor = self.net.restore(tile)
        return restored


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `TransWeather` from its tensors, None where these are not its."""
    widths = [shapes[f"Tenc.patch_embed{i}.proj.weight"][0] for i in range(1, 5)]
    if shapes["Tenc.patch_embed1.proj.weight"] != (widths[0], 3, 7, 7) or shapes["clean.conv2d.weight"][0] != 3:
        return None
    return {"widths": widths, "queries": shapes["Tdec.block1.0.attn.task_query"][1]}


def restorer(net: TransWeather, header: Mapping[str, str]) -> TransWeatherModel:
    """The model of a loaded network; the three tasks of its paper unless its record names others."""
    tasks = ("rain", "raindrop", "snow")
    return TransWeatherModel(
        net,
        info(net, header, "transweather", *tasks, overlap=64, tiling="blended", live=4 * net.width, multiple=MULTIPLE),
    )
