"""Missing regions: where they are, and a first filling for a network to work on.

A network whose view is local cannot see across a wide hole. It is therefore shown the hole already filled with what
lies around it, and told where it was. Both are done once over the whole picture, so tiles agree.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..synth.ops import gaussian_blur

TOLERANCE = 2.5 / 255  # what 8-bit rounding, and a careful JPEG, leave of a constant colour
MIN_PIXELS = 0.002  # share of the picture in one flat colour below which there is no hole to speak of
# What JPEG leaves at the rim of a hole, between the colours of both sides: how far it reaches (a block), and how near
# to the hole's colour it stays. A picture is taken to have been a JPEG where more than a share of what lies around its
# holes is nearer still: 0 to 5 % in the public masks on Kodak as they are, 18 % and more from quality 98 down.
_REACH, _NEAR_RADIUS, _NEARER, _SOFT = 8, 40 / 255, 24 / 255, 0.12
# A colour that goes over smoothly into what is around it belongs to the picture, such as the flat blocks that JPEG
# makes of a dark wall; then the next commonest colours are tried.
_OWN, _COLORS = 0.6, 4
# The filling. Scales smaller than `_LARGE` pixels are smoothed a few times alike in all directions. In the others the
# directions are a mean over `_SPREAD` pixels; next to nothing (`_FAINT`) is no edge; `_CLEARLY` says how steeply the
# exchange across falls as an edge gets clearer, `_LEAK` what is left of it. Half or twice of each changes 0.05 dB.
_LARGE, _SWEEPS = 24, 3
_SPREAD, _FAINT, _CLEARLY, _LEAK = 4.0, 1e-5, 3, 0.01
# Chebyshev steps, for a spectral radius of the plain iteration: 12 get as far as 60 plain ones.
_STEPS, _RADIUS = 12, 0.99
_TILE, _SIGHT = 512, 28  # pixels; what is seen: the steps, and three times the spread


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
        flat = torch.stack([_local_range(channel) < 1 / 512 for channel in picture.split(1)]).all(0)[0]
        levels = (picture[:, :-1, :-1][:, flat] * 255).round().int()
        values, counts = ((levels[0] * 256 + levels[1]) * 256 + levels[2]).unique(return_counts=True)
        common = counts.argsort(descending=True)
        rejected: list[Tensor] = []
        for value in values[common[counts[common] >= MIN_PIXELS * height * width]].tolist():
            color = torch.tensor([value >> bits & 255 for bits in (16, 8, 0)]) / 255
            if len(rejected) == _COLORS or any((color - other).abs().max() <= TOLERANCE for other in rejected):
                continue
            rejected.append(color)
            found = _hole_of_color(picture, color.tolist())
            if found is not None:
                hole.copy_(found)
                break
    return holes


def _hole_of_color(picture: Tensor, color: Sequence[float]) -> Tensor | None:
    """The holes (1, H, W) of one colour in a picture (3, H, W); None where that colour is one of the picture's own."""
    height, width = picture.shape[-2:]
    near = _within_tolerance(picture, color, TOLERANCE)
    squares = -_max_filter(-near, 2)  # 1 where a whole square is near
    hole = near * _max_filter(F.pad(squares, (2, 2, 2, 2)), 4)[:, :height, :width]
    ring = _dilate(hole, _REACH + 3) - _dilate(hole, _REACH)
    if float((ring * _within_tolerance(picture, color, _NEAR_RADIUS)).sum()) > _OWN * float(ring.sum()):
        return None
    rim = _dilate(hole, 3) - hole
    if float((rim * _within_tolerance(picture, color, _NEARER)).sum()) > _SOFT * float(rim.sum()):
        hole = torch.maximum(hole, _within_tolerance(picture, color, _NEAR_RADIUS) * _dilate(hole, _REACH))
    return hole


def _within_tolerance(picture: Tensor, color: Sequence[float], tolerance: float) -> Tensor:
    """1 where a picture (3, H, W) has a colour: (1, H, W)."""
    near = torch.stack([(a - b).abs() <= tolerance for a, b in zip(picture.split(1), color, strict=True)])
    return near.all(0).float()


