"""Sound files of rarer kinds, and what other programs put into common ones: read as meant, or told of."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import picture_samples as make
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from irtool.errors import PictureError
from irtool.picture import Picture, encode, read

SMOOTH = np.asarray(Image.fromarray(make.noise(5, 7, 3)).resize((48, 32), Image.Resampling.BICUBIC))


def codes_of(picture: Picture) -> np.ndarray:
    return np.rint(picture.pixels * 255).astype(np.uint8)


def close(a: np.ndarray, b: np.ndarray, within: float) -> bool:
    return bool(np.abs(a.astype(float) - b.astype(float)).max() <= within)


def bigtiff(codes: np.ndarray, **options: object) -> bytes:
    out = BytesIO()
    options = {"bigtiff": True, "metadata": None, "software": False} | options
    tifffile.imwrite(out, codes, **options)  # type: ignore[arg-type]
    return out.getvalue()


def refusal(data: bytes) -> str:
    with pytest.raises(PictureError) as caught:
        read(data, name="odd")
    return caught.value.message


# BigTIFF


def test_bigtiff_keeps_sixteen_bits_and_metadata() -> None:
    codes = make.noise(32, 48, 3, np.uint16)
    data = bigtiff(codes, photometric="rgb", description="scan of a pond", extratags=[(271, 2, 0, "ACME", True)])
    assert data[:4] == b"II+\0"
    picture = read(data)
    assert picture.bits == 16
    assert (np.rint(picture.pixels * 65535) == codes).all()
    with Image.open(BytesIO(encode(picture))) as im:
        assert im.tag_v2[270] == "scan of a pond"
        assert im.tag_v2[271] == "ACME"
    with tifffile.TiffFile(BytesIO(encode(picture))) as file:
        assert (file.asarray() == codes).all()


def test_bigtiff_white_is_zero_and_orientation() -> None:
    codes = make.noise(32, 48, 1, np.uint16)
    negative = bigtiff(65535 - codes, photometric="miniswhite", extratags=[(274, 3, 1, 6, True)])
    picture = read(negative)
    assert picture.gray
    assert (np.rint(picture.pixels[..., 0] * 65535) == np.rot90(codes, -1)).all()
    again = read(encode(picture))
    assert again.pixels.shape == (48, 32, 3)


@pytest.mark.parametrize(("dtype", "subfile"), [("float32", 0), ("uint8", 1)])
def test_bigtiff_is_refused_where_a_classic_one_is(dtype: str, subfile: int) -> None:
    codes = np.zeros((8, 8, 3), dtype)
    told = refusal(bigtiff(codes, photometric="rgb", subfiletype=subfile))
    assert ("floating-point" if dtype == "float32" else "raw") in told


# Other TIFFs


@pytest.mark.parametrize("bigger", [False, True])
def test_a_thumbnail_before_the_picture_is_passed_over(bigger: bool) -> None:
    out = BytesIO()
    with tifffile.TiffWriter(out, bigtiff=bigger) as file:
        file.write(SMOOTH[::4, ::4], photometric="rgb", subfiletype=1, metadata=None)
        file.write(SMOOTH, photometric="rgb", metadata=None)
        file.write(SMOOTH[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    assert (codes_of(read(out.getvalue())) == SMOOTH).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_infrared_channel_is_told_of(dtype: type) -> None:
    out = BytesIO()
    four = make.noise(32, 48, 4, dtype)
    tifffile.imwrite(out, four, photometric="rgb", extrasamples=[0], metadata=None)
    picture = read(out.getvalue())
    assert (np.rint(picture.pixels * np.iinfo(dtype).max) == four[..., :3]).all()
    assert "1 further channel" in picture.notes[0]


def test_an_unspecified_second_channel_is_no_transparency() -> None:
    out = BytesIO()
    two = make.noise(32, 48, 2, np.uint16)
    tifffile.imwrite(out, two, photometric="minisblack", extrasamples=[0], planarconfig=1, metadata=None)
    picture = read(out.getvalue())
    assert picture.alpha is None
    assert "further channel" in picture.notes[0]
    assert (np.rint(picture.pixels[..., 0] * 65535) == two[..., 0]).all()


@pytest.mark.parametrize("kind", [1, 3, 4, 8, 9])
def test_an_orientation_of_any_integer_type_is_applied_once(kind: int) -> None:
    out = BytesIO()
    tifffile.imwrite(out, SMOOTH, photometric="rgb", metadata=None, extratags=[(274, kind, 1, 6, True)])
    picture = read(out.getvalue())
    assert (codes_of(picture) == np.rot90(SMOOTH, -1)).all()
    again = read(encode(picture))
    assert (codes_of(again) == codes_of(picture)).all()
    with Image.open(BytesIO(encode(picture))) as im:
        im.load()
        assert im.size == (32, 48)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_an_orientation_in_xmp_alone_turns_nothing_now_or_later(format: str) -> None:
    xmp = make.XMP % 6
    if format == "TIFF":
        out = BytesIO()
        tag = (700, 1, len(xmp), xmp, True)
        tifffile.imwrite(out, SMOOTH, photometric="rgb", metadata=None, extratags=[tag])
        data = out.getvalue()
    elif format == "PNG":
        data = make.png(SMOOTH, extra=make.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    else:
        data = make.saved(SMOOTH, "JPEG", xmp=xmp, quality=95)
    picture = read(data)
    assert picture.pixels.shape == SMOOTH.shape
    for target in ("tiff", "jpg", "png"):
        result = encode(picture, target)
        assert read(result).pixels.shape == SMOOTH.shape
        with Image.open(BytesIO(result)) as im:
            im.load()
            assert im.size == (48, 32)


# Colour stated without a profile


def as_srgb(codes: np.ndarray, profile: bytes) -> np.ndarray:
    """What LittleCMS makes of it."""
    rgb = ImageCms.profileToProfile(
        Image.fromarray(codes),
        ImageCms.ImageCmsProfile(BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    return np.asarray(rgb)


def shown(data: bytes) -> np.ndarray:
    """A file as a viewer that honours profiles shows it."""
    with Image.open(BytesIO(data)) as im:
        codes = np.asarray(im.convert("RGB"))
        icc = im.info.get("icc_profile")
    return codes if icc is None else as_srgb(codes, icc)


MUTED = (80 + SMOOTH // 4).astype(np.uint8)  # inside of sRGB, also when meant as Display P3
CICP_P3 = make.chunk(b"cICP", bytes([12, 13, 0, 1]))


@pytest.mark.parametrize("format", ["jpg", "webp", "avif", "tiff", "bmp", "png"])
def test_code_points_of_png_are_honoured(format: str) -> None:
    meant = as_srgb(MUTED, make.rgb_profile(make.P3))
    picture = read(make.png(MUTED, extra=CICP_P3))
    assert close(codes_of(picture), meant, 1)
    data = encode(picture, format, quality=100 if format in ("jpg", "webp", "avif") else None)
    if format == "png":
        assert CICP_P3 in data
        assert (np.asarray(Image.open(BytesIO(data))) == MUTED).all()
    else:
        assert np.abs(shown(data).astype(float) - meant).mean() < (2 if format in ("jpg", "webp") else 1)


def test_code_points_of_avif_are_honoured_and_kept() -> None:
    data = make.saved(MUTED, "AVIF", quality=100, subsampling="4:4:4")
    assert data.count(b"colrnclx\0\x01\0\x0d") == 1
    labelled = data.replace(b"colrnclx\0\x01\0\x0d", b"colrnclx\0\x0c\0\x0d")
    plain, picture = read(data), read(labelled)
    assert plain.icc is None
    assert close(codes_of(picture), as_srgb(codes_of(plain), make.rgb_profile(make.P3)), 1)
    out = encode(picture, quality=100)
    assert b"colrnclx\0\x0c\0\x0d" in out
    assert np.abs(codes_of(read(out)).astype(float) - codes_of(picture)).mean() < 1
    assert close(shown(encode(picture, "png")), MUTED, 3)  # Pillow does not know cICP: the numbers as they were
    assert b"cICP\x0c\x0d\0\x01" in encode(picture, "png")


def test_hdr_code_points_are_told_of_and_kept() -> None:
    picture = read(make.png(SMOOTH, extra=make.chunk(b"cICP", bytes([9, 16, 0, 1]))))
    assert "not converted" in picture.notes[0]
    assert (codes_of(picture) == SMOOTH).all()
    assert b"cICP\x09\x10\0\x01" in encode(picture)
    assert b"colrnclx\0\x09\0\x10" in encode(picture, "avif")


def test_gamma_of_png_is_honoured() -> None:
    linear = make.png(SMOOTH, extra=make.chunk(b"gAMA", struct.pack(">I", 100000)))
    light = SMOOTH / 255
    meant = np.rint(255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))
    picture = read(linear)
    assert close(codes_of(picture), meant, 1)
    out = encode(picture, "jpg", quality=100)
    with Image.open(BytesIO(out)) as im:
        assert "icc_profile" not in im.info
        assert np.abs(np.asarray(im).astype(float) - meant).mean() < 2
    back = encode(picture)
    assert b"iCCP" not in back
    assert (np.asarray(Image.open(BytesIO(back))) == SMOOTH).all()
    gray = read(make.png(SMOOTH[..., :1], extra=make.chunk(b"gAMA", struct.pack(">I", 100000))))
    assert gray.gray
    assert close(codes_of(gray)[..., :1], meant[..., :1], 1)


def test_chromaticities_of_png_are_honoured() -> None:
    points = [0.3127, 0.3290, *(value for pair in make.ADOBE for value in pair)]
    extra = make.chunk(b"cHRM", struct.pack(">8I", *(round(value * 100000) for value in points)))
    extra += make.chunk(b"gAMA", struct.pack(">I", 45455))
    meant = as_srgb(MUTED, make.rgb_profile(make.ADOBE, make.gamma_curve(2.2)))
    picture = read(make.png(MUTED, extra=extra))
    assert close(codes_of(picture), meant, 1)
    assert np.abs(shown(encode(picture, "jpg", quality=100)).astype(float) - meant).mean() < 1.5


USUAL_GAMMA = make.chunk(b"gAMA", struct.pack(">I", 45455))


@pytest.mark.parametrize(
    "extra", [USUAL_GAMMA, make.chunk(b"sRGB", b"\0") + make.chunk(b"gAMA", struct.pack(">I", 100000))]
)
def test_srgb_goes_before_gamma(extra: bytes) -> None:
    assert (codes_of(read(make.png(SMOOTH, extra=extra))) == SMOOTH).all()


def test_of_two_gammas_the_first_counts_and_a_narrow_range_is_told_of() -> None:
    picture = read(make.png(SMOOTH, extra=USUAL_GAMMA + make.chunk(b"gAMA", struct.pack(">I", 100000))))
    assert (codes_of(picture) == SMOOTH).all() and encode(picture).count(b"gAMA") == 1
    narrow = read(make.png(SMOOTH, extra=make.chunk(b"cICP", bytes([1, 13, 0, 0]))))
    assert "narrow range" in " ".join(narrow.notes)


def bmp(header: bytes, codes: np.ndarray, behind: bytes = b"") -> bytes:
    rows = np.ascontiguousarray(codes[::-1, :, ::-1]).tobytes()
    start = 14 + len(header)
    return struct.pack("<2sIHHI", b"BM", start + len(rows) + len(behind), 0, 0, start) + header + rows + behind


def bmp_header(size: int, space: bytes, depth: int = 24, kind: int = 0, masks: tuple[int, ...] = (0,) * 4) -> bytes:
    head = struct.pack("<IiiHHIIiiII", size, 48, 32, 1, depth, kind, 0, 0, 0, 0, 0) + struct.pack("<4I", *masks) + space
    return head.ljust(size, b"\0")


def test_profile_in_a_bmp_is_honoured() -> None:
    icc = make.rgb_profile(make.ADOBE, make.gamma_curve(2.2))
    header = bmp_header(124, b"DEBM")[:112] + struct.pack("<II", 124 + SMOOTH.size, len(icc)) + bytes(4)
    picture = read(bmp(header, MUTED, icc))
    assert picture.icc == icc
    assert close(codes_of(picture), as_srgb(MUTED, icc), 1)


def test_end_points_in_a_bmp_are_honoured() -> None:
    white = np.array([0.9505, 1, 1.089])
    points = np.array([[x / y, 1, (1 - x - y) / y] for x, y in make.P3])
    ends = points * np.linalg.solve(points.T, white)[:, None]
    calibrated = (
        bytes(4) + struct.pack("<9i", *np.rint(ends.ravel() * 2**30).astype(int)) + struct.pack("<3I", *[144179] * 3)
    )
    picture = read(bmp(bmp_header(108, calibrated), MUTED))
    assert close(codes_of(picture), as_srgb(MUTED, make.rgb_profile(make.P3, make.gamma_curve(2.2))), 1)
    assert (codes_of(read(bmp(bmp_header(108, bytes(4)), MUTED))) == MUTED).all()  # a header of zeros states nothing


def test_colors_of_a_profile_become_srgb_in_bmp() -> None:
    icc = make.rgb_profile(make.ADOBE, make.gamma_curve(2.2))
    picture = read(make.saved(MUTED, "PNG", icc_profile=icc))
    with Image.open(BytesIO(encode(picture, "bmp"))) as im:
        assert close(np.asarray(im), as_srgb(MUTED, icc), 1)


# BMP bit fields


@pytest.mark.parametrize(
    ("masks", "depth", "bits"),
    [
        ((0xFF000000, 0x00FF0000, 0x0000FF00), 32, 8),
        ((0x000003FF, 0x000FFC00, 0x3FF00000), 32, 16),
        ((0x0F00, 0x00F0, 0x000F), 16, 8),
        ((0x0000FF00, 0x00FF0000, 0xFF000000, 0x000000FF), 32, 8),
    ],
)
def test_bit_fields_of_any_layout_are_read(masks: tuple[int, ...], depth: int, bits: int) -> None:
    size = 56 if len(masks) == 4 else 52
    widths = [bin(mask).count("1") for mask in masks]
    rng = np.random.default_rng(0)
    values = np.stack([rng.integers(0, 1 << width, (32, 48)) for width in widths], -1).astype(np.uint64)
    packed = sum(values[..., i] << np.uint64((mask & -mask).bit_length() - 1) for i, mask in enumerate(masks))
    rows = packed[::-1].astype(f"<u{depth // 8}").tobytes()
    header = struct.pack("<IiiHHIIiiII", size, 48, 32, 1, depth, 3, 0, 0, 0, 0, 0)
    header = (header + struct.pack(f"<{len(masks)}I", *masks)).ljust(size, b"\0")
    start = 14 + len(header)
    picture = read(struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start) + header + rows)
    tops = np.array([(1 << width) - 1 for width in widths])
    assert picture.bits == bits
    assert np.abs(picture.pixels - values[..., :3] / tops[:3]).max() < 1 / 255
    if len(masks) == 4:
        assert picture.alpha is not None
        assert np.abs(picture.alpha - values[..., 3] / 255).max() < 1e-6


def test_other_kinds_of_bmp_are_refused_for_what_they_are() -> None:
    told = refusal(bmp(bmp_header(108, b"BGRs", depth=64), np.repeat(SMOOTH, 3, axis=2)))
    assert "of a kind that irtool does not read" in told
    assert "damaged" not in told


# Black and white


@pytest.mark.parametrize("icc", [None, make.rgb_profile(make.P3)])
@pytest.mark.parametrize("target", ["png", "tiff", "webp", "bmp"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_black_and_white_in_three_channels_gets_no_tint(dtype: type, target: str, icc: bytes | None) -> None:
    codes = np.repeat(make.noise(32, 48, 1, dtype)[..., None], 3, axis=2)
    extra = b"" if icc is None else make.chunk(b"iCCP", b"x\0\0" + zlib.compress(icc))
    picture = read(make.png(codes, extra=extra))
    assert picture.neutral
    assert not picture.gray
    tinted = picture.pixels + np.float32([0.03, 0, -0.02]) + np.random.default_rng(1).normal(0, 0.05, codes.shape)
    result = read(encode(picture.with_pixels(np.clip(tinted, 0, 1).astype(np.float32)), target, quality=None))
    codes = np.rint(result.pixels * (255 if result.bits == 8 else 65535))
    if target == "webp":  # lossy: its own planes
        assert np.ptp(codes, axis=2).max() <= 4
    else:
        assert (np.ptp(codes, axis=2) == 0).all()


def test_one_colored_pixel_makes_a_colored_picture() -> None:
    codes = np.repeat(make.noise(32, 48, 1)[..., None], 3, axis=2)
    codes[31, 47, 2] ^= 1
    picture = read(make.png(codes))
    assert not picture.neutral
    assert (np.asarray(Image.open(BytesIO(encode(picture)))) == codes).all()


# PNG


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt"])
@pytest.mark.parametrize("name", [b"exif", b"APP1"])
def test_exif_in_a_raw_profile_is_found(kind: bytes, name: bytes) -> None:
    block = b"Exif\0\0" + make.exif_block(6, thumbnail=False)
    text = b"\n%s\n%8d\n%s\n" % (name, len(block), block.hex().encode())
    body = b"Raw profile type " + name + b"\0" + (b"\0" + zlib.compress(text) if kind == b"zTXt" else text)
    picture = read(make.png(SMOOTH, extra=make.chunk(kind, body)))
    assert (codes_of(picture) == np.rot90(SMOOTH, -1)).all()
    for format in ("png", "jpg"):
        with Image.open(BytesIO(encode(picture, format))) as im:
            assert im.getexif()[ExifTags.Base.Make] == "Irtool Camera"
            assert im.getexif()[ExifTags.Base.Orientation] == 1
            assert im.size == (32, 48)
    assert b"Raw profile" not in encode(picture)


def test_a_png_without_its_end_marker_is_read_and_told_of() -> None:
    data = make.png(SMOOTH)
    for end in (len(data) - 12, len(data) - 5, len(data) - 1):
        picture = read(data[:end])
        assert (codes_of(picture) == SMOOTH).all()
        assert "end marker" in picture.notes[0]
    for end in (len(data) - 14, len(data) - 100):
        assert "damaged or incomplete" in refusal(data[:end])


def test_a_png_that_lacks_pixels_but_not_its_end_marker_is_damaged() -> None:
    raw = zlib.compress(bytes(make.noise(1, 32 * 145, 1)))
    header = make.chunk(b"IHDR", struct.pack(">IIBBBBB", 48, 32, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + make.chunk(b"IDAT", raw[: len(raw) // 2]) + make.chunk(b"IEND", b"")
    assert "damaged or incomplete" in refusal(data)


def test_a_second_header_is_refused() -> None:
    big = make.chunk(b"IHDR", struct.pack(">IIBBBBB", 40000, 40000, 1, 0, 0, 0, 0))
    assert "two headers" in refusal(make.png(SMOOTH, extra=big))


@pytest.mark.parametrize(
    "bad",
    [
        make.chunk(b"gAMA", b"\0\0\xb1"),
        make.chunk(b"cHRM", bytes(31)),
        make.chunk(b"sRGB", b""),
        make.chunk(b"zTXt", b"Comment\0\0not deflated"),
        make.chunk(b"zTXt", b"Comment"),
        make.chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(9 << 20))),
        make.chunk(b"iTXt", b"Comment\0\1\0en\0"),
    ],
)
def test_damaged_chunks_do_not_go_into_the_result(bad: bytes) -> None:
    picture = read(make.png(SMOOTH, extra=bad))
    assert "text or colour chunks were dropped" in picture.notes[0]
    with Image.open(BytesIO(encode(picture))) as im:
        im.load()
        assert (np.asarray(im) == SMOOTH).all()


# JPEG
