"""Conditional samplers over a diffusion prior: pictures given an observation ``y = A x + sigma n``.

Each sampler is one function that reads like its paper. They share one view of a prior: the variance-preserving process
``x_t ~ N(sqrt(abar_t) x_0, 1 - abar_t)`` with t from T to 0 and abar_0 = 1, and its predicted noise.
`Prior.of_gaussian` and `Prior.of_mean_reverting` say how irtool's diffusion models are seen like that.

All take a linear operator (`irtool.diffusion.operators.LinearOperator`) except `dps`, which takes any that can be
differentiated; observations are in the units of the states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .gaussian import GaussianDiffusion
from .operators import LinearOperator, Mask, Operator
from .schedules import Process

Draw = Callable[[], Tensor]
"""Gives fresh standard noise in the shape of the states."""
Seen = Callable[[int, Tensor], None]
"""Shown every time reached and the state there."""


def _unseen(t: int, x: Tensor) -> None:
    pass


@dataclass(frozen=True)
class Prior:
    """A diffusion model as the samplers see it.

    Attributes:
        alpha_bar: (T + 1,) float64; alpha_bar[0] = 1.
        noise: ``(states, t) -> noise``, t from 1 to T.
        limit: predicted clean pictures are clamped to [-limit, limit]; None leaves them.
    """

    alpha_bar: Tensor
    noise: Callable[[Tensor, int], Tensor]
    limit: float | None = None

    @classmethod
    def of_gaussian(cls, p: GaussianDiffusion, net: Callable[[Tensor, int], Tensor]) -> Prior:
        """A prior over pictures in [-1, 1]; ``net(states, original time)`` may predict the variance too."""
        alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), p.alpha_bar])
        return cls(alpha_bar, lambda x, t: net(x, p.times[t - 1])[:, :3], 1.0)

    @classmethod
    def of_mean_reverting(cls, p: Process, net: Callable[[Tensor, Tensor, float], Tensor], mu: Tensor) -> Prior:
        """A restorer of `irtool.diffusion.irsde` as a prior over ``u = (x - mu) / lambda``.

        The mean-reverting process is variance-preserving in these units, with alpha_bar = exp(-2 cs_t dt).
        """
        alpha_bar = torch.exp(-2 * p.cs * p.dt)
        return cls(alpha_bar, lambda u, t: net(mu + p.lam * u, mu, t * p.scale))

    @property
    def T(self) -> int:
        return len(self.alpha_bar) - 1

    def abar(self, t: int) -> float:
        return float(self.alpha_bar[t])

    def denoise(self, x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """The clean picture that is predicted, and the noise that goes with it."""
        abar, noise = self.abar(t), self.noise(x, t)
        x0 = (x - (1 - abar) ** 0.5 * noise) / abar**0.5
        if self.limit is not None:
            x0 = x0.clamp(-self.limit, self.limit)
            noise = (x - abar**0.5 * x0) / (1 - abar) ** 0.5
        return x0, noise


def ancestral(prior: Prior, x: Tensor, x0: Tensor, t: int, s: int) -> tuple[Tensor, float]:
    """Mean and variance of x_s given x_t and x_0, for s < t."""
    at, as_ = prior.abar(t), prior.abar(s)
    alpha = at / as_
    mean = as_**0.5 * (1 - alpha) / (1 - at) * x0 + alpha**0.5 * (1 - as_) / (1 - at) * x
    return mean, (1 - alpha) * (1 - as_) / (1 - at)


def _renoised(prior: Prior, x: Tensor, t: int, s: int, z: Tensor) -> Tensor:
    """Forward from t to a later time s."""
    alpha = prior.abar(s) / prior.abar(t)
    return alpha**0.5 * x + (1 - alpha) ** 0.5 * z


def with_jumps(times: Sequence[int], length: int, repeats: int) -> list[int]:
    """Times that go back up now and then: RePaint's resampling, DDNM's time travel.

    Args:
        times: descending, down to 0.
        length: how many of these times a jump goes back.
        repeats: how often every stretch of that length is gone through, 1 for once.
    """
    route = [times[0]]
    for start in range(0, len(times) - 1, length):
        stretch = list(times[start : start + length + 1])
        for k in range(repeats):
            if k:
                route.append(stretch[0])
            route += stretch[1:]
    return route


def ddrm(
    prior: Prior, A: LinearOperator, y: Tensor, sigma: float, times: Sequence[int], draw: Draw,
    eta: float = 0.85, eta_b: float = 1.0, callback: Seen = _unseen,
) -> Tensor:  # fmt: skip
    """Kawar et al., "Denoising Diffusion Restoration Models", NeurIPS 2022, equations 4 to 8.

    Works on coefficients ``V^T x`` in variance-exploding units, where the state's noise is sigma_t.

    Args:
        prior, A, y, sigma: the prior, and the observation ``y = A x + sigma n``.
        times: from T down to 0.
        draw: see `Draw`.
        eta: share of fresh noise where nothing is seen, or less clearly than the state.
        eta_b: weight of the observation where it is clearer than the state.
        callback: see `Seen`.
    """
    z = draw()
    s, y_bar = A.singular.to(z.device), A.observed(y)
    noise_y = torch.where(s > 0, sigma / s.clamp_min(1e-12), torch.inf)  # sigma_y / s_i

    def sigma_of(t: int) -> float:
        return ((1 - prior.abar(t)) / prior.abar(t)) ** 0.5

    top = sigma_of(times[0])
    start = torch.where(s > 0, (top**2 - noise_y**2).clamp_min(0).sqrt(), top)
    x = A.from_spectrum(y_bar + start * A.spectrum(z))
    for t, u in pairwise(times):
        x0, _ = prior.denoise(prior.abar(t) ** 0.5 * x, t)
        c0, c, z = A.spectrum(x0), A.spectrum(x), A.spectrum(draw())
        now, then = sigma_of(t), sigma_of(u)
        unseen = c0 + (1 - eta**2) ** 0.5 * then * (c - c0) / now + eta * then * z
        unclear = c0 + (1 - eta**2) ** 0.5 * then * (y_bar - c0) / noise_y.clamp_min(1e-12) + eta * then * z
        clear = (1 - eta_b) * c0 + eta_b * y_bar + (then**2 - eta_b**2 * noise_y**2).clamp_min(0).sqrt() * z
        x = A.from_spectrum(torch.where(s == 0, unseen, torch.where(then < noise_y, unclear, clear)))
        callback(u, prior.abar(u) ** 0.5 * x)
    return x


def ddnm(
    prior: Prior, A: LinearOperator, y: Tensor, sigma: float, times: Sequence[int], draw: Draw,
    eta: float = 0.85, callback: Seen = _unseen,
) -> Tensor:  # fmt: skip
    """Wang et al., "Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model", ICLR 2023 (DDNM+).

    The part of the predicted picture that is seen is replaced by the observation, ``x0 - A^+ (A x0 - y)``; with noise
    only as far as the noise it brings fits into the next state's, and fresh noise alone makes up the rest there: what
    the network predicts holds the observation's noise already. Arguments as `ddrm`; times may go up (`with_jumps`), and
    eta is the share of fresh noise.
    """
    x = draw()
    s, y_bar = A.singular.to(x.device), A.observed(y)
    noise_y = torch.where(s > 0, sigma / s.clamp_min(1e-12), 0.0)
    for t, u in pairwise(times):
        if u > t:
            x = _renoised(prior, x, t, u, draw())
            continue
        x0, noise = prior.denoise(x, t)
        a, b = prior.abar(u) ** 0.5, (1 - prior.abar(u)) ** 0.5
        if sigma == 0:
            trust = (s > 0).to(s.dtype)
            predicted_share, fresh = (1 - eta**2) ** 0.5 * b, torch.full_like(s, eta * b)
        else:
            fits = a * noise_y <= b
            limited = (1 - eta**2) ** 0.5 * b / (a * noise_y.clamp_min(1e-12))
            trust = torch.where(fits, 1.0, limited) * (s > 0)
            predicted_share = torch.where(s > 0, 0.0, (1 - eta**2) ** 0.5 * b)
            fresh = torch.where(s > 0, (b**2 - (a * trust * noise_y) ** 2).clamp_min(0).sqrt(), eta * b)
        c0 = A.spectrum(x0)
        corrected = c0 + trust * (y_bar - c0)
        x = A.from_spectrum(a * corrected + predicted_share * A.spectrum(noise) + fresh * A.spectrum(draw()))
        callback(u, x)
    return x


def dps(
    prior: Prior, A: Operator, y: Tensor, times: Sequence[int], draw: Draw, zeta: float = 1.0, callback: Seen = _unseen
) -> Tensor:
    """Chung et al., "Diffusion Posterior Sampling for General Noisy Inverse Problems", ICLR 2023, algorithm 1.

    Args:
        prior, y, times, draw, callback: as `ddrm`.
        A: any differentiable operator.
        zeta: step size, in units of the distance to the observation.
    """
    x = draw()
    for t, u in pairwise(times):
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            x0, _ = prior.denoise(leaf, t)
            norms = (y - A(x0)).flatten(1).norm(dim=1)
            (gradient,) = torch.autograd.grad(norms.square().sum(), leaf)
        mean, variance = ancestral(prior, x, x0.detach(), t, u)
        step = zeta / norms.detach().clamp_min(1e-8)
        x = mean + variance**0.5 * draw() - step.view(-1, *[1] * (x.ndim - 1)) * gradient
        callback(u, x)
    return x


def proximal(A: LinearOperator, y_bar: Tensor, x0: Tensor, rho: float) -> Tensor:
    """argmin over x of |y - A x|^2 + rho |x - x0|^2, with `y_bar` = A.observed(y)."""
    s2 = A.singular.to(x0.device) ** 2
    return A.from_spectrum((s2 * y_bar + rho * A.spectrum(x0)) / (s2 + rho))


def diffpir(
    prior: Prior, A: LinearOperator, y: Tensor, sigma: float, times: Sequence[int], draw: Draw,
    strength: float = 8.0, zeta: float = 0.3, callback: Seen = _unseen,
) -> Tensor:  # fmt: skip
    """Zhu et al., "Denoising Diffusion Models for Plug-and-Play Image Restoration", CVPRW 2023, algorithm 1.

    Args:
        prior, A, y, sigma, times, draw, callback: as `ddrm`.
        strength: lambda, the weight of the prior against the observation.
        zeta: share of fresh noise.
    """
    x, y_bar = draw(), A.observed(y)
    for t, u in pairwise(times):
        x0, _ = prior.denoise(x, t)
        abar = prior.abar(t)
        rho = strength * max(sigma, 1e-3) ** 2 * abar / (1 - abar)
        x0 = proximal(A, y_bar, x0, rho)
        noise = (x - abar**0.5 * x0) / (1 - abar) ** 0.5
        a, b = prior.abar(u) ** 0.5, (1 - prior.abar(u)) ** 0.5
        x = a * x0 + b * ((1 - zeta) ** 0.5 * noise + zeta**0.5 * draw())
        callback(u, x)
    return x


def repaint(prior: Prior, A: Mask, y: Tensor, times: Sequence[int], draw: Draw, callback: Seen = _unseen) -> Tensor:
    """Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", CVPR 2022, algorithm 1.

    What is seen is drawn from the forward process, what is missing from the reverse one. Arguments as `ddrm`, without
    noise; times should go up now and then (`with_jumps`), so that the two come to agree.
    """
    x = draw()
    for t, u in pairwise(times):
        if u > t:
            x = _renoised(prior, x, t, u, draw())
            continue
        known = prior.abar(u) ** 0.5 * y + (1 - prior.abar(u)) ** 0.5 * draw()
        mean, variance = ancestral(prior, x, prior.denoise(x, t)[0], t, u)
        x = A.keep * known + (1 - A.keep) * (mean + variance**0.5 * draw())
        callback(u, x)
    return x
