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
from .bmff import with_code_points
from .bmp import encode_bmp
from .color import Profile, channels, converter, strips
from .formats import Format, format_named
from .frames import ANIMATED, PAGED, join_pages
from .jpeg import with_metadata
from .model import JpegSettings, Picture
from .tiff import encode_tiff

JPEG_QUALITY = 95
WEBP_QUALITY = 95
AVIF_QUALITY = 90
JPEG_FLOOR = 85
"""A JPEG is written with its source's tables, but never with coarser ones than this quality's: a picture restored from
heavy compression would be damaged again in the same way."""


def encode(
    picture: Picture,
    format: str | None = None,
    *,
    quality: int | None = None,
    strip: bool = False,
    notes: list[str] | None = None,
) -> bytes:
    """The bytes of a picture file.

    Args:
        picture: its pixels are clipped to [0, 1] and rounded.
        format: a format name or suffix; by default the picture's own.
        quality: 1 to 100 for JPEG, WebP, AVIF and HEIF; by default like the source JPEG, lossless for a lossless WebP,
            and high otherwise. Other formats are always lossless.
        strip: leave out EXIF, XMP, comments and text. The colour profile stays, since colours need it.
        notes: gets a plain sentence for whatever the format could not keep.

    Raises:
        UsageError: unknown format, one that is not written, or a quality out of range.
        PictureError: the picture does not fit the format, or some of its values are not finite.
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
        picture = _stripped(picture)
    told: list[str] = [] if notes is None else notes
    told += _lost(picture, kind)
    try:
        codes, icc = _codes(picture, kind)
        if picture.icc and not icc:
            # The pixels are no longer in the colours that these chunks state.
            blocks = tuple(block for block in picture.blocks if block[0] not in png.COLOR_CHUNKS)
            picture = replace(picture, blocks=blocks)
        return _ENCODERS[kind.name](replace(picture, icc=icc), codes, quality, told)
    except MemoryError as error:
        raise PictureError(f"{picture.name}: not enough memory to encode it as {kind.name}", "") from error
    except (UnavailableError, PictureError):
        raise
    except (OSError, ValueError, struct.error, RuntimeError, TypeError, OverflowError, SyntaxError) as error:
        hint = "Use --strip to leave metadata out, or another format."
        raise PictureError(f"{picture.name}: cannot be encoded as {kind.name} ({error})", hint) from error


def _stripped(picture: Picture) -> Picture:
    kept = tuple(block for block in picture.blocks if block[0] in png.COLOR_CHUNKS)
    return replace(picture, exif=None, xmp=None, comment=None, blocks=kept)


def _lost(picture: Picture, kind: Format) -> list[str]:
    """Sentences on what a picture has and a format cannot carry."""
    names = {name for name, _ in picture.blocks}
    parts = {
        "EXIF": picture.exif and not kind.exif,
        "XMP": picture.xmp and not kind.exif,
        "IPTC": "APP13" in names and kind.name != "JPEG",
        "comment": picture.comment and kind.name != "JPEG",
        "text": names & set(png.TEXT_CHUNKS) and kind.name != "PNG",
    }
    lost = ", ".join(name for name, there in parts.items() if there)
    found = [f"its {lost} cannot be kept in {kind.name}"] if lost else []
    if picture.bits == 16 and not kind.deep:
        found.append(f"its 16 bits became the 8 of {kind.name}")
    if picture.alpha is not None and not kind.alpha:
        found.append(f"its transparency became white in {kind.name}")
    return found


def _codes(picture: Picture, kind: Format) -> tuple[np.ndarray, bytes | None]:
    """(H, W, 1 to 4) integer samples as the format can carry them, and the profile they are in."""
    n = 1 if picture.gray and kind.gray else 3
    # A profile for fewer channels than are written (grey made RGB) or more (CMYK) cannot go with the pixels: sRGB then.
    icc = picture.icc if picture.icc and channels(picture.icc) in ((1, 3) if n == 1 else (3,)) else None
    if not kind.icc or (kind.name != "PNG" and icc == _gamma_profile(picture.blocks, n)):
        icc = None
    profile = converter(icc, n)
    deep = picture.bits == 16 and kind.deep
    alpha = picture.alpha is not None and kind.alpha
    codes = np.empty((picture.height, picture.width, n + alpha), np.uint16 if deep else np.uint8)
    try:
        # Row by row, so that a large picture is not there as floats several times.
        for rows in strips(picture.pixels):
            codes[rows] = quantize(_values(picture, kind, profile, n, rows), deep)
    except ValueError as error:
        raise PictureError(
            f"{picture.name}: some of the values to be written are not numbers (NaN or infinite)",
            "The model or its weights are broken: nothing was written.",
        ) from error
    return codes, icc


def _values(picture: Picture, kind: Format, profile: Profile | None, n: int, rows: slice) -> np.ndarray:
    """(R, W, 1 to 4) floats of some rows, in the colours of the profile, as the format can carry them."""
    values = picture.pixels[rows]
    if profile is not None:
        if picture.out_of_gamut is not None:
            values = values + picture.out_of_gamut[rows]
        if profile.channels == 1:
            values = values.mean(axis=2, keepdims=True)
        values = profile.from_srgb(values)
    if (n == 1 or picture.gray or picture.neutral) and values.shape[2] == 3:
        values = values.mean(axis=2, keepdims=True)
    if n == 3 and values.shape[2] == 1:
        values = np.broadcast_to(values, (*values.shape[:2], 3))
    if picture.alpha is None:
        return values
    alpha = picture.alpha[rows, :, None]
    if kind.alpha:
        return np.concatenate([values, alpha], axis=2)
    # As a viewer would show it, on white. (Blended in encoded values, as viewers do.)
    return values * alpha + (1 - alpha)


def _gamma_profile(blocks: tuple[tuple[str, bytes], ...], n: int) -> bytes | None:
    """The profile that a PNG's gamma, with the primaries of sRGB, stands for. Eight bits of such a gamma (often linear
    light) are too few for dark colours, so that other formats get sRGB instead."""
    color_chunks = [block for block in blocks if block[0] in ("gAMA", "cHRM")]
    if any(name == "cICP" for name, _ in blocks) or not color_chunks:
        return None
    found, bare = (
        png.stated_profile(part, n == 1) for part in (color_chunks, [b for b in color_chunks if b[0] == "gAMA"])
    )
    return found if found == bare else None


def quantize(values: np.ndarray, deep: bool) -> np.ndarray:
    """Float in [0, 1] to uint8, or uint16 if `deep`; values outside are clipped.

    Raises:
        ValueError: some are NaN or infinite.
    """
    out = np.empty(values.shape, np.uint16 if deep else np.uint8)
    for rows in strips(values):
        if not np.isfinite(values[rows]).all():
            raise ValueError("not finite")
        out[rows] = np.rint(values[rows].clip(0, 1) * np.float32(65535 if deep else 255))
    return out


def _image(codes: np.ndarray) -> Image.Image:
    return Image.fromarray(codes[..., 0] if codes.shape[2] == 1 else np.ascontiguousarray(codes))


def _saved(codes: np.ndarray, format: str, **options: Any) -> bytes:
    out = BytesIO()
    _image(codes).save(out, format, **{key: value for key, value in options.items() if value is not None})
    return out.getvalue()


def encode_page(page: np.ndarray) -> bytes:
    """A JPEG of (H, W, 3) uint8, without metadata."""
    return _saved(page, "JPEG", quality=JPEG_QUALITY, subsampling=0)


def _jpeg(picture: Picture, codes: np.ndarray, quality: int | None, notes: list[str]) -> bytes:
    settings = picture.jpeg
    options: dict[str, Any] = {"quality": quality or JPEG_QUALITY, "subsampling": 0}
    if settings is not None:
        options["subsampling"] = settings.subsampling
        options["progressive"] = settings.progressive
        if quality is None:
            del options["quality"]
            options["qtables"] = [list(t) for t in _floored(settings, codes.shape[2])]
    bare = _saved(codes, "JPEG", icc_profile=picture.icc, dpi=picture.dpi, **options)
    return with_metadata(
        bare,
        exif=picture.exif,
        xmp=picture.xmp,
        comment=picture.comment,
        iptc=tuple(body for name, body in picture.blocks if name == "APP13"),
        aspect=None if picture.dpi else picture.aspect,
        notes=notes,
    )


def _floored(settings: JpegSettings, n: int) -> tuple[tuple[int, ...], ...]:
    """The source's tables, no entry coarser than in those of `JPEG_FLOOR`."""
    from PIL import JpegImagePlugin

    sample = JpegImagePlugin.JpegImageFile(BytesIO(_saved(np.zeros((8, 8, n), np.uint8), "JPEG", quality=JPEG_FLOOR)))
    floor = [table for _, table in sorted(sample.quantization.items())]
    pairs = zip(settings.tables, floor + floor, strict=False)
    return tuple(tuple(min(a, b) for a, b in zip(table, limit, strict=True)) for table, limit in pairs)


