"""DMPHN: blur removed patch by patch, from halves of halves to the whole image (Zhang et al., CVPR 2019).

Level k works on 2^(k - 1) patches. What the finer level makes of a patch is added to it, and to its features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...synth.ops import pad_reflect
from ..base import SinglePassModel
from .wrap import info


def pair(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))


class Chain(nn.Module):
    """Layers by their published numbers; the `residual` ones are added to what they get."""

    def __init__(self, layers: Mapping[int, nn.Module]) -> None:
        super().__init__()
        for number, layer in layers.items():
            self.add_module(f"layer{number}", layer)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = x + layer(x) if isinstance(layer, nn.Sequential) else layer(x)
        return x


def encoder(width: int) -> Chain:
    """(N, 3, H, W) -> (N, 4 width, H / 4, W / 4)."""
    a, b, c = width, 2 * width, 4 * width
    return Chain(
        {
            1: nn.Conv2d(3, a, 3, padding=1), 2: pair(a), 3: pair(a),
            5: nn.Conv2d(a, b, 3, 2, 1), 6: pair(b), 7: pair(b),
            9: nn.Conv2d(b, c, 3, 2, 1), 10: pair(c), 11: pair(c),
        }
    )  # fmt: skip


def decoder(width: int) -> Chain:
    """The way back of `encoder`."""
    a, b, c = width, 2 * width, 4 * width
    return Chain(
        {
            13: pair(c), 14: pair(c), 16: nn.ConvTranspose2d(c, b, 4, 2, 1),
            17: pair(b), 18: pair(b), 20: nn.ConvTranspose2d(b, a, 4, 2, 1),
            21: pair(a), 22: pair(a), 24: nn.Conv2d(a, 3, 3, padding=1),
        }
    )  # fmt: skip


class DMPHN(nn.Module):
    """The network.

    Args:
        levels: 3 for 1-2-4 patches, 4 for 1-2-4-8.
        width: channels at full size.
    """

    def __init__(self, levels: int = 3, width: int = 32) -> None:
        super().__init__()
        self.levels = levels
        for level in range(1, levels + 1):
            self.add_module(f"encoder_lv{level}", encoder(width))
            self.add_module(f"decoder_lv{level}", decoder(width))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], any size -> the same shape, not clipped."""
        height, width = image.shape[-2:]
        down, right = (-side % (2 ** (2 + self.levels // 2)) for side in (height, width))
        x = pad_reflect(image, 0, right, 0, down) - 0.5
        features = self._region(x, 2)
        x = x + self._decode(features, 2)
        restored = self._decode(self._encode(x, 1) + features, 1) + 0.5
        return restored[..., :height, :width]

    def _region(self, x: Tensor, level: int) -> Tensor:
        """Features of an area at a level, from its two halves: one above the other, then beside each other, in turn."""
        axis = 2 if level % 2 == 0 else 3
        halves = []
        for half in x.chunk(2, dim=axis):
            if level == self.levels:
                halves.append(self._encode(half, level))
            else:
                finer = self._region(half, level + 1)
                halves.append(self._encode(half + self._decode(finer, level + 1), level) + finer)
        return torch.cat(halves, dim=axis)

    def _encode(self, x: Tensor, level: int) -> Tensor:
        y: Tensor = getattr(self, f"encoder_lv{level}")(x)
        return y

    def _decode(self, x: Tensor, level: int) -> Tensor:
        y: Tensor = getattr(self, f"decoder_lv{level}")(x)
        return y


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `DMPHN` from its tensors, None where these are not its."""
    levels = next(i for i in range(1, 99) if f"encoder_lv{i + 1}.layer1.weight" not in shapes)
    return {"levels": levels, "width": shapes["encoder_lv1.layer1.weight"][0]} if levels > 1 else None


def restorer(net: Any, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network. Its patches are halves of all it is given: it is cut only for memory."""
    live = 4 * net.encoder_lv1.layer1.out_channels
    return SinglePassModel(
        net, info(net, header, "dmphn", "blur", overlap=64, live=live, multiple=16, tiling="blended")
    )