def _dilate(mask: Tensor, by: int) -> Tensor:
    """A mask (1, H, W) and all that is no more than `by` pixels from it, along rows and columns."""
    return _max_filter(F.pad(mask, (by, by, by, by)), 2 * by + 1)


def _local_range(channel: Tensor) -> Tensor:
    """How far apart the values of every square of 2 x 2 pixels lie: (1, H, W) -> (1, H - 1, W - 1)."""
    return _max_filter(channel, 2) + _max_filter(-channel, 2)


def _max_filter(x: Tensor, side: int) -> Tensor:
    """The highest value of every square of `side` pixels: (1, H, W) -> (1, H - side + 1, W - side + 1).

    What two neighbours have is known for four after one comparison, and so on: ten times as fast as max_pool2d.
    """
    for dim in (1, 2):
        reach = 1
        while reach < side:
            step = min(reach, side - reach)
            length = x.shape[dim] - step
            x = torch.maximum(x.narrow(dim, 0, length), x.narrow(dim, step, length))
            reach += step
    return x


def fill_holes(pixels: Tensor, holes: Tensor) -> Tensor:
    """Fill holes from their surroundings, coarse to fine (pull-push, Gortler et al., SIGGRAPH 1996), edges going on.

    At every scale the filling is relaxed towards one that diffuses along the edges around the hole and hardly across
    them (edge-enhancing diffusion, Weickert, "Anisotropic Diffusion in Image Processing", 1998; for holes as in Galic
    et al., "Image compression with anisotropic diffusion", JMIV 2008): 0.8 dB better than a membrane, which diffuses
    alike in all directions. The direction of the edges is read off what the coarser scale has filled in.

    Args:
        pixels: (N, 3, H, W).
        holes: (N, 1, H, W), 1 where `pixels` is to be ignored. A picture that is one large hole is filled with zeros.
    """
    scales = [(pixels, 1 - holes)]
    while max(scales[-1][1].shape[-2:]) > 1:
        value, known = scales[-1]
        odd = (0, known.shape[-1] % 2, 0, known.shape[-2] % 2)
        share = F.avg_pool2d(F.pad(known, odd), 2)
        value = F.avg_pool2d(F.pad(value * known, odd), 2) / share.clamp_min(1e-6)
        known = (share > 0).to(pixels.dtype)
        scales.append((value * known, known))
    filled = scales[-1][0]
    for value, known in reversed(scales[:-1]):
        filled = F.interpolate(filled, size=value.shape[-2:], mode="bilinear", align_corners=False)
        torch.where(known > 0, value, filled, out=filled)
        if min(value.shape[-2:]) < _LARGE:
            for _ in range(_SWEEPS):
                even = F.avg_pool2d(F.avg_pool2d(F.pad(filled, (1, 1, 1, 1), mode="replicate"), 2, 1), 2, 1)
                filled = torch.where(known > 0, value, even)
        else:
            _diffuse(filled, known)
    return filled


def _diffuse(filled: Tensor, known: Tensor) -> None:
    """`_diffuse_tile` in place, tile by tile with all pixels that influence it; tiles without a hole are left out."""
    height, width = known.shape[-2:]
    above = filled[..., :0, :]  # of the rows above the tiles, as they were
    for top in range(0, height, _TILE):
        strip = torch.cat([above, filled[..., top : top + _TILE + _SIGHT, :]], dim=2)
        first = top - above.shape[2]
        above = filled[..., max(0, top + _TILE - _SIGHT) : top + _TILE, :].clone()
        for left in range(0, width, _TILE):
            inner = (..., slice(top, top + _TILE), slice(left, left + _TILE))
            if not bool((known[inner] == 0).any()):
                continue
            columns = slice(max(0, left - _SIGHT), left + _TILE + _SIGHT)
            piece = _diffuse_tile(strip[..., columns], known[..., first : first + strip.shape[2], columns])
            filled[inner] = piece[..., top - first :, left - columns.start :][..., :_TILE, :_TILE]


