"""From a Picture to the bytes of a file in any format that can be written."""

from __future__ import annotations

import struct
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from ..errors import PictureError, UnavailableError, UsageError
from . import exif as exif_room
from . import png
from .colour import channels, converter, strips
from .formats import Format, format_named
from .model import JpegSettings, Picture
from .tiff import encode_tiff

JPEG_QUALITY = 95
WEBP_QUALITY = 95
AVIF_QUALITY = 90
JPEG_FLOOR = 85
"""A JPEG is written with its source's tables, but never with coarser ones than this quality's: a picture restored from
heavy compression would be damaged again in the same way."""


def encode(picture: Picture, format: str | None = None, *, quality: int | None = None, strip: bool = False) -> bytes:
    """The bytes of a picture file.

    Args:
        picture: its pixels are clipped to [0, 1] and rounded.
        format: a format name or suffix; by default the picture's own.
        quality: 1 to 100 for JPEG, WebP, AVIF and HEIF; by default like the source JPEG, lossless for a lossless WebP,
            and high otherwise. Other formats are always lossless.
        strip: leave out EXIF, XMP, comments and text. The colour profile stays, since colours need it.

    Raises:
        UsageError: unknown format, one that is not written, or a quality out of range.
        PictureError: the picture does not fit the format.
        UnavailableError: the format needs an optional package.
    """
    kind = format_named(format or picture.format)
    if not kind.writable:
        raise UsageError(f"irtool does not write {kind.name}", "Use png instead.")
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"quality must be from 1 to 100, got {quality}")
    if max(picture.width, picture.height) > kind.max_side:
        raise PictureError(
            f"{picture.name}: {picture.width} x {picture.height} does not fit {kind.name}, which ends at "
            f"{kind.max_side} pixels a side",
            "Use png or tiff.",
        )
    if strip:
        kept = tuple(block for block in picture.blocks if block[0] in png.COLOUR_CHUNKS)
        picture = replace(picture, exif=None, xmp=None, comment=None, blocks=kept)
    try:
        codes, icc = _codes(picture, kind)
        return _ENCODERS[kind.name](replace(picture, icc=icc), codes, quality)
    except MemoryError as error:
        raise PictureError(f"{picture.name}: not enough memory to encode it as {kind.name}", "") from error
    except UnavailableError:
        raise
    except (OSError, ValueError, struct.error, RuntimeError, TypeError, OverflowError, SyntaxError) as error:
        hint = "Use --strip to leave metadata out, or another format."
        raise PictureError(f"{picture.name}: cannot be encoded as {kind.name} ({error})", hint) from error


def _codes(picture: Picture, kind: Format) -> tuple[np.ndarray, bytes | None]:
    """(H, W, 1 to 4) integer samples as the format can carry them, and the profile they are in."""
    n = 1 if picture.grey and kind.grey else 3
    # A profile for fewer channels than are written (grey made RGB) or more (CMYK) cannot go with the pixels: sRGB then.
    icc = picture.icc if picture.icc and channels(picture.icc) in ((1, 3) if n == 1 else (3,)) else None
    values = picture.pixels
    profile = converter(icc, n)
    if profile is not None:
        if picture.beyond is not None:
            values = values + picture.beyond
        if profile.channels == 1:
            values = values.mean(axis=2, keepdims=True)
        values = profile.from_srgb(values)
    if n == 1 and values.shape[2] == 3:
        values = values.mean(axis=2, keepdims=True)
    alpha = picture.alpha
    if alpha is not None and not kind.alpha:
        # As a viewer would show it, on white. (Blended in encoded values, as viewers do.)
        values = values * alpha[..., None] + (1 - alpha[..., None])
        alpha = None
    if alpha is not None:
        values = np.concatenate([values, alpha[..., None]], axis=2)
    deep = picture.bits == 16 and kind.deep
    return quantise(values, deep), icc


def quantise(values: np.ndarray, deep: bool) -> np.ndarray:
    """Float in [0, 1] to uint8, or uint16 if `deep`; values outside are clipped and NaN counts as 0."""
    out = np.empty(values.shape, np.uint16 if deep else np.uint8)
    for rows in strips(values):
        out[rows] = np.rint(np.nan_to_num(values[rows]).clip(0, 1) * np.float32(65535 if deep else 255))
    return out


def _image(codes: np.ndarray) -> Image.Image:
    return Image.fromarray(codes[..., 0] if codes.shape[2] == 1 else np.ascontiguousarray(codes))


def _saved(codes: np.ndarray, format: str, **options: Any) -> bytes:
    out = BytesIO()
    _image(codes).save(out, format, **{key: value for key, value in options.items() if value is not None})
    return out.getvalue()


