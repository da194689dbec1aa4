"""What the entropy regularizer does: a one-number picture whose clean value is one of two, and a small network.

    python benchmarks/entropy_toy.py

Clean values are 0.3 and 0.7, each half of the time, the low-quality one is 0.5. A larger weight makes the model's own
samples spread more. Prints the estimated log-likelihood of its samples and their standard deviation.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

from irtool.diffusion import irsde
from irtool.diffusion.schedules import Process, process, times
from irtool.training.irsde import entropy_penalty


class Small(nn.Module):
    """(x, mu, t) -> noise for pictures of one number."""

    def __init__(self, T: int) -> None:
        super().__init__()
        self.T = T
        self.layers = nn.Sequential(nn.Linear(3, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 1))

    def forward(self, x: Tensor, mu: Tensor, t: Tensor | float) -> Tensor:
        at = torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1).expand(len(x), 1) / self.T
        seen = torch.cat([(x - mu).flatten(1) * 5, mu.flatten(1), at], dim=1)
        return self.layers(seen).view_as(x)


def trained(p: Process, weight: float, steps: int, seed: int) -> Small:
    torch.manual_seed(seed)
    g, net = torch.Generator().manual_seed(seed), Small(p.T)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    mu = torch.full((64, 1, 1, 1), 0.5)
    for _ in range(steps):
        x0 = 0.3 + 0.4 * torch.randint(0, 2, mu.shape, generator=g).float()
        t = torch.randint(1, p.T + 1, (len(mu),), generator=g)
        noise = torch.randn(mu.shape, generator=g)
        x = irsde.diffuse(p, x0, mu, t, noise)
        loss = (net(x, mu, t) - noise).square().mean()
        if weight:
            loss = loss + weight * entropy_penalty(p, net, mu, 10, g)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    return net


def measured(p: Process, net: Small, seed: int = 0) -> tuple[float, float]:
    """Log-likelihood of states at the last time of 20 before 0, and their standard deviation."""
    g, mu = torch.Generator().manual_seed(seed), torch.full((2000, 1, 1, 1), 0.5)
    with torch.no_grad():
        x = irsde.sample(p, net, mu, times(p.T, 20), "posterior", lambda: torch.randn(mu.shape, generator=g))
    return float(entropy_penalty(p, net, mu, 20, g).detach()), float(x.std())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    given = parser.parse_args()
    p = process("cosine", 100, 50)
    print("| settings.entropy | log-likelihood of samples | their standard deviation |\n|---|---|---|")
    for weight in (0.0, 0.003, 0.03, 0.3):
        rows = [measured(p, trained(p, weight, given.steps, seed)) for seed in range(2)]
        likelihood, spread = (sum(v) / len(rows) for v in zip(*rows, strict=True))
        print(f"| {weight:g} | {likelihood:.2f} | {spread:.3f} |", flush=True)


if __name__ == "__main__":
    main()
