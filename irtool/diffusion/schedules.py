"""Schedules theta_t of the mean-reverting process, and what follows from them in closed form.

Luo et al., "Image Restoration with Mean-Reverting Stochastic Differential Equations", ICML 2023, section 3. With
``sigma_t^2 = 2 lambda^2 theta_t`` everything depends on the integral ``cs_t = theta_1 + ... + theta_t`` alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SCHEDULES = ("cosine", "linear", "constant")


def thetas(schedule: str, T: int) -> Tensor:
    """theta_0 to theta_T (T + 1,) float64; theta_0 is never used.

    Args:
        schedule: "cosine" (Nichol and Dhariwal, 2021), "linear" (Ho et al., 2020) or "constant".
        T: number of steps.

    Raises:
        ValueError: there is no such schedule.
    """
    if schedule == "cosine":
        k = torch.arange(T + 3, dtype=torch.float64) / (T + 2)
        alpha_bar = torch.cos((k + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1 - alpha_bar / alpha_bar[0])[1:-1]
    if schedule == "linear":
        scale = 1000 / (T + 1)
        return torch.linspace(scale * 1e-4, scale * 0.02, T + 1, dtype=torch.float64)
    if schedule == "constant":
        return torch.ones(T + 1, dtype=torch.float64)
    raise ValueError(f"no schedule '{schedule}', only {', '.join(SCHEDULES)}")


@dataclass(frozen=True)
class Process:
    """A mean-reverting process ``dx = theta_t (mu - x) dt + sigma_t dw`` in T steps.

    Attributes:
        theta: (T + 1,) float64.
        cs: (T + 1,) float64, the sum of theta up to t; cs_0 = 0.
        dt: length of a step, such that exp(-cs_T dt) = eps: so much of the clean picture is left at the end.
        lam: the stationary standard deviation lambda, in the units of the pictures.
        scale: what a time step is multiplied by before the network sees it; not 1 where a network trained with
            another T is sampled on a coarser schedule.
    """

    theta: Tensor
    cs: Tensor
    dt: float
    lam: float
    scale: float = 1.0

    @property
    def T(self) -> int:
        """Number of steps."""
        return len(self.theta) - 1

    def decay(self, t: Tensor | int, s: Tensor | int = 0) -> Tensor:
        """exp(-(cs_t - cs_s) dt): how much of the distance to mu at time s is left at time t >= s.

        Times may be vectors, one per sample; the result then has the shape (N, 1, 1, 1) to go with pictures.
        """
        return torch.exp(-self.span(t, s))

    def span(self, t: Tensor | int, s: Tensor | int = 0) -> Tensor:
        """(cs_t - cs_s) dt, shaped as `decay`."""
        t, s = torch.as_tensor(t), torch.as_tensor(s)
        # In float64, and only then rounded: differences of large sums.
        table = self.cs.to(t.device)
        value = ((table[t.flatten()] - table[s.flatten()]) * self.dt).float()
        return value.view(-1, 1, 1, 1) if t.ndim else value[0]


def process(
    schedule: str = "cosine", T: int = 100, max_sigma: float = 50, eps: float = 0.005, trained: int | None = None
) -> Process:
    """The process of a published configuration.

    Args:
        schedule: see `thetas`.
        T: number of steps.
        max_sigma: lambda; divided by 255 where it is 1 or more.
        eps: share of the clean picture's distance to the low-quality one that is left at T.
        trained: the T of training where `T` is another: the schedule is laid out anew and the network is shown
            ``t * trained / T``.
    """
    theta = thetas(schedule, T)
    cs = theta.cumsum(0) - theta[0]
    lam = max_sigma / 255 if max_sigma >= 1 else max_sigma
    return Process(theta, cs, -math.log(eps) / float(cs[-1]), lam, 1.0 if trained is None else trained / T)


def times(T: int, steps: int) -> list[int]:
    """`steps + 1` times from T down to 0, evenly spaced; every one a time the network was trained at.

    Raises:
        ValueError: steps is not from 1 to T.
    """
    if not 1 <= steps <= T:
        raise ValueError(f"1 to {T} steps, not {steps}")
    return [round(T - i * T / steps) for i in range(steps + 1)]