def _diffuse_tile(filled: Tensor, known: Tensor) -> Tensor:
    """What lies in holes, diffused along the edges that are there: (N, 3, H, W), known (N, 1, H, W).

    The diffusion is solved for its end by Chebyshev iteration over the eight neighbours of every pixel.
    """
    neighbors = _conductances(filled)
    total = torch.stack(list(neighbors.values())).sum(0)
    shares = {step: weight / total for step, weight in neighbors.items()}
    low, high = filled.amin((2, 3), keepdim=True), filled.amax((2, 3), keepdim=True)
    before, current, pace = filled, filled, 1.0
    for _ in range(_STEPS):
        padded = F.pad(current, (1, 1, 1, 1), mode="replicate")
        mean = torch.zeros_like(current)
        for step, share in shares.items():
            mean.addcmul_(_shifted(padded, step), share)
        ahead = torch.where(known > 0, filled, torch.lerp(before, mean, pace))
        before, current = current, ahead
        pace = 1 / (1 - _RADIUS**2 * pace / 4) if pace != 1 else 1 / (1 - _RADIUS**2 / 2)
    # The iteration is free to swing beyond what it begins with, the diffusion is not.
    return torch.minimum(torch.maximum(current, low), high)


def _conductances(picture: Tensor) -> dict[tuple[int, int], Tensor]:
    """How much each pixel of (N, 3, H, W) exchanges with its eight neighbours: (rows, columns) to it -> (N, 1, H, W).

    The tensor of the diffusion has the directions of the structure tensor, conducts 1 along an edge, and across it the
    less the clearer the edge is; it is taken apart into four pairs of neighbours with no negative weight.
    """
    padded = F.pad(picture, (1, 1, 1, 1), mode="replicate")
    x = (_shifted(padded, (0, 1)) - _shifted(padded, (0, -1))) / 2
    y = (_shifted(padded, (1, 0)) - _shifted(padded, (-1, 0))) / 2
    products = torch.cat([(x * x).sum(1, True), (x * y).sum(1, True), (y * y).sum(1, True)], dim=1)
    xx, xy, yy = gaussian_blur(products, _SPREAD).split(1, dim=1)
    clear = ((xx - yy) ** 2 + 4 * xy**2).sqrt()  # difference of the eigenvalues; their sum is xx + yy
    across = (1 - clear / (xx + yy + _FAINT)).clamp(min=0) ** _CLEARLY + _LEAK
    cos, sin = (xx - yy) / (clear + 1e-12), 2 * xy / (clear + 1e-12)  # of twice the angle across the edge
    mean, half = (across + 1) / 2, (across - 1) / 2
    parts = F.pad(torch.cat([mean + half * cos, half * sin, mean - half * cos], 1), (1, 1, 1, 1), mode="replicate")
    center, found = _shifted(parts, (0, 0)), {}
    for step in ((0, 1), (1, 0), (1, 1), (1, -1)):
        for way in (step, (-step[0], -step[1])):
            a, b, c = ((center + _shifted(parts, way)) / 2).split(1, dim=1)
            sides = {(0, 1): a - b.abs(), (1, 0): c - b.abs(), (1, 1): b, (1, -1): -b}
            found[way] = sides[step].clamp_min(_LEAK / 100)
    return found


def _shifted(padded: Tensor, step: tuple[int, int]) -> Tensor:
    """The neighbours (rows, columns) away, of a picture padded by one."""
    height, width = padded.shape[-2] - 2, padded.shape[-1] - 2
    return padded[..., 1 + step[0] : 1 + step[0] + height, 1 + step[1] : 1 + step[1] + width]


def fill_detected_holes(pixels: Tensor, enabled: Tensor) -> Tensor:
    """Pictures as a network is to see them.

    Args:
        pixels: (N, 3, H, W) in [0, 1].
        enabled: (N,) bool, whether missing regions are to be restored.

    Returns:
        (N, 4, H, W): with the holes filled of those that ask for it, the last channel 1 in a hole.
    """
    holes = torch.zeros_like(pixels[:, :1])
    if enabled.any():
        holes[enabled] = find_holes(pixels[enabled])
        pixels = pixels.clone()
        pixels[enabled] = fill_holes(pixels[enabled], holes[enabled])
    return torch.cat([pixels, holes], dim=1)
