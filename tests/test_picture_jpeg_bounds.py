"""What a JPEG file allows to be changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import picture_samples as make
import pytest
from PIL import Image, JpegImagePlugin
from scipy.fft import dctn

import irtool
from irtool import metrics
from irtool.picture import JpegSettings, Picture, jpeg_bounds, read
from irtool.picture.decode import upright


def smooth(height: int, width: int) -> np.ndarray:
    """(H, W, 3) codes away from black and white, so that nothing is cut off there."""
    small = Image.fromarray(make.noise(height // 6 + 2, width // 6 + 2, 3) // 2 + 64)
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def planes(picture: Picture) -> np.ndarray:
    """(3, H, W)."""
    return np.ascontiguousarray(picture.pixels.transpose(2, 0, 1))


def luma(pixels: np.ndarray) -> np.ndarray:
    return pixels @ np.array([0.299, 0.587, 0.114])


def coefficients(plane: np.ndarray) -> np.ndarray:
    """Of the whole blocks of a plane, (rows, columns, 8, 8); scipy's transform, not irtool's."""
    height, width = (side // 8 * 8 for side in plane.shape)
    blocks = plane[:height, :width].reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2)
    return dctn(blocks, axes=(2, 3), norm="ortho")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_no_coefficient_leaves_its_share_of_the_table(orientation: int, subsampling: int) -> None:
    codes, exif = smooth(43, 61), b"Exif\0\0" + make.exif_block(orientation)
    picture = read(make.saved(codes, "JPEG", quality=40, subsampling=subsampling, exif=exif))
    assert picture.jpeg is not None and picture.jpeg.orientation == orientation
    pixels = planes(picture)
    change = np.random.default_rng(0).normal(0, 0.04, pixels.shape).astype(np.float32)
    # What is held must be so on the blocks of the file: turned back as the file has it.
    held = (jpeg_bounds.project_to_jpeg_bounds(pixels + change, pixels, picture.jpeg) - pixels).transpose(1, 2, 0)
    back = {6: 8, 8: 6}.get(orientation, orientation)
    stored = upright(held, back)
    assert stored.shape == codes.shape
    table = np.array(picture.jpeg.tables[0]).reshape(8, 8) * jpeg_bounds.STEP_FRACTION / 255
    over = np.abs(coefficients(luma(stored))) - table
    assert over.max() < 1e-5
    assert (over > -1e-5).mean() > 0.1  # many are at their bound: it was not held to less
    down, right = ((1, 1), (1, 2), (2, 2))[subsampling]
    blue = ((stored[..., 2] - luma(stored)) / 1.772)[: 42 // down * down, : 60 // right * right]
    small = blue.reshape(blue.shape[0] // down, down, -1, right).mean((1, 3))
    chroma = np.array(picture.jpeg.tables[1]).reshape(8, 8) * jpeg_bounds.STEP_FRACTION / 255
    assert (np.abs(coefficients(small)) - chroma).max() < 1e-5


def test_what_is_within_is_left_as_it_is() -> None:
    picture = read(make.saved(smooth(40, 48), "JPEG", quality=30))
    assert picture.jpeg is not None
    pixels = planes(picture)
    near = pixels + np.float32(0.002) * np.sign(pixels - 0.5)
    assert np.abs(jpeg_bounds.project_to_jpeg_bounds(near, pixels, picture.jpeg) - near).max() < 1e-6


def test_bands_of_rows_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = read(make.saved(smooth(100, 50), "JPEG", quality=30))
    assert picture.jpeg is not None
    pixels = planes(picture)
    whole = jpeg_bounds.project_to_jpeg_bounds(1 - pixels, pixels, picture.jpeg)
    monkeypatch.setattr(jpeg_bounds, "_ROWS", 16)
    assert np.abs(jpeg_bounds.project_to_jpeg_bounds(1 - pixels, pixels, picture.jpeg) - whole).max() < 1e-6


@pytest.mark.parametrize("quality", [50, 75, 90])
def test_the_truth_is_nearer_than_without(quality: int) -> None:
    with Image.open(Path(__file__).parent / "pictures" / "kodak23.png") as photo:
        truth = np.asarray(photo.convert("RGB"))
    picture = read(make.saved(truth, "JPEG", quality=quality))
    assert picture.jpeg is not None
    pixels = planes(picture)
    blurred = sum(np.roll(pixels, s, a) for a in (1, 2) for s in (-1, 1)) / 4
    held = jpeg_bounds.project_to_jpeg_bounds(blurred, pixels, picture.jpeg)
    given, free, bounded = (metrics.psnr(truth, metrics.to_8bit(x.transpose(1, 2, 0))) for x in (pixels, blurred, held))
    assert bounded > max(free + 2, given - 1)


@pytest.mark.parametrize(
    ("data", "known"),
    [
        (make.saved(smooth(32, 32), "JPEG"), True),
        (make.saved(smooth(32, 32)[..., 0], "JPEG"), True),
        (make.saved(smooth(32, 32), "JPEG", keep_rgb=True), False),
    ],
    ids=["colour", "grey", "stored as RGB"],
)
def test_only_layouts_that_are_known_bound_anything(data: bytes, known: bool) -> None:
    picture = read(data)
    assert picture.jpeg is not None and bool(picture.jpeg.orientation) == known
    pixels = planes(picture)
    changed = np.clip(pixels + 0.2, 0, 1)
    assert np.array_equal(jpeg_bounds.project_to_jpeg_bounds(changed, pixels, picture.jpeg), changed) != known


def test_a_layout_that_pillow_does_not_name_bounds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JpegImagePlugin, "get_sampling", lambda im: -1)  # as for 4:1:1, which Pillow cannot write
    picture = read(make.saved(smooth(32, 32), "JPEG"))
    assert picture.jpeg == JpegSettings(picture.jpeg.tables, 0, False, 0)


def test_restoring_a_jpeg_stays_within_its_file(models_dir) -> None:
    data = make.saved(smooth(48, 64), "JPEG", quality=60)
    picture, options = read(data), {"model": f"local:{models_dir / 'restorer.safetensors'}", "dtype": "fp32"}
    assert picture.jpeg is not None
    free = irtool.restore(replace(picture, jpeg=None), tasks="jpeg", **options).picture
    held = irtool.restore(data, tasks="jpeg", **options).picture
    assert np.array_equal(planes(held), jpeg_bounds.project_to_jpeg_bounds(planes(free), planes(picture), picture.jpeg))
    assert not np.array_equal(held.pixels, free.pixels)
    # Pixels that are no longer those of the file are bound by nothing, nor is what undoes more than compression.
    assert held.jpeg == replace(picture.jpeg, orientation=0)
    both = [irtool.restore(p, tasks="jpeg,noise", **options) for p in (picture, replace(picture, jpeg=None))]
    assert np.array_equal(both[0].picture.pixels, both[1].picture.pixels)
