from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.signal import convolve2d

from irtool.metrics import psnr, ssim, to_8bit


def pair(size=(40, 33)):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    b = np.clip(a.astype(int) + rng.integers(-20, 21, a.shape), 0, 255).astype(np.uint8)
    return a, b


def test_psnr_is_its_definition():
    a, b = pair()
    mse = np.mean((a.astype(float) - b) ** 2)
    assert psnr(a, b) == pytest.approx(10 * math.log10(255**2 / mse))
    assert psnr(a, a) == math.inf


def test_one_level_everywhere_is_48_decibels():
    a = np.full((16, 16, 3), 100, np.uint8)
    assert psnr(a, a + 1) == pytest.approx(48.1308, abs=1e-4)


def test_ssim_is_the_published_one():
    """The form of Wang et al. 2004: 11x11 Gaussian window, only where it fits, averaged over the channels."""
    a, b = pair()
    g = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(g, g) / np.outer(g, g).sum()

    def mean(x):
        return convolve2d(x, window, mode="valid")

    values = []
    for x, y in zip(np.moveaxis(a.astype(float), 2, 0), np.moveaxis(b.astype(float), 2, 0), strict=True):
        mx, my = mean(x), mean(y)
        vx, vy, c = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        values.append(((2 * mx * my + c1) * (2 * c + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())
    assert ssim(a, b) == pytest.approx(np.mean(values), abs=1e-5)
    assert ssim(a, a) == pytest.approx(1)


def test_8_bit_rounds_and_clips():
    values = np.array([[[-0.2, 0.5 / 255, 1.5 / 255 + 1e-6]], [[0.999, 1.0, 1.7]]])
    assert to_8bit(values).tolist() == [[[0, 0, 2]], [[255, 255, 255]]]


def test_what_cannot_be_compared_is_said():
    a, b = pair()
    for metric in (psnr, ssim):
        with pytest.raises(ValueError, match="size"):
            metric(a, b[:-1])
        with pytest.raises(ValueError, match="uint8"):
            metric(a / 255, b / 255)
    with pytest.raises(ValueError, match="11"):
        ssim(a[:10], b[:10])
