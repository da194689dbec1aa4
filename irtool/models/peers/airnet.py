"""AirNet: one network for several degradations, led by an embedding of what it sees (Li et al., CVPR 2022).

An encoder, taught by contrast, describes the degradation; a restoration network of deformable convolutions and feature
transforms follows that description. Its queue and second encoder serve training alone and have no part in a result.
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

SLOPE = 0.1


def conv(channels: int, out: int, side: int = 3, *, bias: bool = True, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, side, stride=stride, padding=side // 2, bias=bias)


class ResBlock(nn.Module):
    """Two convolutions beside a projection."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            conv(channels, out, bias=False, stride=stride),
            nn.BatchNorm2d(out),
            nn.LeakyReLU(SLOPE),
            conv(out, out, bias=False),
            nn.BatchNorm2d(out),
        )
        self.shortcut = nn.Sequential(conv(channels, out, 1, bias=False, stride=stride), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.backbone(x) + self.shortcut(x), SLOPE)


class Encoder(nn.Module):
    """Embedding (N, C) of a picture, its projection, and the features at full resolution that lead the restoration."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.E_pre = ResBlock(3, widths[0], 1)
        self.E = nn.Sequential(*(ResBlock(a, b, 2) for a, b in pairwise(widths)), nn.AdaptiveAvgPool2d(1))
        last = widths[-1]
        self.mlp = nn.Sequential(nn.Linear(last, last), nn.LeakyReLU(SLOPE), nn.Linear(last, last))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inner = self.E_pre(x)
        embedding = self.E(inner).flatten(1)
        return embedding, self.mlp(embedding), inner


class Contrast(nn.Module):
    """The encoder with what its training needed."""

    def __init__(self, widths: Sequence[int], queue: int) -> None:
        super().__init__()
        self.encoder_q, self.encoder_k = Encoder(widths), Encoder(widths)
        self.register_buffer("queue", torch.zeros(widths[-1], queue))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))


class Deformable(nn.Module):
    """A modulated deformable convolution (Zhu et al. 2019) steered by the encoder's features; plain torch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, width, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.conv_offset_mask = conv(2 * width, 27)

    def forward(self, x: Tensor, inner: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        offset_and_mask = self.conv_offset_mask(torch.cat([x, inner], dim=1))
        offsets, mask = offset_and_mask[:, :18].unflatten(1, (9, 2)), torch.sigmoid(offset_and_mask[:, 18:])
        rows = torch.arange(h, device=x.device, dtype=x.dtype)[:, None]
        columns = torch.arange(w, device=x.device, dtype=x.dtype)[None, :]
        out = torch.zeros_like(x)
        for tap in range(9):
            y = rows + tap // 3 - 1 + offsets[:, tap, 0]
            z = columns + tap % 3 - 1 + offsets[:, tap, 1]
            # Pixel centres to [-1, 1] with the corners at the edges, so that sides of one pixel work too.
            grid = torch.stack([(2 * z + 1) / w - 1, (2 * y + 1) / h - 1], dim=-1)
            sampled = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            out = out + F.conv2d(sampled * mask[:, tap : tap + 1], self.weight[:, :, tap // 3, tap % 3, None, None])
        return out


class Transform(nn.Module):
    """Features scaled and shifted by what the encoder saw."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_gamma, self.conv_beta = (
            nn.Sequential(conv(width, width, 1, bias=False), nn.LeakyReLU(SLOPE), conv(width, width, 1, bias=False))
            for _ in range(2)
        )

    def forward(self, x: Tensor, inner: Tensor) -> Tensor:
        return x * self.conv_gamma(inner) + self.conv_beta(inner)


class Guided(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dcn, self.sft = Deformable(width), Transform(width)

    def forward(self, x: Tensor, inner: Tensor) -> Tensor:
        return x + self.dcn(x, inner) + self.sft(x, inner)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dgm1, self.dgm2 = Guided(width), Guided(width)
        self.conv1, self.conv2 = conv(width, width), conv(width, width)

    def forward(self, x: Tensor, inner: Tensor) -> Tensor:
        y = F.leaky_relu(self.conv1(F.leaky_relu(self.dgm1(x, inner), SLOPE)), SLOPE)
        return x + self.conv2(F.leaky_relu(self.dgm2(y, inner), SLOPE))


class Chain(nn.Module):
    """Parts led by the encoder's features, a convolution behind, and the input added."""

    def __init__(self, parts: Sequence[nn.Module], width: int) -> None:
        super().__init__()
        self.body = nn.ModuleList([*parts, conv(width, width)])

    def forward(self, x: Tensor, inner: Tensor) -> Tensor:
        y = x
        for part in self.body[:-1]:
            y = part(y, inner)
        return x + self.body[-1](y)


class Restoration(Chain):
    def __init__(self, width: int, groups: int, blocks: int) -> None:
        super().__init__([Chain([Block(width) for _ in range(blocks)], width) for _ in range(groups)], width)
        self.head, self.tail = nn.Sequential(conv(3, width)), nn.Sequential(conv(width, 3))

    def forward(self, x: Tensor, inner: Tensor) -> Tensor:
        return self.tail(super().forward(self.head(x), inner))


class AirNet(nn.Module):
    """The network.

    Args:
        width: feature maps.
        groups, blocks: groups of the restoration network, blocks in each.
        widths: of the encoder's stages; the first is `width`.
        queue: embeddings its training remembered.
    """

    def __init__(
        self,
        width: int = 64,
        groups: int = 5,
        blocks: int = 5,
        widths: Sequence[int] = (64, 128, 256),
        queue: int = 15000,
    ) -> None:
        super().__init__()
        self.width = width
        self.E = nn.ModuleDict({"E": Contrast(widths, queue)})
        self.R = Restoration(width, groups, blocks)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same shape, not clipped."""
        return self.R(image, self.E.get_submodule("E.encoder_q.E_pre")(image))


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `AirNet` from its tensors, None where these are not its."""
    width = shapes["R.head.0.weight"][0]
    if shapes["R.head.0.weight"] != (width, 3, 3, 3) or shapes["R.tail.0.weight"] != (3, width, 3, 3):
        return None
    stages = sum(f"E.E.encoder_q.E.{i}.shortcut.0.weight" in shapes for i in range(9))
    return {
        "width": width,
        "groups": sum(f"R.body.{i}.body.0.conv1.weight" in shapes for i in range(99)),
        "blocks": sum(f"R.body.0.body.{i}.conv1.weight" in shapes for i in range(99)),
        "widths": [width, *(shapes[f"E.E.encoder_q.E.{i}.shortcut.0.weight"][0] for i in range(stages))],
        "queue": shapes["E.E.queue"][1],
    }


def restorer(net: AirNet, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network; the three tasks of its joint weights unless its record names others."""
    # Offsets are learned and have no bound; three convolutions of each of 25 blocks reach this far at most elsewhere.
    return SinglePassModel(
        net,
        info(
            net,
            header,
            "airnet",
            "noise",
            "rain",
            "haze",
            overlap=128,
            tiling="blended",
            live=12 * net.width,
            multiple=8,
        ),
    )
