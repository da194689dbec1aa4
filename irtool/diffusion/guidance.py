"""GDP: a diffusion prior guided by how the picture was degraded, known or learned while sampling.

Fei et al., "Generative Diffusion Prior for Unified Image Restoration and Enhancement", CVPR 2023. At every step the
predicted clean picture is compared with the observation, and the gradient of the distance shifts the mean of the
reverse step; the network is never differentiated. The published code departs from the paper in ways that its guidance
scales rely on; `Published` names them.

Pictures, states and observations are (N, 3, H, W) in [-1, 1]; distances are measured in units of [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .gaussian import GaussianDiffusion

Operator = Callable[[Tensor], Tensor]
Network = Callable[[Tensor, int], Tensor]
"""``(states, original time) -> noise``, or noise and the variance's place between its bounds, (N, 3 or 6, H, W)."""

SCALES = {"downsample": 2000.0, "blur": 6000.0, "mask": 4000.0, "gray": 6000.0, "light": 80000.0}
"""Published guidance scales by operator (GDP-x0), for the published departures and a 256x256 prior."""


@dataclass(frozen=True)
class Published:
    """Departures of the released code from the paper.

    Attributes:
        unscaled: the gradient shifts the mean as it is; in the paper it is multiplied by the variance.
        twice: with an unknown operator the gradient is added twice; its parameters still move once.
    """

    unscaled: bool = True
    twice: bool = True


PUBLISHED = Published()
PAPER = Published(unscaled=False, twice=False)
STEADY = Published(unscaled=True, twice=False)
"""What irtool does unless asked otherwise, with `steady_scale`: an unknown operator's gradient counts once, no patch
counts twice, and the strength of guidance depends neither on the size of the picture nor on the number of steps."""


def steady_scale(scale: float, numel: int, steps: int) -> float:
    """A published guidance scale for another size and number of steps.

    The distance is a mean over the picture and is applied once per step, so at 256x256 pixels and 1000 steps a scale
    pulls every number of the picture by the share ``scale / (2 * 3 * 256^2)`` of its error at each step. The result
    pulls as much over the whole of a run with `numel` numbers.
    """
    share = min(0.9, scale / (2 * 3 * 256**2))
    return 2 * numel * (1 - (1 - share) ** (1000 / steps))


@dataclass(frozen=True)
class Light:
    """The degradation ``y = factor x + offset`` of a photograph's light, to be learned.

    Attributes:
        factor: (1,).
        offset: (H, W), shared by the channels.
    """

    factor: Tensor
    offset: Tensor

    def __call__(self, x01: Tensor) -> Tensor:
        return x01 * self.factor + self.offset

    def parameters(self) -> tuple[Tensor, ...]:
        return self.factor, self.offset

    def updated(self, parameters: Sequence[Tensor]) -> Light:
        return Light(*parameters)

    def crop(self, rows: slice, columns: slice) -> Light:
        return replace(self, offset=self.offset[rows, columns])


@dataclass(frozen=True)
class AffineBlur:
    """The general unknown degradation ``y = factor (kernel * x) + offset``.

    Attributes:
        factor: (1,).
        offset: (H, W), shared by the channels.
        kernel: (k, k), k odd; borders are mirrored.
    """

    factor: Tensor
    offset: Tensor
    kernel: Tensor

    def __call__(self, x01: Tensor) -> Tensor:
        channels, r = x01.shape[1], self.kernel.shape[-1] // 2
        padded = F.pad(x01, (r, r, r, r), mode="reflect") if r else x01
        weight = self.kernel.expand(channels, 1, *self.kernel.shape)
        return F.conv2d(padded, weight, groups=channels) * self.factor + self.offset

    def parameters(self) -> tuple[Tensor, ...]:
        return self.factor, self.offset, self.kernel

    def updated(self, parameters: Sequence[Tensor]) -> AffineBlur:
        factor, offset, kernel = parameters
        return AffineBlur(factor, offset, kernel)

    def crop(self, rows: slice, columns: slice) -> AffineBlur:
        return replace(self, offset=self.offset[rows, columns])


