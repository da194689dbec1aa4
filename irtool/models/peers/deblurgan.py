"""DeblurGAN: the generator, a residual network between two halvings (Kupyn et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...synth.ops import pad_reflect
from ..base import SinglePassModel
from .wrap import info


def norm(width: int) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(width)


class Block(nn.Module):
    """A residual block. Published ones have a dropout between, which moves the second convolution by one place."""

    def __init__(self, width: int, dropout: bool) -> None:
        super().__init__()
        half = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), norm(width)]
        other = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), norm(width)]
        self.conv_block = nn.Sequential(*half, nn.ReLU(), *([nn.Dropout(0.5)] if dropout else []), *other)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class DeblurGAN(nn.Module):
    """The network.

    Args:
        width: channels at full size.
        blocks: residual blocks.
        dropout: they have one.
    """

    def __init__(self, width: int = 64, blocks: int = 9, dropout: bool = True) -> None:
        super().__init__()
        a, b, c = width, 2 * width, 4 * width
        self.model = nn.Sequential(
            *(nn.ReflectionPad2d(3), nn.Conv2d(3, a, 7), norm(a), nn.ReLU()),
            *(nn.Conv2d(a, b, 3, 2, 1), norm(b), nn.ReLU(), nn.Conv2d(b, c, 3, 2, 1), norm(c), nn.ReLU()),
            *(Block(c, dropout) for _ in range(blocks)),
            *(nn.ConvTranspose2d(c, b, 3, 2, 1, 1), norm(b), nn.ReLU()),
            *(nn.ConvTranspose2d(b, a, 3, 2, 1, 1), norm(a), nn.ReLU()),
            *(nn.ReflectionPad2d(3), nn.Conv2d(a, 3, 7), nn.Tanh()),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], any size -> the same shape, in [0, 1]."""
        height, width = image.shape[-2:]
        down, right = (max(8, -(-side // 4) * 4) - side for side in (height, width))
        x = pad_reflect(image, 0, right, 0, down) * 2 - 1
        restored = torch.clamp(x + self.model(x), -1, 1) * 0.5 + 0.5
        return restored[..., :height, :width]


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `DeblurGAN` from its tensors, None where these are not its."""
    width = shapes["model.1.weight"][0]
    blocks = sum(name.endswith(".conv_block.1.weight") for name in shapes)
    if shapes["model.1.weight"] != (width, 3, 7, 7) or shapes["model.4.weight"][:2] != (2 * width, width):
        return None
    return {"width": width, "blocks": blocks, "dropout": "model.10.conv_block.6.weight" in shapes}


def restorer(net: Any, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network; its norms see all it is given."""
    live = 4 * net.model[1].out_channels
    return SinglePassModel(
        net, info(net, header, "deblurgan", "blur", overlap=64, live=live, multiple=4, tiling="blended")
    )
