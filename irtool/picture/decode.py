"""From a file, bytes or a stream to a Picture; every way this can fail ends in one kind of error."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from ..errors import IrtoolError, PictureError, UnavailableError
from ..memory import Budget
from . import exif as exif_room
from . import png, stated
from . import xmp as xmp_room
from .color import channels, converter, profile_of, strips
from .formats import FORMATS, other_kind, sniff
from .frames import ANIMATED, PAGED, LoadedFrames, load_frames
from .loaders import load
from .model import Picture
from .raw import DecodedFile, Guard, RefusedError, SeveralFramesError, to_srgb
from .sources import reason as _reason
from .sources import source_bytes

MAX_PIXELS = 300_000_000
"""The default limit: three times a 100-megapixel photograph, 3.6 GB as float32."""

# The most that decoding holds for each pixel beside the file, in bytes, as measured (tests/test_memory.py): three
# float32 channels and the codes they are made of; and what 16 bits, transparency and a profile add.
_PLAIN, _DEEP, _ALPHA, _PROFILE = 18, 9, 10, 14
_FILE_BYTES = 8  # for each pixel allowed: no file needs more, two times 16-bit RGBA

# Above 40 megapixels a file must hold a hundredth of a bit for each pixel. A blank JPEG has 0.14, a photograph 0.5 to
# 8; files of some hundred bytes that claim gigabytes of pixels have 0.0001.
_SURE_PIXELS, _LEAST_BITS = 40_000_000, 0.01


_WEBP_NOISE = 1
"""Levels by which libwebp's conversion from YUV tells the channels of black and white apart."""


def silence_warnings() -> None:
    """Keep what Pillow and tifffile warn and log about odd metadata off the terminal: nobody can act on it.

    The handlers only replace Python's last-resort printing: an application that configures logging still sees all.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.|tifffile|pillow_heif")
    for name in ("PIL", "tifffile"):
        logging.getLogger(name).addHandler(logging.NullHandler())


# Once, at import: changing the filters around each decoding would not be safe with several threads.
silence_warnings()


def read(
    source: str | Path | bytes | IO[bytes],
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    budget: Budget | None = None,
) -> Picture:
    """Decode one picture. Its content decides the format, not its name.

    Args:
        source: a path, the bytes of a file, or a binary stream read to its end, once. A path is that of a regular file
            or of a pipe that somebody writes to.
        name: what messages call it; by default the path, or "picture".
        max_pixels: larger pictures are refused before they are decoded.
        budget: the memory allowed; a picture that will not fit is refused before it is decoded. By default half of
            what is available.

    Returns:
        the picture upright, in sRGB float32.

    Raises:
        PictureError: it cannot be opened, is not a picture, is damaged, too large, animated or of a kind not handled.
        UnavailableError: it needs an optional package that is not installed.
    """
    path = Path(source) if isinstance(source, (str, os.PathLike)) else None
    name = name or (str(path) if path is not None else "picture")
    budget = budget or Budget()
    data = source_bytes(source, name, limit=max_pixels * _FILE_BYTES, room=budget.room())
    format = _format_of(data, name)
    guard = partial(_guard, name, len(data), max_pixels, budget)
    with _errors(name, format):
        raw = _decoded(format, data, guard)
        _check_size(name, len(data), max_pixels, (raw.color.shape[1], raw.color.shape[0]))
        return replace(_picture(raw, format, name, path), original=data)


def read_stored(data: bytes, name: str) -> np.ndarray:
    """The samples that a file stores: neither turned upright nor converted from its colour profile.

    Args:
        data: the bytes of a file.
        name: what messages call it.

    Returns:
        (H, W, 1 or 3) uint8 or uint16.

    Raises:
        PictureError, UnavailableError: as `read`.
    """
    format = _format_of(data, name)
    with _errors(name, format):
        return _decoded(format, data, partial(_guard, name, len(data), MAX_PIXELS, Budget())).color


class FramesError(PictureError):
    """A file holds several frames, which `read_frames` reads one by one."""


@dataclass(frozen=True)
class Frames:
    """An animation, or a TIFF of several pages; to iterate over it decodes its frames, one at a time.

    Attributes:
        name: what messages call it.
        count: of frames.
        loop: how often an animation is played, 0 for ever.
        format: a name in `FORMATS` that it is written as unless told otherwise.
        paged: its frames are pages, each a picture of its own size.
        data: the bytes of the file.
    """

    name: str
    count: int
    loop: int
    format: str
    paged: bool
    data: bytes = field(repr=False)
    _open: Callable[[], LoadedFrames] = field(repr=False)
    _path: Path | None = None

    def __iter__(self) -> Iterator[tuple[Picture, float]]:
        """Each frame with the milliseconds it is shown; raises a PictureError where one is damaged."""
        format = sniff(self.data) or ""
        with _errors(self.name, format):
            for raw, duration in self._open().frames:
                yield _picture(raw, format, self.name, self._path), duration

    @property
    def middle(self) -> Picture:
        """The frame in the middle."""
        return next(picture for i, (picture, _) in enumerate(self) if i == self.count // 2)


def read_frames(source: str | Path | bytes, *, name: str | None = None, budget: Budget | None = None) -> Frames:
    """Open a GIF, WebP or PNG animation or a TIFF of several pages; the arguments are those of `read`.

    Raises:
        PictureError, UnavailableError: as `read`; also if it is a single picture.
    """
    path = Path(source) if isinstance(source, (str, os.PathLike)) else None
    name = name or (str(path) if path is not None else "picture")
    budget = budget or Budget()
    data = source_bytes(source, name, limit=MAX_PIXELS * _FILE_BYTES, room=budget.room())
    format = _format_of(data, name)
    if format not in (*PAGED, *ANIMATED, "GIF"):
        raise PictureError(f"{name}: a {format} file holds one picture", "Read it as a picture.")
    open_file = partial(load_frames, format, data, partial(_guard, name, len(data), MAX_PIXELS, budget))
    with _errors(name, format):
        loaded = open_file()
    written = format if FORMATS[format].writable else "PNG"
    return Frames(name, loaded.count, loaded.loop, written, format in PAGED, data, open_file, path)


def probe(source: str | Path | bytes | IO[bytes], *, name: str | None = None) -> tuple[str, int, int]:
    """Format, width and height as the header has them (before a picture is turned upright); no pixel is decoded.

    Raises:
        PictureError, UnavailableError: as `read`, as far as the header shows it.
    """
    name = name or (str(source) if isinstance(source, (str, os.PathLike)) else "picture")
    data = source_bytes(source, name, limit=MAX_PIXELS * _FILE_BYTES)
    format = _format_of(data, name)

    def stop(size: tuple[int, int], /, **_: object) -> None:
        raise _Size(size)

    with _errors(name, format):
        try:
            load(format, data, stop)
        except _Size as found:
            return format, *found.size
    raise PictureError(f"{name}: the picture has no pixels", "")


class _Size(BaseException):
    """Thrown by `probe` out of a loader; no `Exception`, so that none of them takes it for a damaged file."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size


