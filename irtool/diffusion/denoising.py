"""The denoising SDE: IR-SDE with mu = x_0, for Gaussian noise of a known level (Luo et al., ICML 2023).

A clean picture only gains noise, ``x_t ~ N(x_0, lambda^2 (1 - exp(-2 cs_t dt)))``, so a noisy picture *is* a state of
the process, and restoration starts at the time whose standard deviation is the noise level. The network sees ``(x_t,
t)``. Same tables as `irtool.diffusion.irsde`, with eps 0.04.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .irsde import Network, Time, posterior_std, score, std
from .schedules import Process, process

EPS = 0.04


def process_of(schedule: str = "cosine", T: int = 100, max_sigma: float = 75) -> Process:
    """The process; max_sigma, the largest noise level, is divided by 255 where it is 1 or more."""
    return process(schedule, T, max_sigma, EPS)


def optimum_time(p: Process, sigma: float) -> int:
    """The time whose noise level is closest to sigma (in units of 255 where it is more than 1)."""
    sigma = sigma / 255 if sigma > 1 else sigma
    cs = -math.log(1 - sigma**2 / p.lam**2 + 1e-6) / (2 * p.dt)
    return int((p.cs - cs).abs().argmin())


def clean_of(p: Process, x: Tensor, noise: Tensor, t: Time) -> Tensor:
    """The clean picture x_0 of a state and its noise."""
    return x - std(p, t) * noise


def reverse_sde(p: Process, x: Tensor, noise: Tensor, t: Time, s: Time, z: Tensor) -> Tensor:
    """Euler-Maruyama step from t to s; z is fresh standard noise."""
    theta = p.span(t, s)
    drift = -(p.lam**2) * theta * (1 + p.decay(t) ** 2) * score(p, noise, t)
    return x - drift - p.lam * torch.sqrt(2 * theta) * z


def reverse_ode(p: Process, x: Tensor, noise: Tensor, t: Time, s: Time) -> Tensor:
    """Euler step of the probability-flow ODE; the published sampler."""
    return x + p.lam**2 * p.span(t, s) * p.decay(t) ** 2 * score(p, noise, t)


def posterior_mean(p: Process, x: Tensor, x0: Tensor, t: Time, s: Time) -> Tensor:
    """Mean of x_s given x_t and x_0."""
    ratio = torch.expm1(-2 * p.span(s)) / torch.expm1(-2 * p.span(t))
    return x0 + p.decay(t, s) * ratio * (x - x0)


def posterior(p: Process, x: Tensor, noise: Tensor, t: Time, s: Time, z: Tensor) -> Tensor:
    """A sample of x_s given x_t and the clean picture of the predicted noise."""
    return posterior_mean(p, x, clean_of(p, x, noise, t), t, s) + posterior_std(p, t, s) * z


def sample(
    p: Process,
    net: Network,
    x: Tensor,
    times: Sequence[int],
    sampler: str,
    draw: Callable[[], Tensor],
    callback: Callable[[int, Tensor], None] = lambda t, x: None,
) -> Tensor:
    """Denoise pictures.

    Args:
        p: the process.
        net: ``(x_t, x_t, t) -> noise``, called as that of `irtool.diffusion.irsde.sample` is.
        x: noisy pictures (N, C, H, W).
        times: from the time whose noise is as strong as theirs (`optimum_time`) down to 0.
        sampler, draw, callback: as `irtool.diffusion.irsde.sample`.

    Returns:
        x_0, not clamped.
    """
    callback(times[0], x)
    for t, s in pairwise(times):
        noise = net(x, x, t * p.scale)
        if sampler == "posterior":
            x = posterior(p, x, noise, t, s, draw() if s else torch.zeros_like(x))
        elif sampler == "sde":
            x = reverse_sde(p, x, noise, t, s, draw())
        else:
            x = reverse_ode(p, x, noise, t, s)
        callback(s, x)
    return x
