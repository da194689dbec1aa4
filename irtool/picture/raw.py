"""What every loader hands on, and what they share."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageFile

from .model import JpegSettings


@dataclass
class DecodedFile:
    """What a file holds, as stored.

    Attributes:
        color: (H, W, 1 or 3) uint8 or uint16.
        alpha: (H, W) of the same type, or None.
        orientation_applied: the pixels are upright already; the EXIF orientation is only to be reset.
        The others are as in `Picture`.
    """

    color: np.ndarray
    alpha: np.ndarray | None = None
    orientation_applied: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    aspect: tuple[int, int] | None = None
    jpeg: JpegSettings | None = None
    lossless: bool = False
    comment: bytes | None = None
    blocks: tuple[tuple[str, bytes], ...] = ()
    notes: tuple[str, ...] = ()


class RefusedError(Exception):
    """The file is sound but not something irtool restores. The message continues "<file> ..."."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Guard(Protocol):
    """Called before pixels are decoded; raises if there are too many for the limit or for the memory allowed."""

    def __call__(
        self, size: tuple[int, int], /, *, deep: bool = False, alpha: bool = False, profile: bool = False, more: int = 0
    ) -> None:
        """`size` is (width, height). What makes a pixel take more memory than three colours of 8 bits do: 16 bits
        (`deep`), transparency, a colour profile; and `more` bytes that the decoder holds by itself."""


class SeveralFramesError(RefusedError):
    """The file holds more than one frame (`irtool.picture.frames` reads those)."""


def single(frames: int, what: str, readable: bool = True) -> None:
    """Refuse more than one frame; `readable` says whether they could be read one by one."""
    if frames > 1:
        kind = SeveralFramesError if readable else RefusedError
        raise kind(f"is {what} of {frames} frames", "Extract the frames first, for instance with ffmpeg.")


def common(im: ImageFile.ImageFile) -> dict[str, Any]:
    """Metadata as Pillow's plugins keep it in `info`."""
    info = im.info
    dpi = info.get("dpi")
    icc, exif, xmp = (info.get(key) for key in ("icc_profile", "exif", "xmp"))
    return {
        "icc": icc if isinstance(icc, bytes) and icc else None,
        "exif": exif.removeprefix(b"Exif\0\0").removeprefix(b"Exif\0\0") if isinstance(exif, bytes) and exif else None,
        "xmp": xmp if isinstance(xmp, bytes) and xmp else None,
        "dpi": sane_dpi(dpi),
    }


def sane_dpi(dpi: Any) -> tuple[float, float] | None:
    """A pair of positive, finite numbers, or None."""
    try:
        x, y = (float(v) for v in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None


def samples(im: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Colour (H, W, 1 or 3) and alpha (H, W) of an 8-bit (or "I;16") image that is or can be loaded."""
    if im.mode in ("P", "PA") or "transparency" in im.info:
        gray = im.mode in ("1", "L")
        im = im.convert("RGBA" if im.has_transparency_data else "RGB")
        if gray:
            im = im.convert("LA")
    elif im.mode == "1":
        im = im.convert("L")
    elif im.mode in ("La", "RGBa"):
        im = im.convert(im.mode.upper())
    elif im.mode == "YCbCr":
        im = im.convert("RGB")
    array = np.asarray(im)
    if im.mode in ("L", "RGB") or im.mode.startswith("I;16"):
        return np.atleast_3d(array).astype(array.dtype.newbyteorder("="), copy=False), None
    if im.mode in ("LA", "RGBA"):
        return array[..., :-1], array[..., -1]
    depth = {"I": "32-bit integer", "F": "floating-point", "LAB": "Lab"}.get(im.mode, im.mode)
    raise RefusedError(f"holds {depth} pixels", "Convert it to 8-bit or 16-bit RGB or grey first.")


def from_cmyk(im: Image.Image, icc: bytes | None) -> tuple[np.ndarray, str]:
    """(H, W, 3) uint8 sRGB of a CMYK picture with a profile, and the note to leave."""
    if not icc:
        raise RefusedError("is CMYK without a colour profile, so its colours are unknown", "Convert it to RGB first.")
    rgb = to_srgb(im, icc)
    if rgb is None:
        raise RefusedError("is CMYK and its colour profile cannot be used", "Convert it to RGB first.")
    return rgb, "CMYK was converted to sRGB"


def to_srgb(im: Image.Image, icc: bytes) -> np.ndarray | None:
    """(H, W, 3) uint8 sRGB of an 8-bit picture by LittleCMS, which knows lookup tables; None where it cannot."""
    from PIL import ImageCms

    try:
        rgb = ImageCms.profileToProfile(
            im,
            ImageCms.ImageCmsProfile(BytesIO(icc)),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError):
        return None
    return None if rgb is None else np.asarray(rgb)


def join(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """uint16 from its two bytes. Pillow truncates 16-bit colour, but its ";16B" and ";16L" decoders take the one byte
    and the other, so that two passes give both."""
    return (high.astype(np.uint16) << 8) | low