def _guard(  # noqa: PLR0913 (bound to the first four; the rest is `Guard`)
    name: str,
    file_bytes: int,
    max_pixels: int,
    budget: Budget,
    size: tuple[int, int],
    /,
    *,
    deep: bool = False,
    alpha: bool = False,
    profile: bool = False,
    more: int = 0,
) -> None:
    """Refuse a picture by its header: too many pixels, more than its file can hold, or than memory can."""
    _check_size(name, file_bytes, max_pixels, size)
    budget.require(name, size, _PLAIN + _DEEP * deep + _ALPHA * alpha + _PROFILE * profile + more)


def _check_size(name: str, file_bytes: int, max_pixels: int, size: tuple[int, int]) -> None:
    width, height = size
    pixels = width * height
    if width <= 0 or height <= 0:
        raise PictureError(f"{name}: the picture has no pixels", "")
    if pixels > max_pixels:
        raise PictureError(
            f"{name}: {width} x {height} is {pixels / 1e6:.1f} megapixels, more than the limit of "
            f"{max_pixels / 1e6:.1f}",
            "Reduce it first; from Python, irtool.picture.read takes max_pixels.",
        )
    if pixels > _SURE_PIXELS and 8 * file_bytes < _LEAST_BITS * pixels:
        raise PictureError(
            f"{name}: {width} x {height} pixels in {file_bytes} bytes are no photograph, and decoding them would take "
            f"{pixels * 24 / 1e9:.1f} GB",
            "Reduce it first with a program that you trust it to.",
        )


@contextlib.contextmanager
def _errors(name: str, format: str) -> Iterator[None]:
    """Turn whatever a decoder raises into one kind of error."""
    try:
        yield
    except RefusedError as error:
        kind = FramesError if isinstance(error, SeveralFramesError) else PictureError
        raise kind(f"{name} {error}", error.hint) from error
    except UnavailableError as error:
        raise UnavailableError(f"{name}: {error.message}", error.hint) from error
    except IrtoolError:
        raise
    except MemoryError as error:
        raise PictureError(f"{name}: not enough memory to decode it", "Reduce the picture first.") from error
    except Exception as error:
        # Decoders of damaged files raise whatever they trip over: struct.error, SyntaxError, IndexError, zlib.error ...
        raise PictureError(
            f"{name}: damaged or incomplete {format} file ({_reason(error)})", "Copy or download the file again."
        ) from error


_pillow_limit = threading.Lock()


