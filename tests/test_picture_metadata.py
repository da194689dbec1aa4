"""What must survive beside the pixels: EXIF, XMP, ICC, resolution, comments, and the orientation."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import picture_samples as make
import pytest
import tifffile
from PIL import ExifTags, Image

from irtool.picture import encode, read, xmp
from irtool.picture.exif import block_of, parse, reset_orientation, with_dimensions

CARRIERS = ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"]
# A corner of each colour: an orientation applied wrongly or twice shows at once.
CORNERS = np.zeros((32, 48, 3), np.uint8)
CORNERS[:16, :24], CORNERS[:16, 24:], CORNERS[16:, :24] = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def stored(codes: np.ndarray, format: str, **meta: object) -> bytes:
    """A file made by Pillow that carries the metadata given."""
    options: dict = dict(meta)
    if format == "JPEG":
        options |= {"quality": 95, "subsampling": 0}
        if "exif" in options:
            options["exif"] = b"Exif\0\0" + options["exif"]
    if format in ("WEBP", "AVIF"):
        options.pop("dpi", None)
        options |= {"lossless": True} if format == "WEBP" else {"quality": 95, "subsampling": "4:4:4"}
    if format == "PNG" and "xmp" in options:
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", options.pop("xmp").decode())
        options["pnginfo"] = info
    if format == "TIFF" and "xmp" in options:
        image = Image.fromarray(codes)
        exif = Image.Exif()
        if "exif" in options:
            exif.load(options.pop("exif"))
        exif[700] = options.pop("xmp")
        return make.saved(image, "TIFF", exif=exif, **options)
    return make.saved(codes, format, **options)


def turned(codes: np.ndarray, orientation: int) -> np.ndarray:
    """Upright pixels as a camera would store them under an orientation tag: the inverse of Pillow's transposition."""
    method = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # a tag of 6 asks for a quarter turn clockwise on display
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = Image.fromarray(codes)
    return np.asarray(image.transpose(method[orientation]) if orientation > 1 else image)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", CARRIERS)
def test_orientation_is_applied_once_and_reset(format: str, orientation: int) -> None:
    xmp = make.XMP % orientation
    data = stored(turned(CORNERS, orientation), format, exif=make.exif_block(orientation), xmp=xmp)
    picture = read(data)
    assert picture.pixels.shape == CORNERS.shape
    inner = np.s_[4:-4:8, 4:-4:8]
    assert np.abs(picture.pixels[inner] * 255 - CORNERS[inner]).max() < 12
    again_data = encode(picture)
    again = read(again_data)
    assert np.abs(again.pixels[inner] * 255 - CORNERS[inner]).max() < 12
    with Image.open(BytesIO(again_data)) as im:
        assert im.getexif().get(ExifTags.Base.Orientation, 1) == 1
        assert im.getexif()[ExifTags.Base.Make] == "Irtool Camera"
        assert im.size == (48, 32)
    assert again.xmp == make.XMP % 1


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_orientation_of_deep_pictures(orientation: int) -> None:
    codes = make.noise(5, 9, 3, np.uint16)
    flips = {
        1: lambda a: a,
        3: lambda a: a[::-1, ::-1],
        6: lambda a: np.rot90(a),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    }
    flat = np.ascontiguousarray(flips[orientation](codes))
    exif = make.exif_block(orientation)
    tiff = BytesIO()
    tifffile.imwrite(tiff, flat, photometric="rgb", metadata=None, extratags=[(274, 3, 1, orientation, True)])
    for data in (make.png(flat, extra=make.chunk(b"eXIf", exif)), tiff.getvalue()):
        picture = read(data)
        assert (np.rint(picture.pixels * 65535) == codes).all()


@pytest.mark.parametrize("target", CARRIERS)
@pytest.mark.parametrize("source", CARRIERS)
def test_metadata_goes_from_any_format_to_any_other(source: str, target: str) -> None:
    icc = make.rgb_profile(make.SRGB)
    data = stored(CORNERS, source, exif=make.exif_block(1), xmp=make.XMP % 1, icc_profile=icc, dpi=(300, 150))
    out = encode(read(data), target)
    again = read(out)
    assert again.icc == icc
    assert again.xmp == make.XMP % 1
    if {source, target} <= {"JPEG", "PNG", "TIFF"}:
        assert again.dpi == pytest.approx((300, 150), rel=1e-3)
    with Image.open(BytesIO(out)) as im:
        exif = im.getexif()
        assert exif[ExifTags.Base.Make] == "Irtool Camera"
        assert exif.get_ifd(ExifTags.IFD.Exif)[0x927C] == b"maker\0note\1\2\3"
        assert exif.get_ifd(ExifTags.IFD.Exif)[0xA002] == 48
        assert exif.get_ifd(ExifTags.IFD.Exif)[0xA003] == 32


@pytest.mark.parametrize("format", CARRIERS)
def test_strip_leaves_only_the_profile(format: str) -> None:
    icc = make.rgb_profile()
    exif, xmp = make.exif_block(1), make.XMP % 1
    picture = read(stored(CORNERS, format, exif=exif, xmp=xmp, icc_profile=icc))
    assert picture.exif
    assert picture.xmp
    data = encode(picture, strip=True)
    assert b"Irtool" not in data
    assert b"xmpmeta" not in data
    again = read(data)
    assert (again.exif, again.xmp, again.icc) == (None, None, icc)


