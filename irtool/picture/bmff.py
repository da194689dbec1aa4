"""Boxes of AVIF and HEIF files: what their primary picture states of its colours, and what else is in the file.

Pillow and pillow-heif hand on the ICC profile but not the code points. Layout: ISO/IEC 14496-12 (ISO base media file
format) and 23008-12 (HEIF).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_MAX_BOXES = 10_000


@dataclass(frozen=True)
class Boxes:
    """What the boxes of a file say.

    Attributes:
        code_points: colour primaries, transfer characteristics and full range flag of the primary picture
            (ITU-T H.273), or None.
        gain_map: there is a gain map ("tmap" item, or an auxiliary picture that calls itself one).
        depth_map: there is a depth map.
    """

    code_points: tuple[int, int, int] | None = None
    gain_map: bool = False
    depth_map: bool = False


def boxes_of(data: bytes) -> Boxes:
    """Read the boxes of a file; what is damaged counts as absent."""
    try:
        return _boxes(data)
    except (struct.error, IndexError, ValueError):
        return Boxes()


def meta_box(data: bytes) -> dict[bytes, tuple[int, int]]:
    """Where the content of each box within the box meta of a file begins and ends; none where there is no such box."""
    meta = next((span for kind, *span in _walk(data, 0, len(data)) if kind == b"meta"), None)
    if meta is None:
        return {}
    start, end = meta[0] + 4, meta[1]  # version and flags come first
    return {kind: (a, b) for kind, a, b in _walk(data, start, end)}


def _boxes(data: bytes) -> Boxes:
    inner = meta_box(data)
    primary = None
    if b"pitm" in inner:
        at = inner[b"pitm"][0]
        primary = struct.unpack_from(">I" if data[at] else ">H", data, at + 4)[0]
    kinds = data[slice(*inner[b"iinf"])] if b"iinf" in inner else b""
    if b"iprp" not in inner:
        return Boxes(gain_map=b"tmap" in kinds)
    parts = {kind: (a, b) for kind, a, b in _walk(data, *inner[b"iprp"])}
    properties = list(_walk(data, *parts[b"ipco"])) if b"ipco" in parts else []
    associated = _associated(data, *parts[b"ipma"], primary) if b"ipma" in parts else set()
    points = None
    for number, (kind, a, b) in enumerate(properties, 1):
        if kind == b"colr" and number in associated and data[a : a + 4] == b"nclx" and b - a >= 11:
            primaries, transfer, _, flag = struct.unpack_from(">HHHB", data, a + 4)
            points = (primaries, transfer, flag >> 7)
    auxiliary = b"".join(data[a:b] for kind, a, b in properties if kind == b"auxC")
    return Boxes(points, b"tmap" in kinds or b"gainmap" in auxiliary.lower(), b"depth" in auxiliary)


def _walk(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, first byte of the content, byte behind it) of the boxes that lie between two offsets."""
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start + 8)
            head = 16
        elif size == 0:
            size = end - start
        if size < head or start + size > end:
            return
        yield kind, start + head, start + size
        start += size


def _associated(data: bytes, at: int, end: int, item: int | None) -> set[int]:
    """Numbers of the properties of an item: box ipma."""
    version, flags = data[at], data[at + 3]
    (entries,) = struct.unpack_from(">I", data, at + 4)
    at += 8
    for _ in range(min(entries, _MAX_BOXES)):
        (found,) = struct.unpack_from(">I" if version else ">H", data, at)
        at += 4 if version else 2
        count = data[at]
        at += 1
        wide = 2 if flags & 1 else 1
        if found == item:
            numbers = struct.unpack_from(f">{count}{'H' if wide == 2 else 'B'}", data, at)
            return {number & (0x7FFF if wide == 2 else 0x7F) for number in numbers}
        at += wide * count
        if at >= end:
            break
    return set()


def with_code_points(data: bytes, primaries: int, transfer: int) -> bytes:
    """A file as Pillow writes it, with these code points in its colour box instead of those it has."""
    at = data.find(b"colrnclx", 0, 4096)
    if at < 0:
        return data
    return data[: at + 8] + struct.pack(">HH", primaries, transfer) + data[at + 12 :]