Unknown = Light | AffineBlur


def distance(operator: Operator, x0: Tensor, observed: Tensor) -> Tensor:
    """Sum over the batch of the mean squared error between A(x0) and the observation, in units of [0, 1]."""
    error = operator((x0 + 1) / 2) - (observed + 1) / 2
    return error.square().flatten(1).mean(1).sum()


def color_constancy(x0: Tensor) -> Tensor:
    """How far the channels' means are apart, averaged over the batch (Guo et al., Zero-DCE, CVPR 2020)."""
    red, green, blue = x0.mean(dim=(2, 3)).unbind(1)
    spread = (red - green).square() ** 2 + (red - blue).square() ** 2 + (blue - green).square() ** 2
    return spread.sqrt().mean()


def gradient(operator: Operator, x0: Tensor, observed: Tensor, scale: float, constancy: float = 0.0) -> Tensor:
    """Minus the scaled gradient of `distance` with respect to x0; the operator is known.

    Args:
        operator: on pictures in [0, 1].
        constancy: weight of `color_constancy` beside it; 500 in the published colorization.
    """
    leaf = x0.detach().requires_grad_(True)
    with torch.enable_grad():
        loss = scale * distance(operator, leaf, observed)
        if constancy:
            loss = loss + constancy * color_constancy(leaf)
    return -torch.autograd.grad(loss, leaf)[0]


def learn(operator: Unknown, x0: Tensor, observed: Tensor, scale: float) -> tuple[Tensor, Unknown]:
    """As `gradient` for an operator that is learned on the way.

    Returns:
        The guidance, and the operator after a step of gradient descent of length 1.
    """
    leaf = x0.detach().requires_grad_(True)
    parameters = [p.detach().requires_grad_(True) for p in operator.parameters()]
    with torch.enable_grad():
        loss = distance(operator.updated(parameters), leaf, observed)
    of_picture, *of_operator = torch.autograd.grad(loss, [leaf, *parameters])
    moved = [p.detach() - g for p, g in zip(parameters, of_operator, strict=True)]
    return -scale * of_picture, operator.updated(moved)


