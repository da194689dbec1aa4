"""IR-SDE: a mean-reverting SDE from a low-quality picture to a clean one.

Luo et al., "Image Restoration with Mean-Reverting Stochastic Differential Equations", ICML 2023. The forward process
takes a clean picture x_0 to its low-quality twin mu plus noise::

    dx = theta_t (mu - x) dt + sigma_t dw,        sigma_t^2 = 2 lambda^2 theta_t
    x_t | x_0 ~ N(m_t, v_t),   m_t = mu + (x_0 - mu) exp(-cs_t dt),   v_t = lambda^2 (1 - exp(-2 cs_t dt))

A network predicts the standard noise n in x_t; the score is ``-n / sqrt(v_t)``. States and pictures are (N, C, H, W),
pictures about [0, 1]; times are integers 0 to T, one or one per sample.

The samplers step from t to any s < t. With s = t - 1 they are the published ones. With a longer step the coefficients
are those of the integral over it, so that the network is only asked about times it was trained at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .schedules import Process

Time = Tensor | int
Network = Callable[[Tensor, Tensor, float], Tensor]


def mean(p: Process, x0: Tensor, mu: Tensor, t: Time) -> Tensor:
    """m_t."""
    return mu + (x0 - mu) * p.decay(t)


def std(p: Process, t: Time) -> Tensor:
    """sqrt(v_t)."""
    return p.lam * torch.sqrt(-torch.expm1(-2 * p.span(t)))


def diffuse(p: Process, x0: Tensor, mu: Tensor, t: Time, noise: Tensor) -> Tensor:
    """A state at time t, as training draws it."""
    return mean(p, x0, mu, t) + std(p, t) * noise


def start(p: Process, mu: Tensor, noise: Tensor) -> Tensor:
    """The state that sampling starts from; the published code takes lambda for sqrt(v_T)."""
    return mu + p.lam * noise


def score(p: Process, noise: Tensor, t: Time) -> Tensor:
    """The score, gradient of log p(x_t), of a predicted noise."""
    return -noise / std(p, t)


def noise_in(p: Process, x: Tensor, x0: Tensor, mu: Tensor, t: Time) -> Tensor:
    """The noise in a state whose clean picture is known."""
    return (x - mean(p, x0, mu, t)) / std(p, t)


def clean_of(p: Process, x: Tensor, mu: Tensor, noise: Tensor, t: Time) -> Tensor:
    """The clean picture x_0 of a state and its noise; not clamped."""
    return mu + (x - mu - std(p, t) * noise) / p.decay(t)


def reverse_mean(p: Process, x: Tensor, mu: Tensor, noise: Tensor, t: Time, s: Time) -> Tensor:
    """x less the drift of the reverse-time SDE from t to s."""
    theta = p.span(t, s)
    return x - (theta * (mu - x) - 2 * p.lam**2 * theta * score(p, noise, t))


def reverse_sde(p: Process, x: Tensor, mu: Tensor, noise: Tensor, t: Time, s: Time, z: Tensor) -> Tensor:
    """Euler-Maruyama step of the reverse-time SDE; z is fresh standard noise, added at the last step too."""
    return reverse_mean(p, x, mu, noise, t, s) - p.lam * torch.sqrt(2 * p.span(t, s)) * z


def reverse_ode(p: Process, x: Tensor, mu: Tensor, noise: Tensor, t: Time, s: Time) -> Tensor:
    """Euler step of the probability-flow ODE."""
    theta = p.span(t, s)
    return x - (theta * (mu - x) - p.lam**2 * theta * score(p, noise, t))


def posterior_mean(p: Process, x: Tensor, x0: Tensor, mu: Tensor, t: Time, s: Time) -> Tensor:
    """Mean of x_s given x_t and x_0: the optimum reverse state of the paper."""
    a, b, c = p.span(t, s), p.span(t), p.span(s)
    rest = torch.expm1(-2 * b)
    here = torch.exp(-a) * torch.expm1(-2 * c) / rest
    clean = torch.exp(-c) * torch.expm1(-2 * a) / rest
    return mu + here * (x - mu) + clean * (x0 - mu)


def posterior_std(p: Process, t: Time, s: Time) -> Tensor:
    """Standard deviation of x_s given x_t and x_0; 0 at s = 0."""
    a, b, c = (torch.expm1(-2 * p.span(*pair)) for pair in ((t, s), (t,), (s,)))
    return p.lam * torch.sqrt(-a * c / b)


def posterior(p: Process, x: Tensor, mu: Tensor, noise: Tensor, t: Time, s: Time, z: Tensor) -> Tensor:
    """A sample of x_s given x_t and the clean picture of the predicted noise (Luo et al., CVPRW 2024).

    Exact for any step where the noise is, so it bears few steps.
    """
    x0 = clean_of(p, x, mu, noise, t)
    return posterior_mean(p, x, x0, mu, t, s) + posterior_std(p, t, s) * z


def step(p: Process, sampler: str, x: Tensor, mu: Tensor, noise: Tensor, t: int, s: int, z: Tensor) -> Tensor:
    """One step of the sampler called "posterior", "sde" or "ode"."""
    if sampler == "posterior":
        return posterior(p, x, mu, noise, t, s, z)
    if sampler == "sde":
        return reverse_sde(p, x, mu, noise, t, s, z)
    return reverse_ode(p, x, mu, noise, t, s)


def sample(
    p: Process,
    net: Network,
    mu: Tensor,
    times: Sequence[int],
    sampler: str,
    draw: Callable[[], Tensor],
    callback: Callable[[int, Tensor], None] = lambda t, x: None,
) -> Tensor:
    """Restore low-quality pictures.

    Args:
        p: the process.
        net: ``(x_t, mu, t) -> noise``.
        mu: (N, C, H, W).
        times: from T down to 0.
        sampler: "posterior", "sde" or "ode".
        draw: gives standard noise shaped as mu; called once for the start and once per step that needs it.
        callback: is shown every time reached and the state there.

    Returns:
        x_0, not clamped.
    """
    x = start(p, mu, draw())
    callback(times[0], x)
    for t, s in pairwise(times):
        noise = net(x, mu, t * p.scale)
        # The ODE needs no noise, nor does the last posterior step, whose deviation is 0.
        fresh_noise = sampler == "sde" or (sampler == "posterior" and s > 0)
        x = step(p, sampler, x, mu, noise, t, s, draw() if fresh_noise else torch.zeros_like(x))
        callback(s, x)
    return x


def likelihood_loss(
    p: Process,
    predicted: Tensor,
    x: Tensor,
    x0: Tensor,
    mu: Tensor,
    t: Tensor,
    kind: str = "l1",
    weighted: bool = False,
) -> Tensor:
    """The maximum-likelihood objective: the predicted mean of x_{t-1} against the optimum one.

    Args:
        predicted: noise that the network sees in x.
        x: states at times t (N,), drawn by `diffuse` from clean pictures x0 and low-quality ones mu.
        kind: "l1" or "l2".
        weighted: weigh each sample by exp(-cs_t dt); published, and off in every published configuration.
    """
    error = reverse_mean(p, x, mu, predicted, t, t - 1) - posterior_mean(p, x, x0, mu, t, t - 1)
    error = error.abs() if kind == "l1" else error.square()
    per_sample = error.flatten(1).mean(1)
    return (per_sample * p.decay(t).flatten()).mean() if weighted else per_sample.mean()
