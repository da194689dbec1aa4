"""From a file, bytes or a stream to a Picture; every way this can fail ends in one kind of error."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import replace
from io import BufferedIOBase, RawIOBase
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import IrtoolError, PictureError, UnavailableError
from . import exif as exif_room
from .colour import converter, profile_of
from .formats import FORMATS, sniff
from .loaders import load
from .model import Picture
from .raw import Raw, Refused

MAX_PIXELS = 300_000_000
"""The default limit: three times a 100-megapixel photograph, 3.6 GB as float32."""

_HEAD = 4096


def hush() -> None:
    """Keep what Pillow and tifffile warn and log about odd metadata off the terminal: nobody can act on it.

    The handlers only replace Python's last-resort printing: an application that configures logging still sees all.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.|tifffile|pillow_heif")
    for name in ("PIL", "tifffile"):
        logging.getLogger(name).addHandler(logging.NullHandler())


# Once, at import: changing the filters around each decoding would not be safe with several threads.
hush()


def read(source: str | Path | bytes | IO[bytes], *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode one picture. Its content decides the format, not its name.

    Args:
        source: a path, the bytes of a file, or a binary stream read to its end.
        name: what messages call it; by default the path, or "picture".
        max_pixels: larger pictures are refused before they are decoded.

    Returns:
        the picture upright, in sRGB float32.

    Raises:
        PictureError: it cannot be opened, is not a picture, is damaged, too large, animated or of a kind not handled.
        UnavailableError: it needs an optional package that is not installed.
    """
    path = Path(source) if isinstance(source, (str, os.PathLike)) else None
    name = name or (str(path) if path is not None else "picture")
    data = _content(source, name)
    format = _format_of(data, name)

    def guard(size: tuple[int, int]) -> None:
        width, height = size
        if width <= 0 or height <= 0:
            raise PictureError(f"{name}: the picture has no pixels", "")
        if width * height > max_pixels:
            raise PictureError(
                f"{name}: {width} x {height} is {width * height / 1e6:.1f} megapixels, more than the limit of "
                f"{max_pixels / 1e6:.1f} (max_pixels={max_pixels})",
                "If the file is to be trusted, reduce it or raise the limit.",
            )

    try:
        raw = load(format, data, guard)
        guard((raw.colour.shape[1], raw.colour.shape[0]))
        return _picture(raw, format, name, path)
    except Refused as error:
        raise PictureError(f"{name} {error}", error.hint) from error
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


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    # Pillow names the in-memory stream in some messages, which says nothing to anyone.
    if not text or "BytesIO" in text:
        return type(error).__name__
    return text if len(text) <= 120 else text[:117] + "..."


def _content(source: str | Path | bytes | IO[bytes], name: str) -> bytes:
    try:
        if isinstance(source, (bytes, bytearray, memoryview)):
            return bytes(source)
        if isinstance(source, (str, os.PathLike)):
            with Path(source).open("rb") as file:
                return _stream(file)
        return _stream(source)
    except IsADirectoryError as error:
        raise PictureError(
            f"{name} is a folder, not a picture", "Give the pictures in it, or use a folder run."
        ) from error
    except FileNotFoundError as error:
        raise PictureError(f"{name}: no such file", "Check the spelling and the folder.") from error
    except PermissionError as error:
        raise PictureError(f"{name}: not allowed to read it", "Check its permissions.") from error
    except MemoryError as error:
        raise PictureError(f"{name}: too large to read into memory", "") from error
    except (OSError, ValueError) as error:
        raise PictureError(f"{name}: cannot be read ({_reason(error)})", "Check the path and the disk.") from error


def _stream(file: IO[bytes] | BufferedIOBase | RawIOBase) -> bytes:
    # A look at the beginning first: what is no picture (a video, a device) is not read into memory whole.
    head = file.read(_HEAD) or b""
    if sniff(head) is None:
        return head
    return head + (file.read() or b"")


def _format_of(data: bytes, name: str) -> str:
    if not data:
        raise PictureError(f"{name}: the file is empty (zero bytes)", "Copy or download the file again.")
    format = sniff(data)
    if format is None:
        known = ", ".join(FORMATS)
        raise PictureError(f"{name} is not a picture of a known kind", f"Kinds that can be read: {known}.")
    return format


def _picture(raw: Raw, format: str, name: str, path: Path | None) -> Picture:
    notes = list(raw.notes)
    colour, alpha = raw.colour, raw.alpha
    exif, orientation = None, 1
    if raw.exif:
        try:
            exif, orientation = exif_room.settle(raw.exif)
        except ValueError:
            notes.append("its EXIF block is damaged and was dropped")
    if not raw.turned:
        colour = upright(colour, orientation)
        alpha = None if alpha is None else upright(alpha, orientation)
    if exif is not None:
        exif = exif_room.with_dimensions(exif, colour.shape[1], colour.shape[0])
    xmp = raw.xmp
    if xmp is not None and (orientation != 1 or raw.turned):
        xmp = exif_room.settle_xmp(xmp)
    top = np.float32(np.iinfo(colour.dtype).max)
    grey = colour.shape[2] == 1
    pixels, beyond = _srgb(colour, raw.icc, notes)
    return Picture(
        pixels=pixels,
        alpha=None if alpha is None else alpha.astype(np.float32) / top,
        bits=16 if colour.dtype == np.uint16 else 8,
        grey=grey,
        format=format if FORMATS[format].writable else "PNG",
        icc=raw.icc,
        exif=exif,
        xmp=xmp,
        dpi=raw.dpi if orientation < 5 or raw.dpi is None else (raw.dpi[1], raw.dpi[0]),
        jpeg=raw.jpeg and replace(raw.jpeg, orientation=orientation if raw.jpeg.orientation else 0),
        lossless=raw.lossless,
        comment=raw.comment,
        blocks=raw.blocks,
        beyond=beyond,
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


def _srgb(colour: np.ndarray, icc: bytes | None, notes: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """(H, W, 1 or 3) codes to (H, W, 3) float32 sRGB in [0, 1], and what lies beyond that range if anything does."""
    if icc and profile_of(icc) is None:
        notes.append(
            "its colour profile is of a kind that is not converted: the pixels are treated as sRGB and keep it"
        )
    profile = converter(icc, colour.shape[2])
    beyond = None
    if profile is None:
        flat = colour.astype(np.float32)
        flat /= np.float32(np.iinfo(colour.dtype).max)
    else:
        flat = profile.to_srgb(np.repeat(colour, 3, axis=2) if profile.channels > colour.shape[2] else colour)
        if flat.min() < -1e-4 or flat.max() > 1 + 1e-4:
            beyond = flat.copy()
        np.clip(flat, 0, 1, out=flat)
        if beyond is not None:
            beyond -= flat
    return np.repeat(flat, 3, axis=2) if flat.shape[2] == 1 else flat, beyond
