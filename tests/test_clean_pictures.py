"""Good pictures come back as they were, by kind of content: the first promise of `--auto`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import irtool

SIDE = 640
"""The pictures are reduced to this, for the time it takes; the detector reduces them anyway."""
CONTENT = {
    "animals and plants": ("azure__*", "haar_sharp__*"),
    "products": ("grocery__*",),
    "web graphics": ("codrops__*", "illustration__*"),
    "night as meant": ("hardneg_night_pexels__*",),
    "low sun": ("hardneg_sunrise_mwd__*",),
    "storm skies": ("hardneg_storm_mwd__*",),
    "lying snow": ("hardneg_snow_ground__*",),
    "clouds": ("clouds_mwd__*",),
    "days": ("pexels_day__*",),
    "wallpapers": ("wall_*",),
}
EACH = 12


def untouched(pixels: np.ndarray) -> bool:
    result = irtool.restore(pixels, device="cpu")
    return not result.plan.steps and np.array_equal(result.array, pixels)


def drawn(kind: str) -> np.ndarray:
    """(H, W, 3) uint8: what the detector once took for damage, drawn anew."""
    g = torch.Generator().manual_seed(7)
    if kind == "fur":  # bright strokes of one direction, taken for rain
        field = torch.rand(1, 1, 420, 560, generator=g)
        strokes = torch.nn.functional.conv2d(field, torch.eye(15)[None, None] / 15, padding=7)
        shade = torch.nn.functional.interpolate(torch.rand(1, 1, 6, 8, generator=g), (420, 560), mode="bicubic")
        gray = (0.45 + 1.2 * (strokes - 0.5) + 0.3 * (shade - 0.5))[0, 0].clamp(0, 1)
        tones = torch.tensor([1.0, 0.93, 0.82])
        return (gray[..., None] * tones * 255).byte().numpy()
    image = Image.new("RGB", (560, 420), (150, 175, 205))
    draw = ImageDraw.Draw(image)
    if kind == "skyscrapers":  # dark faces beside bright ones, taken for shadows
        for i, left in enumerate(range(20, 540, 90)):
            top = 60 + 37 * i % 140
            for x, tone in ((left, 190), (left + 42, 70)):
                draw.rectangle((x, top, x + 42, 420), fill=(tone, tone, tone + 10))
                for y in range(top + 8, 410, 16):
                    draw.line((x + 4, y, x + 38, y), fill=(tone - 30, tone - 25, tone - 10), width=5)
    elif kind == "calm sea":  # long soft waves, taken for motion blur
        rows = np.linspace(0, 1, 420)[:, None]
        waves = 0.03 * np.sin(60 * rows**0.5 + np.linspace(0, 2, 560)[None])
        sea = np.stack([0.25 + 0.2 * rows + waves, 0.42 + 0.2 * rows + waves, 0.55 + 0.15 * rows + waves], axis=-1)
        return (sea.clip(0, 1) * 255).round().astype(np.uint8)
    elif kind == "player":  # a dark figure on a bright field, taken for a shadow
        draw.rectangle((0, 0, 560, 420), fill=(196, 160, 120))
        draw.rectangle((0, 0, 560, 150), fill=(90, 140, 70))
        draw.ellipse((262, 90, 302, 130), fill=(70, 48, 40))
        draw.polygon([(250, 132), (316, 132), (330, 250), (240, 250)], fill=(34, 38, 60))
        draw.polygon([(244, 250), (280, 250), (262, 360), (230, 360)], fill=(220, 220, 215))
        draw.polygon([(290, 250), (326, 250), (344, 360), (312, 360)], fill=(220, 220, 215))
        draw.line((316, 145, 400, 60), fill=(150, 110, 70), width=9)
    return np.asarray(image)


@pytest.mark.parametrize("kind", ["fur", "skyscrapers", "calm sea", "player"])
def test_what_was_once_taken_for_damage_is_left_alone(kind):
    assert untouched(drawn(kind))


@pytest.mark.parametrize("color", [(255, 255, 255), (0, 0, 0), (200, 30, 20), (8, 10, 30), (127, 127, 127)])
@pytest.mark.parametrize("size", [(1, 1), (3, 700), (300, 400)])
def test_a_picture_of_one_color_is_clean(color, size):
    pixels = np.full((*size, 3), color, np.uint8)
    pixels[..., 0] ^= np.arange(size[1], dtype=np.uint8) & 1  # one level, as JPEG leaves it
    found = irtool.detect(pixels)
    assert found.is_clean and not found.uncertain and found.clean == 1
    assert untouched(pixels)


@pytest.mark.slow
@pytest.mark.parametrize("content", CONTENT)
def test_good_photographs_come_back_untouched(shared: Path, content: str):
    folder = shared / "data" / "detect" / "clean"
    files = sorted(path for pattern in CONTENT[content] for path in folder.glob(pattern))
    if not files:
        pytest.skip(f"{folder} has none of {content}")
    changed = []
    for path in files[:: max(1, len(files) // EACH)]:
        image = Image.open(path).convert("RGB")
        image.thumbnail((SIDE, SIDE))
        if not untouched(np.asarray(image)):
            changed.append(path.name)
    assert len(changed) <= 0.04 * EACH, changed
