"""Random chains for training: each degradation's ranges, written as strings with open values.

``a..b`` is drawn uniformly, ``a/b/c`` picks one word or number. A degradation with several lines picks one of
them with equal chance; a line given twice is twice as likely.
"""

from __future__ import annotations

import torch

from ..errors import UsageError
from .chain import Chain, Step
from .spec import Value, closest
from .table import TABLE

TRAINING: dict[str, tuple[str, ...]] = {
    "blur": (
        "length=7..31, shake=0..0.8, vary=0",
        "length=9..31, shake=0..0.5, vary=0.3..1",
    ),
    "haze": (
        "beta=0.3..1.7, airlight=0.97..1, tint=0..0.01",  # SOTS indoor: airlight 1, t from 0.25 to 0.9
        "beta=0.4..2.3, airlight=0.6..1, tint=0..0.06",
    ),
    "jpeg": ("q=5..20, subsampling=420", "q=8..60, subsampling=420/420/444"),
    "lowlight": (
        "ev=2.8..6.5, gamma=1.1..2.1, noise=0.2..2, tint=0..0.3",  # LOL
        "ev=2.8..6.5, gamma=1.1..2.1, noise=0.2..2, tint=0..0.3",
        "ev=1.5..4.5, gamma=0.8..1.5, noise=0..6, tint=0..0.15",
        "ev=0.2..1.5, gamma=1.8..3, noise=0..4, tint=0..0.1",  # against the light: the sky is bright, the rest is not
    ),
    "noise": (
        "sigma=5..55, kind=gaussian",
        "sigma=5..55, kind=gaussian",
        "sigma=4..40, kind=poisson",
        "sigma=2..30, kind=camera",
        "sigma=3..15, kind=camera",
    ),
    "raindrop": (
        # DeRaindrop's drops are few, large and out of focus, or many and small.
        "count=8..35, size=7..14, softness=0.4..1, glow=0.2..0.9",
        "count=3..14, size=13..26, softness=0.5..1, glow=0.2..0.9",
        "count=30..140, size=3..8, softness=0.15..0.7, glow=0..0.4",
    ),
    "rain": (
        # Rain100L, Rain100H, and what photographs of rain look like.
        "density=0.02..0.12, angle=-25..25, length=14..60, width=0.8..2, strength=0.4..0.9, directions=1,"
        " spread=2..8, veil=0..0.1",
        "density=0.08..0.6, angle=-30..30, length=20..90, width=1..3, strength=0.5..1, directions=1/1/2/3/5,"
        " spread=3..25, veil=0..0.1",
        # Rain100H adds grey streaks, dense, long and sharp, and nothing else.
        "density=0.1..0.9, angle=-30..30, length=15..110, width=0.8..2.2, strength=0.3..0.95, directions=1/1/2/5,"
        " spread=2..20, veil=0, cover=0",
        "density=0.05..0.4, angle=-25..25, length=8..90, width=0.6..1.6, strength=0.15..0.5, directions=1,"
        " spread=2..6, veil=0.05..0.35",
    ),
    "shadow": ("strength=0.4..0.88, softness=0.004..0.06, coverage=0.08..0.7, tint=0..0.4",),
    "snow": (
        "density=0.1..0.6, size=1.5..5, speed=0..6, angle=-40..40, veil=0..0.15",
        "density=0.1..0.5, size=3..9, speed=0..14, angle=-50..50, veil=0..0.2",
    ),
    "missing": (
        "kind=thin, fill=white/white/black/noise, coverage=0.05..0.5",
        "kind=thin, fill=white, coverage=0.05..0.5",
        "kind=thick, fill=white, coverage=0.1..0.5",
        "kind=thick/box/text, fill=white/white/black/noise, coverage=0.04..0.3",
    ),
    "real": ("level=0.4..1.5",),
    "scratches": (
        "amount=0.2..2.5, width=0.7..2, light=0.6..1, torn=0..0.2",
        "amount=0.1..1, width=1.5..5, light=0.6..1, torn=0..0.3",
    ),
    "fade": ("amount=0.1..1, yellow=0..1, cast=0..0.8",),
}


def _draw(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator, device=generator.device))


def _pick(text: str, whole: bool, generator: torch.Generator) -> Value:
    low, dots, high = text.partition("..")
    if not dots:
        options = text.split("/")
        return options[min(int(_draw(generator) * len(options)), len(options) - 1)]
    value = float(low) + (float(high) - float(low)) * _draw(generator)
    return round(value) if whole else round(value, 3)


def random_chain(id: str, generator: torch.Generator) -> Chain:
    """Draw a chain of one degradation from its training ranges (`TRAINING`).

    Args:
        id: a key of `TRAINING`.
        generator: on any device; draws advance it.

    Raises:
        UsageError: there is no such degradation.
    """
    if id not in TRAINING:
        raise UsageError(f"Unknown degradation '{id}'.", closest(id, TRAINING))
    lines = TRAINING[id]
    line = lines[min(int(_draw(generator) * len(lines)), len(lines) - 1)]
    arguments: dict[str, Value] = {}
    for item in line.split(","):
        name, _, text = (part.strip() for part in item.partition("="))
        arguments[name] = _pick(text, TABLE[id].parameter(name).whole, generator)
    return Chain((Step(id, arguments),))
