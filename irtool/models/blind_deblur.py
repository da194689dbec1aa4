"""Blind deconvolution of motion blur: the kernel is estimated from the blurred picture alone, then divided out.

A small network sharpens a little; it cannot gather what a path of fifteen pixels has spread. Where one kernel explains
the whole picture it can be estimated, and the sharp picture then follows from a linear equation, except for frequencies
that the kernel removed and for ringing where the kernel is wrong. The network that ships gets this estimate beside the
blurred picture, and decides per pixel how much of it to use.

The kernel, from coarse to fine, in alternation: a latent image of few sharp edges (an L0 prior on its gradients, Xu et
al., "Unnatural L0 sparse representation for natural image deblurring", CVPR 2013, by half-quadratic splitting), and the
kernel that best maps its gradients to those of the blurred picture (least squares, as in Cho and Lee, "Fast motion
deblurring", SIGGRAPH Asia 2009). The result depends on the initialization, so there are several. With a wrong kernel
the deconvolved light leaves [0, 1] at many pixels: initializations are compared by that, and an estimate is rejected by
it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..synth.ops import fast_size, luminance, pad_reflect, to_linear, to_srgb

SIZE = 31  # side of the kernels looked for, pixels
WINDOW = 448 * 448  # pixels of the part of a picture that the path is estimated from
# Initial lambda of the L0 prior, and regularization of the kernel. None suits all pictures; every other one starts from
# a vertical kernel instead of a horizontal one.
_INITIALIZATIONS = (
    (4e-3, 50.0),
    (4e-3, 50.0),
    (8e-3, 50.0),
    (8e-3, 50.0),
    (1.6e-2, 50.0),
    (1.6e-2, 200.0),
    (8e-3, 200.0),
    (3.2e-2, 100.0),
)
_MIN_LAMBDA = 1e-4
_ALTERNATIONS = 5
_BETA_GROWTH = 3
_TILE, _MARGIN = 1024, 8 * SIZE
_KEPT_CANDIDATES = 2  # initializations that are refined at full resolution
_BASE_REGULARIZATION = 3e-3  # regularization of a picture without noise but for its rounding
MAX_OUT_OF_RANGE = 7e-4  # mean light outside [0, 1] above which a kernel is rejected


def deconvolve(pixels: Tensor, kernel: Tensor) -> Tensor:
    """Undo a known blur in linear light, by least squares with a smoothness that follows the noise (Wiener).

    Args:
        pixels: (N, 3, H, W) sRGB in [0, 1].
        kernel: (N, k, k) or (k, k) of unit sum, k odd.

    Returns:
        (N, 3, H, W) sRGB in [0, 1].
    """
    return to_srgb(_deconvolve_linear(to_linear(pixels), kernel, _smoothness(pixels)))


def noise_std(pixels: Tensor) -> Tensor:
    """Standard deviation of white noise (N,) in pictures (N, 3, H, W), from the smoothest fifth of their blocks.

    Blocks that are nearly black or white are left out: noise is clipped there.
    """
    gray = pixels.mean(1, keepdim=True)
    mixed = gray[..., :-1:2, :-1:2] - gray[..., :-1:2, 1::2] - gray[..., 1::2, :-1:2] + gray[..., 1::2, 1::2]
    power = F.avg_pool2d(mixed.square(), 8, ceil_mode=True).flatten(1)
    mean = F.avg_pool2d(F.avg_pool2d(gray, 2), 8, ceil_mode=True).flatten(1)
    power = torch.where((mean > 0.02) & (mean < 0.97), power, torch.nan)
    low_quantile = power.nanquantile(0.2, dim=1).nan_to_num(0)
    return (3 * low_quantile).sqrt() / 2


def _smoothness(pixels: Tensor) -> Tensor:
    """The weight (N, 1, 1, 1) of the squared gradient: the power of the noise over that of a picture's gradients."""
    noise = noise_std(pixels)
    gray = pixels.mean(1)
    power = _diff_x(gray).square().mean((1, 2)) + _diff_y(gray).square().mean((1, 2)) - 4 / 3 * noise**2
    return (_BASE_REGULARIZATION + noise**2 / power.clamp_min(1e-4)).view(-1, 1, 1, 1)


