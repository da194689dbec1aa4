"""The U-Net that DehazeFormer and LKD-Net share (Song et al., TIP 2023): three sizes, fused skips, soft reconstruction.

The network gives a map K and a map B, and the scene is ``K I - B + I`` (eq. 9 of Song et al.), on images in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...synth.ops import pad_reflect

Shapes = Mapping[str, tuple[int, ...]]


def named(**layers: nn.Module) -> Any:
    """A module that holds others. Any: a type checker cannot know the attributes."""
    module = nn.Module()
    for name, layer in layers.items():
        module.add_module(name, layer)
    return module


def reflect(a: int, b: int, side: int, **more: Any) -> nn.Conv2d:
    """A convolution that keeps the size, mirrored at the border."""
    padding = more.get("dilation", 1) * (side // 2)
    return nn.Conv2d(a, b, side, padding=padding, padding_mode="reflect", **more)


class Fusion(nn.Module):
    """Two maps weighed by channel, the weights read off the mean of their sum (selective kernels)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(width // 8, 4)
        self.mlp = nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False), nn.ReLU(), nn.Conv2d(inner, 2 * width, 1, bias=False)
        )

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        weights = self.mlp((a + b).mean(dim=(2, 3), keepdim=True)).unflatten(1, (2, -1)).softmax(dim=1)
        return a * weights[:, 0] + b * weights[:, 1]


class DehazeUNet(nn.Module):
    """The network around its blocks.

    Args:
        width: channels at full size.
        layers: makes the five rows of blocks: ``layers(channels, index)`` with index 0 to 4.
        least: the smallest side that the blocks can take.
    """

    def __init__(self, width: int, layers: Callable[[int, int], nn.Module], least: int) -> None:
        super().__init__()
        a, b, c = width, 2 * width, 4 * width
        self.least = least
        self.patch_embed = named(proj=reflect(3, a, 3))
        self.layer1, self.layer2, self.layer3, self.layer4, self.layer5 = (
            layers(channels, i) for i, channels in enumerate((a, b, c, b, a))
        )
        self.patch_merge1, self.patch_merge2 = named(proj=nn.Conv2d(a, b, 2, 2)), named(proj=nn.Conv2d(b, c, 2, 2))
        self.skip1, self.skip2 = nn.Conv2d(a, a, 1), nn.Conv2d(b, b, 1)
        self.patch_split1, self.patch_split2 = (
            named(proj=nn.Sequential(nn.Conv2d(wide, narrow * 4, 1), nn.PixelShuffle(2)))
            for wide, narrow in ((c, b), (b, a))
        )
        self.fusion1, self.fusion2 = Fusion(b), Fusion(a)
        self.patch_unembed = named(proj=nn.Sequential(reflect(a, 4, 3)))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], any size -> the same shape, not clipped."""
        height, width = image.shape[-2:]
        down, right = (max(self.least, -(-side // 4) * 4) - side for side in (height, width))
        x = pad_reflect(image, 0, right, 0, down) * 2 - 1
        k, b = self.features(x).split((1, 3), dim=1)
        return ((k * x - b + x) * 0.5 + 0.5)[..., :height, :width]

    def features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1], sides multiples of 4 -> (N, 4, H, W): K and B."""
        first = self.layer1(self.patch_embed.proj(x))
        second = self.layer2(self.patch_merge1.proj(first))
        x = self.patch_split1.proj(self.layer3(self.patch_merge2.proj(second)))
        x = self.patch_split2.proj(self.layer4(self.fusion1(x, self.skip2(second)) + x))
        x = self.layer5(self.fusion2(x, self.skip1(first)) + x)
        features: Tensor = self.patch_unembed.proj(x)
        return features


def depths(shapes: Shapes) -> list[int]:
    """How many blocks each of the five rows has."""
    return [len({name.split(".")[2] for name in shapes if name.startswith(f"layer{i}.blocks.")}) for i in range(1, 6)]


def rows(blocks: Sequence[nn.Module]) -> nn.Module:
    """A row of blocks under the published names."""
    return Row(blocks)


class Row(nn.Module):
    """Blocks one after the other."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def standardize(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whole maps (N, C, H, W) brought to mean 0 and deviation 1 together; and that mean and deviation (N, 1, 1, 1)."""
    variance, mean = torch.var_mean(x.float(), dim=(1, 2, 3), correction=0, keepdim=True)
    deviation = torch.sqrt(variance + 1e-5)
    return ((x - mean) / deviation).to(x.dtype), mean.to(x.dtype), deviation.to(x.dtype)
