"""Conditional samplers where the posterior is known: a Gaussian prior, a linear operator, Gaussian noise.

    python benchmarks/gaussian_posterior.py

Prints, for every sampler, how far the mean and the covariance of its samples are from the posterior's, beside what
samples drawn from the posterior itself differ by. A sampler whose errors are of that size is exact here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from irtool.diffusion import conditional, smc
from irtool.diffusion.conditional import Prior
from irtool.diffusion.gaussian import gaussian_diffusion
from irtool.diffusion.operators import Mask, Matrix
from irtool.diffusion.schedules import times


@dataclass
class Problem:
    """A Gaussian prior N(mean, covariance) on D numbers, seen through A with noise."""

    mean: Tensor
    covariance: Tensor
    A: Matrix | Mask
    matrix: Tensor
    sigma: float
    y: Tensor

    def prior(self, T: int = 1000) -> Prior:
        """The exact noise predictor."""
        alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), gaussian_diffusion(T=T).alpha_bar])
        values, vectors = torch.linalg.eigh(self.covariance)

        def noise(x: Tensor, t: int) -> Tensor:
            abar = float(alpha_bar[t])
            apart = (x - abar**0.5 * self.mean) @ vectors / (abar * values + 1 - abar)
            return (1 - abar) ** 0.5 * apart @ vectors.T

        return Prior(alpha_bar, noise)

    def posterior(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance of x given y."""
        c, a = self.covariance, self.matrix
        gain = c @ a.T @ torch.linalg.inv(a @ c @ a.T + self.sigma**2 * torch.eye(len(a), dtype=c.dtype))
        return self.mean + gain @ (self.y - a @ self.mean), c - gain @ a @ c

    def log_evidence(self) -> float:
        """log p(y)."""
        spread = self.matrix @ self.covariance @ self.matrix.T
        spread = spread + self.sigma**2 * torch.eye(len(spread), dtype=spread.dtype)
        where = torch.distributions.MultivariateNormal(self.matrix @ self.mean, spread)
        return float(where.log_prob(self.y))


def problem(seed: int = 0, size: int = 6, seen: int = 3, sigma: float = 0.3, mask: bool = False) -> Problem:
    """A random prior of unit size and a random operator, or one that sees the first numbers alone."""
    g = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=g, dtype=torch.float64) / size**0.5
    covariance = root @ root.T + 0.1 * torch.eye(size, dtype=torch.float64)
    mean = 0.5 * torch.randn(size, generator=g, dtype=torch.float64)
    if mask:
        matrix = torch.eye(size, dtype=torch.float64)[:seen]
        keep = torch.zeros(size, dtype=torch.float64)
        keep[:seen] = 1
        operator: Matrix | Mask = Mask(keep)
        operator.keep = operator.singular = keep
    else:
        matrix = torch.randn(seen, size, generator=g, dtype=torch.float64) / size**0.5
        operator = Matrix(matrix)
    x = _gaussian(mean, covariance, torch.randn(1, size, generator=g, dtype=torch.float64))[0]
    y = matrix @ x + sigma * torch.randn(seen, generator=g, dtype=torch.float64)
    return Problem(mean, covariance, operator, matrix, sigma, y)


def samples(p: Problem, name: str, count: int, steps: int, seed: int = 0) -> Tensor:
    """Draws of one sampler (count, D)."""
    g = torch.Generator().manual_seed(seed)
    prior, size = p.prior(), len(p.mean)

    def draw() -> Tensor:
        return torch.randn(count, size, generator=g, dtype=torch.float64)

    route, y = times(prior.T, steps), p.y[None]
    if isinstance(p.A, Mask):
        y = torch.cat([y, torch.zeros(1, size - y.shape[1], dtype=y.dtype)], dim=1)
    run: dict[str, Callable[[], Tensor]] = {
        "ddrm": lambda: conditional.ddrm(prior, p.A, y, p.sigma, route, draw),
        "ddnm": lambda: conditional.ddnm(prior, p.A, y, p.sigma, route, draw),
        "dps": lambda: conditional.dps(prior, p.A, y.expand(count, -1), route, draw),
        "dps, zeta 0.1": lambda: conditional.dps(prior, p.A, y.expand(count, -1), route, draw, zeta=0.1),
        "diffpir": lambda: conditional.diffpir(prior, p.A, y, p.sigma, route, draw, strength=1.0),
        "repaint": lambda: conditional.repaint(prior, p.A, y, conditional.with_jumps(route, 10, 10), draw),  # type: ignore[arg-type]
        "twisted": lambda: smc.twisted(prior, p.A, y, p.sigma, route, draw, g).x,
        "joint": lambda: smc.joint(prior, p.A, y, p.sigma, route, draw, g),
        "posterior": lambda: _gaussian(*p.posterior(), draw()),
        "prior": lambda: _gaussian(p.mean, p.covariance, draw()),
    }
    return run[name]()


def _gaussian(mean: Tensor, covariance: Tensor, z: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return mean + z * values.clamp_min(0).sqrt() @ vectors.T


def errors(p: Problem, x: Tensor) -> tuple[float, float]:
    """Root mean squared error of the mean in units of the prior's standard deviation, and the Frobenius error of the
    covariance relative to the posterior's."""
    mean, covariance = p.posterior()
    of_mean = ((x.mean(0) - mean) / p.covariance.diagonal().sqrt()).square().mean().sqrt()
    return float(of_mean), float((torch.cov(x.T) - covariance).norm() / covariance.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=4000, help="samples or particles")
    parser.add_argument("--seeds", type=int, default=3, help="problems")
    parser.add_argument("--samplers", nargs="+", help="these alone")
    given = parser.parse_args()
    everything = ["posterior", "prior", "ddrm", "ddnm", "dps", "dps, zeta 0.1", "diffpir", "twisted", "joint"]
    print("| sampler | steps | operator | error of the mean | error of the covariance |\n|---|---|---|---|---|")
    for mask, label, names in (
        (False, "3 of 6 numbers mixed, sigma 0.3", everything),
        (True, "mask, sigma 0.3", everything),
        (True, "mask, sigma 0", ["posterior", "ddrm", "ddnm", "dps", "dps, zeta 0.1", "diffpir", "repaint"]),
    ):
        for name in (n for n in names if not given.samplers or n in given.samplers):
            for steps in (20, 100, 500) if name not in ("posterior", "prior") else (0,):
                found = []
                for seed in range(given.seeds):
                    p = problem(seed, mask=mask, sigma=0.0 if label.endswith("sigma 0") else 0.3)
                    found.append(errors(p, samples(p, name, given.count, max(steps, 1))))
                mean, covariance = (sum(values) / len(found) for values in zip(*found, strict=True))
                print(f"| {name} | {steps or ''} | {label} | {mean:.3f} | {covariance:.3f} |", flush=True)


if __name__ == "__main__":
    main()