def _deconvolve_linear(light: Tensor, kernel: Tensor, smoothness: Tensor) -> Tensor:
    """`deconvolve` for light, not clamped: values outside [0, 1] show a wrong kernel."""
    kernel = kernel.expand(len(light), *kernel.shape[-2:])
    (high, wide), reach = light.shape[-2:], kernel.shape[-1]
    height, width = fast_size(high + 2 * reach), fast_size(wide + 2 * reach)
    padded = pad_reflect(light, reach, width - wide - reach, reach, height - high - reach)
    transfer = _transfer(kernel, height, width)[:, None]
    padded = _edgetaper(padded, transfer, reach)
    power = transfer.abs().square() + smoothness * _gradient_power(height, width, light.device)
    sharp = torch.fft.irfft2(transfer.conj() * torch.fft.rfft2(padded) / power, s=(height, width))
    return sharp[..., reach : reach + high, reach : reach + wide]


def _edgetaper(picture: Tensor, transfer: Tensor, reach: int) -> Tensor:
    """Pictures (..., H, W) whose borders, `reach` pixels wide, fade into the filtered picture.

    The discrete Fourier transform is periodic; blurred borders make opposite sides fit.
    """
    height, width = picture.shape[-2:]
    inside = _ramp(height, reach, picture)[:, None] * _ramp(width, reach, picture)
    blurred = torch.fft.irfft2(torch.fft.rfft2(picture) * transfer, s=(height, width))
    return inside * picture + (1 - inside) * blurred


def _ramp(size: int, reach: int, like: Tensor) -> Tensor:
    position = torch.arange(size, device=like.device)
    return (torch.minimum(position, size - 1 - position) / reach).clamp(max=1)