def test_exif_keeps_its_bytes_and_loses_its_thumbnail() -> None:
    block = make.exif_block(6)
    out, orientation = reset_orientation(block)
    assert orientation == 6
    assert len(out) == len(block)
    changed = [i for i, (a, b) in enumerate(zip(block, out, strict=True)) if a != b]
    assert len(changed) <= 2 + 4  # the orientation and the link to the thumbnail
    exif = Image.Exif()
    exif.load(out)
    assert exif[274] == 1
    assert not exif.get_ifd(ExifTags.IFD.IFD1)
    exif.load(with_dimensions(out, 70000, 5))
    assert exif.get_ifd(ExifTags.IFD.Exif)[0xA003] == 5
    assert exif.get_ifd(ExifTags.IFD.Exif)[0xA002] == 999  # 70000 does not fit the SHORT it is stored in


def test_directories_survive_being_moved() -> None:
    block = make.exif_block(1, note=bytes(range(200)))
    order, directory = parse(block)
    assert order == ">"
    assert parse(block_of(order, directory)) == (order, directory)
    assert directory[0x8769][0x927C] == (7, 200, bytes(range(200)))  # type: ignore[index]


@pytest.mark.parametrize("block", [b"", b"II*\0", b"MM\0*\0\0\0\xff", make.exif_block(3)[:20], b"junk" * 9])
def test_damaged_exif_is_dropped_and_said(block: bytes) -> None:
    with pytest.raises(ValueError):
        reset_orientation(block)
    if block:
        picture = read(make.png(CORNERS, filters=(0,), extra=make.chunk(b"eXIf", block)))
        assert picture.exif is None
        assert "EXIF" in picture.notes[0]


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_senseless_orientation_means_upright(value: int) -> None:
    picture = read(stored(CORNERS, "JPEG", exif=make.exif_block(value)))
    assert picture.pixels.shape == CORNERS.shape
    assert reset_orientation(picture.exif or b"")[1] == 1


def test_xmp_orientation_in_both_spellings() -> None:
    assert xmp.upright(b"<tiff:Orientation>8</tiff:Orientation>") == b"<tiff:Orientation>1</tiff:Orientation>"
    assert xmp.upright(b"tiff:Orientation='6' tiff:X=\"6\"") == b"tiff:Orientation='1' tiff:X=\"6\""


def test_png_text_and_color_chunks_stay_in_png() -> None:
    gamma, text = struct.pack(">I", 45455), b"Comment\0by hand"
    extra = (
        make.chunk(b"gAMA", gamma)
        + make.chunk(b"tEXt", text)
        + make.chunk(b"prVt", b"x")
        + make.chunk(b"sBIT", b"\5\5\5")
    )
    picture = read(make.png(CORNERS, filters=(0,), extra=extra))
    out = encode(picture)
    assert make.chunk(b"gAMA", gamma) in out
    assert make.chunk(b"tEXt", text) in out
    assert b"prVt" not in out
    assert b"sBIT" not in out
    bare = encode(picture, strip=True)
    assert make.chunk(b"gAMA", gamma) in bare
    assert text not in bare
    assert text not in encode(picture, "jpg")


def test_large_png_metadata_does_not_refuse_the_picture() -> None:
    import zlib

    icc = make.rgb_profile() + np.random.default_rng(0).bytes(3 << 20)
    extra = make.chunk(b"iCCP", b"x\0\0" + zlib.compress(icc)) + make.chunk(
        b"zTXt", b"t\0\0" + zlib.compress(bytes(9 << 20))
    )
    assert read(make.png(CORNERS, filters=(0,), extra=extra)).icc == icc


def test_jpeg_comment_and_iptc_stay() -> None:
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x05hello\0"
    segment = b"\xff\xed" + struct.pack(">H", len(iptc) + 2) + iptc
    picture = read(make.saved(CORNERS, "JPEG", comment=b"taken at noon", extra=segment))
    out = encode(picture)
    assert segment in out
    with Image.open(BytesIO(out)) as im:
        assert im.info["comment"] == b"taken at noon"
    bare = encode(picture, strip=True)
    assert b"taken at noon" not in bare
    assert b"8BIM" not in bare


def test_a_second_picture_in_a_phone_jpeg_is_no_animation() -> None:
    data = make.saved(Image.fromarray(CORNERS), "MPO", save_all=True, append_images=[Image.fromarray(CORNERS)])
    picture = read(data)
    assert picture.format == "JPEG"
    assert picture.pixels.shape == CORNERS.shape
    assert "second picture" in picture.notes[0]
    with Image.open(BytesIO(encode(picture))) as im:
        assert im.format == "JPEG"


def test_tiff_without_metadata_gets_none() -> None:
    out = BytesIO()
    tifffile.imwrite(out, CORNERS, photometric="rgb", metadata=None, software=False)
    picture = read(out.getvalue())
    assert (picture.exif, picture.xmp, picture.icc, picture.notes) == (None, None, None, ())
