"""Sampling options of a diffusion model, as data. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError

SAMPLERS = ("posterior", "sde", "ode")
STEPS = {"posterior": 20, "sde": 100, "ode": 100}
"""Steps where none are asked for. The Euler samplers lose the picture at few steps, the posterior sampler does not
(benchmarks/diffusion.md); the published number is 100 for all."""


@dataclass(frozen=True)
class Sampling:
    """Settings of a sampler.

    Attributes:
        steps: evaluations of the network; 0 for the sampler's own number in `STEPS`.
        sampler: one of `SAMPLERS`.
        seed: of the noise. The same seed, picture, model and settings give the same result, tiled or whole.
    """

    steps: int = 0
    sampler: str = "posterior"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise UsageError(f"Unknown sampler '{self.sampler}'.", "Known: " + ", ".join(SAMPLERS) + ".")
        if not 0 <= self.steps <= 1000:
            raise UsageError(f"A sampler takes 1 to 1000 steps, not {self.steps}.")
        if not 0 <= self.seed < 1 << 63:
            raise UsageError(f"A seed is a whole number from 0 below 2^63, not {self.seed}.")

    @property
    def count(self) -> int:
        """Evaluations of the network."""
        return self.steps or STEPS[self.sampler]
