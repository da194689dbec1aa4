"""Thousands of damaged files: a Picture or a PictureError comes out, and nothing else, and nothing is printed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import picture_samples as make
import pytest
import tifffile
from PIL import Image

from irtool.errors import PictureError, UnavailableError
from irtool.picture import Picture, encode, read, write
from irtool.picture.color import profile_of
from irtool.picture.decode import silence_warnings
from irtool.picture.exif import block_of, parse, reset_orientation, with_dimensions

SMOOTH = np.asarray(Image.fromarray(make.noise(6, 6, 3)).resize((44, 37)))
META = {"exif": make.exif_block(6), "icc_profile": make.rgb_profile()}
EXTRA = make.chunk(b"eXIf", META["exif"]) + make.chunk(b"tRNS", bytes(6))


@pytest.fixture(autouse=True)
def warnings_are_errors() -> None:
    """Warnings of our own code would end as errors; those that irtool hushes stay hushed, as outside of pytest."""
    warnings.simplefilter("error")
    silence_warnings()


def _tiff(codes: np.ndarray, **options: object) -> bytes:
    from io import BytesIO

    out = BytesIO()
    tifffile.imwrite(out, codes, metadata=None, **options)  # type: ignore[arg-type]
    return out.getvalue()


def _palette() -> bytes:
    return make.saved(Image.fromarray(SMOOTH).convert("P"), "PNG", transparency=bytes(range(200)))


VALID: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: make.saved(SMOOTH, "JPEG", **META, xmp=make.XMP % 6, comment=b"c", dpi=(72, 72)),
    "jpeg progressive grey": lambda: make.saved(SMOOTH[..., 0], "JPEG", progressive=True),
    "jpeg cmyk": lambda: make.saved(
        Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", icc_profile=make.lut_profile(b"CMYK", 4)
    ),
    "png": lambda: make.saved(SMOOTH, "PNG", **META),
    "png palette": _palette,
    "png 16": lambda: make.png(make.noise(9, 8, 3, np.uint16), interlaced=True, extra=EXTRA),
    "png 16 grey alpha": lambda: make.png(make.noise(9, 8, 2, np.uint16)),
    "tiff": lambda: make.saved(SMOOTH, "TIFF", **META),
    "tiff lzw": lambda: make.saved(SMOOTH, "TIFF", compression="tiff_lzw"),
    "tiff 16": lambda: encode(Picture(SMOOTH / np.float32(255), bits=16, exif=META["exif"])),
    "tiff 16 planar": lambda: _tiff(
        make.noise(3 * 9, 8, 1, np.uint16).reshape(3, 9, 8), photometric="rgb", planarconfig=2
    ),
    "tiff 16 grey alpha": lambda: encode(
        Picture(SMOOTH / np.float32(255), np.ones(SMOOTH.shape[:2], np.float32), bits=16, gray=True), "tiff"
    ),
    "tiff two pages": lambda: make.saved(
        Image.fromarray(SMOOTH), "TIFF", save_all=True, append_images=[Image.fromarray(SMOOTH)]
    ),
    "webp": lambda: make.saved(SMOOTH, "WEBP", **META),
    "webp lossless": lambda: make.saved(np.dstack([SMOOTH, SMOOTH[..., 0]]), "WEBP", lossless=True),
    "avif": lambda: make.saved(SMOOTH, "AVIF", **META),
    "bmp": lambda: make.saved(SMOOTH, "BMP"),
    "bmp alpha": lambda: encode(Picture(SMOOTH / np.float32(255), np.ones(SMOOTH.shape[:2], np.float32)), "bmp"),
    "bmp palette": lambda: make.saved(Image.fromarray(SMOOTH).convert("P"), "BMP"),
    "gif": lambda: make.saved(Image.fromarray(SMOOTH).convert("P"), "GIF", transparency=3),
}


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """One way of many to damage a file: flipped bits, wild bytes, a cut, a hole, a repeat."""
    out = bytearray(data)
    # Half of the damage goes to the beginning, where headers are.
    reach = len(out) if rng.random() < 0.5 else min(len(out), 400)
    at = int(rng.integers(reach))
    kind = rng.integers(6)
    if kind <= 1:
        for place in rng.integers(reach, size=rng.integers(1, 4)):
            out[place] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        out[at : at + 4] = rng.bytes(4)
    elif kind == 3:
        out[at : at + 4] = b"\xff" * 4 if rng.random() < 0.5 else bytes(4)
    elif kind == 4:
        del out[at:]
    else:
        size = int(rng.integers(1, 60))
        out[at:at] = out[at : at + size] if rng.random() < 0.5 else b""
        if rng.random() < 0.5:
            del out[at : at + size]
    return bytes(out)


def survives(data: bytes, name: str) -> Picture | None:
    try:
        picture = read(data, name=name, max_pixels=1_000_000)
    except UnavailableError:
        assert "avif" in name  # a flip can make an AVIF look like the HEIF it nearly is
        return None
    except PictureError as error:
        assert not isinstance(error.__cause__, Warning)
        assert name in error.message
        assert "\n" not in error.message
        assert len(error.message) < 300
        return None
    assert picture.pixels.dtype == np.float32
    assert np.isfinite(picture.pixels).all()
    assert 0 <= picture.pixels.min() <= picture.pixels.max() <= 1
    assert picture.out_of_gamut is None or np.isfinite(picture.out_of_gamut).all()
    return picture


@pytest.mark.parametrize("kind", VALID)
def test_damaged_files(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    valid = VALID[kind]()
    rng = np.random.default_rng(len(kind))
    if kind != "tiff two pages":
        assert survives(valid, kind) is not None
    broken = 0
    rounds = 60 if "cmyk" in kind else 400  # LittleCMS takes its time
    for i in range(rounds):
        picture = survives(damaged(valid, rng), f"{kind} {i}")
        broken += picture is None
        if picture is not None and i % 3 == 0:
            # What was read can be written, or is refused in the same clean way, and nothing is left behind.
            try:
                write(picture, tmp_path / f"out.{('png', 'jpg', 'tif', 'webp')[i % 4]}")
            except PictureError as error:
                assert kind in error.message
    assert rounds / 10 < broken  # the damage is damage
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    captured = capfd.readouterr()
    # libtiff prints about damaged strips from C, which can only be silenced for the whole process.
    assert (captured.out, "" if kind.startswith("tiff") else captured.err) == ("", "")


@pytest.mark.parametrize("kind", VALID)
def test_every_truncation(kind: str) -> None:
    valid = VALID[kind]()
    for end in range(0, len(valid), max(1, len(valid) // 150)):
        survives(valid[:end], kind)


def test_heif_damage() -> None:
    pytest.importorskip("pillow_heif")
    valid = encode(Picture(SMOOTH / np.float32(255), exif=META["exif"]), "heic")
    rng = np.random.default_rng(7)
    for i in range(300):
        survives(damaged(valid, rng), f"heif {i}")


def test_damaged_profiles() -> None:
    rng = np.random.default_rng(1)
    usable = 0
    codes = make.noise(4, 4, 3)
    table = make.table_curve(np.linspace(0, 1, 64) ** 2)
    for valid in (make.rgb_profile(), make.rgb_profile(make.ADOBE, table), make.grey_profile(make.gamma_curve(1.8))):
        for _ in range(700):
            profile = profile_of(damaged(valid, rng))
            if profile is None:
                continue
            usable += 1
            out = profile.to_srgb(codes[..., : profile.channels])
            assert np.isfinite(out).all()
            back = profile.from_srgb(out)
            assert np.isfinite(back).all()
            assert 0 <= back.min() <= back.max() <= 1
    assert usable > 100


def test_damaged_exif() -> None:
    rng = np.random.default_rng(2)
    valid = make.exif_block(6)
    fine = 0
    for _ in range(2000):
        block = damaged(valid, rng)
        try:
            out, orientation = reset_orientation(block)
            assert 1 <= orientation <= 8
            assert len(with_dimensions(out, 3, 4)) == len(block)
            fine += 1
        except ValueError:
            pass
        try:
            order, directory = parse(block)
            assert parse(block_of(order, directory))[0] == order
        except ValueError:
            pass
    assert fine > 500


def test_random_bytes_behind_every_signature() -> None:
    rng = np.random.default_rng(3)
    for kind in VALID:
        head = VALID[kind]()[:32]
        for size in (0, 1, 40, 4000):
            assert survives(head[: rng.integers(4, 32)] + rng.bytes(size), kind) is None