def reverse(p: GaussianDiffusion, x: Tensor, out: Tensor, i: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and log variance of x_{i-1} given x_i, and the clean picture clamped to [-1, 1]."""
    noise, place = (out[:, :3], out[:, 3:]) if out.shape[1] == 6 else (out, None)
    x0 = p.clean_of(x, noise, i).clamp(-1, 1)
    log_variance = p.log_variance(i, place)
    return p.posterior_mean(x, x0, i), log_variance.expand_as(x), x0


def step(mean: Tensor, log_variance: Tensor, i: int, z: Tensor) -> Tensor:
    """A draw of x_{i-1}; the last step adds no noise."""
    return mean + (0.5 * log_variance).exp() * z if i else mean


def _shifted(mean: Tensor, log_variance: Tensor, guidance: Tensor, how: Published) -> Tensor:
    return mean + (guidance if how.unscaled else log_variance.exp() * guidance)


Seen = Callable[[int, Tensor, Tensor], None]
"""Called with the step, the state after it and the clean picture predicted before it."""


def gdp(
    p: GaussianDiffusion,
    net: Network,
    x: Tensor,
    observed: Tensor,
    operator: Operator,
    scale: float,
    draw: Callable[[int], Tensor],
    how: Published = PUBLISHED,
    constancy: float = 0.0,
    callback: Seen = lambda i, x, x0: None,
) -> Tensor:
    """GDP-x0 with a known operator.

    Args:
        p: the process.
        net: the prior.
        x: the state to start from, standard noise.
        observed: what the operator made of the picture sought, in its own shape.
        operator: on pictures in [0, 1], differentiable.
        scale: guidance scale; see `SCALES`.
        draw: standard noise for step i, shaped as x.
        how: `PUBLISHED` or `PAPER`.
        constancy: see `gradient`.
        callback: shown every step.

    Returns:
        (N, 3, H, W), not clamped.
    """
    for i in reversed(range(p.steps)):
        mean, log_variance, x0 = reverse(p, x, net(x, p.times[i]), i)
        guidance = gradient(operator, x0, observed, scale, constancy)
        x = step(_shifted(mean, log_variance, guidance, how), log_variance, i, draw(i))
        callback(i, x, x0)
    return x


def corners(height: int, width: int, patch: int, stride: int, published: bool = True) -> list[tuple[int, int]]:
    """Top-left corners of patches that cover a picture, row by row.

    The published grid ends with a patch aligned to the bottom and right even where there is one already, so those count
    twice.
    """

    def along(size: int) -> list[int]:
        starts = [*range(0, size - patch + 1, stride), size - patch]
        return starts if published else sorted(set(starts))

    return [(row, column) for row in along(height) for column in along(width)]


def gdp_unknown(
    p: GaussianDiffusion,
    net: Network,
    x: Tensor,
    observed: Sequence[Tensor],
    operators: Sequence[Unknown],
    scale: float,
    draw: Callable[[int], Tensor],
    patch: int = 256,
    stride: int = 128,
    how: Published = PUBLISHED,
    callback: Callable[[int, Tensor, Tensor, Sequence[Unknown]], None] = lambda i, x, x0, operators: None,
) -> tuple[Tensor, Sequence[Unknown]]:
    """GDP-x0 with operators that are learned while sampling, in overlapping patches of the prior's size.

    Means, variances, predictions and the operators' maps are averaged where patches overlap, everything else about the
    operators over all patches. With several observations (exposures) their guidance is added up.

    Args:
        p, net, x, scale, draw: as `gdp`. The network sees patches alone.
        observed: one picture or several exposures, each (N, 3, H, W) in [-1, 1].
        operators: one for each observation; where sampling starts.
        patch, stride: of the grid, pixels; patch at most the picture's sides.
        how: `PUBLISHED` or `PAPER`; the published grid counts some patches twice.
        callback: shown every step, and the operators after it.

    Returns:
        (N, 3, H, W), not clamped, and the operators learned.
    """
    grid = corners(x.shape[-2], x.shape[-1], patch, stride, how.twice)
    for i in reversed(range(p.steps)):
        total = [torch.zeros_like(x) for _ in range(3)]
        maps = [torch.zeros_like(operator.offset) for operator in operators]
        rest: list[list[Tensor]] = [[] for _ in operators]
        count = x.new_zeros(x.shape[-2:])
        for row, column in grid:
            rows, columns = slice(row, row + patch), slice(column, column + patch)
            window = (..., rows, columns)
            mean, log_variance, x0 = reverse(p, x[window], net(x[window], p.times[i]), i)
            for k, (operator, y) in enumerate(zip(operators, observed, strict=True)):
                guidance, moved = learn(operator.crop(rows, columns), x0, y[window], scale)
                mean = _shifted(mean, log_variance, 2 * guidance if how.twice else guidance, how)
                maps[k][rows, columns] += moved.offset
                factor, _, *others = moved.parameters()
                rest[k].append(torch.cat([factor, *(o.flatten() for o in others)]))
            for whole, part in zip(total, (mean, log_variance, x0), strict=True):
                whole[window] += part
            count[rows, columns] += 1
        mean, log_variance, x0 = (whole / count for whole in total)
        operators = [_averaged(o, maps[k] / count, torch.stack(rest[k]).mean(0)) for k, o in enumerate(operators)]
        x = step(mean, log_variance, i, draw(i))
        callback(i, x, x0, operators)
    return x, operators


def _averaged(operator: Unknown, offset: Tensor, flat: Tensor) -> Unknown:
    """An operator with another map and other parameters, laid out flat: the factor, then the rest."""
    if isinstance(operator, AffineBlur):
        return AffineBlur(flat[:1], offset, flat[1:].view_as(operator.kernel))
    return Light(flat[:1], offset)


def light(height: int, width: int, generator: torch.Generator) -> Light:
    """A `Light` as published runs begin: a factor near 0 and a map near 0."""
    factor = torch.randn(1, generator=generator) / 100
    return Light(factor, torch.rand(height, width, generator=generator) / 10000)
