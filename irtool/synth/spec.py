"""The description of a degradation: parameters with defaults and ranges, and its source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..errors import UsageError, closest

Value = float | int | str


@dataclass(frozen=True)
class Parameter:
    """One parameter of a degradation.

    Attributes:
        name: as written in a degradation string.
        default: the value where the string leaves the parameter out.
        low, high: the closed range of a number; unused where there are choices.
        meaning: what it is, with its unit.
        choices: the words a word parameter may be; empty for numbers.
        whole: only whole numbers make sense.
    """

    name: str
    default: Value
    low: float = 0.0
    high: float = 1.0
    meaning: str = ""
    choices: tuple[str, ...] = ()
    whole: bool = False

    @property
    def range(self) -> str:
        """The allowed values in words, such as ``0..200`` or ``gaussian|poisson``."""
        return "|".join(self.choices) if self.choices else f"{self.low:g}..{self.high:g}"

    def check(self, text: Value, owner: str) -> Value:
        """Return `text` as a value of this parameter.

        Raises:
            UsageError: not a number, out of range, or not one of the choices.
        """
        place = f"'{self.name}' of {owner}"
        if self.choices:
            word = str(text).strip().lower()
            if word not in self.choices:
                raise UsageError(f"{place} cannot be '{text}'; it is one of {self.range}.", closest(word, self.choices))
            return word
        try:
            number = float(text)
        except ValueError:
            raise UsageError(f"{place} must be a number in {self.range}, not '{text}'.") from None
        if self.whole and number.is_integer():
            number = int(number)
        elif self.whole:
            raise UsageError(f"{place} must be a whole number in {self.range}, not {text}.")
        if not self.low <= number <= self.high:  # also turns away nan
            raise UsageError(f"{place} must lie in {self.range}, not {text}.")
        return number


@dataclass(frozen=True)
class Spec:
    """One degradation.

    Attributes:
        id: its name in degradation strings.
        summary: one line on what it does.
        source: the papers or data sets it follows.
        parameters: in the order of the string; the first may be given without its name.
        function: ``function(images, generator, **parameters) -> images``.
    """

    id: str
    summary: str
    source: str
    parameters: tuple[Parameter, ...]
    function: Callable[..., Tensor]

    @property
    def defaults(self) -> dict[str, Value]:
        return {p.name: p.default for p in self.parameters}

    def parameter(self, name: str) -> Parameter:
        """The parameter called `name`.

        Raises:
            UsageError: there is none; the hint names the closest one.
        """
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise UsageError(f"{self.id} has no parameter '{name}'.", closest(name, [p.name for p in self.parameters]))
