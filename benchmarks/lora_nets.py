"""The small network of `lora.py`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TASKS = ("noise", "blur", "rain", "haze", "snow")


class Block(nn.Module):
    """A spatial and a pointwise convolution with a gate read off the whole crop; optionally scaled and shifted."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, inner, 3, padding=1)
        self.pointwise = nn.Conv2d(inner, width, 1)
        self.gate = nn.Linear(inner, inner)
        nn.init.zeros_(self.pointwise.bias)
        self.pointwise.weight.data.mul_(0.3)

    def forward(self, x: Tensor, film: Tensor | None) -> Tensor:
        y = F.gelu(self.spatial(F.group_norm(x, 1)))
        y = y * self.gate(y.mean(dim=(2, 3))).sigmoid()[:, :, None, None]
        if film is not None:
            scale, shift = film[:, :, None, None].chunk(2, dim=1)
            y = y * (1 + scale) + shift
        return x + self.pointwise(y)


class Net(nn.Module):
    """A small residual network at half resolution that predicts a gain and an offset per pixel.

    Args:
        width: channels.
        film: tasks with a learned scale and shift per block and channel.
        prompt: channels of a learned picture per task that is seen beside the input.
        inner: channels inside each block, in units of the width.
    """

    def __init__(self, width: int, film: int = 0, prompt: int = 0, inner: Sequence[float] = (1, 1, 1, 1)) -> None:
        super().__init__()
        self.head = nn.Conv2d(12 + prompt, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width, round(share * width)) for share in inner)
        self.tail = nn.Conv2d(width, 24, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)
        self.film = nn.Parameter(torch.zeros(film, len(inner), 2 * width)) if film else None
        self.prompt = nn.Parameter(0.1 * torch.randn(len(TASKS), prompt, 8, 8)) if prompt else None

    def forward(self, x: Tensor, task_weights: Tensor) -> Tensor:
        """x (N, 3, H, W), mixture (N, tasks) -> (N, 3, H, W)."""
        y = F.pixel_unshuffle(x, 2)
        if self.prompt is not None:
            prompt = torch.einsum("nt,tchw->nchw", task_weights, self.prompt)
            y = torch.cat([y, F.interpolate(prompt, size=y.shape[-2:], mode="bilinear")], dim=1)
        y = self.head(y)
        films = None if self.film is None else torch.einsum("nt,tdc->dnc", task_weights, self.film)
        for i, block in enumerate(self.blocks):
            y = block(y, None if films is None else films[i])
        gain, offset = F.pixel_shuffle(self.tail(y), 2).chunk(2, dim=1)
        return x * (1 + gain) + offset
