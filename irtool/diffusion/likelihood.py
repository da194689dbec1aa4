"""Exact log-likelihood of the mean-reverting SDE, by its probability-flow ODE.

Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021, section 4.3; for
the mean-reverting process Luo et al. (ICML 2023) and Zhang et al., "Entropy-regularized Diffusion Policy with
Q-Ensembles for Offline Reinforcement Learning", NeurIPS 2024, who use it as an entropy. In the time ``tau = cs_t dt``::

    dx/dtau = f(x, tau) = (mu - x) + lambda^2 n(x, tau) / sqrt(v_tau),     v_tau = lambda^2 (1 - exp(-2 tau))
    log p(x_a) = log N(x_T; mu, v_T) + integral from a to T of div f dtau
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .irsde import Network, std
from .schedules import Process


def _divergence(velocity: Tensor, x: Tensor, probes: Sequence[Tensor] | None, learn: bool) -> Tensor:
    """Trace of the Jacobian of `velocity` with respect to x, per sample: exact, or by Hutchinson's estimator."""
    total = torch.zeros(len(x), device=x.device, dtype=x.dtype)
    flat = velocity.flatten(1)
    if probes is None:
        for i in range(flat.shape[1]):
            (row,) = torch.autograd.grad(flat[:, i].sum(), x, retain_graph=True, create_graph=learn)
            total = total + row.flatten(1)[:, i]
        return total
    for probe in probes:
        (product,) = torch.autograd.grad((velocity * probe).sum(), x, retain_graph=True, create_graph=learn)
        total = total + (product * probe).flatten(1).sum(1) / len(probes)
    return total


def log_likelihood(
    p: Process,
    net: Network,
    x: Tensor,
    mu: Tensor,
    times: Sequence[int],
    probes: int = 0,
    generator: torch.Generator | None = None,
    learn: bool = False,
) -> Tensor:
    """log p of states at the first time of a route, under the marginals that the network's scores stand for.

    Heun's method: two evaluations and two divergences per interval, an error of second order in its length.

    Args:
        p: the process.
        net: ``(x, mu, t) -> noise``, as `irtool.diffusion.irsde.sample` calls it.
        x: (N, C, H, W), states at times[0]. A clean picture is one at time 1 up to the noise of that time, which is
            what makes its density finite (the process has none at time 0).
        mu: low-quality pictures, the same shape.
        times: ascending, from 1 or later to p.T; every one a time the network was trained at.
        probes: 0 for the exact divergence, C H W backward passes per evaluation; else so many random probes.
        generator: draws the probes, on the CPU; the same ones are used along the route.
        learn: keep the graph, so that the result can be differentiated with respect to the network and x.

    Returns:
        (N,), natural logarithms. With probes an unbiased estimate of the integral.
    """
    if times[0] < 1:
        raise ValueError("there is no density at time 0; begin at time 1")
    draws = None
    if probes:
        signs = torch.randint(0, 2, (probes, *x.shape), generator=generator)
        draws = [(2 * s - 1).to(x) for s in signs]

    def flow(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = x if learn and x.requires_grad else x.detach().requires_grad_(True)
            noise = net(leaf, mu, t * p.scale)
            velocity = (mu - leaf) + p.lam**2 * noise / std(p, t).to(leaf)
            divergence = _divergence(velocity, leaf, draws, learn)
        return (velocity, divergence) if learn else (velocity.detach(), divergence.detach())

    total = torch.zeros(len(x), device=x.device, dtype=x.dtype)
    velocity, divergence = flow(x, times[0])
    for a, b in pairwise(times):
        length = p.span(b, a).to(x)
        guess = x + length * velocity
        velocity_b, _ = flow(guess, b)
        x = x + length / 2 * (velocity + velocity_b)
        velocity, divergence_b = flow(x, b)
        total = total + length / 2 * (divergence + divergence_b)
        divergence = divergence_b
    variance = std(p, times[-1]).to(x) ** 2
    error = (x - mu).flatten(1)
    normal = -0.5 * (error.square().sum(1) / variance + error.shape[1] * torch.log(2 * math.pi * variance))
    return normal + total


def sample_with_likelihood(
    p: Process, net: Network, mu: Tensor, times: Sequence[int], noise: Tensor, probe: Tensor
) -> tuple[Tensor, Tensor]:
    """States drawn by the probability-flow ODE, with their log-likelihood; both can be differentiated.

    Euler's method for both, one evaluation per interval, so that they belong to one and the same flow.

    Args:
        p, net, mu: as `log_likelihood`.
        times: descending from p.T to 1 or later.
        noise: standard noise (N, C, H, W), where the states start.
        probe: entries of 1 and -1 in the same shape, for the divergence (Hutchinson).

    Returns:
        States at the last time, and (N,) natural logarithms of their density.
    """
    x = mu + p.lam * noise
    total = -0.5 * (noise.square() + math.log(2 * math.pi * p.lam**2)).flatten(1).sum(1)
    with torch.enable_grad():
        for t, s in pairwise(times):
            x = x if x.requires_grad else x.detach().requires_grad_(True)
            velocity = (mu - x) + p.lam**2 * net(x, mu, t * p.scale) / std(p, t).to(x)
            length = p.span(t, s).to(x)
            total = total + length * _divergence(velocity, x, [probe], True)
            x = x - length * velocity
    return x, total