def _transfer(kernel: Tensor, height: int, width: int) -> Tensor:
    """The Fourier transform (..., H, W // 2 + 1) of kernels (..., k, k) centred on the first pixel."""
    down, right = (s // 2 for s in kernel.shape[-2:])
    padded = F.pad(kernel, (0, width - kernel.shape[-1], 0, height - kernel.shape[-2]))
    return torch.fft.rfft2(padded.roll((-down, -right), (-2, -1)))


@lru_cache(16)
def _gradient_power(height: int, width: int, device: torch.device) -> Tensor:
    """Squared transfer of the two first differences, (H, W // 2 + 1)."""
    down = 2 - 2 * torch.cos(2 * math.pi * torch.fft.fftfreq(height, device=device))
    right = 2 - 2 * torch.cos(2 * math.pi * torch.fft.rfftfreq(width, device=device))
    return down[:, None] + right


def _diff_x(x: Tensor) -> Tensor:
    return x.roll(-1, -1) - x


def _diff_y(x: Tensor) -> Tensor:
    return x.roll(-1, -2) - x


def add_deblurred(pixels: Tensor, residual: Tensor) -> bool:
    """Write deblurred minus blurred picture into `residual`, both (3, H, W), in tiles that bound the memory.

    Returns:
        False where no single kernel explains the blur; then nothing is written.
    """
    kernel = estimate_kernel(pixels)
    if kernel is None:
        return False
    smoothness = _smoothness(pixels[None])  # not tile by tile, or tiles would differ
    height, width = pixels.shape[-2:]
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            first, start = max(0, top - _MARGIN), max(0, left - _MARGIN)
            tile = pixels[None, :, first : top + _TILE + _MARGIN, start : left + _TILE + _MARGIN]
            light = _deconvolve_linear(to_linear(tile), kernel, smoothness)[0, :, top - first :, left - start :][
                :, :_TILE, :_TILE
            ]
            region = (slice(None), slice(top, top + _TILE), slice(left, left + _TILE))
            residual[region] = to_srgb(light) - pixels[region]
    return True


def estimate_kernel(pixels: Tensor) -> Tensor | None:
    """The kernel (SIZE, SIZE) that blurred a picture (3, H, W), of unit sum and centred; None where none fits."""
    part = _most_textured_window(pixels)
    if min(part.shape[-2:]) < 2 * SIZE:
        return None
    gray = luminance(part[None])[0, 0]
    smooth = gray.numel() / (768 * 512)  # _INITIALIZATIONS were tuned on pictures of this size
    sizes = [SIZE]
    while sizes[-1] > 5:
        sizes.append(max(3, round(SIZE * 2 ** (-len(sizes) / 2)) | 1))
    light, smoothness = to_linear(part[None]), _smoothness(part[None])

    def refine(kernel: Tensor, lam: float, gamma: float, scales: Sequence[int]) -> tuple[float, Tensor, float]:
        for size in scales:
            kernel, lam = _refine_at_scale(gray, kernel, size, lam, gamma * smooth)
        kernel = _centered(kernel) if scales[-1] == SIZE else kernel
        return _out_of_range(light, _resize(kernel, SIZE), smoothness), kernel, lam

    coarse, fine = sizes[:1:-1], sizes[1::-1]
    coarse_results = _run_parallel(
        [
            partial(refine, _initial_kernel(sizes[-1], number % 2 == 1, gray), edge, gamma, coarse)
            for number, (edge, gamma) in enumerate(_INITIALIZATIONS)
        ]
    )
    best = sorted(range(len(coarse_results)), key=lambda i: coarse_results[i][0])[:_KEPT_CANDIDATES]
    fine_results = _run_parallel([partial(refine, *coarse_results[i][1:], _INITIALIZATIONS[i][1], fine) for i in best])
    out_of_range, kernel, _ = min(fine_results, key=lambda d: d[0])
    return kernel if out_of_range < MAX_OUT_OF_RANGE else None


def _run_parallel(jobs: Sequence[Callable[[], tuple[float, Tensor, float]]]) -> list[tuple[float, Tensor, float]]:
    """The results of jobs, one thread each: their arrays are too small to be split among threads."""
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(min(threads, len(jobs)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(lambda job: job(), jobs))
    finally:
        torch.set_num_threads(threads)


def _initial_kernel(size: int, vertical: bool, like: Tensor) -> Tensor:
    """The shortest path, horizontal or vertical: half of the light falls on the next pixel."""
    kernel = torch.zeros(size, size, device=like.device)
    kernel[size // 2, size // 2 - 1 : size // 2 + 1] = 0.5
    return kernel.T.contiguous() if vertical else kernel


def _out_of_range(light: Tensor, kernel: Tensor, smoothness: Tensor) -> float:
    """Mean light outside [0, 1] after a deconvolution."""
    sharp = _deconvolve_linear(light, kernel, smoothness)
    return float((sharp - sharp.clamp(0, 1)).abs().mean())


def _most_textured_window(pixels: Tensor) -> Tensor:
    """The part of a picture (3, H, W) of at most `WINDOW` pixels with the most edges."""
    height, width = pixels.shape[-2:]
    if height * width <= WINDOW:
        return pixels
    shrink = (WINDOW / (height * width)) ** 0.5
    tall, wide = max(round(height * shrink), min(height, 256)), max(round(width * shrink), min(width, 256))
    tall, wide = min(tall, WINDOW // wide), min(wide, WINDOW // tall)
    gray = pixels.mean(0)
    # Saturated lamps and skies carry no information about the kernel, and their rims mislead.
    edges = (_diff_x(gray).abs() + _diff_y(gray).abs()) * (gray < 0.95)
    tops, lefts = ([*range(0, s - p, max(1, p // 4)), s - p] for s, p in ((height, tall), (width, wide)))
    places = [(float(edges[y : y + tall, x : x + wide].mean()), y, x) for y in tops for x in lefts]
    _, top, left = max(places)
    return pixels[:, top : top + tall, left : left + wide]


def _refine_at_scale(gray: Tensor, kernel: Tensor, size: int, lam: float, gamma: float) -> tuple[Tensor, float]:
    """The kernel refined at the scale at which it is `size` pixels wide, and the lambda reached."""
    ratio = size / SIZE
    shape = [max(2 * size, round(s * ratio)) for s in gray.shape]
    scaled = F.interpolate(gray[None, None], size=shape, mode="bilinear", antialias=True)[0, 0] if ratio < 1 else gray
    box = scaled.new_full((2 * size + 1, 2 * size + 1), 1 / (2 * size + 1) ** 2)
    scaled = _edgetaper(scaled, _transfer(box, *shape), size)
    kernel = _centered_to_pixel(_clean_kernel(_resize(kernel, size), 0)) if len(kernel) != size else kernel
    gradients = torch.fft.rfft2(torch.stack([_diff_x(scaled), _diff_y(scaled)]))
    for _ in range(_ALTERNATIONS):
        sharp = _l0_latent_image(scaled, kernel, lam)
        edges = torch.fft.rfft2(torch.stack([_diff_x(sharp), _diff_y(sharp)]))
        estimate = (edges.conj() * gradients).sum(0) / (edges.abs().square().sum(0) + gamma)
        estimate = torch.fft.irfft2(estimate, s=shape).roll((size // 2, size // 2), (0, 1))[:size, :size]
        kernel = _centered_to_pixel(_clean_kernel(estimate, 0.05))
        lam = max(lam / 1.1, _MIN_LAMBDA)
    return kernel, lam


def _l0_latent_image(gray: Tensor, kernel: Tensor, lam: float) -> Tensor:
    """The latent image (H, W) of few edges that, blurred by the kernel, is near to `gray` (Xu et al. 2013)."""
    shape = gray.shape
    transfer = _transfer(kernel, *shape)
    power, rough = transfer.abs().square(), _gradient_power(*shape, gray.device)
    data = transfer.conj() * torch.fft.rfft2(gray)
    sharp, beta = gray, 2 * lam
    while beta < 1e5:
        right, down = _diff_x(sharp), _diff_y(sharp)
        below_threshold = right.square() + down.square() < lam / beta
        right, down = right.masked_fill(below_threshold, 0), down.masked_fill(below_threshold, 0)
        divergence = right.roll(1, 1) - right + down.roll(1, 0) - down
        sharp = torch.fft.irfft2((data + beta * torch.fft.rfft2(divergence)) / (power + beta * rough), s=shape)
        beta *= _BETA_GROWTH
    return sharp


def _resize(kernel: Tensor, size: int) -> Tensor:
    kernel = F.interpolate(kernel[None, None], size=(size, size), mode="bilinear", antialias=True)[0, 0]
    return kernel / kernel.sum()


def _clean_kernel(kernel: Tensor, threshold: float) -> Tensor:
    """Non-negative and of unit sum, without values below `threshold` times the peak and without weak components."""
    kernel = kernel.clamp_min(0)
    kernel = torch.where(kernel < threshold * kernel.max(), 0, kernel)
    from skimage.measure import label  # half a second to import, and few pictures need it

    components = torch.from_numpy(label((kernel > 0).cpu().numpy(), connectivity=2)).to(kernel.device)
    sums = torch.zeros(int(components.max()) + 1, device=kernel.device).index_add_(
        0, components.flatten(), kernel.flatten()
    )
    kernel = kernel * (sums >= 0.1 * kernel.sum())[components]
    if not float(kernel.sum()) > 0:  # nothing fits at all
        kernel = torch.zeros_like(kernel)
        kernel[len(kernel) // 2, len(kernel) // 2] = 1
    return kernel / kernel.sum()


def _offsets_from_center(kernel: Tensor) -> Tensor:
    """Of each row, or column, of a kernel: its distance from the center."""
    return torch.arange(len(kernel), device=kernel.device, dtype=kernel.dtype) - len(kernel) // 2


def _centroid(kernel: Tensor) -> tuple[float, float]:
    """The centroid of a kernel relative to its center, down and right."""
    position = _offsets_from_center(kernel)
    return float((kernel.sum(1) * position).sum()), float((kernel.sum(0) * position).sum())


def _centered_to_pixel(kernel: Tensor) -> Tensor:
    """A kernel with its centroid in the center, to the pixel."""
    down, right = _centroid(kernel)
    return kernel.roll((-round(down), -round(right)), (0, 1))


def _centered(kernel: Tensor) -> Tensor:
    """A kernel without its faintest values, its centroid in the center, to a fraction of a pixel."""
    kernel = _clean_kernel(kernel, 0.08)
    down, right = _centroid(kernel)
    return shifted(kernel[None], kernel.new_tensor([[-right, -down]]))[0]


def shifted(kernels: Tensor, by: Tensor) -> Tensor:
    """Kernels (N, k, k) moved by fractions of a pixel, `by` (N, 2) to the right and down; of unit sum."""
    turn = torch.eye(2, 3, device=kernels.device).repeat(len(kernels), 1, 1)
    turn[:, :, 2] = -by * 2 / kernels.shape[-1]
    grid = F.affine_grid(turn, [len(kernels), 1, *kernels.shape[1:]], align_corners=False)
    kernels = F.grid_sample(kernels[:, None], grid, align_corners=False)[:, 0]
    return kernels / kernels.sum((1, 2), keepdim=True)