def _png(picture: Picture, codes: np.ndarray, quality: int | None, notes: list[str]) -> bytes:
    icc = picture.icc
    try:
        if icc and icc == png.stated_profile(picture.blocks, codes.shape[2] < 3):
            icc = None  # its chunks say the same
    except (ValueError, struct.error):
        pass
    extra = png.metadata_chunks(icc, picture.exif, picture.xmp, picture.dpi, picture.aspect, picture.blocks)
    return png.encode_png(codes, extra)


def _tiff(picture: Picture, codes: np.ndarray, quality: int | None, notes: list[str]) -> bytes:
    return encode_tiff(codes, icc=picture.icc, exif=picture.exif, xmp=picture.xmp, dpi=picture.dpi)


def _webp(picture: Picture, codes: np.ndarray, quality: int | None, notes: list[str]) -> bytes:
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


def _avif(picture: Picture, codes: np.ndarray, quality: int | None, notes: list[str]) -> bytes:
    from PIL import features

    if not features.check("avif"):
        raise UnavailableError("this build of Pillow cannot write AVIF", "pip install --upgrade pillow")
    # AVIF keeps the orientation in its own box, and Pillow would re-serialise an EXIF block that has one.
    exif = exif_room.without_orientation(picture.exif) if picture.exif else None
    data = _saved(
        codes,
        "AVIF",
        quality=quality or AVIF_QUALITY,
        subsampling="4:4:4",
        icc_profile=picture.icc,
        exif=exif or None,
        xmp=picture.xmp,
    )
    color_chunks = next((body for name, body in picture.blocks if name == "cICP" and len(body) == 4), None)
    # The code points of the source beside the profile that says the same: some readers look at these alone.
    return data if color_chunks is None else with_code_points(data, color_chunks[0], color_chunks[1])


