"""Files of several pictures: animations (GIF, WebP, PNG) and TIFFs of several pages, decoded frame by frame."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from . import exif as exif_room
from . import png
from .loaders import contents, png_metadata
from .raw import DecodedFile, Guard, RefusedError, common
from .tiff import load_tiff, page_numbers

PAGED = ("TIFF",)
ANIMATED = ("PNG", "WEBP")
"""Formats that several frames are written in: pages with a picture each, and animations."""


@dataclass(frozen=True)
class LoadedFrames:
    """What a file of several frames holds, decoded as it is iterated over.

    Attributes:
        count: of frames.
        loop: how often an animation is played, 0 for ever.
        frames: each frame as stored, with the milliseconds it is shown (0 of a page).
    """

    count: int
    loop: int
    frames: Iterator[tuple[DecodedFile, float]]


def load_frames(format: str, data: bytes, guard: Guard) -> LoadedFrames:
    """Open `data`, which holds several frames in one of the formats of this module."""
    from PIL import GifImagePlugin, PngImagePlugin, WebPImagePlugin

    if format == "TIFF":
        return _pages(data, guard)
    im: Any
    if format == "PNG":
        parts, notes = png.checked(list(png.chunks(data)))
        found = dict(reversed(parts))  # of several chunks of one kind the first
        if found[b"IHDR"][8] == 16:
            raise RefusedError("is an animation of 16 bits", "Convert it to 8 bits first.")
        meta, blocks = png_metadata(parts, found, notes)
        meta |= {"blocks": tuple(blocks), "notes": tuple(notes)}
        im = PngImagePlugin.PngImageFile(BytesIO(data))
    elif format == "WEBP":
        im = WebPImagePlugin.WebPImageFile(BytesIO(data))
        meta = {**common(im), "lossless": _is_lossless(data)}
    else:
        im = GifImagePlugin.GifImageFile(BytesIO(data))
        meta = {**common(im), "comment": im.info.get("comment") or None}
    guard(im.size, more=8, **contents(im))
    # A PNG may begin with a picture for those who show no animations, which is none of its frames.
    first = int(bool(im.info.get("default_image")))
    loop = im.info.get("loop", 1 if format == "GIF" else 0)
    return LoadedFrames(im.n_frames - first, _times(format, loop), _shown(im, first, meta))


def _times(format: str, loop: int) -> int:
    """How often an animation is played; a GIF says how often it is repeated."""
    return loop + 1 if format == "GIF" and loop else loop


def _shown(im: Any, first: int, meta: dict[str, Any]) -> Iterator[tuple[DecodedFile, float]]:
    """The frames as they are shown, each over those before it."""
    for number in range(first, im.n_frames):
        im.seek(number)
        im.load()
        array = np.asarray(im.convert("RGBA"))
        alpha = array[..., 3] if array[..., 3].min() < 255 else None
        yield DecodedFile(array[..., :3].copy(), alpha, **meta), float(im.info.get("duration", 0))


def _is_lossless(data: bytes) -> bool:
    """Whether the first frame of an animated WebP is a VP8L chunk. Layout: RFC 9649, 2.7.1.1."""
    at = 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        if kind == b"ANMF":
            return data[at + 24 : at + 28] == b"VP8L"
        at += 8 + size + size % 2
    return False


def _pages(data: bytes, guard: Guard) -> LoadedFrames:
    order: exif_room.Order = "<" if data.startswith(b"II") else ">"
    count = len(page_numbers(order, list(exif_room.directories(data))))
    return LoadedFrames(count, 0, ((load_tiff(data, guard, page), 0.0) for page in range(count)))


def join_pages(files: list[bytes]) -> bytes:
    """One TIFF of the pages of several, each of one page as `irtool.picture.tiff.encode_tiff` writes it.

    Raises:
        ValueError: it would not fit the format's 4 GB, or their byte orders differ.
    """
    order: exif_room.Order = "<" if files[0].startswith(b"II") else ">"
    if any(file[:2] != files[0][:2] for file in files):
        raise ValueError("its pages differ in their byte order")
    out, at, link = [files[0][:4], b""], 8, 1  # `link`: the part that points to the next directory
    for file in files:
        start = struct.unpack_from(order + "I", file, 4)[0]
        directory = next(exif_room.directories(file))
        body = file[8:start]
        offsets = [at - 8 + offset for offset in exif_room.numbers(order, directory[273])]
        directory[273] = (4, len(offsets), struct.pack(f"{order}{len(offsets)}I", *offsets))
        place = at + len(body)
        pages = exif_room.serialize(order, directory, place)
        out[link] = struct.pack(order + "I", place)
        head = 2 + 12 * len(directory)
        out += [body, pages[:head], b"\0\0\0\0", pages[head + 4 :]]
        link = len(out) - 2
        at = place + len(pages)
        if at % 2:
            out.append(b"\0")
            at += 1
        if at > 2**32 - (1 << 26):
            raise ValueError("it does not fit a TIFF file, which holds at most 4 GB")
    return b"".join(out)
