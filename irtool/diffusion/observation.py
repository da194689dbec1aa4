"""Observations written as strings, such as ``mask``, ``motion(length=9, angle=30)|noise(5)`` or ``downsample(4)``.

The parts are those of `irtool.diffusion.operators`, in the order in which they happened to the picture; noise comes
last. The syntax is that of `irtool.synth`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UsageError, closest
from ..synth.spec import Parameter, Value
from . import operators
from .operators import LinearOperator, Operator

_PART = re.compile(r"\s*([\w-]+)\s*(?:\(([^()]*)\))?\s*")


@dataclass(frozen=True)
class Known:
    """An operator that strings may name."""

    summary: str
    parameters: tuple[Parameter, ...] = ()


KNOWN: dict[str, Known] = {
    "mask": Known("pixels are missing: those that the mask says"),
    "blur": Known("Gaussian blur", (Parameter("sigma", 2.0, 0.3, 20, "pixels"),)),
    "motion": Known(
        "straight motion blur",
        (
            Parameter("length", 9.0, 1, 101, "pixels"),
            Parameter("angle", 0.0, -180, 180, "degrees from the horizontal"),
        ),
    ),
    "downsample": Known("detail is lost within blocks", (Parameter("factor", 4, 2, 16, "side", whole=True),)),
    "gray": Known("color is lost"),
    "jpeg": Known("JPEG compression", (Parameter("q", 20, 1, 100, "quality", whole=True),)),
    "noise": Known("white Gaussian noise", (Parameter("sigma", 10.0, 0, 200, "standard deviation, 8-bit levels"),)),
    "light": Known("a factor and a map, learned while sampling (gdp)"),
    "affine-blur": Known(
        "a factor, a map and a kernel, learned while sampling (gdp)",
        (Parameter("size", 9, 3, 31, "side of the kernel, pixels, odd", whole=True),),
    ),
}
LEARNED = ("light", "affine-blur")
TASKS = {"mask": "missing", "blur": "blur", "motion": "blur", "downsample": "blur", "jpeg": "jpeg", "light": "lowlight",
         "affine-blur": "blur"}  # fmt: skip
"""Degradation that an operator stands for in a plan; what has none goes under noise."""


def tasks_of(text: str) -> tuple[str, ...]:
    """Ids of the degradations that a string stands for, such as ("blur", "noise").

    Raises:
        UsageError: as `parse`.
    """
    return tuple(dict.fromkeys(TASKS.get(part.name, "noise") for part in parse(text)))


@dataclass(frozen=True)
class Part:
    """A name of `KNOWN` with all its parameters."""

    name: str
    parameters: dict[str, Value]


def parse(text: str) -> tuple[Part, ...]:
    """Read a string.

    Raises:
        UsageError: an unknown operator or parameter, a value out of range, noise that is not last, or an operator to be
            learned beside others.
    """
    parts = tuple(_part(piece) for piece in text.split("|"))
    names = [part.name for part in parts]
    if "noise" in names[:-1]:
        raise UsageError(f"In '{text}' something follows the noise.", "Noise comes last.")
    if set(names) & set(LEARNED) and len(parts) > 1:
        raise UsageError(f"'{text}' has an operator to be learned beside others.", "Give it alone.")
    return parts


def _part(text: str) -> Part:
    match = _PART.fullmatch(text)
    if match is None:
        raise UsageError(
            f"'{text.strip()}' is no operator.", "Write name(parameter=value, ...), such as blur(sigma=2)."
        )
    known = KNOWN.get(match[1])
    if known is None:
        raise UsageError(f"Unknown operator '{match[1]}'.", closest(match[1], KNOWN))
    by_name = {parameter.name: parameter for parameter in known.parameters}
    arguments: dict[str, Value] = {}
    for position, item in enumerate(match[2].split(",") if (match[2] or "").strip() else []):
        name, equals, value = (piece.strip() for piece in item.partition("="))
        if not equals:
            name, value = (known.parameters[0].name if known.parameters and not position else name), name
        if name not in by_name or name in arguments:
            raise UsageError(f"{match[1]} cannot take '{item.strip()}'.", closest(name, by_name) if by_name else "")
        arguments[name] = by_name[name].check(value, match[1])
    return Part(match[1], {p.name: arguments.get(p.name, p.default) for p in known.parameters})


@dataclass(frozen=True)
class Observation:
    """What a string says of a picture.

    Attributes:
        operator: on pictures (N, 3, H, W) in [0, 1]; None where it is to be learned (`parts` says which).
        sigma: standard deviation of the noise, in units of [0, 1].
        y: what was observed, taken from the picture that was given.
        parts: as parsed.
    """

    operator: Operator | None
    sigma: float
    y: Tensor
    parts: tuple[Part, ...]

    @property
    def linear(self) -> LinearOperator:
        """The operator with its singular values.

        Raises:
            UsageError: they are not known.
        """
        if isinstance(self.operator, LinearOperator):
            return self.operator
        raise UsageError(
            "This sampler needs an operator whose singular values are known.",
            "Those are mask, blur, motion, downsample and gray, one alone; dps and gdp take more.",
        )


def observe(parts: tuple[Part, ...], image: Tensor, missing: Tensor | None = None) -> Observation:
    """How a picture was observed, as far as the picture itself does not tell.

    Args:
        parts: of `parse`.
        image: the picture that was given, (1, 3, H, W) in [0, 1]. It has full size and three channels whatever the
            operator: after a downsampling only the means of its blocks count, without color only its channels' mean.
        missing: (1, H, W), 1 where pixels are missing; what a mask is.

    Raises:
        UsageError: a mask is named and none is given, or the other way round; or the picture does not fit.
    """
    names = [part.name for part in parts]
    if ("mask" in names) != (missing is not None):
        what = "needs a mask" if missing is None else "leaves no room for the mask that was given"
        raise UsageError(f"The operator '{'|'.join(names)}' {what}.", "Give both: the part 'mask', and the mask.")
    height, width = image.shape[-2:]
    built: list[Operator] = []
    y, sigma = image, 0.0
    for part in parts:
        values = part.parameters
        if part.name == "noise":
            sigma = float(values["sigma"]) / 255
        elif part.name == "mask":
            assert missing is not None
            built.append(operators.Mask(1 - missing.to(image)))
            y = built[-1](y)
        elif part.name in ("blur", "motion"):
            built.append(_blur(part, (y.shape[-2], y.shape[-1])))
        elif part.name == "downsample":
            factor = int(values["factor"])
            if height % factor or width % factor:
                raise UsageError(f"{width}x{height} pixels are no multiples of {factor}, the factor of downsample.")
            built.append(operators.Downsample(factor))
            y = built[-1](y)
        elif part.name == "gray":
            built.append(operators.Gray())
            y = built[-1](y)
        elif part.name == "jpeg":
            built.append(operators.Jpeg(int(values["q"])))
    return Observation(None if set(names) & set(LEARNED) else _chain(built), sigma, y, parts)


def _blur(part: Part, size: tuple[int, int]) -> Operator:
    """The operator of a part blur or motion, for pictures of (H, W) pixels."""
    values = part.parameters
    if part.name == "blur":
        kernel = operators.gaussian_kernel(float(values["sigma"]))
    else:
        kernel = operators.line_kernel(float(values["length"]), float(values["angle"]))
    if kernel.shape[-1] > min(size):
        raise UsageError(f"A kernel of {kernel.shape[-1]} pixels is larger than the picture.")
    return operators.Blur(kernel, size)


def _chain(built: list[Operator]) -> Operator:
    """One operator for several; the identity for none."""
    if not built:
        return operators.Identity()
    return built[0] if len(built) == 1 else operators.Chain(tuple(built))


def extension(image: Tensor, height: int, width: int) -> Tensor:
    """Continue a picture at the bottom and right to a size at which it joins its own top and left without an edge.

    A blur that wraps around then does little harm. (N, C, H, W) -> (N, C, height, width).
    """

    def along(x: Tensor, size: int, dim: int) -> Tensor:
        given = x.shape[dim]
        extra = size - given
        if extra <= 0:
            return x
        index = torch.arange(extra, device=x.device)
        after = x.index_select(dim, (given - 1 - index).clamp(min=0))  # mirrored about the end
        before = x.index_select(dim, (extra - 1 - index).clamp(max=given - 1))  # mirrored about the start
        shape = [1] * x.ndim
        shape[dim] = extra
        share = ((index + 1) / (extra + 1)).view(shape)
        return torch.cat([x, after * (1 - share) + before * share], dim=dim)

    return along(along(image, height, -2), width, -1)
