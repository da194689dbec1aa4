"""Conditional samplers by name, on pictures: units, times, and what each of them needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import UsageError
from . import conditional, smc
from .conditional import Prior, Seen
from .observation import Observation
from .operators import Mask

SAMPLERS = ("ddrm", "ddnm", "dps", "diffpir", "repaint", "twisted", "joint")
JUMP_LENGTH, JUMP_REPEATS = 5, 5
"""Of RePaint's resampling, in steps of the route; published 10 and 10 of 250."""
LEAST_SIGMA = 0.01
"""Sequential Monte Carlo weighs by the likelihood; of noise below this (in units of [0, 1]) one particle is left."""


def route(guidance: str, times: Sequence[int]) -> list[int]:
    """The times at which the network is asked; RePaint goes back up now and then."""
    return conditional.with_jumps(times, JUMP_LENGTH, JUMP_REPEATS) if guidance == "repaint" else list(times)


def _check(guidance: str, strength: float | None) -> None:
    """Raise a UsageError where there is no such sampler, or it has no strength and one is given."""
    if guidance not in SAMPLERS:
        raise UsageError(f"Unknown guidance '{guidance}'.", "Known: gdp, " + ", ".join(SAMPLERS) + ".")
    if strength is not None and guidance not in ("dps", "diffpir"):
        raise UsageError(f"{guidance} has no strength to be set.")


def sample(
    guidance: str,
    prior: Prior,
    observation: Observation,
    offset: Tensor,
    scale: float,
    times: Sequence[int],
    generator: torch.Generator,
    strength: float | None = None,
    particles: int = 4,
    callback: Seen = lambda t, x: None,
) -> Tensor:
    """A picture given an observation.

    Args:
        guidance: one of `SAMPLERS`.
        prior: over states u that stand for pictures ``offset + scale u`` in [0, 1].
        observation: in the units of pictures; a single one for twisted and joint.
        offset: (N, 3, H, W).
        scale: above 0.
        times: of `route`.
        generator: on the CPU.
        strength: zeta of dps, lambda of diffpir; None for what is published. The others have none.
        particles: of twisted and joint.
        callback: shown every time reached and the picture there.

    Returns:
        (N, 3, H, W), about [0, 1].

    Raises:
        UsageError: the sampler cannot look through this operator.
    """
    shape = (particles if guidance in ("twisted", "joint") else len(offset), *offset.shape[1:])

    def draw() -> Tensor:
        return torch.randn(shape, generator=generator).to(offset.device)

    def shown(t: int, u: Tensor) -> None:
        callback(t, offset + scale * u)

    _check(guidance, strength)
    more = {} if strength is None else {"zeta" if guidance == "dps" else "strength": strength}
    if guidance in ("dps", "twisted"):
        operator = observation.operator
        if operator is None:
            raise UsageError(f"{guidance} learns no operator.", "Use gdp, or say what the operator is.")

        def through(u: Tensor) -> Tensor:
            return operator(offset + scale * u) / scale

        y, sigma = observation.y / scale, max(observation.sigma, LEAST_SIGMA) / scale
        if guidance == "dps":
            u = conditional.dps(prior, through, y, times, draw, callback=shown, **more)
        else:
            u = smc.twisted(prior, through, y, sigma, times, draw, generator).x[:1]
        return offset + scale * u
    A = observation.linear
    y, sigma = (observation.y - A(offset)) / scale, observation.sigma / scale
    if guidance == "repaint":
        if not isinstance(A, Mask) or sigma:
            raise UsageError("repaint fills what is missing, without noise.", "Its operator is mask alone.")
        u = conditional.repaint(prior, A, y, times, draw, callback=shown)
    elif guidance == "joint":
        u = smc.joint(prior, A, y, sigma, times, draw, generator)[:1]
    else:
        methods: dict[str, Callable[..., Tensor]] = {
            "ddrm": conditional.ddrm, "ddnm": conditional.ddnm, "diffpir": conditional.diffpir
        }  # fmt: skip
        u = methods[guidance](prior, A, y, sigma, times, draw, callback=shown, **more)
    return offset + scale * u
