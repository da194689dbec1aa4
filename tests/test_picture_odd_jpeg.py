"""Odd JPEG files: metadata larger than a segment, what follows the picture, what is missing at its end."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import picture_samples as make
import pytest
from PIL import ExifTags, Image

from irtool.errors import PictureError
from irtool.picture import Picture, encode, read, sniff
from irtool.picture import jpeg as jpeg_files

SMOOTH = np.asarray(Image.fromarray(make.noise(5, 7, 3)).resize((48, 32), Image.Resampling.BICUBIC))


def refusal(data: bytes) -> str:
    with pytest.raises(PictureError) as caught:
        read(data, name="odd")
    return caught.value.message


def segments(data: bytes) -> list[tuple[int, bytes]]:
    return jpeg_files.structure(data).segments


def test_exif_larger_than_a_segment_is_reduced_and_told_of() -> None:
    block = make.exif_block(6, note=bytes(range(256)) * 280)
    parts = b"".join(
        b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part for part in (block[:60000], block[60000:])
    )
    data = make.saved(SMOOTH, "JPEG", quality=95)
    picture = read(data[:2] + parts + data[2:])
    assert picture.exif is not None
    assert len(picture.exif) == len(block)
    notes: list[str] = []
    with Image.open(BytesIO(encode(picture, notes=notes))) as im:
        assert im.getexif()[ExifTags.Base.Make] == "Irtool Camera"
        assert im.getexif()[ExifTags.Base.Orientation] == 1
        assert im.size == (32, 48)
    assert "MakerNote" in notes[0]
    assert encode(picture, "png").count(bytes(range(256)) * 280) == 1


def large_xmp(size: int) -> bytes:
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:a="urn:a" xmp:Rating="5">'
        b"<a:Curve>%s</a:Curve></rdf:Description></rdf:RDF></x:xmpmeta>" % (b"0123456789" * (size // 10))
    )


@pytest.mark.parametrize("size", [70_000, 200_000])
def test_xmp_larger_than_a_segment_is_split_and_joined(size: int) -> None:
    packet = large_xmp(size)
    data = encode(Picture(SMOOTH / np.float32(255), xmp=packet), "jpg")
    with Image.open(BytesIO(data)) as im:
        assert b'xmp:Rating="5"' in im.info["xmp"]  # small things stay in the main packet
        assert b"HasExtendedXMP" in im.info["xmp"]
    parts = [body for marker, body in segments(data) if marker == 0xE1 and b"xmp/extension" in body[:40]]
    assert len(parts) == -(-size // 65000)
    picture = read(data)
    assert picture.xmp is not None
    assert picture.notes == ()
    assert b"0123456789" * (size // 10) in picture.xmp
    assert b"HasExtendedXMP" not in picture.xmp
    again = read(encode(picture))
    assert again.xmp is not None
    assert b"0123456789" * (size // 10) in again.xmp


def test_extended_xmp_that_is_missing_is_told_of() -> None:
    data = encode(Picture(SMOOTH / np.float32(255), xmp=large_xmp(70_000)), "jpg")
    at = data.index(b"http://ns.adobe.com/xmp/extension/") - 4
    length = struct.unpack_from(">H", data, at + 2)[0]
    picture = read(data[:at] + data[at + 2 + length :])
    assert "extended part of its XMP" in picture.notes[0]
    assert picture.xmp is not None
    assert b"HasExtendedXMP" not in picture.xmp
    assert b'xmp:Rating="5"' in picture.xmp


def test_xmp_that_is_no_xml_and_too_large_is_dropped_with_a_note() -> None:
    notes: list[str] = []
    data = encode(Picture(SMOOTH / np.float32(255), xmp=b"x" * 70000), "jpg", notes=notes)
    assert read(data).xmp is None
    assert "too large" in notes[0]


def test_a_comment_larger_than_a_segment_survives() -> None:
    comment = bytes(range(1, 256)) * 300
    assert read(encode(Picture(SMOOTH / np.float32(255), comment=comment), "jpg")).comment == comment


MOTION = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" '
    b'xmlns:Container="http://ns.google.com/photos/1.0/container/" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    b'GCamera:MotionPhoto="1" GCamera:MicroVideoOffset="624" dc:source="kept">'
    b'<Container:Directory><rdf:Seq><rdf:li Item:Length="624"/></rdf:Seq></Container:Directory>'
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)


@pytest.mark.parametrize(
    ("behind", "told"),
    [
        (struct.pack(">I", 24) + b"ftypmp42" + bytes(600), "video"),
        (make.saved(SMOOTH[::2, ::2], "JPEG"), "second picture"),
        (b"SEFT" + bytes(range(1, 200)), "203 bytes"),
    ],
)
def test_what_follows_a_jpeg_is_told_of_and_claimed_no_more(behind: bytes, told: str) -> None:
    picture = read(make.saved(SMOOTH, "JPEG", xmp=MOTION) + behind)
    assert told in picture.notes[0]
    for format in ("jpg", "png", "webp"):
        out = encode(picture, format)
        assert b"dc:source" in out
        for claim in (b"MotionPhoto=", b"MicroVideoOffset", b"Container:Directory"):
            assert claim not in out


def test_zeros_behind_a_jpeg_are_nothing() -> None:
    assert read(make.saved(SMOOTH, "JPEG") + bytes(5000)).notes == ()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"subsampling": 2}])
def test_a_jpeg_without_its_end_marker_is_read_and_told_of(options: dict) -> None:
    data = make.saved(make.noise(33, 50, 3), "JPEG", quality=90, **options)
    meant = read(data)
    for end in (len(data) - 1, len(data) - 2):
        picture = read(data[:end])
        assert (picture.pixels == meant.pixels).all()
        assert "end marker" in picture.notes[0]
    for cut in (8, 40, len(data) // 2):
        assert "damaged or incomplete" in refusal(data[: len(data) - cut])


@pytest.mark.parametrize("codes", [SMOOTH, np.full_like(SMOOTH, 200)])
def test_a_jpeg_that_ends_flat_is_whole(codes: np.ndarray) -> None:
    codes = codes.copy()
    codes[16:] = 255
    assert read(make.saved(codes, "JPEG", quality=90)).notes == ()


def test_a_jpeg_whose_data_ends_before_its_end_marker_is_damaged() -> None:
    data = make.saved(make.noise(64, 200, 3), "JPEG", quality=90)
    start = data.index(b"\xff\xda")
    for share in (0.02, 0.3, 0.7):
        cut = data[: start + int(share * (len(data) - start))].rstrip(b"\xff")
        assert "ends early" in refusal(cut + b"\xff\xd9")


@pytest.mark.parametrize(("marker", "precision", "told"), [(0xC1, 12, "12-bit JPEG"), (0xC3, 8, "lossless JPEG")])
def test_rarer_kinds_of_jpeg_are_refused_for_what_they_are(marker: int, precision: int, told: str) -> None:
    data = make.saved(SMOOTH, "JPEG")
    at = data.index(b"\xff\xc0")
    told_of = refusal(data[:at] + bytes([0xFF, marker]) + data[at + 2 : at + 4] + bytes([precision]) + data[at + 5 :])
    assert told in told_of
    assert "damaged" not in told_of


def test_a_jpeg_of_two_channels_is_refused_for_what_it_is() -> None:
    data = make.saved(SMOOTH, "JPEG")
    at = data.index(b"\xff\xc0")
    assert "2 channels" in refusal(data[: at + 9] + b"\2" + data[at + 10 :])


def test_a_jpeg_of_a_thousand_scans_is_refused() -> None:
    data = make.saved(SMOOTH, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert "scans" in refusal(data[:last] + data[last:-2] * 1000 + b"\xff\xd9")


@pytest.mark.parametrize("source", ["jpeg", "png"])
@pytest.mark.parametrize("target", ["jpg", "png"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_shape_of_pixels_survives(source: str, target: str, orientation: int) -> None:
    exif = make.exif_block(orientation)
    if source == "jpeg":
        data = make.saved(SMOOTH, "JPEG", exif=b"Exif\0\0" + exif)
        assert data[6:11] == b"JFIF\0"
        data = data[:13] + struct.pack(">BHH", 0, 1, 2) + data[18:]
    else:
        extra = make.chunk(b"pHYs", struct.pack(">IIB", 1, 2, 0)) + make.chunk(b"eXIf", exif)
        data = make.png(SMOOTH, extra=extra)
    picture = read(data)
    assert picture.aspect == ((1, 2) if orientation == 1 else (2, 1))
    with Image.open(BytesIO(encode(picture, target))) as im:
        if target == "jpg":
            assert (im.info["jfif_unit"], im.info["jfif_density"]) == (0, picture.aspect)
        else:
            assert im.info["aspect"] == picture.aspect


@pytest.mark.parametrize(
    ("case", "file", "told"),
    [
        ("bmp-bitfields", "masks.bmp", ""),
        ("jpeg-12-bit", "twelve.jpg", "12-bit JPEG"),
        ("jpeg-without-eoi", "no_eoi.jpg", ""),
        ("jpeg-exif-over-64k", "in.jpg", ""),
        ("xmp-over-64k-to-jpg", "in.png", ""),
        ("tiff-infrared-channel", "rgbi.tif", ""),
    ],
)
def test_files_that_people_reported(shared: Path, case: str, file: str, told: str) -> None:
    data = (shared / "cases" / case / file).read_bytes()
    if told:
        assert told in refusal(data)
        return
    picture = read(data)
    out = encode(picture, "jpg")
    assert sniff(out) == "JPEG"
    assert (np.asarray(Image.open(BytesIO(out))).shape[:2]) == picture.pixels.shape[:2]
    if case.startswith("xmp"):
        assert read(out).xmp is not None
        assert b"Rating" in (read(out).xmp or b"")
