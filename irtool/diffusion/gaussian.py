"""The variance-preserving diffusion process in discrete time, as guided diffusion parametrizes it.

Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020; Nichol and Dhariwal, "Improved Denoising Diffusion
Probabilistic Models", ICML 2021 (learned variance, respacing). Index i of a table is the i-th step of the respaced
process, 0 the least noisy::

    x_i | x_0 ~ N(sqrt(abar_i) x_0, 1 - abar_i)

Pictures are (N, C, H, W) in [-1, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SCHEDULES = ("linear", "cosine")


def betas_of(schedule: str = "linear", T: int = 1000) -> Tensor:
    """beta_1 to beta_T (T,) float64.

    Raises:
        ValueError: there is no such schedule.
    """
    if schedule == "linear":
        scale = 1000 / T
        return torch.linspace(scale * 1e-4, scale * 0.02, T, dtype=torch.float64)
    if schedule == "cosine":
        k = torch.arange(T + 1, dtype=torch.float64) / T
        alpha_bar = torch.cos((k + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)
    raise ValueError(f"no schedule '{schedule}', only {', '.join(SCHEDULES)}")


def respaced_times(T: int, respacing: str) -> list[int]:
    """Original times that a respaced process keeps, ascending.

    Args:
        T: number of original times.
        respacing: "" for all; a count such as "25"; counts by equal sections such as "10,15,20"; "ddim25" for a fixed
            stride from 0 (Song et al., 2021).

    Raises:
        ValueError: the process cannot be divided like this.
    """
    if not respacing:
        return list(range(T))
    if respacing.startswith("ddim"):
        wanted = int(respacing[4:])
        for every in range(1, T + 1):
            if len(range(0, T, every)) == wanted:
                return list(range(0, T, every))
        raise ValueError(f"no whole stride gives {wanted} of {T} steps")
    counts = [int(count) for count in respacing.split(",")]
    size, extra = divmod(T, len(counts))
    start = 0
    kept: list[int] = []
    for i, count in enumerate(counts):
        length = size + (1 if i < extra else 0)
        if not 1 <= count <= length:
            raise ValueError(f"a section of {length} steps cannot be divided into {count}")
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        kept += [start + round(stride * k) for k in range(count)]
        start += length
    return kept


@dataclass(frozen=True)
class GaussianDiffusion:
    """Tables of a respaced process; all (S,) float64 but `times`.

    Attributes:
        times: the original times, which the network is asked at.
        betas: variances of the forward steps.
        alpha_bar: the share of the clean picture's variance that is left.
    """

    times: tuple[int, ...]
    betas: Tensor
    alpha_bar: Tensor

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.times)

    @property
    def alpha_bar_prev(self) -> Tensor:
        """alpha_bar one step earlier; 1 before the first."""
        return torch.cat([torch.ones(1, dtype=torch.float64), self.alpha_bar[:-1]])

    @property
    def posterior_variance(self) -> Tensor:
        """Variance of x_{i-1} given x_i and x_0."""
        return self.betas * (1 - self.alpha_bar_prev) / (1 - self.alpha_bar)

    @property
    def posterior_log_variance(self) -> Tensor:
        """Its logarithm; the first entry, log 0, is replaced by the second."""
        variance = self.posterior_variance
        return torch.cat([variance[1:2] if self.steps > 1 else variance[:1], variance[1:]]).log()

    def diffuse(self, x0: Tensor, i: Tensor | int, noise: Tensor) -> Tensor:
        """A state at step i (one, or one per sample)."""
        abar = _shaped(self.alpha_bar, i, x0)
        return abar.sqrt() * x0 + (1 - abar).sqrt() * noise

    def clean_of(self, x: Tensor, noise: Tensor, i: Tensor | int) -> Tensor:
        """The clean picture that a state and its noise stand for; not clamped."""
        abar = _shaped(self.alpha_bar, i, x)
        return (1 / abar).sqrt() * x - (1 / abar - 1).sqrt() * noise

    def posterior_mean(self, x: Tensor, x0: Tensor, i: int) -> Tensor:
        """Mean of x_{i-1} given x_i and x_0."""
        beta, abar, prev = self.betas[i], self.alpha_bar[i], self.alpha_bar_prev[i]
        clean = beta * prev.sqrt() / (1 - abar)
        here = (1 - prev) * (1 - beta).sqrt() / (1 - abar)
        return float(clean) * x0 + float(here) * x

    def log_variance(self, i: int, place: Tensor | None) -> Tensor:
        """log variance of the reverse step.

        Args:
            i: step.
            place: what a network with a learned variance says, -1 (posterior variance) to 1 (beta); None for the fixed
                variance beta of the published configuration (at the first step that of the second's posterior).
        """
        if place is None:
            return (self.posterior_variance[1] if i == 0 and self.steps > 1 else self.betas[i]).log().float()
        share = (place + 1) / 2
        return share * float(self.betas[i].log()) + (1 - share) * float(self.posterior_log_variance[i])


def _shaped(table: Tensor, i: Tensor | int, like: Tensor) -> Tensor:
    """Entries of a table to go with pictures: scalar, or (N, 1, 1, 1)."""
    if isinstance(i, Tensor) and i.ndim:
        return table[i.cpu()].to(like.device, torch.float32).view(-1, 1, 1, 1)
    return table[i].to(like.device, torch.float32)


def gaussian_diffusion(schedule: str = "linear", T: int = 1000, respacing: str = "") -> GaussianDiffusion:
    """The process of a published configuration; see `betas_of` and `respaced_times`."""
    times = respaced_times(T, respacing)
    alpha_bar = torch.cumprod(1 - betas_of(schedule, T), 0)[times]
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    return GaussianDiffusion(tuple(times), 1 - alpha_bar / before, alpha_bar)
