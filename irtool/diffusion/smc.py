"""Sequential Monte Carlo over a diffusion prior: conditional samples that are exact as the particles grow in number.

The two families of the review of Zhao et al., "Conditional sampling within generative diffusion models" (Phil. Trans.
R. Soc. A, 2025): `twisted` keeps the observation as it is and weighs marginals of the picture (Feynman-Kac); `joint`
noises the observation along with the picture and filters backwards through both.

Particles are (K, ...); the observation is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .conditional import Draw, Prior, ancestral
from .operators import LinearOperator, Operator


@dataclass(frozen=True)
class Particles:
    """Equally weighted particles (K, ...), and the logarithm of the observation's estimated density p(y)."""

    x: Tensor
    log_evidence: float


def _log_normal(error: Tensor, variance: Tensor | float) -> Tensor:
    """log N(error; 0, variance) of each particle (K,); coefficients of real pictures may be complex."""
    variance = torch.as_tensor(variance, dtype=torch.float64, device=error.device).expand(error.shape[1:])
    squared = error.abs().double().square()
    return -0.5 * (squared / variance + (2 * math.pi * variance).log()).flatten(1).sum(1)


def _chosen(log_weights: Tensor, generator: torch.Generator) -> Tensor:
    """Systematic resampling: indices (K,) drawn in proportion to the weights (K,)."""
    count = len(log_weights)
    edges = log_weights.softmax(0).cumsum(0)
    at = (torch.arange(count, dtype=torch.float64) + torch.rand(1, generator=generator, dtype=torch.float64)) / count
    return torch.searchsorted(edges.cpu(), at).clamp(max=count - 1).to(log_weights.device)


class _Weights:
    """Weights that are kept until too few particles carry them."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count, self.generator = count, generator
        self.log = torch.zeros(count, dtype=torch.float64)
        self.log_evidence = 0.0

    def add(self, log_increment: Tensor, last: bool) -> Tensor | None:
        """Multiply the weights; the indices of the particles to go on with where they are resampled."""
        self.log = self.log.to(log_increment.device) + log_increment
        share = self.log.softmax(0)
        if not last and 1 / float(share.square().sum()) >= self.count / 2:
            return None
        self.log_evidence += float(self.log.logsumexp(0)) - math.log(self.count)
        kept = _chosen(self.log, self.generator)
        self.log = torch.zeros_like(self.log)
        return kept


def twisted(
    prior: Prior, A: Operator, y: Tensor, sigma: float, times: Sequence[int], draw: Draw, generator: torch.Generator
) -> Particles:
    """Wu et al., "Practical and Asymptotically Exact Conditional Sampling in Diffusion Models", NeurIPS 2023.

    Every particle is pulled by the gradient of an approximate likelihood, ``N(y; A x0(x_t), sigma^2 + r_t^2)`` with
    r_t^2 = 1 - abar_t, and weighed by what that approximation got wrong.

    Args:
        prior: the prior; the network is differentiated.
        A: any differentiable operator.
        y: one observation, (1, ...), with noise of standard deviation sigma > 0.
        times: from T down to 0.
        draw: standard noise for all particles (K, ...).
        generator: draws when particles are resampled, on the CPU.
    """
    x = draw()
    weights = _Weights(len(x), generator)

    def twist(x: Tensor, t: int) -> tuple[Tensor, Tensor, Tensor]:
        """The approximate log likelihood (K,), its gradient, and the predicted clean pictures."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            x0 = prior.denoise(leaf, t)[0] if t else leaf
            value = _log_normal(y - A(x0), sigma**2 + 1 - prior.abar(t))
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), gradient, x0.detach()

    value, gradient, x0 = twist(x, times[0])
    kept = weights.add(value, last=False)
    if kept is not None:
        x, value, gradient, x0 = x[kept], value[kept], gradient[kept], x0[kept]
    for t, u in pairwise(times):
        mean, _ = ancestral(prior, x, x0, t, u)
        variance = 1 - prior.abar(t) / prior.abar(u)  # beta: above 0 at the last step too
        pulled = mean + variance * gradient
        x = pulled + variance**0.5 * draw()
        before = value
        value, gradient, x0 = twist(x, u)
        ratio = _log_normal(x - mean, variance) - _log_normal(x - pulled, variance)
        kept = weights.add(ratio + value - before, last=u == 0)
        if kept is not None:
            x, value, gradient, x0 = x[kept], value[kept], gradient[kept], x0[kept]
    return Particles(x, weights.log_evidence)


def joint(
    prior: Prior, A: LinearOperator, y: Tensor, sigma: float, times: Sequence[int], draw: Draw,
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Cardoso et al., "Monte Carlo Guided Diffusion for Bayesian Linear Inverse Problems", ICLR 2024.

    A coefficient seen with noise sigma / s_i is, up to its scale, what the process itself makes of it at the time tau_i
    of as much noise. From there up it is noised along the way the picture is; the particles follow that path exactly,
    weighed by how likely it is, and are free again below tau_i. Arguments as `twisted`, but the operator is linear, the
    network is not differentiated, and sigma may be 0.

    Returns:
        Equally weighted particles (K, ...).
    """
    c = A.spectrum(draw())
    s = A.singular.to(c.device).expand(c.shape[1:])
    y_bar = A.observed(y)
    ascending = list(reversed(times))
    # Of the times that the route has, the closest in noise.
    levels = torch.tensor([(1 - prior.abar(t)) / prior.abar(t) for t in ascending], dtype=torch.float64) ** 0.5
    target_ratio = torch.where(s > 0, sigma / s.clamp_min(1e-12), torch.inf).double().cpu()
    tau = (levels.view(-1, *[1] * s.ndim) - target_ratio).abs().argmin(0).to(c.device)  # index into `ascending`
    tau = torch.where(s > 0, tau, len(ascending))
    path = [prior.abar(ascending[0]) ** 0.5 * y_bar]
    for k, (u, t) in enumerate(pairwise(ascending), 1):
        alpha = prior.abar(t) / prior.abar(u)
        noised = alpha**0.5 * path[-1] + (1 - alpha) ** 0.5 * A.spectrum(draw()[:1])
        path.append(torch.where(tau < k, noised, prior.abar(t) ** 0.5 * y_bar))

    weights = _Weights(len(c), generator)
    top = len(ascending) - 1
    c = torch.where(tau <= top, path[top], c)
    for k, (t, u) in zip(range(top - 1, -1, -1), pairwise(times), strict=True):
        x = A.from_spectrum(c)
        mean = A.spectrum(ancestral(prior, x, prior.denoise(x, t)[0], t, u)[0])
        variance = 1 - prior.abar(t) / prior.abar(u)  # beta: above 0 at the last step too
        pinned = tau <= k
        kept = weights.add(_log_normal((path[k] - mean)[:, pinned], variance), last=u == 0)
        if kept is not None:
            mean = mean[kept]
        c = torch.where(pinned, path[k], mean + variance**0.5 * A.spectrum(draw()))
    return A.from_spectrum(c)
