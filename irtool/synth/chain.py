"""Degradation strings: ``rain(density=0.6)|jpeg(q=20)``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..degradation import lookup
from ..errors import UsageError, closest
from .spec import Spec, Value
from .table import TABLE

_STEP = re.compile(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*")


def _find(name: str) -> Spec:
    spec = TABLE.get(name.lower())
    if spec is not None:
        return spec
    try:
        hint = f"Did you mean '{lookup(name).id}'?"
    except UsageError:
        hint = closest(name, TABLE)
    raise UsageError(f"Unknown degradation '{name}'.", hint)


def _text(value: Value) -> str:
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


@dataclass(frozen=True)
class Step:
    """One degradation with the parameters that were given; the others take their defaults."""

    id: str
    arguments: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        spec = _find(self.id)
        checked = {name: spec.parameter(name).check(value, spec.id) for name, value in self.arguments.items()}
        object.__setattr__(self, "id", spec.id)
        object.__setattr__(self, "arguments", checked)

    def __str__(self) -> str:
        inside = ", ".join(f"{name}={_text(value)}" for name, value in self.arguments.items())
        return f"{self.id}({inside})" if inside else self.id

    @property
    def parameters(self) -> dict[str, Value]:
        """Every parameter, defaults filled in."""
        return {**TABLE[self.id].defaults, **self.arguments}


@dataclass(frozen=True)
class Chain:
    """Degradations applied one after the other. ``str(chain)`` gives a string that parses to the same chain."""

    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return "|".join(str(step) for step in self.steps)

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Degrade a batch.

        Args:
            images: (N,3,H,W) float, sRGB in [0,1], any device, any size from 1x1.
            generator: the only source of randomness; each sample of the batch gets its own draw.

        Returns:
            (N,3,H,W) of the same type and device, clamped to [0,1]. Nothing is rounded to 8 bit except what the
            JPEG codec itself rounds.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be (N,3,H,W), not {tuple(images.shape)}")
        result = images.float()
        if result.numel():
            for step in self.steps:
                result = TABLE[step.id].function(result, generator, **step.parameters).clamp(0, 1)
        return result.to(images.dtype)


def _parse_step(text: str) -> Step:
    match = _STEP.fullmatch(text)
    if match is None:
        raise UsageError(
            f"'{text.strip()}' is not a degradation.", "Write name(parameter=value, ...), such as rain(density=0.6)."
        )
    spec = _find(match[1])
    arguments: dict[str, Value] = {}
    inside = (match[2] or "").strip()
    for position, item in enumerate(inside.split(",") if inside else []):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            if position:
                raise UsageError(
                    f"'{item.strip()}' in '{text.strip()}' has no name.",
                    "Only the first parameter may be given without one.",
                )
            name, value = spec.parameters[0].name, name
        if name in arguments:
            raise UsageError(f"'{name}' is given twice in '{text.strip()}'.")
        arguments[spec.parameter(name).name] = value
    return Step(spec.id, arguments)


def parse(text: str) -> Chain:
    """Read a degradation string.

    Raises:
        UsageError: an unknown degradation or parameter (the hint names the closest match), a value out of its
            range (the message says the range), or a string that is no chain at all.
    """
    return Chain(tuple(_parse_step(part) for part in text.split("|")))
