"""How close two pictures are, thin over scikit-image; both on 8-bit RGB, no crop."""

from __future__ import annotations

import numpy as np

SSIM_SMALLEST = 11  # side in pixels of the Gaussian window


def to_8bit(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) float in [0, 1] to uint8, clipped and rounded: what both metrics are taken on."""
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def psnr(reference: np.ndarray, image: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, over all pixels and channels at once; infinite where equal.

    Args:
        reference, image: (H, W, 3) uint8 of the same size.

    Raises:
        ValueError: the sizes or types differ from that.
    """
    _check(reference, image)
    if np.array_equal(reference, image):
        return float("inf")
    from skimage.metrics import peak_signal_noise_ratio

    return float(peak_signal_noise_ratio(reference, image, data_range=255))


def ssim(reference: np.ndarray, image: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian window of 11, sigma 1.5, mean over the channels.

    Args:
        reference, image: (H, W, 3) uint8 of the same size, sides of at least `SSIM_SMALLEST` pixels.

    Raises:
        ValueError: the sizes or types differ from that.
    """
    _check(reference, image)
    if min(reference.shape[:2]) < SSIM_SMALLEST:
        raise ValueError(
            f"SSIM needs sides of at least {SSIM_SMALLEST} pixels, got {reference.shape[1]}x{reference.shape[0]}"
        )
    from skimage.metrics import structural_similarity

    # The constants of the original paper, which published tables use.
    return float(
        structural_similarity(
            reference,
            image,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
        )
    )


def _check(reference: np.ndarray, image: np.ndarray) -> None:
    if reference.dtype != np.uint8 or image.dtype != np.uint8:
        raise ValueError(f"both must be uint8, got {reference.dtype} and {image.dtype}")
    if reference.shape != image.shape or reference.ndim != 3 or reference.shape[2] != 3:
        raise ValueError(f"both must be (H, W, 3) of one size, got {reference.shape} and {image.shape}")


def luma(pixels: np.ndarray, *, swapped: bool = False) -> np.ndarray:
    """BT.601 luma with head- and footroom, as MATLAB's rgb2ycbcr gives it, not rounded.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        swapped: the weights of red and blue exchanged, as when RGB is taken for BGR.

    Returns:
        (H, W) float64 in [16, 235].
    """
    weights = np.array([24.966, 128.553, 65.481] if swapped else [65.481, 128.553, 24.966])
    return pixels.astype(np.float64) @ weights / 255 + 16
