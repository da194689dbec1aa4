"""EXIF and TIFF directories as bytes: read, patched in place, written.

Pillow re-serialises EXIF, which changes types and loses what it does not know. Here a block is patched in place where
that is enough, and a directory is otherwise moved entry by entry with its raw values. Layout: TIFF 6.0, 2; Exif 2.32.
"""

from __future__ import annotations

import re
import struct
from typing import Literal, Union

Order = Literal["<", ">"]
# Entry: (TIFF type, count, raw value bytes) or, for a pointer tag, the directory it points to.
Entry = tuple[int, int, bytes]
Directory = dict[int, Union[Entry, "Directory"]]

ORIENTATION = 0x0112
_EXIF, _GPS, _INTEROP = 0x8769, 0x8825, 0xA005
_POINTERS = {_EXIF, _GPS, _INTEROP}
_PIXEL_X, _PIXEL_Y = 0xA002, 0xA003
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}

# Tags of a TIFF's first directory that describe its pixel storage, what a Picture carries by itself (resolution,
# profile, XMP) or private copies of its pixels (SubIFDs, JPEG tables, Photoshop resources and layers); the rest is
# metadata.
_STRUCTURE = {
    *(
        254,
        255,
        256,
        257,
        258,
        259,
        262,
        263,
        264,
        265,
        266,
        273,
        277,
        278,
        279,
        280,
        281,
        282,
        283,
        284,
        288,
        289,
        290,
        291,
    ),
    *(
        292,
        293,
        296,
        301,
        317,
        318,
        319,
        320,
        321,
        322,
        323,
        324,
        325,
        330,
        332,
        334,
        336,
        338,
        339,
        340,
        341,
        342,
        347,
    ),
    *(512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 700, 34377, 34675, 37724),
}


def _order(block: bytes) -> Order:
    if len(block) < 8:
        raise ValueError("too short")
    if block[:4] == b"II*\0":
        return "<"
    if block[:4] == b"MM\0*":
        return ">"
    raise ValueError("not a TIFF structure")


def _entries(block: bytes, order: Order, start: int) -> list[tuple[int, int, int, int]]:
    """(offset of the entry, tag, type, count) of each entry of the directory at `start`."""
    if start < 8 or start + 2 > len(block):
        raise ValueError("directory outside the block")
    (count,) = struct.unpack_from(order + "H", block, start)
    if start + 2 + 12 * count > len(block):
        raise ValueError("directory runs past the end")
    return [(at, *struct.unpack_from(order + "HHI", block, at)) for at in range(start + 2, start + 2 + 12 * count, 12)]


def settle(block: bytes) -> tuple[bytes, int]:
    """Patch an EXIF block for pixels that are turned upright: its orientation becomes 1 and its thumbnail is unlinked.

    The thumbnail shows the old picture. All else keeps its bytes and its place, so that maker notes stay valid.

    Returns:
        the patched block and the orientation it had (1 to 8; 1 if absent or senseless).

    Raises:
        ValueError: it is not a readable EXIF block.
    """
    order = _order(block)
    out = bytearray(block)
    (start,) = struct.unpack_from(order + "I", block, 4)
    entries = _entries(block, order, start)
    orientation = 1
    for at, tag, kind, _ in entries:
        if tag == ORIENTATION and kind in (3, 4):
            code = order + ("H" if kind == 3 else "I")
            (found,) = struct.unpack_from(code, block, at + 8)
            orientation = found if 1 <= found <= 8 else 1
            struct.pack_into(code, out, at + 8, 1)
    after = start + 2 + 12 * len(entries)
    if after + 4 <= len(out):
        struct.pack_into(order + "I", out, after, 0)
    return bytes(out), orientation


def with_dimensions(block: bytes, width: int, height: int) -> bytes:
    """The EXIF block with its pixel dimensions, where it states them, set to those given."""
    out = bytearray(block)
    try:
        order = _order(block)
        entries = _entries(block, order, struct.unpack_from(order + "I", block, 4)[0])
        pointers = [struct.unpack_from(order + "I", block, at + 8)[0] for at, tag, _, _ in entries if tag == _EXIF]
        entries = [entry for pointer in pointers for entry in _entries(block, order, pointer)]
    except ValueError:
        return block
    for at, tag, kind, count in entries:
        if tag in (_PIXEL_X, _PIXEL_Y) and kind in (3, 4) and count == 1:
            value = width if tag == _PIXEL_X else height
            if kind == 4 or value < 65536:
                struct.pack_into(order + ("H" if kind == 3 else "I"), out, at + 8, value)
    return bytes(out)


def settle_xmp(xmp: bytes) -> bytes:
    """An XMP packet with its copy of the orientation set to 1."""
    xmp = re.sub(rb"""(tiff:Orientation\s*=\s*["'])[2-8](?=["'])""", rb"\g<1>1", xmp)
    return re.sub(rb"(<tiff:Orientation>\s*)[2-8](?=\s*<)", rb"\g<1>1", xmp)


def parse(block: bytes) -> tuple[Order, Directory]:
    """The byte order ("<" or ">") and the first directory of a TIFF structure, with EXIF, GPS and interop directories.

    Raises:
        ValueError: the block is not a readable TIFF structure. Single damaged entries are left out.
    """
    order = _order(block)
    (start,) = struct.unpack_from(order + "I", block, 4)
    return order, _directory(block, order, start, depth=0)


def _directory(block: bytes, order: Order, start: int, depth: int) -> Directory:
    found: Directory = {}
    for at, tag, kind, count in _entries(block, order, start):
        if kind not in _SIZES:
            continue
        if tag in _POINTERS:
            (pointer,) = struct.unpack_from(order + "I", block, at + 8)
            try:
                if depth < 2:
                    found[tag] = _directory(block, order, pointer, depth + 1)
            except ValueError:
                pass
            continue
        size = _SIZES[kind] * count
        where = at + 8 if size <= 4 else struct.unpack_from(order + "I", block, at + 8)[0]
        if where + size <= len(block):
            found[tag] = (kind, count, block[where : where + size])
    return found


def serialise(order: Order, directory: Directory, base: int) -> bytes:
    """A directory as bytes that will lie at offset `base` of their file; no header, no next directory."""
    body = struct.pack(order + "H", len(directory))
    tail = b""
    tail_at = base + 2 + 12 * len(directory) + 4
    for tag in sorted(directory):
        entry = directory[tag]
        if isinstance(entry, dict):
            body += struct.pack(order + "HHII", tag, 4, 1, tail_at + len(tail))
            tail += serialise(order, entry, tail_at + len(tail))
        else:
            kind, count, value = entry
            body += struct.pack(order + "HHI", tag, kind, count)
            if len(value) <= 4:
                body += value.ljust(4, b"\0")
            else:
                body += struct.pack(order + "I", tail_at + len(tail))
                tail += value
        tail += b"\0" * (len(tail) % 2)
    return body + b"\0\0\0\0" + tail


def block_of(order: Order, directory: Directory) -> bytes:
    """A directory as a complete EXIF block."""
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8) + serialise(order, directory, 8)


def metadata_of(directory: Directory) -> Directory:
    """What of a TIFF's first directory is metadata rather than pixel storage."""
    return {tag: entry for tag, entry in directory.items() if tag not in _STRUCTURE}


def without_orientation(block: bytes) -> bytes:
    """The block rewritten without an orientation tag, for containers that keep the turn elsewhere; may be empty."""
    try:
        order, directory = parse(block)
    except ValueError:
        return b""
    directory.pop(ORIENTATION, None)
    return block_of(order, directory) if directory else b""