def _jpeg(picture: Picture, codes: np.ndarray, quality: int | None) -> bytes:
    settings = picture.jpeg
    options: dict[str, Any] = {"quality": quality or JPEG_QUALITY, "subsampling": 0}
    if settings is not None:
        options["subsampling"] = settings.subsampling
        options["progressive"] = settings.progressive
        if quality is None:
            del options["quality"]
            options["qtables"] = [list(t) for t in _floored(settings, codes.shape[2])]
    iptc = b"".join(
        b"\xff\xed" + struct.pack(">H", len(body) + 2) + body for name, body in picture.blocks if name == "APP13"
    )
    return _saved(
        codes,
        "JPEG",
        icc_profile=picture.icc,
        exif=b"Exif\0\0" + picture.exif if picture.exif else None,
        xmp=picture.xmp,
        dpi=picture.dpi,
        comment=picture.comment,
        extra=iptc or None,
        **options,
    )


def _floored(settings: JpegSettings, n: int) -> tuple[tuple[int, ...], ...]:
    """The source's tables, no entry coarser than in those of `JPEG_FLOOR`."""
    from PIL import JpegImagePlugin

    sample = JpegImagePlugin.JpegImageFile(BytesIO(_saved(np.zeros((8, 8, n), np.uint8), "JPEG", quality=JPEG_FLOOR)))
    floor = [table for _, table in sorted(sample.quantization.items())]
    pairs = zip(settings.tables, floor + floor, strict=False)
    return tuple(tuple(min(a, b) for a, b in zip(table, limit, strict=True)) for table, limit in pairs)


def _png(picture: Picture, codes: np.ndarray, quality: int | None) -> bytes:
    extra = png.metadata_chunks(picture.icc, picture.exif, picture.xmp, picture.dpi, picture.blocks)
    return png.encode_png(codes, extra)


def _tiff(picture: Picture, codes: np.ndarray, quality: int | None) -> bytes:
    return encode_tiff(codes, icc=picture.icc, exif=picture.exif, xmp=picture.xmp, dpi=picture.dpi)


def _webp(picture: Picture, codes: np.ndarray, quality: int | None) -> bytes:
    # exact keeps the colours under transparent pixels.
    return _saved(
        codes,
        "WEBP",
        lossless=picture.lossless and quality is None,
        quality=quality or WEBP_QUALITY,
        exact=True,
        icc_profile=picture.icc,
        exif=picture.exif,
        xmp=picture.xmp,
    )


def _avif(picture: Picture, codes: np.ndarray, quality: int | None) -> bytes:
    from PIL import features

    if not features.check("avif"):
        raise UnavailableError("this build of Pillow cannot write AVIF", "pip install --upgrade pillow")
    # AVIF keeps the orientation in its own box, and Pillow would re-serialise an EXIF block that has one.
    exif = exif_room.without_orientation(picture.exif) if picture.exif else None
    return _saved(
        codes,
        "AVIF",
        quality=quality or AVIF_QUALITY,
        subsampling="4:4:4",
        icc_profile=picture.icc,
        exif=exif or None,
        xmp=picture.xmp,
    )


def _heif(picture: Picture, codes: np.ndarray, quality: int | None) -> bytes:
    try:
        import pillow_heif
    except ImportError:
        raise UnavailableError("writing HEIF needs an optional package", "pip install 'irtool[heif]'") from None
    out = BytesIO()
    file = pillow_heif.from_pillow(_image(codes))
    file.save(
        out,
        quality=quality or AVIF_QUALITY,
        chroma=444,
        icc_profile=picture.icc,
        exif=picture.exif,
        xmp=picture.xmp,
    )
    return out.getvalue()


def _bmp(picture: Picture, codes: np.ndarray, quality: int | None) -> bytes:
    if codes.shape[2] in (1, 3):
        return _saved(codes, "BMP", dpi=picture.dpi)
    if codes.shape[2] == 2:
        codes = codes[..., [0, 0, 0, 1]]
    # Pillow writes 32-bit rows that it reads back without alpha; a V4 header names the alpha mask.
    rows = np.ascontiguousarray(codes[::-1, :, [2, 1, 0, 3]]).tobytes()
    dots = [round(d / 0.0254) for d in picture.dpi or (0, 0)]
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, picture.width, picture.height, 1, 32, 3, len(rows), *dots, 0, 0)
    header += masks + b"BGRs" + bytes(48)  # the colour space is sRGB, so end points and gammas are unused
    return struct.pack("<2sIHHI", b"BM", 14 + 108 + len(rows), 0, 0, 14 + 108) + header + rows


_ENCODERS = {
    "JPEG": _jpeg,
    "PNG": _png,
    "TIFF": _tiff,
    "WEBP": _webp,
    "AVIF": _avif,
    "HEIF": _heif,
    "BMP": _bmp,
}
