"""Sampling options of a diffusion model, as data. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError, closest

SAMPLERS = ("posterior", "sde", "ode")
STEPS = {"posterior": 20, "sde": 100, "ode": 100}
"""Steps where none are asked for. The Euler samplers lose the picture at few steps, the posterior sampler does not
(benchmarks/diffusion.md); the published number is 100 for all."""


GUIDANCE = ("gdp", "ddrm", "ddnm", "dps", "diffpir", "repaint", "twisted", "joint")


@dataclass(frozen=True)
class Sampling:
    """Settings of a sampler.

    Attributes:
        steps: evaluations of the network; 0 for the sampler's own number in `STEPS`.
        sampler: one of `SAMPLERS`.
        seed: of the noise. The same seed, picture, model and settings give the same result, tiled or whole.
        guidance: one of `GUIDANCE`, how a diffusion prior is held to the picture; "" for the prior's own way.
        operator: how the picture was degraded, such as "blur(sigma=2)|noise(5)" (`irtool.diffusion.observation`).
        strength: of the guidance (gdp's scale, zeta of dps, lambda of diffpir); None for what is published.
        published: gdp exactly as its authors' code does it, departures from the paper included.
    """

    steps: int = 0
    sampler: str = "posterior"
    seed: int = 0
    guidance: str = ""
    operator: str = ""
    strength: float | None = None
    published: bool = False

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise UsageError(f"Unknown sampler '{self.sampler}'.", "Known: " + ", ".join(SAMPLERS) + ".")
        if self.guidance and self.guidance not in GUIDANCE:
            raise UsageError(f"Unknown guidance '{self.guidance}'.", closest(self.guidance, GUIDANCE))
        if self.strength is not None and not 0 < self.strength < float("inf"):
            raise UsageError(f"The strength of guidance is a number above 0, not {self.strength:g}.")
        if not 0 <= self.steps <= 1000:
            raise UsageError(f"A sampler takes 1 to 1000 steps, not {self.steps}.")
        if not 0 <= self.seed < 1 << 63:
            raise UsageError(f"A seed is a whole number from 0 below 2^63, not {self.seed}.")

    @property
    def count(self) -> int:
        """Evaluations of the network."""
        return self.steps or STEPS[self.sampler]
