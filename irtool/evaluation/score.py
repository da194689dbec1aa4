"""Pictures into numbers, as a protocol has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..data.protocol import Protocol
from ..errors import PictureError
from ..fileio import read_bytes
from ..metrics import SSIM_SMALLEST, luma

UNIFORM_SMALLEST = 7  # side of scikit-image's default window


def read_stored(path: Path) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1]: the values a file stores. See `stored`.

    Raises:
        FileError: it is no regular file, or cannot be read.
        PictureError: it cannot be decoded.
    """
    return stored(read_bytes(path), str(path))


def stored(data: bytes, name: str) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1]: the values that the bytes of a file store.

    No colour profile is applied and no orientation: the code behind published figures does neither.

    Args:
        data: the file.
        name: what messages call it.

    Raises:
        PictureError: it cannot be decoded.
    """
    from ..picture.decode import read_stored as samples

    color = samples(data, name)
    scale = 65535 if color.dtype == np.uint16 else 255
    return np.repeat(color, 3 // color.shape[2], axis=2).astype(np.float32) / np.float32(scale)


def crop(pixels: np.ndarray, multiple: int) -> np.ndarray:
    """Cut (H, W, C) around its centre to multiples, the odd pixel off at the bottom and right."""
    height, width = pixels.shape[:2]
    top, left = height % multiple // 2, width % multiple // 2
    return pixels[top : top + height // multiple * multiple, left : left + width // multiple * multiple]


def quantize(pixels: np.ndarray, levels: str) -> np.ndarray:
    """Float pixels clipped: "round" or "floor" to uint8, or left as "float"."""
    clipped = np.clip(pixels, 0, 1)
    if levels == "float":
        return clipped.astype(np.float32)
    scaled = clipped * np.float32(255)
    return (np.rint(scaled) if levels == "round" else scaled).astype(np.uint8)


def score(reference: np.ndarray, image: np.ndarray, protocol: Protocol, *, stored: bool = False) -> dict[str, float]:
    """PSNR in dB (infinite where equal) and SSIM.

    Args:
        reference, image: (H, W, 3) float of one size, [0, 1].
        protocol: how.
        stored: the image comes from a file as well: its 8-bit values are exact however they are reached, and cutting
            them off must not make them one less.

    Raises:
        PictureError: the sizes differ, or are too small for the protocol.
    """
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    if reference.shape != image.shape:
        sizes = f"{image.shape[1]}x{image.shape[0]} against {reference.shape[1]}x{reference.shape[0]}"
        raise PictureError(f"its size differs from its truth's: {sizes}")
    edge = protocol.border
    smallest = SSIM_SMALLEST if protocol.ssim == "gaussian" else UNIFORM_SMALLEST
    if min(reference.shape[:2]) - 2 * edge < smallest:
        raise PictureError(f"it is smaller than {smallest + 2 * edge} pixels, too small for SSIM")
    exact = "round" if protocol.levels == "floor" else protocol.levels
    sides = []
    for pixels, levels in ((reference, exact), (image, exact if stored else protocol.levels)):
        values = quantize(pixels, levels)
        values = values[edge : values.shape[0] - edge, edge : values.shape[1] - edge]
        sides.append(luma(values, swapped=protocol.channel == "y-swapped") if protocol.channel != "rgb" else values)
    a, b = sides
    span = 1.0 if protocol.levels == "float" else 255.0
    same = np.array_equal(a, b)
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    similar = structural_similarity(
        a,
        b,
        data_range=span,
        channel_axis=2 if a.ndim == 3 else None,
        **(window if protocol.ssim == "gaussian" else {}),
    )
    psnr = float("inf") if same else float(peak_signal_noise_ratio(a, b, data_range=span))
    return {"psnr": psnr, "ssim": float(similar)}
