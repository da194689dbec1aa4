"""EXIF and TIFF directories as bytes: read, patched in place, written.

Pillow re-serialises EXIF, which changes types and loses what it does not know. Here a block is patched in place where
that is enough, and a directory is otherwise moved entry by entry with its raw values. Layout: TIFF 6.0, 2; Exif 2.32;
BigTIFF as in libtiff (8-byte offsets and counts, types 16 to 18).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple, Union

Order = Literal["<", ">"]
# Entry: (TIFF type, count, raw value bytes) or, for a pointer tag, the directory it points to.
Entry = tuple[int, int, bytes]
Directory = dict[int, Union[Entry, "Directory"]]

ORIENTATION = 0x0112
_EXIF, _GPS, _INTEROP = 0x8769, 0x8825, 0xA005
_POINTERS = {_EXIF, _GPS, _INTEROP}
_PIXEL_X, _PIXEL_Y = 0xA002, 0xA003
_MAKER_NOTE = 0x927C
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_MAX_DIRECTORIES = 1000

# Tags of a TIFF's first directory that describe its pixel storage, what a Picture carries by itself (resolution,
# profile, XMP) or private copies of its pixels (SubIFDs, JPEG tables, Photoshop resources and layers); the rest is
# metadata.
_STRUCTURE = {
    *range(254, 260), *range(262, 267), 273, *range(277, 285), 288, 289, 290, 291, 292, 293, 296, 301, *range(317, 326),
    330, 332, 334, 336, *range(338, 343), 347, *range(512, 516), 517, *range(518, 522), *range(529, 533), 700, 34377,
    34675, 37724,
}  # fmt: skip


class _Layout(NamedTuple):
    """How a TIFF structure is laid out: byte order, and formats of the number of entries, an entry and an offset."""

    order: Order
    number: str = "H"
    entry: str = "HHI"
    offset: str = "I"

    def unpack(self, code: str, block: bytes, at: int) -> tuple[int, ...]:
        if at + struct.calcsize(self.order + code) > len(block):
            raise ValueError("directory runs past the end")
        return struct.unpack_from(self.order + code, block, at)

    def size(self, code: str) -> int:
        return struct.calcsize(self.order + code)

    @property
    def inline(self) -> int:
        """Bytes of a value that an entry holds by itself."""
        return self.size(self.offset)


class _Item(NamedTuple):
    """An entry of a directory: where its value or the offset of it lies, tag, TIFF type, number of values."""

    at: int
    tag: int
    kind: int
    length: int


def _layout(block: bytes) -> tuple[_Layout, int]:
    """The layout of a TIFF structure and the offset of its first directory."""
    if len(block) < 8:
        raise ValueError("too short")
    order: Order = "<" if block[:2] == b"II" else ">"
    if block[:4] in (b"II*\0", b"MM\0*"):
        return _Layout(order), int(struct.unpack_from(order + "I", block, 4)[0])
    if block[:4] in (b"II+\0", b"MM\0+") and len(block) >= 16:
        return _Layout(order, "Q", "HHQ", "Q"), int(struct.unpack_from(order + "Q", block, 8)[0])
    raise ValueError("not a TIFF structure")


def _items(block: bytes, layout: _Layout, start: int) -> tuple[list[_Item], int]:
    """The entries of the directory at `start`, and where it gives the offset of the next one."""
    if start < 8:
        raise ValueError("directory outside the block")
    (count,) = layout.unpack(layout.number, block, start)
    first, head = start + layout.size(layout.number), layout.size(layout.entry)
    step = head + layout.inline
    end = first + step * count
    if end > len(block):
        raise ValueError("directory runs past the end")
    return [_Item(at + head, *layout.unpack(layout.entry, block, at)) for at in range(first, end, step)], end


def reset_orientation(block: bytes) -> tuple[bytes, int]:
    """Patch an EXIF block for pixels that are turned upright: its orientation becomes 1 and its thumbnail is unlinked.

    The thumbnail shows the old picture. All else keeps its bytes and its place, so that maker notes stay valid.

    Returns:
        the patched block and the orientation it had (1 to 8; 1 if absent or senseless).

    Raises:
        ValueError: it is not a readable EXIF block.
    """
    layout, start = _layout(block)
    out = bytearray(block)
    items, after = _items(block, layout, start)
    orientation = 1
    for item in items:
        if item.tag == ORIENTATION and item.length == 1 and _SIZES.get(item.kind, 9) <= layout.inline:
            code = _INTEGERS.get(item.kind)
            if code is not None:
                (found,) = layout.unpack(code, block, item.at)
                orientation = found if 1 <= found <= 8 else 1
                struct.pack_into(layout.order + code, out, item.at, 1)
    if after + layout.inline <= len(out):
        struct.pack_into(layout.order + layout.offset, out, after, 0)
    return bytes(out), orientation


def with_dimensions(block: bytes, width: int, height: int) -> bytes:
    """The EXIF block with its pixel dimensions, where it states them, set to those given."""
    out = bytearray(block)
    try:
        layout, start = _layout(block)
        items, _ = _items(block, layout, start)
        pointers = [layout.unpack(layout.offset, block, item.at)[0] for item in items if item.tag == _EXIF]
        items = [item for pointer in pointers[:1] for item in _items(block, layout, pointer)[0]]
    except ValueError:
        return block
    for item in items:
        if item.tag in (_PIXEL_X, _PIXEL_Y) and item.kind in (3, 4) and item.length == 1:
            value = width if item.tag == _PIXEL_X else height
            if item.kind == 4 or value < 65536:
                struct.pack_into(layout.order + _INTEGERS[item.kind], out, item.at, value)
    return bytes(out)


def parse(block: bytes) -> tuple[Order, Directory]:
    """The byte order ("<" or ">") and the first directory of a TIFF structure, with EXIF, GPS and interop directories.

    Raises:
        ValueError: the block is not a readable TIFF structure. Single damaged entries are left out.
    """
    layout, start = _layout(block)
    return layout.order, _directory(block, layout, start, [len(block)])


def directories(block: bytes) -> Iterator[Directory]:
    """The chain of directories of a TIFF file, first to last, each as `parse` gives it.

    Raises:
        ValueError: the block is not a readable TIFF structure. A damaged later directory ends the chain.
    """
    layout, start = _layout(block)
    visited: set[int] = set()
    left = [len(block)]
    while start and start not in visited and len(visited) < _MAX_DIRECTORIES:
        try:
            after = _items(block, layout, start)[1]
            found = _directory(block, layout, start, left)
        except ValueError:
            if not visited:
                raise
            return
        visited.add(start)
        yield found
        end = after + layout.inline
        start = layout.unpack(layout.offset, block, after)[0] if end <= len(block) else 0


def _directory(block: bytes, layout: _Layout, start: int, left: list[int], depth: int = 0) -> Directory:
    """One directory with those it points to. `left`: bytes of values that may still be taken, shared by them all: no
    honest structure has more of them than its own length, and entries that all name one block would multiply it."""
    found: Directory = {}
    for item in _items(block, layout, start)[0]:
        if item.kind not in _SIZES:
            continue
        if item.tag in _POINTERS:
            (pointer,) = layout.unpack(layout.offset, block, item.at)
            try:
                if depth < 2:
                    found[item.tag] = _directory(block, layout, pointer, left, depth + 1)
            except ValueError:
                pass
            continue
        size = _SIZES[item.kind] * item.length
        where = item.at if size <= layout.inline else layout.unpack(layout.offset, block, item.at)[0]
        if where + size <= len(block) and size <= left[0]:
            left[0] -= size
            found[item.tag] = _classic(item.kind, item.length, block[where : where + size], layout.order)
    return found


def _classic(kind: int, count: int, value: bytes, order: Order) -> Entry:
    """An entry without the types that only BigTIFF has; numbers that need 64 bits stay as they are."""
    if kind not in (16, 17, 18):
        return kind, count, value
    numbers = struct.unpack(f"{order}{count}{_INTEGERS[kind]}", value)
    code, narrow = ("i", 9) if kind == 17 else ("I", 4)
    try:
        return narrow, count, struct.pack(f"{order}{count}{code}", *numbers)
    except struct.error:
        return kind, count, value


def numbers(order: str, entry: Entry | Directory | None) -> tuple[int, ...]:
    """The values of an integer entry; empty for an absent one and for other types."""
    if not isinstance(entry, tuple) or entry[0] not in _INTEGERS:
        return ()
    return struct.unpack(f"{order}{entry[1]}{_INTEGERS[entry[0]]}", entry[2])


def serialize(order: Order, directory: Directory, base: int) -> bytes:
    """A directory as bytes that will lie at offset `base` of their file; no header, no next directory."""
    body = [struct.pack(order + "H", len(directory))]
    tail: list[bytes] = []
    end = base + 2 + 12 * len(directory) + 4
    for tag in sorted(directory):
        entry = directory[tag]
        if isinstance(entry, dict):
            body.append(struct.pack(order + "HHII", tag, 4, 1, end))
            value = serialize(order, entry, end)
        else:
            kind, count, value = entry
            body.append(struct.pack(order + "HHI", tag, kind, count))
            if len(value) <= 4:
                body.append(value.ljust(4, b"\0"))
                continue
            body.append(struct.pack(order + "I", end))
        value += b"\0" * (len(value) % 2)
        tail.append(value)
        end += len(value)
    return b"".join([*body, b"\0\0\0\0", *tail])


def block_of(order: Order, directory: Directory) -> bytes:
    """A directory as a complete EXIF block."""
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8) + serialize(order, directory, 8)


def fitted(block: bytes, limit: int) -> tuple[bytes | None, tuple[int, ...]]:
    """An EXIF block of at most `limit` bytes, and the tags that had to go for it: the maker note, then the largest.

    A block that fits is handed on as it is. Of one that does not, bytes that nothing refers to (an unlinked thumbnail)
    go first.
    """
    if len(block) <= limit:
        return block, ()
    try:
        order, directory = parse(block)
    except ValueError:
        return None, ()
    dropped: list[int] = []
    while len(block := block_of(order, directory)) > limit:
        flat = [
            (tag == _MAKER_NOTE, len(entry[2]), tag, place)
            for place in (directory, *(d for d in directory.values() if isinstance(d, dict)))
            for tag, entry in place.items()
            if isinstance(entry, tuple)
        ]
        if not flat:
            return None, tuple(dropped)
        _, _, tag, place = max(flat, key=lambda item: item[:3])
        del place[tag]
        dropped.append(tag)
    return block, tuple(dropped)


def metadata_of(directory: Directory) -> Directory:
    """What of a TIFF's first directory is metadata rather than pixel storage."""
    return {tag: entry for tag, entry in directory.items() if tag not in _STRUCTURE and not is_wide(entry)}


def is_wide(entry: Entry | Directory) -> bool:
    """Whether an entry has a type that only BigTIFF has."""
    return isinstance(entry, tuple) and entry[0] in (16, 17, 18)


def is_adobe_rgb(block: bytes | None) -> bool:
    """Whether an EXIF block says that its picture is in Adobe RGB, as cameras do instead of a profile: by the
    interoperability index R03 (DCF 2.0, 3.4), or by a ColorSpace of 2, which some write besides."""
    try:
        order, directory = parse(block or b"")
    except ValueError:
        return False
    sub = directory.get(_EXIF)
    if not isinstance(sub, dict):
        return False
    interop = sub.get(_INTEROP)
    index = interop.get(1) if isinstance(interop, dict) else None
    return numbers(order, sub.get(0xA001)) == (2,) or (isinstance(index, tuple) and index[2].startswith(b"R03"))


def without_orientation(block: bytes) -> bytes:
    """The block rewritten without an orientation tag, for containers that keep the turn elsewhere; may be empty."""
    try:
        order, directory = parse(block)
    except ValueError:
        return b""
    directory.pop(ORIENTATION, None)
    return block_of(order, directory) if directory else b""
