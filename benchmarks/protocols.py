"""The protocols computed a second time, with numpy and Pillow alone, to hold irtool's figures against.

    python benchmarks/protocols.py --shared SHARED

It shares no line with irtool and none with scikit-image: the formulas are written out. The picture that is scored is
the mean of a degraded picture and its truth, so that it has values between 8-bit levels. What it prints is fixed in
tests/test_eval_protocols.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

FILES = (("rain_rain100h", "rain", "gt", "1"), ("haze_sots_indoor", "hazy", "gt", "1406_2"))
KODAK = ("1", "11")

Array = np.ndarray


def stored(path: Path) -> Array:
    return np.asarray(Image.open(path).convert("RGB"))


def windowed(x: Array, kernel: Array) -> Array:
    """Weighted means over every place where a square window fits."""
    across = sum(w * x[:, i : x.shape[1] - len(kernel) + 1 + i] for i, w in enumerate(kernel))
    return sum(w * across[i : x.shape[0] - len(kernel) + 1 + i] for i, w in enumerate(kernel))


def ssim_of(a: Array, b: Array, span: float, kernel: Array, unbiased: float) -> float:
    """Of one channel; `unbiased` turns the covariance of a window into that of a sample."""
    ma, mb = windowed(a, kernel), windowed(b, kernel)
    va, vb, cov = (
        unbiased * (windowed(x * y, kernel) - mx * my)
        for x, y, mx, my in ((a, a, ma, ma), (b, b, mb, mb), (a, b, ma, mb))
    )
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    return float(((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean())


def figures(a: Array, b: Array, span: float, uniform: bool = False) -> tuple[float, float]:
    """PSNR in dB and SSIM of (H, W) or (H, W, 3) float64."""
    psnr = 10 * np.log10(span**2 / np.mean((a - b) ** 2))
    gauss = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    kernel = np.full(7, 1 / 7) if uniform else gauss / gauss.sum()
    planes = [(a, b)] if a.ndim == 2 else [(a[..., c], b[..., c]) for c in range(3)]
    return float(psnr), float(np.mean([ssim_of(x, y, span, kernel, 49 / 48 if uniform else 1.0) for x, y in planes]))


def centre16(x: Array) -> Array:
    h, w = x.shape[:2]
    top, left = (h % 16) // 2, (w % 16) // 2
    return x[top : top + h - h % 16, left : left + w - w % 16]


def luma(x: Array, weights: tuple[float, float, float] = (65.481, 128.553, 24.966)) -> Array:
    return 16 + (x[..., 0] * weights[0] + x[..., 1] * weights[1] + x[..., 2] * weights[2]) / 255


def rounded(x: Array) -> Array:
    return np.round(np.clip(x, 0, 1) * np.float32(255)).astype(np.float64)  # halves go to even, as in all test code


def cut(x: Array) -> Array:
    return np.floor(np.clip(x, 0, 1) * np.float32(255)).astype(np.float64)


Way = Callable[[Array, Array], tuple[float, float]]
WAYS: dict[str, Way] = {
    "canonical": lambda t, r: figures(rounded(t), rounded(r), 255),
    "canonical-floor": lambda t, r: figures(rounded(t), cut(r), 255),
    "daclip": lambda t, r: figures(rounded(t)[4:-4, 4:-4], rounded(r)[4:-4, 4:-4], 255),
    "promptir": lambda t, r: figures(centre16(t), centre16(r), 1, uniform=True),
    "rain-y": lambda t, r: figures(luma(rounded(t)), luma(rounded(r)), 255),
    "rain-y-floor": lambda t, r: figures(luma(rounded(t)), luma(cut(r)), 255),
    "instructir": lambda t, r: figures(centre16(t), centre16(r), 1),
    "instructir-rain": lambda t, r: figures(
        luma(centre16(rounded(t)), (24.966, 128.553, 65.481)), luma(centre16(cut(r)), (24.966, 128.553, 65.481)), 255
    ),
    "awgn": lambda t, r: figures(rounded(t), rounded(r), 255),
    "sr-x3": lambda t, r: figures(luma(rounded(t))[3:-3, 3:-3], luma(rounded(r))[3:-3, 3:-3], 255),
}


def mixed(shared: Path, folder: str, low: str, high: str, name: str) -> tuple[Array, Array]:
    """(truth, picture to score), float in [0, 1]."""
    root = shared / "data" / "test" / folder
    a = stored(root / low / f"{name}.webp").astype(np.float32) / 255
    b = stored(root / high / f"{name.split('_', maxsplit=1)[0]}.webp").astype(np.float32) / 255
    return b.astype(np.float64), ((a + b) / 2).astype(np.float32)


def promptir_noise(shared: Path) -> float:
    """PSNR of two pictures with noise of 25, drawn as AirNet and PromptIR do: one stream, clipped, cut off."""
    stream = np.random.RandomState(0)
    found = []
    for name in KODAK:
        clean = centre16(stored(shared / "data" / "test" / "clean_kodak" / f"{name}.webp"))
        noisy = np.clip(clean + stream.randn(*clean.shape) * 25, 0, 255).astype(np.uint8)
        found.append(figures(clean / 255, noisy / 255, 1, uniform=True)[0])
    return float(np.mean(found))


def awgn_noise(shared: Path) -> float:
    """PSNR of two pictures with noise of 25, drawn as KAIR does: begun anew for each, kept as float."""
    found = []
    for name in KODAK:
        clean = stored(shared / "data" / "test" / "clean_kodak" / f"{name}.webp") / 255
        noisy = clean + np.random.RandomState(0).normal(0, 25 / 255, clean.shape)
        found.append(figures(rounded(clean), rounded(noisy), 255)[0])
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder that holds data/test/")
    shared = parser.parse_args().shared
    for id, way in WAYS.items():
        shown = ", ".join("({:.4f}, {:.5f})".format(*way(*mixed(shared, *files))) for files in FILES)
        print(f'    "{id}": ({shown}),')
    print(f"promptir noise: {promptir_noise(shared):.4f}; awgn noise: {awgn_noise(shared):.4f}")


if __name__ == "__main__":
    main()
