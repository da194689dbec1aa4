"""Enlargement: the last step of a plan, with all that a picture has beside its colors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import engine
from .errors import UsageError
from .models.base import Condition, Model
from .picture import Picture
from .plan import Upscale

if TYPE_CHECKING:
    from .engine import EngineResult


def enlarge(picture: Picture, upscale: Upscale, model: Model, **settings: Any) -> tuple[Picture, EngineResult]:
    """Enlarge a picture.

    The network sees the colors, and where there is an alpha channel that is not the same everywhere, alpha as a gray
    picture. What lies outside of sRGB is small and smooth, and is interpolated.

    Args:
        picture: of any size.
        upscale: the factor, and what the model is called.
        model: its network.
        settings: of `engine.run`: device, dtype, tile, max_memory, ensemble, padding, on_progress.

    Returns:
        The enlarged picture, and what the enlargement of its colors took.

    Raises:
        UsageError: the model is none that enlarges by this factor, and as `engine.run`.
    """
    check(model, upscale)
    bound, scale = model.bind(Condition()), upscale.scale

    def run(pixels: Tensor) -> EngineResult:
        return engine.run(bound, pixels, **settings)

    result = run(torch.from_numpy(picture.pixels).permute(2, 0, 1))
    alpha = None if picture.alpha is None else _alpha(picture.alpha, scale, lambda gray: run(gray).pixels)
    beyond = None if picture.out_of_gamut is None else _interpolated(picture.out_of_gamut, scale)
    return picture.enlarged(result.pixels.permute(1, 2, 0).numpy(), alpha, beyond), result


def check(model: Model, upscale: Upscale) -> None:
    """Turn away a model that does not enlarge by the factor asked for.

    Raises:
        UsageError: it enlarges by another, or not at all.
    """
    found = model.info.scale
    if found == 1:
        raise UsageError(
            f"{upscale.model} restores pictures and enlarges none.", "Leave `upscaler` out for the default."
        )
    if found != upscale.scale:
        raise UsageError(
            f"{upscale.model} enlarges {found} times, not {upscale.scale}.",
            f"Give it a `scale` of {found}, or leave `upscaler` out.",
        )


def _alpha(alpha: np.ndarray, scale: int, run: Callable[[Tensor], Tensor]) -> np.ndarray:
    height, width = (scale * side for side in alpha.shape)
    if alpha.min() == alpha.max():
        return np.full((height, width), alpha.flat[0], np.float32)
    gray = torch.from_numpy(np.ascontiguousarray(alpha, dtype=np.float32))[None].expand(3, -1, -1)
    large: np.ndarray = run(gray).mean(0).numpy()
    # Where nothing was see-through nothing becomes so, and the other way round: the network gets there only nearly.
    least, most = (F.max_pool2d(sign * gray[None, :1], 3, 1, 1).mul(sign)[0, 0] for sign in (-1, 1))
    for value in (0.0, 1.0):
        flat = ((least == value) & (most == value)).numpy()
        large[flat.repeat(scale, 0).repeat(scale, 1)] = value
    return large


def _interpolated(values: np.ndarray, scale: int) -> np.ndarray:
    channels = torch.from_numpy(values).permute(2, 0, 1)[None]
    large = F.interpolate(channels, scale_factor=scale, mode="bilinear", align_corners=False)
    found: np.ndarray = large[0].permute(1, 2, 0).contiguous().numpy()
    return found
