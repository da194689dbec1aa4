"""Image operations of the degradations: random draws, transfer curves, padding, convolution, smooth fields.

Every random number is drawn on the generator's own device and then moved, so a CPU generator gives the same
picture whatever device the pictures live on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def uniform(generator: torch.Generator, shape: Sequence[int], low: float, high: float, like: Tensor) -> Tensor:
    """Draw from [low, high), on the device of `like`."""
    draw = torch.rand(tuple(shape), generator=generator, device=generator.device)
    return (low + (high - low) * draw).to(like.device)


def normal(generator: torch.Generator, shape: Sequence[int], like: Tensor) -> Tensor:
    """Draw standard normals, on the device of `like`."""
    return torch.randn(tuple(shape), generator=generator, device=generator.device).to(like.device)


def seed_from(generator: torch.Generator) -> int:
    """Draw a seed for a pure Python generator (used where Pillow draws)."""
    return int(torch.randint(0, 2**62, (1,), generator=generator, device=generator.device).item())


def to_linear(x: Tensor) -> Tensor:
    """sRGB in [0,1] to linear light (IEC 61966-2-1)."""
    return torch.where(x <= 0.04045, x / 12.92, ((x.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def to_srgb(x: Tensor) -> Tensor:
    """Linear light to sRGB; values below 0 give 0, values above 1 give 1."""
    x = x.clamp(0, 1)
    return torch.where(x <= 0.0031308, x * 12.92, 1.055 * x.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def luminance(images: Tensor) -> Tensor:
    """BT.601 luma of (N,3,H,W), as (N,1,H,W)."""
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=images.dtype, device=images.device)
    return (images * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)


def _reflected(size: int, before: int, after: int, device: torch.device) -> Tensor:
    """Indices that mirror an axis about its end pixels, as often as needed (torch's own padding mirrors once)."""
    if size == 1:
        return torch.zeros(before + 1 + after, dtype=torch.long, device=device)
    period = 2 * (size - 1)
    index = torch.arange(-before, size + after, device=device).remainder(period)
    return torch.minimum(index, period - index)


def pad_reflect(x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Mirror the borders of (N,C,H,W) by any amount, at any size from 1x1."""
    rows = _reflected(x.shape[-2], top, bottom, x.device)
    columns = _reflected(x.shape[-1], left, right, x.device)
    return x.index_select(-2, rows).index_select(-1, columns)


def fast_size(n: int) -> int:
    """The next size >= n without a prime factor above 5, which FFTs take quickly."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


def convolve(images: Tensor, kernels: Tensor) -> Tensor:
    """Filter each picture with its own kernel, borders mirrored, by FFT.

    Args:
        images: (N,C,H,W).
        kernels: (N,k,k), k odd, applied as a convolution about the centre.
    """
    h, w = images.shape[-2:]
    k = kernels.shape[-1]
    r = k // 2
    padded = pad_reflect(images, r, r, r, r)
    size = (fast_size(h + 2 * r), fast_size(w + 2 * r))
    spectrum = torch.fft.rfft2(padded, s=size)
    spectrum *= torch.fft.rfft2(kernels, s=size)[:, None]
    # The kernel starts at the origin, so the answer is shifted by r, and the padding by r again.
    return torch.fft.irfft2(spectrum, s=size)[..., 2 * r : 2 * r + h, 2 * r : 2 * r + w]


def gaussian_taps(sigma: float) -> list[float]:
    """1-D Gaussian of unit sum, cut at three sigma."""
    radius = max(1, math.ceil(3 * sigma))
    taps = [math.exp(-0.5 * (x / sigma) ** 2) for x in range(-radius, radius + 1)]
    total = sum(taps)
    return [tap / total for tap in taps]


def _filtered(padded: Tensor, taps: Sequence[float], dim: int, size: int) -> Tensor:
    """Add shifted copies: on a CPU many times faster than a convolution of one channel."""
    result = padded.narrow(dim, 0, size) * taps[0]
    for offset, tap in enumerate(taps[1:], 1):
        result.add_(padded.narrow(dim, offset, size), alpha=tap)
    return result


def filter_rows(x: Tensor, taps: Sequence[float]) -> Tensor:
    """Filter (N,C,H,W) along the width with symmetric taps of odd length, borders mirrored."""
    r = len(taps) // 2
    return _filtered(pad_reflect(x, r, r, 0, 0), taps, 3, x.shape[3])


def filter_columns(x: Tensor, taps: Sequence[float]) -> Tensor:
    """Filter (N,C,H,W) along the height with symmetric taps of odd length, borders mirrored."""
    r = len(taps) // 2
    return _filtered(pad_reflect(x, 0, 0, r, r), taps, 2, x.shape[2])


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Blur (N,C,H,W) by a Gaussian of `sigma` pixels."""
    if sigma < 0.05:
        return x
    taps = gaussian_taps(sigma)
    return filter_columns(filter_rows(x, taps), taps)


def smooth_noise(generator: torch.Generator, like: Tensor, cells: int, octaves: int = 1) -> Tensor:
    """A smooth random field (N,1,H,W) with about `cells` bumps across the longer side, range near [-1, 1]."""
    n, _, h, w = like.shape
    total = torch.zeros(n, 1, h, w, device=like.device)
    for octave in range(octaves):
        count = cells * 2**octave
        rows, columns = (max(2, round(count * side / max(h, w)) + 1) for side in (h, w))
        coarse = uniform(generator, (n, 1, rows, columns), -1, 1, like)
        fine = F.interpolate(coarse, size=(h, w), mode="bicubic", align_corners=True)
        total += fine * 0.5**octave
    return total


def grid(like: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column coordinates of a picture, (H,1) and (1,W), the longer side spanning [0, 1]."""
    h, w = like.shape[-2:]
    scale = max(h, w, 2) - 1
    y = torch.arange(h, device=like.device, dtype=torch.float32)[:, None] / scale
    x = torch.arange(w, device=like.device, dtype=torch.float32)[None, :] / scale
    return y, x


def per_sample(values: Tensor) -> Tensor:
    """Shape (N,) for broadcasting over (N,C,H,W)."""
    return values.view(-1, 1, 1, 1)
