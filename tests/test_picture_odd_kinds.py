"""Sound files of rarer kinds: read, or refused for what they are, and never with something lost in silence."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import picture_samples as make
import pytest
import tifffile
from PIL import Image

from irtool.errors import PictureError
from irtool.picture import encode, read
from irtool.picture import exif as exif_room

_Y, _X = np.mgrid[:48, :64]
SMOOTH = np.dstack([_X * 255 // 64, _Y * 255 // 48, (_X + _Y) * 255 // 112]).astype(np.uint8)
DEEP = SMOOTH.astype(np.uint16) * 257


def tiff(codes: np.ndarray, **options: object) -> bytes:
    out = BytesIO()
    tifffile.imwrite(out, codes, **options)
    return out.getvalue()


def refusal(data: bytes) -> str:
    with pytest.raises(PictureError) as raised:
        read(data)
    return raised.value.message


# TIFF


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", ["rgb", "tiles", "white is zero", "eight bits"])
def test_a_tiff_of_any_byte_order_is_read(big: bool, order: str, compression: str | None, kind: str) -> None:
    codes = {"white is zero": DEEP[..., 0], "eight bits": SMOOTH}.get(kind, DEEP)
    options = {"photometric": "miniswhite" if kind == "white is zero" else "rgb"}
    options |= {"tile": (16, 16)} if kind == "tiles" else {}
    picture = read(tiff(codes, bigtiff=big, byteorder=order, compression=compression, **options))
    wanted = 65535 - DEEP[..., :1].repeat(3, axis=2) if kind == "white is zero" else DEEP
    assert picture.bits == (8 if kind == "eight bits" else 16)
    assert np.abs(picture.pixels - wanted / np.float32(65535)).max() < 1e-6


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_a_tiff_of_signed_numbers_is_refused_for_what_it_is(dtype: type) -> None:
    assert "signed" in refusal(tiff(SMOOTH[..., 0].astype(dtype), photometric="minisblack"))


@pytest.mark.parametrize(
    ("kinds", "lost", "transparent"),
    [(["unspecified", "unassalpha"], 2, False), (["unassalpha", "unspecified"], 1, True)],
)
def test_further_samples_in_any_order_are_told_of(kinds: list[str], lost: int, transparent: bool) -> None:
    picture = read(tiff(np.dstack([SMOOTH, SMOOTH[..., :2]]), photometric="rgb", extrasamples=kinds))
    assert any(note.startswith(f"{lost} further channel") for note in picture.notes)
    assert (picture.alpha is not None) == transparent
    assert np.abs(picture.pixels * 255 - SMOOTH).max() < 0.01


def test_more_samples_than_can_be_told_are_no_damage() -> None:
    told = refusal(tiff(np.dstack([DEEP, DEEP]), photometric="rgb", extrasamples=["unspecified"] * 3))
    assert "unusual layout" in told


def test_primaries_of_a_tiff_are_honored() -> None:
    stated = [(318, 5, 2, (3127, 10000, 3290, 10000), True)]
    stated += [(319, 5, 6, tuple(n for xy in make.P3 for value in xy for n in (round(value * 1000), 1000)), True)]
    plain, wide = read(tiff(SMOOTH, photometric="rgb")), read(tiff(SMOOTH, photometric="rgb", extratags=stated))
    assert plain.icc is None
    assert wide.icc is not None
    again = read(encode(wide, "jpg"))
    assert np.abs(again.pixels.mean((0, 1)) - wide.pixels.mean((0, 1))).max() < 1 / 255
    assert np.abs(wide.pixels.mean((0, 1)) - plain.pixels.mean((0, 1))).max() > 2 / 255


# Adobe RGB as cameras state it


def adobe_exif(space: int, index: bytes) -> bytes:
    sub = {0xA001: (3, 1, struct.pack("<H", space)), 0xA005: {1: (2, 4, index)}}
    return exif_room.block_of("<", {0x010F: (2, 5, b"ACME\0"), 0x8769: sub})


@pytest.mark.parametrize(("space", "index", "adobe"), [(0xFFFF, b"R03\0", True), (2, b"", True), (1, b"R98\0", False)])
@pytest.mark.parametrize("target", ["png", "bmp"])
def test_adobe_rgb_of_a_camera_is_honored(space: int, index: bytes, adobe: bool, target: str) -> None:
    exif = b"Exif\0\0" + adobe_exif(space, index)
    picture = read(make.saved(SMOOTH, "JPEG", quality=95, subsampling=0, exif=exif))
    profile = make.rgb_profile(make.ADOBE, make.gamma_curve(563 / 256))
    with_profile = read(make.saved(SMOOTH, "JPEG", quality=95, subsampling=0, icc_profile=profile))
    assert (picture.icc is not None) == adobe
    assert (np.abs(picture.pixels - with_profile.pixels).max() < 1 / 255) == adobe
    again = read(encode(picture, target))
    assert np.abs(again.pixels.mean((0, 1)) - picture.pixels.mean((0, 1))).max() < 1 / 255


def test_a_profile_goes_before_what_exif_says() -> None:
    exif = b"Exif\0\0" + adobe_exif(2, b"R03\0")
    assert read(make.saved(SMOOTH, "JPEG", exif=exif, icc_profile=make.rgb_profile())).icc == make.rgb_profile()
    stated = make.chunk(b"sRGB", b"\0") + make.chunk(b"eXIf", adobe_exif(2, b"R03\0"))
    assert read(make.png(SMOOTH, extra=stated)).icc is None


# Black and white


def test_black_and_white_in_a_lossy_webp_gets_no_tint() -> None:
    noisy = np.clip(SMOOTH[..., :1] + np.random.default_rng(0).integers(-30, 30, (48, 64, 1)), 0, 255).astype(np.uint8)
    data = make.saved(noisy.repeat(3, axis=2), "WEBP", quality=60)
    with Image.open(BytesIO(data)) as im:
        assert np.ptp(np.asarray(im.convert("RGB")).astype(int), axis=2).max() == 1  # what libwebp makes of it
    assert read(data).neutral
    assert not read(make.saved(SMOOTH, "WEBP", quality=60)).neutral
    tinted = np.dstack([SMOOTH[..., 0], SMOOTH[..., 0], np.minimum(SMOOTH[..., 0] + 1, 255)])
    assert not read(make.saved(tinted, "WEBP", lossless=True)).neutral


# BMP


def run_length_bmp(kind: int, body: bytes, height: int = 3) -> bytes:
    colors = b"".join(bytes([i * 10 % 256, i * 5 % 256, i, 0]) for i in range(16))
    head = struct.pack("<IiiHHIIiiII", 40, 6, height, 1, 8 if kind == 1 else 4, kind, len(body), 0, 0, 16, 0)
    at = 14 + len(head) + len(colors)
    return struct.pack("<2sIHHI", b"BM", at + len(body), 0, 0, at) + head + colors + body


@pytest.mark.parametrize(
    ("kind", "body", "rows"),
    [
        (1, b"\6\1\0\0\6\2\0\0\6\3\0\1", [[3] * 6, [2] * 6, [1] * 6]),
        (1, b"\2\5\0\2\1\1\2\7\0\1", [[0] * 6, [0, 0, 0, 7, 7, 0], [5, 5, 0, 0, 0, 0]]),  # moves on, and ends early
        (1, b"\0\3\1\2\3\0\3\4\0\0\6\5\0\0\6\6\0\0", [[6] * 6, [5] * 6, [1, 2, 3, 4, 4, 4]]),  # runs as they are
        (2, b"\5\x12\0\0\0\6\x34\x56\x78\0\0\0\6\x99\0\1", [[9] * 6, [3, 4, 5, 6, 7, 8], [1, 2, 1, 2, 1, 0]]),
    ],
)
def test_a_run_length_encoded_bmp_is_read(kind: int, body: bytes, rows: list[list[int]]) -> None:
    codes = (read(run_length_bmp(kind, body)).pixels * 255).round().astype(int)
    index = np.array(rows)
    assert np.array_equal(codes, np.dstack([index, index * 5, index * 10]))


def test_a_run_length_encoded_bmp_that_is_cut_is_damaged() -> None:
    assert "ends early" in refusal(run_length_bmp(1, b"\6\1"))
    assert "ends early" in refusal(run_length_bmp(1, b"\6\1\0\2\1"))


# PNG


def test_a_png_of_an_iphone_app_is_no_damage() -> None:
    data = make.png(SMOOTH)
    assert "CgBI" in refusal(data[:8] + make.chunk(b"CgBI", b"P\0 \2") + data[8:])


@pytest.mark.parametrize("body", [b"\0\0", bytes(7)])
def test_a_transparency_that_does_not_fit_is_dropped_and_told_of(body: bytes) -> None:
    picture = read(make.png(SMOOTH, extra=make.chunk(b"tRNS", body)))
    assert picture.alpha is None
    assert any("transparency" in note for note in picture.notes)
    assert not read(make.png(SMOOTH, extra=make.chunk(b"tRNS", bytes(6)))).notes


# JPEG


def with_segment(marker: int, body: bytes) -> bytes:
    data = make.saved(SMOOTH, "JPEG")
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + data[2:]


@pytest.mark.parametrize(
    ("marker", "body", "told"),
    [
        (0xE2, b"ICC_PROFILE\0\2\3" + bytes(500), "colour profile is damaged"),
        (0xEB, b"JP\0\1\0\0\0\1\0\0\0\x20jumb" + bytes(24), "content credentials"),
    ],
)
def test_what_is_dropped_of_a_jpeg_is_told(marker: int, body: bytes, told: str) -> None:
    picture = read(with_segment(marker, body))
    assert any(told in note for note in picture.notes)


def test_a_jpeg_whose_height_follows_is_no_damage() -> None:
    data = make.saved(SMOOTH, "JPEG")
    at = data.index(b"\xff\xc0")
    assert "DNL" in refusal(data[: at + 5] + b"\0\0" + data[at + 7 :])


# What a format cannot carry


def test_what_another_format_cannot_keep_is_told() -> None:
    iptc = b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\x08\x1c\2\x78\0\3abc"
    jpeg = with_segment(0xED, iptc)
    text = make.chunk(b"tEXt", b"Title\0a pond")
    sources = {
        "iptc": read(jpeg), "exif": read(make.saved(SMOOTH, "JPEG", exif=b"Exif\0\0" + make.exif_block())),
        "text": read(make.png(SMOOTH, extra=text)), "alpha": read(make.png(np.dstack([SMOOTH, SMOOTH[..., 0]]))),
        "deep": read(make.png(DEEP)), "comment": read(make.saved(SMOOTH, "JPEG", comment=b"hello")),
    }  # fmt: skip
    wanted = {
        ("iptc", "png"): "IPTC", ("iptc", "jpg"): "", ("exif", "bmp"): "EXIF", ("exif", "webp"): "",
        ("text", "jpg"): "text", ("text", "png"): "", ("alpha", "jpg"): "transparency", ("alpha", "webp"): "",
        ("deep", "jpg"): "16 bits", ("deep", "tiff"): "", ("comment", "png"): "comment", ("comment", "jpg"): "",
    }  # fmt: skip
    for (source, target), told in wanted.items():
        notes: list[str] = []
        encode(sources[source], target, notes=notes)
        assert (told in " ".join(notes)) if told else not notes, (source, target, notes)
        stripped: list[str] = []
        encode(sources[source], target, strip=True, notes=stripped)
        assert source in ("alpha", "deep") or not stripped


# What is no picture


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\xff\x0a" + bytes(50), "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"<?xml version='1.0'?><svg>", "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        (bytes(5000), "zeros"),
        (b"hello", "known kind"),
        (b"P6\n1 1\n65535\n" + bytes(6), "Netpbm"),
        (b"PF\n1 1\n-1.0\n" + bytes(12), "Netpbm"),
        (b"BM" + bytes(12) + b"\x10\0\0\0" + bytes(200), "BMP of a kind"),
    ],
)
def test_what_is_no_picture_is_called_by_its_name(data: bytes, told: str) -> None:
    assert told in refusal(data)