def _heif(picture: Picture, codes: np.ndarray, quality: int | None, notes: list[str]) -> bytes:
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


def _bmp(picture: Picture, codes: np.ndarray, quality: int | None, notes: list[str]) -> bytes:
    if codes.shape[2] in (1, 3):
        return _saved(codes, "BMP", dpi=picture.dpi)
    return encode_bmp(codes, picture.dpi)


class FramesWriter:
    """Frames that become a file: an animation, or a TIFF of several pages. They are held as they are written, not as
    floats.

    Args:
        format: a format name.
        paged: whether the frames are pages, each a picture of its own, or those of an animation.
        loop: how often an animation is played, 0 for ever.
        quality, strip: as in `encode`.

    Raises:
        PictureError: the format does not hold them.
    """

    def __init__(self, format: str, *, paged: bool, loop: int, quality: int | None = None, strip: bool = False) -> None:
        self.kind, self.paged, self.loop = format_named(format), paged, loop
        self.quality, self.strip = quality, strip
        if self.kind.name not in (PAGED if paged else ANIMATED):
            known = " or ".join(name.lower() for name in (PAGED if paged else ANIMATED))
            what = "pages" if paged else "an animation"
            raise PictureError(f"{self.kind.name} does not hold {what}", f"Use --format {known}.")
        self._pages: list[bytes] = []
        self._frames: list[np.ndarray] = []
        self._durations: list[float] = []
        self._first: Picture | None = None
        self._profile: bytes | None = None

    def add(self, picture: Picture, duration: float = 0.0) -> None:
        """The next frame, and the milliseconds it is shown; raises as `encode`."""
        if self.paged:
            self._pages.append(encode(picture, self.kind.name, strip=self.strip))
            return
        codes, icc = _codes(picture, self.kind)
        if self._first is None:
            self._profile = icc
            self._first = replace(picture, pixels=picture.pixels[:1, :1], alpha=None, out_of_gamut=None, original=None)
        self._frames.append(codes)
        self._durations.append(duration)

    def finish(self) -> bytes:
        """The file; its metadata are those of the first frame.

        Raises:
            PictureError: it cannot be encoded.
        """
        try:
            return join_pages(self._pages) if self.paged else self._animation()
        except (OSError, ValueError, struct.error, RuntimeError, OverflowError, MemoryError) as error:
            raise PictureError(f"the frames cannot be encoded as {self.kind.name} ({error})", "") from error

    def _animation(self) -> bytes:
        assert self._first is not None
        picture = _stripped(self._first) if self.strip else self._first
        most = max(frame.shape[2] for frame in self._frames)
        images = [_image(_with_channels(frame, most)) for frame in self._frames]
        out = BytesIO()
        shown: dict[str, Any] = {
            "save_all": True, "append_images": images[1:], "duration": self._durations, "loop": self.loop,
        }  # fmt: skip
        if self.kind.name == "PNG":
            images[0].save(out, "PNG", **shown)
            extra = png.metadata_chunks(
                self._profile, picture.exif, picture.xmp, picture.dpi, picture.aspect, picture.blocks
            )
            return png.with_chunks(out.getvalue(), extra)
        shown |= {
            "icc_profile": self._profile, "exif": picture.exif, "xmp": picture.xmp, "exact": True,
            "lossless": picture.lossless and self.quality is None, "quality": self.quality or WEBP_QUALITY,
        }  # fmt: skip
        images[0].save(out, "WEBP", **{key: value for key, value in shown.items() if value is not None})
        return out.getvalue()


def _with_channels(codes: np.ndarray, channels: int) -> np.ndarray:
    """A frame with an opaque alpha channel, and three colors, where others have them."""
    if codes.shape[2] in (1, 2) and channels > 2:
        color = np.repeat(codes[..., :1], 3, axis=2)
        codes = color if codes.shape[2] == 1 else np.concatenate([color, codes[..., 1:]], axis=2)
    if codes.shape[2] < channels:
        opaque = np.full((*codes.shape[:2], 1), np.iinfo(codes.dtype).max, codes.dtype)
        codes = np.concatenate([codes, opaque], axis=2)
    return codes


_ENCODERS = {
    "JPEG": _jpeg,
    "PNG": _png,
    "TIFF": _tiff,
    "WEBP": _webp,
    "AVIF": _avif,
    "HEIF": _heif,
    "BMP": _bmp,
}
