"""DeepDeblur: blur removed from a pyramid, the coarsest size first (Nah et al., CVPR 2017; the PyTorch release)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...synth.ops import pad_reflect
from ..base import SinglePassModel
from .dehaze_unet import named
from .wrap import info

SIGMA, RADIUS = 2 / 3, 3  # of the Gaussian before each halving


class Residual(nn.Module):
    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(width, width, side), nn.ReLU(), conv(width, width, side))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def conv(a: int, b: int, side: int) -> nn.Conv2d:
    return nn.Conv2d(a, b, side, padding=side // 2)


class DeepDeblur(nn.Module):
    """The network.

    Args:
        width: feature maps.
        blocks: residual blocks at each size.
        scales: sizes.
        side: of the kernels.
    """

    def __init__(self, width: int = 64, blocks: int = 19, scales: int = 3, side: int = 5) -> None:
        super().__init__()
        self.scales = scales
        self.body_models, self.conv_end_models = nn.ModuleList(), nn.ModuleList([nn.Identity()])
        for scale in range(scales):
            before = 3 if scale == scales - 1 else 6
            middle = (Residual(width, side) for _ in range(blocks))
            layers = nn.Sequential(conv(before, width, side), *middle, conv(width, 3, side))
            self.body_models.append(named(body=layers))
            if scale:
                self.conv_end_models.append(named(uppath=nn.Sequential(conv(3, 12, side), nn.PixelShuffle(2))))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], any size -> the same shape, not clipped."""
        height, width = image.shape[-2:]
        down, right = (-side % (1 << (self.scales - 1)) for side in (height, width))
        pyramid = [pad_reflect(image, 0, right, 0, down)]
        for _ in range(1, self.scales):
            pyramid.append(halve(pyramid[-1]))
        return self.outputs(pyramid)[0][..., :height, :width]

    def outputs(self, pyramid: list[Tensor]) -> list[Tensor]:
        """Images (N, 3, h, w) in [0, 1], the full size first -> the restored ones."""
        centered = [x * 255 - 127.5 for x in pyramid]
        x = centered[-1]
        found: list[Tensor] = []
        for scale in reversed(range(self.scales)):
            restored = self.body_models[scale].body(x)  # type: ignore[operator]
            found.insert(0, (restored + 127.5) / 255)
            if scale:
                raised = self.conv_end_models[scale].uppath(restored)  # type: ignore[operator]
                x = torch.cat([centered[scale - 1], raised], dim=1)
        return found


def halve(x: Tensor) -> Tensor:
    """Half the size after a Gaussian that takes the border twice: (N, C, H, W) -> (N, C, H / 2, W / 2)."""
    at = torch.arange(-RADIUS, RADIUS + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (at / SIGMA) ** 2)
    kernel = kernel / kernel.sum()
    for axis in (2, 3):
        size = x.shape[axis]
        index = torch.arange(-RADIUS, size + RADIUS, device=x.device).remainder(2 * size)
        wide = x.index_select(axis, torch.minimum(index, 2 * size - 1 - index))
        shape = (1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)
        x = F.conv2d(wide, kernel.view(shape).repeat(x.shape[1], 1, 1, 1), groups=x.shape[1])
    return F.avg_pool2d(x, 2)


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `DeepDeblur` from its tensors, None where these are not its."""
    width, _, side, _ = shapes["body_models.0.body.0.weight"]
    blocks = sum(n.startswith("body_models.0.body.") and n.count(".body.") == 2 for n in shapes) // 4
    scales = len({name.split(".")[1] for name in shapes if name.startswith("body_models.")})
    return {"width": width, "blocks": blocks, "scales": scales, "side": side}


def restorer(net: Any, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network. What is far at the coarsest size reaches into a tile, but weighs little."""
    live = 4 * net.body_models[0].body[0].out_channels
    multiple = 1 << (net.scales - 1)
    return SinglePassModel(
        net, info(net, header, "deepdeblur", "blur", overlap=96, live=live, multiple=multiple, tiling="blended")
    )
