"""Colour profiles: to sRGB for the network, back to the profile on write, nothing lost on the way."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import picture_samples as make
import pytest
from PIL import Image, ImageCms

from irtool.errors import PictureError
from irtool.picture import Picture, encode, read
from irtool.picture.color import profile_of, srgb_decode, srgb_encode

LINES = np.linspace(0, 1, 1024)
CURVES = {
    "srgb": make.SRGB_CURVE,
    "gamma": make.gamma_curve(2.2),
    "table": make.table_curve(srgb_decode(LINES)),
    "linear": b"curv" + bytes(8),
}


def with_profile(codes: np.ndarray, icc: bytes) -> bytes:
    import zlib

    return make.png(codes, filters=(1,), extra=make.chunk(b"iCCP", b"p\0\0" + zlib.compress(icc)))


def cms(codes: np.ndarray, icc: bytes) -> np.ndarray:
    """The same conversion by LittleCMS."""
    source = ImageCms.ImageCmsProfile(BytesIO(icc))
    mode = "L" if codes.ndim == 2 else "RGB"
    image = Image.frombytes(mode, (codes.shape[1], codes.shape[0]), codes.tobytes())
    flags = ImageCms.Flags.HIGHRESPRECALC
    out = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), 1, "RGB", flags=flags)
    return np.asarray(out)


@pytest.mark.parametrize("primaries", [make.P3, make.ADOBE], ids=["p3", "adobe"])
@pytest.mark.parametrize("curve", CURVES)
def test_conversion_agrees_with_littlecms(curve: str, primaries: tuple) -> None:
    icc = make.rgb_profile(primaries, CURVES[curve])
    codes = make.noise(16, 16, 3)
    picture = read(with_profile(codes, icc))
    assert picture.icc == icc
    difference = np.abs(picture.pixels * 255 - cms(codes, icc))
    assert difference.max() < 3
    assert np.median(difference) < 0.6


@pytest.mark.parametrize("primaries", [make.P3, make.ADOBE], ids=["p3", "adobe"])
@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_wide_gamut_comes_back_exactly(format: str, curve: str, primaries: tuple) -> None:
    codes = make.noise(16, 16, 3)
    codes[0, :6] = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0], [255, 255, 255], [1, 2, 3]]
    icc = make.rgb_profile(primaries, CURVES[curve])
    picture = read(with_profile(codes, icc))
    assert picture.out_of_gamut is not None
    assert picture.pixels.min() >= 0
    assert picture.pixels.max() <= 1
    if format == "WEBP":
        picture = read(make.saved(codes, "WEBP", lossless=True, exact=True, icc_profile=icc))
    data = encode(picture, format)
    with Image.open(BytesIO(data)) as im:
        assert im.info["icc_profile"] == icc
        assert (np.asarray(im) == codes).all()


def test_deep_wide_gamut_comes_back() -> None:
    codes = make.noise(32, 32, 3, np.uint16)
    codes[0, :3] = [[65535, 0, 0], [1, 0, 0], [65535, 65535, 65535]]
    for primaries, curve, worst in ((make.P3, "srgb", 0), (make.ADOBE, "gamma", 64)):
        icc = make.rgb_profile(primaries, CURVES[curve])
        plain = read(encode(read(with_profile(codes, icc))))
        assert plain.icc == icc
        device = read(encode(read(with_profile(codes, icc)), "png"))
        assert device.bits == 16
        bare = _device_codes(encode(read(with_profile(codes, icc))))
        off = np.abs(bare.astype(int) - codes)
        # A pure power has an infinite slope at 0, where float32 pixels leave a few 16-bit steps open.
        assert off.max() <= worst
        assert (off == 0).mean() > 0.98


def _device_codes(data: bytes) -> np.ndarray:
    """16-bit codes of a PNG without regard to its profile."""
    start = data.index(b"iCCP") - 4
    length = int.from_bytes(data[start : start + 4], "big")
    return np.rint(read(data[:start] + data[start + 12 + length :]).pixels * 65535)


def test_edits_are_made_in_srgb_and_land_in_the_profile() -> None:
    icc = make.rgb_profile()
    codes = np.full((4, 4, 3), 100, np.uint8)
    codes[..., 0] = 200
    picture = read(with_profile(codes, icc))
    gray = picture.with_pixels(np.full((4, 4, 3), 128 / 255, np.float32))
    out = np.asarray(Image.open(BytesIO(encode(gray))))
    assert np.ptp(out) == 0  # a neutral stays a neutral
    assert out[0, 0, 0] == 128
    assert picture.pixels[0, 0, 0] > 200 / 255 + 0.02  # a P3 red is stronger in sRGB numbers


def test_neutrals_stay_neutral() -> None:
    ramp = np.repeat(np.arange(0, 65536, 257, dtype=np.uint16)[None, :, None], 3, axis=2)
    profile = profile_of(make.rgb_profile(make.P3))
    assert profile is not None
    assert np.ptp(profile.to_srgb(ramp), axis=2).max() < 1e-6


def test_srgb_profiles_change_nothing() -> None:
    codes = make.noise(8, 8, 3)
    for icc in (make.rgb_profile(make.SRGB), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()):
        profile = profile_of(icc)
        assert profile is not None
        assert profile.plain
        picture = read(with_profile(codes, icc))
        assert picture.out_of_gamut is None
        assert (np.rint(picture.pixels * 255) == codes).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("curve", ["gamma", "linear", "table"])
def test_gray_profiles(curve: str, dtype: type) -> None:
    icc = make.grey_profile(CURVES[curve])
    codes = make.noise(9, 9, 1, dtype)
    picture = read(with_profile(codes, icc))
    assert picture.gray
    if curve == "linear":
        assert np.abs(picture.pixels[..., 0] - srgb_encode(codes / np.iinfo(dtype).max)).max() < 1e-6
    elif dtype is np.uint8:
        assert np.abs(picture.pixels * 255 - cms(codes, icc)).max() < 2
    data = encode(picture)
    assert read(data).icc == icc
    assert (np.asarray(Image.open(BytesIO(data))) == codes).all()
    # A grey profile cannot describe colour pixels: sRGB without one then.
    color = encode(picture, "webp")
    with Image.open(BytesIO(color)) as im:
        assert "icc_profile" not in im.info
        assert np.abs(np.asarray(im) / 255 - picture.pixels).max() < 0.05


def test_gray_picture_with_a_color_profile() -> None:
    icc = make.rgb_profile(make.ADOBE, CURVES["linear"])
    codes = make.noise(9, 9, 1)
    data = encode(read(with_profile(codes, icc)))
    with Image.open(BytesIO(data)) as im:
        assert im.mode == "L"
        assert im.info["icc_profile"] == icc
        assert (np.asarray(im) == codes).all()


@pytest.mark.parametrize("icc", [b"junk" * 50, b"\0", make.rgb_profile()[:150]])
def test_profiles_not_handled_leave_pixels_alone_and_say_so(icc: bytes) -> None:
    codes = make.noise(6, 6, 3)
    picture = read(with_profile(codes, icc))
    assert "profile" in picture.notes[0]
    assert (np.rint(picture.pixels * 255) == codes).all()
    assert (np.rint(read(encode(picture)).pixels * 255) == codes).all()


def test_profiles_of_lookup_tables_are_converted_to_srgb() -> None:
    from PIL import ImageCms

    codes, icc = make.noise(6, 6, 3), make.lut_profile(b"RGB ", 3)
    picture = read(with_profile(codes, icc))
    assert picture.icc is None
    assert "lookup tables" in picture.notes[0]
    meant = ImageCms.profileToProfile(
        Image.fromarray(codes),
        ImageCms.ImageCmsProfile(BytesIO(icc)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert (np.rint(picture.pixels * 255) == np.asarray(meant)).all()
    deep = read(with_profile(make.noise(6, 6, 3, np.uint16), icc))  # LittleCMS has 8 bits here
    assert deep.icc == icc
    assert "treated as sRGB" in deep.notes[0]


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_with_and_without_profile(format: str) -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    with pytest.raises(PictureError, match="CMYK"):
        read(make.saved(cmyk, format))
    icc = make.lut_profile(b"CMYK", 4)
    picture = read(make.saved(cmyk, format, icc_profile=icc))
    assert picture.pixels.min() > 0.9  # no ink is paper white
    assert picture.icc is None
    assert "CMYK" in picture.notes[0]
    black = Image.new("CMYK", (16, 16), (255, 255, 255, 255))
    assert read(make.saved(black, format, icc_profile=icc)).pixels.max() < 0.1
    with pytest.raises(PictureError, match="CMYK"):
        read(make.saved(cmyk, format, icc_profile=b"junk" * 50))
    assert read(encode(picture)).pixels.shape == (16, 16, 3)


def test_transfer_functions() -> None:
    x = np.linspace(-2, 2, 4001)
    assert np.abs(srgb_encode(srgb_decode(x)) - x).max() < 1e-6
    assert srgb_decode(np.array(0.5)) == pytest.approx(0.21404114)
    assert srgb_encode(np.array(1.0)) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", range(5))
def test_parametric_curves_invert(kind: int) -> None:
    values = [
        (2.2,),
        (2.2, 1.1, -0.1),
        (2.2, 0.9, 0.0, 0.1),
        (2.4, 0.948, 0.052, 0.0774, 0.0404),
        (2.4, 0.9, 0.05, 0.08, 0.04, 0.02, 0.01),
    ]
    curve = b"para" + struct.pack(f">I2H{len(values[kind])}i", 0, kind, 0, *(round(v * 65536) for v in values[kind]))
    profile = profile_of(make.grey_profile(curve))
    assert profile is not None
    start = 30 if kind == 1 else 0  # type 1 is flat below -b / a, where nothing can be told apart
    codes = np.arange(start, 256, dtype=np.uint8)[None, :, None]
    assert (np.rint(profile.from_srgb(profile.to_srgb(codes)) * 255) == codes).all()


@pytest.mark.parametrize(
    "curve",
    [
        b"para" + struct.pack(">I2H3i", 0, 1, 0, 10 << 16, 30000 << 16, 0),
        b"para" + struct.pack(">I2H1i", 0, 0, 0, 0),
        b"para" + struct.pack(">I2H", 0, 9, 0),
        make.gamma_curve(0),
        make.table_curve(np.linspace(1, 0, 64)),
        make.table_curve(np.zeros(64)),
        make.table_curve(np.linspace(0, 1, 64))[:60],
        b"text" + bytes(20),
    ],
)
def test_senseless_curves_are_not_used(curve: bytes) -> None:
    assert profile_of(make.grey_profile(curve)) is None


def test_a_picture_made_by_hand_needs_no_profile() -> None:
    assert read(encode(Picture(np.full((3, 3, 3), 0.2, np.float32)))).icc is None
