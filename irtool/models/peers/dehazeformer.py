"""DehazeFormer: haze removed by window attention beside convolutions, with rescaled norms (Song et al., TIP 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import SinglePassModel
from .dehaze_unet import DehazeUNet, Row, depths, named, reflect, standardize
from .wrap import info


class Norm(nn.Module):
    """Normed over the whole map; what was taken out goes back in after the layer that follows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.ones(1, width, 1, 1)) for _ in range(2))
        self.meta1, self.meta2 = nn.Conv2d(1, width, 1), nn.Conv2d(1, width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, C, H, W) -> it normed, and the scale and the offset (N, C, 1, 1) for what is made of it."""
        normed, mean, deviation = standardize(x)
        return normed * self.weight + self.bias, self.meta1(deviation), self.meta2(mean)


class WindowAttention(nn.Module):
    """Attention among the pixels of a window, biased by their distance."""

    def __init__(self, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        at = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"), dim=-1).view(-1, 2)
        offsets = (at[:, None] - at[None]).float()
        self.register_buffer("relative_positions", offsets.sign() * offsets.abs().log1p())
        self.meta = nn.Sequential(nn.Linear(2, 256), nn.ReLU(), nn.Linear(256, heads))

    def forward(self, qkv: Tensor) -> Tensor:
        """(windows, pixels, 3 C) -> (windows, pixels, C)."""
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.meta(self.get_buffer("relative_positions")).permute(2, 0, 1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None]).transpose(1, 2).flatten(2)


class Mixer(nn.Module):
    """Convolution, with window attention in some blocks."""

    def __init__(self, width: int, heads: int, window: int, shift: int, deep: bool) -> None:
        super().__init__()
        self.window, self.shift, self.deep, self.attends = window, shift, deep, heads > 0
        if deep:
            self.conv: nn.Module = nn.Sequential(reflect(width, width, 3), nn.ReLU(), reflect(width, width, 3))
        else:
            self.conv = reflect(width, width, 5, groups=width)
        if self.attends or not deep:
            self.V, self.proj = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        if self.attends:
            self.QK, self.attn = nn.Conv2d(width, 2 * width, 1), WindowAttention(heads, window)

    def forward(self, x: Tensor) -> Tensor:
        if self.deep and not self.attends:
            return self.conv(x)
        values = self.V(x)
        mixed = self.conv(values)
        if self.attends:
            mixed = mixed + self._attend(torch.cat([self.QK(x), values], dim=1))
        return self.proj(mixed)

    def _attend(self, qkv: Tensor) -> Tensor:
        height, width = qkv.shape[-2:]
        side, start = self.window, self.shift
        bottom, right = ((side - start + -size % side) % side for size in (height, width))
        padded = F.pad(qkv, (start, right, start, bottom), mode="reflect")
        n, _, rows, columns = padded.shape
        cut = padded.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # (N, 3 C, rows, side, columns, side)
        windows = self.attn(cut.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(0, 2))
        whole = windows.view(n, rows // side, columns // side, side, side, -1).permute(0, 5, 1, 3, 2, 4)
        return whole.reshape(n, -1, rows, columns)[..., start : start + height, start : start + width]


class Block(nn.Module):
    """A mixer and a feed-forward network; the norm is there only with attention."""

    def __init__(self, width: int, ratio: int, heads: int, window: int, shift: int, deep: bool) -> None:
        super().__init__()
        self.norm1: nn.Module = Norm(width) if heads else nn.Identity()
        self.attn = Mixer(width, heads, window, shift, deep)
        hidden = nn.Sequential(nn.Conv2d(width, ratio * width, 1), nn.ReLU(), nn.Conv2d(ratio * width, width, 1))
        self.mlp = named(mlp=hidden)

    def forward(self, x: Tensor) -> Tensor:
        if self.attn.attends:
            normed, scale, offset = self.norm1(x)
            x = x + self.attn(normed) * scale + offset
        else:
            x = x + self.attn(x)
        return x + self.mlp.mlp(x)


class DehazeFormer(DehazeUNet):
    """The network.

    Args:
        width: channels at full size.
        depths: blocks in each of the five rows.
        attention: how many of them, at the end of the row, have attention.
        heads: of that attention, by row.
        ratios: of the hidden width of the feed-forward networks, by row.
        window: side of a window.
        deep: two full 3x3 convolutions in place of one 5x5 by channel (variants M and L).
    """

    def __init__(
        self, width: int = 24, depths: Sequence[int] = (4, 4, 4, 2, 2), attention: Sequence[int] = (0, 2, 4, 0, 0),
        heads: Sequence[int] = (2, 4, 6, 1, 1), ratios: Sequence[int] = (2, 4, 4, 2, 2), window: int = 8,
        deep: bool = False,
    ) -> None:  # fmt: skip
        def row(wide: int, i: int) -> Row:
            first = depths[i] - attention[i]
            return Row(
                [
                    Block(wide, ratios[i], heads[i] if j >= first else 0, window, window // 2 * (j % 2), deep)
                    for j in range(depths[i])
                ]
            )

        super().__init__(width, row, least=4 * window)


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `DehazeFormer` from its tensors, None where these are not its."""
    width, blocks = shapes["patch_embed.proj.weight"][0], depths(shapes)
    place = "layer{}.blocks.{}."
    attention, heads, ratios, sides = [], [], [], []
    for i, count in enumerate(blocks, 1):
        metas = [shapes.get(place.format(i, j) + "attn.attn.meta.2.weight") for j in range(count)]
        attention.append(sum(meta is not None for meta in metas))
        heads.append(next((meta[0] for meta in metas if meta), 1))
        first = shapes[place.format(i, 0) + "mlp.mlp.0.weight"]
        ratios.append(first[0] // first[1])
        position = shapes.get(place.format(i, count - 1) + "attn.attn.relative_positions")
        sides += [round(position[0] ** 0.5)] if position else []
    return {
        "width": width, "depths": blocks, "attention": attention, "heads": heads, "ratios": ratios,
        "window": sides[0] if sides else 8, "deep": "layer1.blocks.0.attn.conv.0.weight" in shapes,
    }  # fmt: skip


def restorer(net: Any, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network; its norms see all it is given."""
    live = 12 * net.skip1.out_channels
    return SinglePassModel(
        net, info(net, header, "dehazeformer", "haze", overlap=64, live=live, multiple=4, tiling="blended")
    )
