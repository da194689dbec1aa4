"""The log-likelihood of the mean-reverting SDE against a case that can be written down."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from irtool.diffusion import likelihood
from irtool.diffusion.schedules import Process, process

MEAN, SPREAD = 0.7, 0.1
"""Of clean pictures, in the case below."""


def exact(p: Process, t: int) -> tuple[float, float]:
    """Scale of x_0 - mu and standard deviation of a state, where clean pictures are N(MEAN, SPREAD^2) per pixel."""
    decay = float(p.decay(t))
    return decay, (decay**2 * SPREAD**2 + p.lam**2 * (1 - decay**2)) ** 0.5


def noise_of(p: Process) -> likelihood.Network:
    def net(x: Tensor, mu: Tensor, t: float) -> Tensor:
        decay, spread = exact(p, int(t))
        v = p.lam * (1 - decay**2) ** 0.5
        return v * (x - mu - decay * (MEAN - mu)) / spread**2

    return net


@pytest.mark.parametrize("probes", [0, 1])
def test_a_gaussian(probes: int) -> None:
    """The Jacobian is diagonal, so one probe is exact too."""
    p = process("cosine", 100, 50, eps=1e-4)
    mu = torch.full((3, 1, 2, 3), 0.2, dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    decay, spread = exact(p, 1)
    x = mu + decay * (MEAN - mu) + spread * torch.randn(mu.shape, generator=g, dtype=torch.float64)
    found = likelihood.log_likelihood(p, noise_of(p), x, mu, range(1, 101), probes, g)
    want = torch.distributions.Normal(mu + decay * (MEAN - mu), spread).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(found, want, atol=0.03, rtol=0)
    assert not found.requires_grad


def test_shorter_steps_are_nearer() -> None:
    """Second order: half the step, a quarter of the error. (eps is small: at T the limit is taken.)"""
    p = process("constant", 400, 30, eps=1e-6)
    mu = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64)
    decay, spread = exact(p, 40)
    x = mu + decay * (MEAN - mu) + 0.5 * spread
    want = torch.distributions.Normal(mu + decay * (MEAN - mu), spread).log_prob(x).sum()
    errors = [
        float((likelihood.log_likelihood(p, noise_of(p), x, mu, range(40, 401, by)) - want).abs())
        for by in (40, 20, 10)
    ]
    assert errors[1] < 0.35 * errors[0] and errors[2] < 0.35 * errors[1]


def test_it_can_be_learned_from() -> None:
    p = process("cosine", 20, 50)
    scale = torch.nn.Parameter(torch.tensor(1.0))
    net = noise_of(p)
    x = torch.full((1, 1, 1, 2), 0.6)
    found = likelihood.log_likelihood(
        p, lambda x, mu, t: scale * net(x, mu, t), x, torch.full_like(x, 0.2), range(1, 21), 1,
        torch.Generator().manual_seed(0), learn=True,
    )  # fmt: skip
    found.sum().backward()
    assert scale.grad is not None and abs(float(scale.grad)) > 1


def test_there_is_no_density_at_time_0() -> None:
    x = torch.zeros(1, 1, 1, 1)
    with pytest.raises(ValueError, match="time 0"):
        likelihood.log_likelihood(process(), noise_of(process()), x, x, [0, 100])


def test_what_is_drawn_knows_its_likelihood() -> None:
    """Drawn by the ODE, states have the spread of their time, and the density that goes with them."""
    p = process("constant", 400, 50, eps=1e-4)
    g = torch.Generator().manual_seed(0)
    mu = torch.full((500, 1, 1, 2), 0.2)
    noise, probe = torch.randn(mu.shape, generator=g), torch.ones_like(mu)
    x, found = likelihood.sample_with_likelihood(p, noise_of(p), mu, range(400, 19, -1), noise, probe)
    decay, spread = exact(p, 20)
    x, found = x.detach(), found.detach()
    assert float(x.std()) == pytest.approx(spread, rel=0.1)
    want = torch.distributions.Normal(mu + decay * (MEAN - mu), spread).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(found.mean(), want.mean(), atol=0.1, rtol=0)
