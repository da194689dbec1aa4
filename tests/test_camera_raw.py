"""Camera raw files: small DNGs written here, of scenes that are known."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from irtool import picture
from irtool.cli import main
from irtool.errors import PictureError, UnavailableError
from irtool.picture.camera_raw import is_raw

XYZ_FROM_SRGB = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
NEUTRAL = (0.5, 1.0, 0.7)  # how the sensor sees white
BLACK, RANGE = 512, 15000


def scene(height: int = 64, width: int = 96) -> np.ndarray:
    """(H, W, 3) sRGB in [0, 1], smooth, so that demosaicing adds little."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x / width, y / height, 1 - x / width], axis=-1) * 0.6 + 0.1


def dng(srgb: np.ndarray, orientation: int = 1, order: str = "<", noise: float = 0.0, **options: Any) -> bytes:
    """A DNG whose camera sees linear sRGB with other white."""
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4) * NEUTRAL
    mosaic = np.empty(srgb.shape[:2])
    for (top, left), channel in {(0, 0): 0, (0, 1): 1, (1, 0): 1, (1, 1): 2}.items():
        mosaic[top::2, left::2] = linear[top::2, left::2, channel]
    mosaic += noise * np.random.default_rng(0).normal(size=mosaic.shape)
    stored = (mosaic.clip(0, 1) * RANGE + BLACK).round().astype(np.uint16)

    def rationals(values: Any) -> tuple[int, ...]:
        return tuple(int(n) for value in np.ravel(values) for n in (round(value * 10000), 10000))

    tags = [
        (50706, "B", 4, (1, 4, 0, 0), True), (50707, "B", 4, (1, 1, 0, 0), True), (50708, "s", 0, "irtool", True),
        (33421, "H", 2, (2, 2), True), (33422, "B", 4, (0, 1, 1, 2), True), (50778, "H", 1, 21, True),
        (50721, "2i", 9, rationals(np.linalg.inv(XYZ_FROM_SRGB)), True), (50728, "2I", 3, rationals(NEUTRAL), True),
        (50714, "H", 1, BLACK, True), (50717, "H", 1, BLACK + RANGE, True), (271, "s", 0, "Irtool", True),
        (272, "s", 0, "Test camera", True), (274, "H", 1, orientation, True), (33432, "s", 0, "nobody", True),
    ]  # fmt: skip
    out = io.BytesIO()
    with tifffile.TiffWriter(out, byteorder=order) as file:
        file.write(stored, photometric="cfa", extratags=tags, metadata=None, **options)
    return out.getvalue()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (6, -1), (3, 2)])
def test_a_dng_is_read_with_the_cameras_white_balance_upright(order: str, orientation: int, turns: int) -> None:
    pytest.importorskip("rawpy")
    read = picture.read(dng(scene(), orientation, order))
    truth = np.rot90(scene(), turns)
    assert read.pixels.shape == truth.shape and read.bits == 16
    inner = slice(6, -6), slice(6, -6)
    assert np.abs(read.pixels - truth)[inner].mean() < 2e-3


def test_what_the_file_tells_of_the_photograph_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rawpy")
    source = tmp_path / "a.dng"
    source.write_bytes(dng(scene(160, 200), 6, noise=0.02))
    for name in ("a.png", "a.tif", "a.jpg"):
        assert main(["restore", str(source), "-o", str(tmp_path / name), "--task", "denoise", "--model",
                     "irtool-nano.v1"]) == 0, capsys.readouterr().err  # fmt: skip
        with Image.open(tmp_path / name) as im:
            assert im.size == (160, 200)
            exif = im.getexif()
            assert (exif[271], exif[272], exif.get(274, 1)) == ("Irtool", "Test camera", 1)
            assert not set(exif) & set(range(50706, 50800))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages[0].dtype == np.uint16


def test_a_clean_raw_file_becomes_a_picture_and_no_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rawpy")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.dng").write_bytes(dng(scene(160, 200)))
    assert main(["restore", str(tmp_path / "photos"), "-o", str(tmp_path / "out"), "--auto", "--json"]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[0])
    made = Path(record["output"])
    assert made.parent == tmp_path / "out" and made.suffix in (".png", ".tif")
    with Image.open(made) as im:
        assert im.size == (200, 160)


def test_without_rawpy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(UnavailableError) as caught:
        picture.read(dng(scene()), name="a.dng")
    assert "irtool[raw]" in caught.value.hint and "a.dng" in caught.value.message


def test_a_raw_file_that_is_cut_off_or_damaged_is_one_clear_error() -> None:
    pytest.importorskip("rawpy")
    whole = dng(scene())
    for damaged in (whole[: len(whole) // 2], whole[:600], b"FUJIFILMCCD-RAW " + bytes(2000), b"IIU\0" + bytes(999)):
        with pytest.raises(PictureError):
            picture.read(damaged, name="a.raw")


def test_ordinary_tiffs_are_no_raw_files() -> None:
    out = io.BytesIO()
    Image.new("RGB", (20, 10)).save(out, "TIFF")
    assert not is_raw(out.getvalue()) and is_raw(dng(scene())) and is_raw(dng(scene(), order=">"))
    assert not is_raw(b"II*\0") and not is_raw(b"MM\0*\xff\xff\xff\xff") and not is_raw(b"")
