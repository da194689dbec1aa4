"""Denoising of camera raw files where their noise is simple: in linear light, made even by a transform.

A sensor's noise has the variance ``gain x + read`` (shot and read noise) at a linear value x; the tone curve of sRGB
bends that into something else at every brightness. Here it is measured in linear light, and the square-root transform
of Anscombe ("The transformation of Poisson, binomial and negative-binomial data", Biometrika 1948; with read noise:
Starck, Murtagh and Bijaoui, "Image Processing and Data Analysis", 1998) makes it alike everywhere before the network
sees it. The transform is undone, and the tone curve follows, afterwards. What it gains: docs/camera-raw.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .synth.ops import to_linear, to_srgb

if TYPE_CHECKING:
    from .engine import EngineResult

_BLOCK = 8  # side of the blocks whose mean and noise are measured, pixels
_BINS, _FLATTEST, _FLATTEST_TO_MEAN = 16, 0.1, 1.35
# Bins of brightness; the quantile of their blocks that counts, that of those without texture; and what the mean of
# blocks of pure noise is to that quantile.
_LEAST_BLOCKS = 24  # in a bin, or it does not count
_BLACK, _WHITE = 0.002, 0.9  # a decoder cuts noise off below black, a sensor above white
_LEAST_GAIN, _LEAST_READ = 1e-6, 1e-9
_PIXELS = 2_000_000  # of a picture that are measured


@dataclass(frozen=True)
class SensorNoise:
    """Noise of variance ``gain x + read`` at a value x of linear light in [0, 1]."""

    gain: float
    read: float

    def stabilized(self, x: Tensor) -> Tensor:
        """Linear light to values in [0, 1] whose noise is alike everywhere."""
        low, high = self._ends()
        return ((x + self._offset).clamp(min=0).sqrt() - low) / (high - low)

    def recovered(self, y: Tensor) -> Tensor:
        """The inverse of `stabilized`."""
        low, high = self._ends()
        return (low + (high - low) * y) ** 2 - self._offset

    @property
    def _offset(self) -> float:
        return 0.375 * self.gain + self.read / self.gain

    def _ends(self) -> tuple[float, float]:
        return self._offset**0.5, (1 + self._offset) ** 0.5


def measure(linear: Tensor) -> SensorNoise:
    """The noise of a picture (3, H, W) in linear light, from the blocks that show the least texture.

    Of each bin of brightness the flattest blocks tell the variance, and a line is fitted through the bins (after Foi et
    al., "Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data", IEEE TIP 2008).
    """
    rows = max(_BLOCK, _PIXELS // max(1, linear.shape[-1]))
    channels = linear[:, (linear.shape[1] - min(rows, linear.shape[1])) // 2 :][:, :rows, :, None].movedim(3, 0)
    high = channels - F.avg_pool2d(channels, 5, 1, 2, count_include_pad=False)
    if min(channels.shape[-2:]) < _BLOCK:
        return SensorNoise(_LEAST_GAIN, _LEAST_READ)
    means = F.avg_pool2d(channels, _BLOCK).flatten()
    powers = F.avg_pool2d(high.square(), _BLOCK).flatten() * 25 / 24
    points = []
    for part in means.argsort().chunk(_BINS):
        level, flattest = float(means[part].mean()), float(powers[part].quantile(_FLATTEST)) * _FLATTEST_TO_MEAN
        if len(part) >= _LEAST_BLOCKS and _BLACK < level < _WHITE and level > 1.5 * flattest**0.5:
            points.append((level, flattest))
    if not points:
        return SensorNoise(_LEAST_GAIN, _LEAST_READ)
    x, y = torch.tensor(points, dtype=torch.float64).T
    weight = 1 / y.clamp(min=1e-9)  # relative errors count: variances span decades
    design = torch.stack([x, torch.ones_like(x)], 1) * weight[:, None]
    gain, read = torch.linalg.lstsq(design, (y * weight)[:, None]).solution[:, 0].tolist()
    return SensorNoise(max(gain, _LEAST_GAIN), max(read, _LEAST_READ))


def in_linear_light(run: Callable[..., EngineResult], pixels: Tensor) -> EngineResult:
    """Denoise a camera raw picture.

    Args:
        run: ``run(pixels=...)`` carries out a denoiser on (3, H, W) in [0, 1].
        pixels: (3, H, W) sRGB in [0, 1] with the full depth of the file, its values as the sensor measured them.
    """
    linear = to_linear(pixels)
    noise = measure(linear)
    outcome = run(pixels=noise.stabilized(linear))
    return replace(outcome, pixels=to_srgb(noise.recovered(outcome.pixels)))