def _decoded(format: str, data: bytes, guard: Guard) -> DecodedFile:
    """`load`, also of pictures above Pillow's own limit: `guard` has ours, and knows the memory there is."""
    try:
        return load(format, data, guard)
    except Image.DecompressionBombError:
        # The limit is a global of Pillow: lifted for a moment, and only where it matters.
        with _pillow_limit:
            before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                return load(format, data, guard)
            finally:
                Image.MAX_IMAGE_PIXELS = before


def _format_of(data: bytes, name: str) -> str:
    if not data:
        raise PictureError(f"{name}: the file is empty (zero bytes)", "Copy or download the file again.")
    format = sniff(data)
    if format is None:
        known = ", ".join(FORMATS)
        what = other_kind(data)
        raise PictureError(
            f"{name} is not a picture of a known kind" + (f", but {what}" if what else ""),
            f"Kinds that can be read: {known}.",
        )
    return format


def _picture(raw: DecodedFile, format: str, name: str, path: Path | None) -> Picture:
    notes = list(raw.notes)
    color, alpha = raw.color, raw.alpha
    exif, orientation = None, 1
    if raw.exif:
        try:
            exif, orientation = exif_room.reset_orientation(raw.exif)
        except ValueError:
            notes.append("its EXIF block is damaged and was dropped")
    if not raw.orientation_applied:
        color = upright(color, orientation)
        alpha = None if alpha is None else upright(alpha, orientation)
    if exif is not None:
        exif = exif_room.with_dimensions(exif, color.shape[1], color.shape[0])
    # Also where only XMP states an orientation: nothing turns pixels by that, but some programs would after us.
    xmp = raw.xmp and xmp_room.upright(raw.xmp)
    top = np.float32(np.iinfo(color.dtype).max)
    gray = color.shape[2] == 1
    swapped = orientation >= 5
    icc = raw.icc
    if not icc and not gray and not any(name in png.COLOR_CHUNKS for name, _ in raw.blocks):
        icc = stated.profile(*stated.ADOBE_RGB) if exif_room.is_adobe_rgb(exif) else None
    if icc and color.dtype == np.uint8 and not gray and profile_of(icc) is None and channels(icc) == 3:
        converted = to_srgb(Image.fromarray(color), icc)
        if converted is not None:
            color, icc = converted, None
            notes.append("its colour profile is one of lookup tables: the colours were converted to sRGB")
    pixels, out_of_gamut = _srgb(color, icc, notes)
    return Picture(
        pixels=pixels,
        alpha=None if alpha is None else alpha.astype(np.float32) / top,
        bits=16 if color.dtype == np.uint16 else 8,
        gray=gray,
        neutral=not gray and _is_neutral(color, _WEBP_NOISE if format == "WEBP" and not raw.lossless else 0),
        format=format if FORMATS[format].writable else "PNG",
        icc=icc,
        exif=exif,
        xmp=xmp,
        dpi=(raw.dpi[1], raw.dpi[0]) if raw.dpi and swapped else raw.dpi,
        aspect=(raw.aspect[1], raw.aspect[0]) if raw.aspect and swapped else raw.aspect,
        jpeg=raw.jpeg and replace(raw.jpeg, orientation=orientation if raw.jpeg.orientation else 0),
        lossless=raw.lossless,
        comment=raw.comment,
        blocks=raw.blocks,
        out_of_gamut=out_of_gamut,
        source=path,
        name=name,
        notes=tuple(notes),
    )


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored rows and columns as the EXIF orientation (1 to 8) says. Exif 2.32, table 7."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def _is_neutral(color: np.ndarray, noise: int) -> bool:
    """Whether the three channels of a picture are equal everywhere, to so many levels."""
    return all(bool((np.ptp(color[rows], axis=2) <= noise).all()) for rows in strips(color))


def _srgb(color: np.ndarray, icc: bytes | None, notes: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """(H, W, 1 or 3) codes to (H, W, 3) float32 sRGB in [0, 1], and what lies beyond that range if anything does."""
    if icc and profile_of(icc) is None:
        notes.append(
            "its colour profile is of a kind that is not converted: the pixels are treated as sRGB and keep it"
        )
    profile = converter(icc, color.shape[2])
    out_of_gamut = None
    if profile is None:
        flat = color.astype(np.float32)
        flat /= np.float32(np.iinfo(color.dtype).max)
    else:
        flat = profile.to_srgb(np.repeat(color, 3, axis=2) if profile.channels > color.shape[2] else color)
        if flat.min() < -1e-4 or flat.max() > 1 + 1e-4:
            out_of_gamut = flat.copy()
        np.clip(flat, 0, 1, out=flat)
        if out_of_gamut is not None:
            out_of_gamut -= flat
    return np.repeat(flat, 3, axis=2) if flat.shape[2] == 1 else flat, out_of_gamut
