"""RUAS: low light raised by an unrolled Retinex model with a searched architecture (Liu et al., CVPR 2021).

Three stages estimate the illumination, starting from the local maximum, and divide the picture by it; three blocks then
estimate the noise of the result. Which operation stands where in the cells was found by search; the table below has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import SinglePassModel
from .wrap import info

# Operation at each place of a cell: (kernel, dilation, adds its input); None passes through.
Operation = tuple[int, int, bool] | None
PLACES = ("c1_d", "c1_r", "c2_d", "c2_r", "c3_d", "c3_r", "c4")
ENHANCE: tuple[Operation, ...] = (
    None, (1, 1, True), (3, 2, True), (3, 1, False), (3, 1, False), None, (3, 1, False)
)  # fmt: skip
DENOISE: tuple[Operation, ...] = (
    (1, 1, True), (1, 1, True), (3, 2, True), None, (1, 1, True), (1, 1, True), None
)  # fmt: skip


class Searched(nn.Module):
    """One searched operation."""

    def __init__(self, channels: int, kernel: int, dilation: int, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.op = nn.Conv2d(channels, channels, kernel, padding=kernel // 2 * dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x) + x if self.residual else self.op(x)


class Cell(nn.Module):
    """Information distillation: at every step one branch is kept for the end, the other goes on."""

    def __init__(self, channels: int, operations: tuple[Operation, ...]) -> None:
        super().__init__()
        for place, operation in zip(PLACES, operations, strict=True):
            setattr(self, place, nn.Identity() if operation is None else Searched(channels, *operation))
        self.c5 = nn.Conv2d(4 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for step in ("c1", "c2", "c3"):
            kept.append(F.leaky_relu(getattr(self, f"{step}_d")(x), 0.05))
            x = F.leaky_relu(getattr(self, f"{step}_r")(x) + x, 0.05)
        return self.c5(torch.cat([*kept, F.leaky_relu(getattr(self, "c4")(x), 0.05)], dim=1))  # noqa: B009


class Illumination(nn.Module):
    """One stage: a first guess of the illumination, refined."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cell = Cell(channels, ENHANCE)

    def forward(self, guess: Tensor) -> Tensor:
        return torch.sigmoid(self.cell(guess)).clamp(1e-3, 1)


class Enhance(nn.Module):
    """(N, 3, H, W) -> the picture divided by its illumination, after the last stage."""

    def __init__(self, stages: int) -> None:
        super().__init__()
        self.iems = nn.ModuleList(Illumination(3) for _ in range(stages))

    def forward(self, dark: Tensor) -> Tensor:
        light = dark
        for i, stage in enumerate(self.iems):
            guess = brightest(dark) if i == 0 else brightest(light) - 0.5 * (light - dark)
            light = (dark / stage(guess)).clamp(0, 1)
        return light


class Denoise(nn.Module):
    """(N, 3, H, W) less its noise."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.nrms = nn.ModuleList(Cell(width, DENOISE) for _ in range(blocks))
        self.activate = nn.Sequential(nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        for cell in self.nrms:
            y = cell(y)
        return x - self.activate(y)


class RUAS(nn.Module):
    """The network with its denoiser, as it is used for LOL.

    Args:
        stages: of the illumination.
        width, blocks: of the denoiser.
    """

    def __init__(self, stages: int = 3, width: int = 6, blocks: int = 3) -> None:
        super().__init__()
        self.enhance_net = Enhance(stages)
        self.denoise_net = Denoise(width, blocks)

    def forward(self, dark: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same shape, not clipped."""
        return self.denoise_net(self.enhance_net(dark))


def brightest(x: Tensor) -> Tensor:
    """Maximum over each pixel and those right of and below it; beyond the picture there is black."""
    return F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2, stride=1)


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `RUAS` from its tensors, None where these are not its."""
    width = shapes["denoise_net.stem.weight"][0]
    if shapes["enhance_net.iems.0.cell.c5.weight"] != (3, 12, 1, 1):
        return None
    stages = sum(f"enhance_net.iems.{i}.cell.c5.weight" in shapes for i in range(9))
    blocks = sum(f"denoise_net.nrms.{i}.c5.weight" in shapes for i in range(9))
    return {"stages": stages, "width": width, "blocks": blocks}


def restorer(net: RUAS, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network."""
    return SinglePassModel(net, info(net, header, "ruas", "lowlight", overlap=32, live=64))
