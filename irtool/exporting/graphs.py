"""Networks as one function from an image to the result, with all that irtool does around them, as ONNX graphs take it.

A graph takes "image", (1, 3, H, W) float32 sRGB in [0, 1], and gives "restored", (1, 3, scale H, scale W) in [0, 1].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..models.base import Condition, Model, SinglePassModel
from ..models.compact import CompactBound, CompactNet
from ..models.global_stats import QUANTILES, THUMBNAIL_SIDE

OUTSIDE = {
    "missing": "missing regions are found, and filled, outside of the network",
    "blur": "the path of the camera is found, and divided out, outside of the network",
}
"""Why tasks of the restorers that ship are not exported."""


class Plain(nn.Module):
    """A network that needs nothing but the image, and takes any size."""

    multiple = 1

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        restored: Tensor = self.net(image)
        return restored.clamp(0, 1)


class WithContext(nn.Module):
    """A merged `CompactNet` with the statistics of the image and the padding that it needs."""

    def __init__(self, net: CompactNet) -> None:
        super().__init__()
        self.net, self.multiple = net, net.multiple

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        padded = image.index_select(2, self._reflected(height)).index_select(3, self._reflected(width))
        restored: Tensor = self.net(padded, statistics(image))
        return restored[:, :, :height, :width].clamp(0, 1)

    def _reflected(self, size: int) -> Tensor:
        at = torch.arange((size + self.multiple - 1) // self.multiple * self.multiple)
        return torch.where(at < size, at, 2 * (size - 1) - at)


def statistics(image: Tensor) -> Tensor:
    """`global_stats` of (1, 3, H, W), in operations that graphs of any size have -> (1, CONTEXT_SIZE)."""
    height, width = image.shape[2:]
    side = THUMBNAIL_SIDE
    thumbnail = torch.matmul(torch.matmul(_pooling(height, side), image), _pooling(width, side).T)
    ordered = thumbnail.flatten(2).sort(dim=2).values
    light = []
    for quantile in QUANTILES:
        place = quantile * (side * side - 1)
        low = int(place)
        light.append(torch.lerp(ordered[..., low], ordered[..., low + 1], place - low))
    every = torch.clamp(torch.scalar_tensor(height, dtype=torch.int64) // 512, min=1)
    rows = torch.arange(height) % every == 0
    weight = rows.float() / rows.float().sum()
    texture = []
    for step in (1, 2, 4):
        difference = (image[..., step:] - image[..., :-step]).abs().mean(3)
        texture.append(((difference * weight).sum(2) + 1e-3).log() * 0.5 + 1.5)
    return torch.cat([(torch.stack(light, dim=2) - 0.5).flatten(1), *texture], dim=1)


def _pooling(size: int, parts: int) -> Tensor:
    """(parts, size) weights of adaptive average pooling."""
    at, part = torch.arange(size)[None], torch.arange(parts)[:, None]
    start, end = part * size // parts, ((part + 1) * size + parts - 1) // parts
    return ((at >= start) & (at < end)).float() / (end - start)


def graph_of(model: Model, tasks: dict[str, float], name: str) -> Plain | WithContext:
    """The function of a model bound to tasks.

    Args:
        model: loaded.
        tasks: task weights, for a model that is told what to remove.
        name: of the model, for messages.

    Raises:
        UsageError: it does not work in one pass over the image, or a task takes more than its network.
    """
    bound: Any = model.bind(Condition(tasks)).to(torch.device("cpu"), torch.float32)  # it may have run in another type
    if isinstance(bound, CompactBound):
        if not tasks:
            raise UsageError(f"{name} is told what to remove.", "Name it, such as --task denoise.")
        for task in tasks:
            if task in OUTSIDE:
                raise UsageError(f"The task {task} is not exported: {OUTSIDE[task]}.", "Other tasks are.")
        return WithContext(bound.net)
    single = type(bound).forward is SinglePassModel.forward and type(bound).prepare is SinglePassModel.prepare
    net: Any = bound.net if isinstance(bound, SinglePassModel) else None
    if not single or not isinstance(net, nn.Module) or model.info.tiling != "exact" or model.info.multiple != 1:
        raise UsageError(
            f"{name} ({model.info.name}) is not exported: it takes more than one pass of one network over an image of "
            "any size.",
            "Exported are irtool-small and its like, irtool-upscale-x2 and its like, and plain convolutional networks.",
        )
    return Plain(net)
