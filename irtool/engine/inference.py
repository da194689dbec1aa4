"""A bound model carried out on an image: device, number type, memory, and what its result must be."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import PictureError, UsageError
from ..memory import give_back, resident_bytes
from ..models.base import Bound, ModelInfo, Progress, not_finite
from .device import available_bytes, peak_bytes, pick_dtype
from .tiling import Tiler, TooLittleMemoryError

DEFAULT_ACTIVATION_BYTES = (
    768 << 20
)  # bytes for activations on a CPU when nothing else is said: 12 megapixels stay under 2 GiB
# The same for networks that see their picture best whole: one megapixel of the published U-Nets is.
GLOBAL_ACTIVATION_BYTES = 4 << 30
RESULT_BYTES = 14  # for each pixel: the result; what is copied of it takes the room of the tiles and of their source
KERNEL_BYTES = 32 << 20  # what oneDNN compiles for the layers of a tile and keeps (27 MB in bfloat16, 13 in float32)
PADDINGS = ("auto", "reflect", "zeros")


@dataclass(frozen=True)
class EngineResult:
    """A restored picture and what it took.

    Attributes:
        pixels: (3, H, W) float32 in [0, 1], on the CPU; of a model that enlarges (3, scale H, scale W), laid out with
            the channels last.
        tiles: number of tiles.
        peak_bytes: peak memory (process on a CPU, torch on CUDA), None where the system does not say.
    """

    pixels: Tensor
    tiles: int
    peak_bytes: int | None


def tile_pixels(
    info: ModelInfo,
    height: int,
    width: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
    tile: str,
    max_memory: int | None,
) -> int:
    """The most pixels a tile may have, overlap included, of an image of height x width.

    Raises:
        UsageError: `tile` is no such setting.
    """
    per_pixel = info.bytes_per_pixel * dtype.itemsize // 4
    height, width = (-(-side // info.multiple) * info.multiple for side in (height, width))
    if tile == "off":
        return height * width
    if tile != "auto":
        if not tile.isdigit() or int(tile) < info.multiple:
            raise UsageError(f"`tile` {tile} is no tile size.", f"Give auto, off, or at least {info.multiple} pixels.")
        side = int(tile) + 2 * info.overlap
        return side * side
    if device.type == "cuda":
        available = min(int(0.7 * available_bytes(device)), max_memory or 1 << 62)
    elif max_memory is not None:
        available = max_memory - resident_bytes() - KERNEL_BYTES - RESULT_BYTES * height * width * info.scale**2
    else:
        available = min(
            GLOBAL_ACTIVATION_BYTES if info.tiling == "blended" else DEFAULT_ACTIVATION_BYTES,
            available_bytes(device) // 2,
        )
    return max(0, available) // per_pixel


def run(  # noqa: PLR0913 (the settings, as keywords)
    bound: Bound,
    pixels: Tensor,
    *,
    device: torch.device,
    dtype: str = "auto",
    tile: str = "auto",
    max_memory: int | None = None,
    ensemble: bool = False,
    padding: str = "auto",
    on_progress: Progress | None = None,
) -> EngineResult:
    """Restore a whole picture.

    A result that is not finite is computed again in float32; where it is not finite then either, it is an error.

    Args:
        bound: a model bound to what is to be done.
        pixels: (3, H, W) sRGB in [0, 1] on the CPU, any size from 1x1.
        device: where to compute.
        dtype: "auto", "fp32", "bf16" or "fp16".
        tile: "auto" (as the memory allows), "off" (the whole picture at once), or the side of the kept
            square in pixels.
        max_memory: bytes the process (on a CPU) or torch (on CUDA) may hold at most; None bounds the
            activations to 768 MiB or half of the free memory.
        ensemble: average over the four mirrored views of every tile.
        padding: "reflect", "zeros", or "auto" for what the model's published inference does.
        on_progress: called with (tiles or steps done, tiles or steps in all).

    Raises:
        UsageError: `tile`, `dtype` or `padding` is no such setting, or `ensemble` is asked of a model that sees the
            whole picture.
        PictureError: the memory allowed does not hold even the smallest tile.
        UnavailableError: the result is not finite.
    """
    info = bound.info
    kind = pick_dtype(dtype, device, probe=info.bears_bf16)
    if padding not in PADDINGS:
        raise UsageError(f"`padding` cannot be '{padding}'.", f"Known: {', '.join(PADDINGS)}.")
    if ensemble and info.tiling == "blended":
        raise UsageError(f"A {info.name} model takes no self-ensemble.", "Leave `ensemble` out.")
    bound = bound.to(device, kind)
    source, context = bound.prepare(pixels[None])
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    height, width = source.shape[-2:]
    allowed = tile_pixels(info, height, width, device=device, dtype=kind, tile=tile, max_memory=max_memory)
    tiler = Tiler(info, allowed, device, ensemble=ensemble, padding=info.padding if padding == "auto" else padding)
    try:
        restored = bound.run(source, context, tiler, on_progress or (lambda done, total: None))
    except TooLittleMemoryError:
        raise _too_small(pixels.shape[-1], pixels.shape[-2]) from None
    del source
    height, width = (info.scale * side for side in pixels.shape[-2:])
    restored = restored[0, :, :height, :width].float().cpu()
    if max_memory is not None:
        give_back()  # what the tiles took
    # NaN and infinity show in the extremes, which unlike isfinite take no copy of the picture.
    if not bool(torch.stack(restored.aminmax()).isfinite().all()):
        if kind == torch.float32:
            raise not_finite(info.name)
        return run(
            bound, pixels, device=device, dtype="fp32", tile=tile, max_memory=max_memory, ensemble=ensemble,
            padding=padding, on_progress=on_progress,
        )  # fmt: skip
    if restored.is_inference():
        restored = restored.clone()  # what callers get is a tensor like any other
    restored = restored.clamp_(0, 1)
    return EngineResult(restored if info.scale > 1 else restored.contiguous(), tiler.tiles, peak_bytes(device))


def _too_small(width: int, height: int) -> PictureError:
    return PictureError(
        f"The memory allowed is too small for a picture of {width}x{height} pixels.",
        "Raise `max_memory`, or close other programs.",
    )
