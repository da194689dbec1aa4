"""Missing regions: where they are, and a smooth first filling for a network to work on.

A network whose view is local cannot see across a wide hole. It is therefore shown the hole already filled with what
lies around it, and told where it was. Both are done once over the whole picture, so tiles agree.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

TOLERANCE = 2.5 / 255  # what 8-bit rounding, and a careful JPEG, leave of a constant colour
LEAST = 0.002  # share of the picture in one flat colour below which there is no hole to speak of
# What JPEG leaves at the rim of a hole, between the colours of both sides: how far it reaches (a block), and how near
# to the hole's colour it stays. A picture is taken to have been a JPEG where more than a share of what lies around its
# holes is nearer still: 0 to 5 % in the public masks on Kodak as they are, 18 % and more from quality 98 down.
_REACH, _NEAR, _NEARER, _SOFT = 8, 40 / 255, 24 / 255, 0.12
# A colour that goes over smoothly into what is around it belongs to the picture, such as the flat blocks that JPEG
# makes of a dark wall; then the next commonest colours are tried.
_OWN, _COLOURS = 0.6, 4
_SWEEPS = 3  # smoothing steps at each scale; ten more are worth a tenth of a decibel before the network has seen it


def find_holes(pixels: Tensor) -> Tensor:
    """Where a picture was filled with one flat colour.

    The colour is the commonest among those that fill squares of 2 x 2 pixels exactly and stand out from what is around
    them; a hole is all that is made of such squares or touches them, so that single pixels do not count. Where JPEG has
    softened the rim, the rim belongs to the hole. Holes filled with noise are not found.

    Args:
        pixels: (N, 3, H, W) in [0, 1].

    Returns:
        (N, 1, H, W) float, 1 in a hole.
    """
    height, width = pixels.shape[-2:]
    holes = torch.zeros_like(pixels[:, :1])
    if min(height, width) < 2:
        return holes
    for picture, hole in zip(pixels, holes, strict=True):
        # One channel after the other, here and below: the pictures of large cameras would take gigabytes otherwise.
        flat = torch.stack([_spread(channel) < 1 / 512 for channel in picture.split(1)]).all(0)[0]
        levels = (picture[:, :-1, :-1][:, flat] * 255).round().int()
        values, counts = ((levels[0] * 256 + levels[1]) * 256 + levels[2]).unique(return_counts=True)
        common = counts.argsort(descending=True)
        tried: list[Tensor] = []
        for value in values[common[counts[common] >= LEAST * height * width]].tolist():
            colour = torch.tensor([value >> bits & 255 for bits in (16, 8, 0)]) / 255
            if len(tried) == _COLOURS or any((colour - other).abs().max() <= TOLERANCE for other in tried):
                continue
            tried.append(colour)
            found = _of_colour(picture, colour.tolist())
            if found is not None:
                hole.copy_(found)
                break
    return holes


def _of_colour(picture: Tensor, colour: Sequence[float]) -> Tensor | None:
    """The holes (1, H, W) of one colour in a picture (3, H, W); None where that colour is one of the picture's own."""
    height, width = picture.shape[-2:]
    near = _near(picture, colour, TOLERANCE)
    squares = -F.max_pool2d(-near, 2, 1)  # 1 where a whole square is near
    hole = near * F.max_pool2d(F.pad(squares, (2, 2, 2, 2)), 4, 1)[:, :height, :width]
    around = _wider(hole, _REACH + 3) - _wider(hole, _REACH)
    if float((around * _near(picture, colour, _NEAR)).sum()) > _OWN * float(around.sum()):
        return None
    rim = _wider(hole, 3) - hole
    if float((rim * _near(picture, colour, _NEARER)).sum()) > _SOFT * float(rim.sum()):
        hole = torch.maximum(hole, _near(picture, colour, _NEAR) * _wider(hole, _REACH))
    return hole


def _near(picture: Tensor, colour: Sequence[float], tolerance: float) -> Tensor:
    """1 where a picture (3, H, W) has a colour: (1, H, W)."""
    near = torch.stack([(a - b).abs() <= tolerance for a, b in zip(picture.split(1), colour, strict=True)])
    return near.all(0).float()


def _wider(mask: Tensor, by: int) -> Tensor:
    """A mask (1, H, W) and all that is no more than `by` pixels from it."""
    return F.max_pool2d(mask, 2 * by + 1, 1, by)


def _spread(channel: Tensor) -> Tensor:
    """How far apart the values of every square of 2 x 2 pixels lie: (1, H, W) -> (1, H - 1, W - 1)."""
    return F.max_pool2d(channel, 2, 1) + F.max_pool2d(-channel, 2, 1)


def fill_holes(pixels: Tensor, holes: Tensor) -> Tensor:
    """Fill holes smoothly from their surroundings, coarse to fine (pull-push, Gortler et al., SIGGRAPH 1996).

    At every scale the filling is relaxed towards a harmonic one, as a membrane spanned over the hole would lie.

    Args:
        pixels: (N, 3, H, W).
        holes: (N, 1, H, W), 1 where `pixels` is to be ignored. A picture that is one large hole is filled with zeros.
    """
    return torch.cat([_fill(channel, holes) for channel in pixels.split(1, dim=1)], dim=1)


def _fill(pixels: Tensor, holes: Tensor) -> Tensor:
    """`fill_holes` for one channel (N, 1, H, W)."""
    known = 1 - holes
    scales = [(pixels * known, known)]
    while max(scales[-1][1].shape[-2:]) > 1:
        value, weight = scales[-1]
        odd = (0, weight.shape[-1] % 2, 0, weight.shape[-2] % 2)
        weight = F.avg_pool2d(F.pad(weight, odd), 2)
        value = F.avg_pool2d(F.pad(value, odd), 2) / weight.clamp_min(1e-6)
        weight = (weight > 0).to(pixels.dtype)
        scales.append((value * weight, weight))
    filled = scales[-1][0]
    for value, weight in reversed(scales[:-1]):
        filled = F.interpolate(filled, size=value.shape[-2:], mode="bilinear", align_corners=False)
        for _ in range(_SWEEPS):
            filled = F.pad(torch.where(weight > 0, value, filled), (1, 1, 1, 1), mode="replicate")
            filled = F.avg_pool2d(F.avg_pool2d(filled, 2, 1), 2, 1)
        filled = torch.where(weight > 0, value, filled)
    return filled


def filled(pixels: Tensor, asked: Tensor) -> Tensor:
    """Pictures as a network is to see them.

    Args:
        pixels: (N, 3, H, W) in [0, 1].
        asked: (N,) bool, whether missing regions are to be restored.

    Returns:
        (N, 4, H, W): with the holes filled of those that ask for it, the last channel 1 in a hole.
    """
    holes = torch.zeros_like(pixels[:, :1])
    if asked.any():
        holes[asked] = find_holes(pixels[asked])
        pixels = pixels.clone()
        pixels[asked] = fill_holes(pixels[asked], holes[asked])
    return torch.cat([pixels, holes], dim=1)
