"""How large the pictures coded in an AVIF are, whatever its boxes state: its decoder allocates by the former.

Layout: ISO/IEC 14496-12, 8.11.3 (box iloc) and the AV1 bitstream specification, 5.3 and 5.5 (sequence header).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .bmff import meta_box

_MOST = 1 << 12  # of items and of their units that are looked at: the picture itself comes first
_SEQUENCE_HEADER = 1


def coded_size(data: bytes) -> tuple[int, int]:
    """The largest width and height that the sequence headers of a file allow; (0, 0) where none is found."""
    sizes = [(0, 0)]
    try:
        for item in _items(memoryview(data), meta_box(data)):
            for size in _sizes(item):
                sizes.append(size)
                if len(sizes) > _MOST:
                    raise ValueError("more units than a picture has")
    except (struct.error, IndexError, ValueError, KeyError):
        pass  # what is damaged is for the decoder to say
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _items(data: memoryview, boxes: dict[bytes, tuple[int, int]]) -> Iterator[memoryview]:
    """The bytes of every item that lies in the file or in box idat; together no more than the file has."""
    room = len(data)
    at = boxes[b"iloc"][0]
    version, sizes, more = data[at], data[at + 4], data[at + 5]
    wide = {0: "", 4: "I", 8: "Q"}
    offset, length, base = wide[sizes >> 4], wide[sizes & 15], wide[more >> 4]
    index = wide[more & 15] if version in (1, 2) else ""
    at += 6
    item_count = ">I" if version == 2 else ">H"
    (count,) = struct.unpack_from(item_count, data, at)
    at += struct.calcsize(item_count)
    head = f"{item_count}{'H' if version in (1, 2) else ''}H{base}H"
    for _ in range(min(count, _MOST)):
        found = struct.unpack_from(head, data, at)
        at += struct.calcsize(head)
        start = found[-2] if base else 0
        in_file = version == 0 or found[1] & 15 == 0
        extent = struct.Struct(f">{index}{offset}{length}")
        extents = [extent.unpack_from(data, at + i * extent.size) for i in range(found[-1])]
        at += extent.size * len(extents)
        parts = []
        for values in extents:
            begin = start + (values[-1 - bool(length)] if offset else 0) + (0 if in_file else boxes[b"idat"][0])
            parts.append(data[begin : begin + values[-1]] if length and values[-1] else data[begin:])
        room -= sum(map(len, parts)) if len(parts) > 1 else 0
        if room < 0:
            raise ValueError("more than the file has")
        yield parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _sizes(item: memoryview) -> Iterator[tuple[int, int]]:
    """What every unit of an item states, (0, 0) for those that are no sequence header."""
    at = 0
    while at < len(item):
        head = item[at]
        if head & 0x80 or not head & 2:  # no unit of AV1 that says its length: another kind of item
            return
        at += 2 if head & 4 else 1
        size, at = _leb128(item, at)
        yield _size(bytes(item[at : at + min(size, 256)])) if head >> 3 & 15 == _SEQUENCE_HEADER else (0, 0)
        at += size


def _leb128(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for i in range(8):
        value |= (data[at + i] & 0x7F) << 7 * i
        if not data[at + i] & 0x80:
            return value, at + i + 1
    raise ValueError("a number without end")


class _Bits:
    def __init__(self, data: bytes) -> None:
        self.value, self.left = int.from_bytes(data, "big"), 8 * len(data)

    def __call__(self, count: int) -> int:
        self.left -= count
        if self.left < 0:
            raise ValueError("the sequence header ends early")
        return self.value >> self.left & (1 << count) - 1


def _size(header: bytes) -> tuple[int, int]:
    """Width and height of a sequence header; frames may be as large as their bits allow where these are too many."""
    bits = _Bits(header)
    bits(4)  # profile, still picture
    if bits(1):  # the short header of a still picture
        bits(5)
    else:
        delay = 0
        if bits(1):  # timing
            bits(64)
            if bits(1):
                zeros = 0
                while not bits(1):
                    zeros += 1
                bits(zeros)
            if bits(1):  # decoder model
                delay = bits(5) + 1
                bits(42)
        shown = bits(1)
        for _ in range(bits(5) + 1):  # operating points
            bits(12)
            if bits(5) > 7:
                bits(1)
            if delay and bits(1):
                bits(2 * delay + 1)
            if shown and bits(1):
                bits(4)
    wide, tall = bits(4) + 1, bits(4) + 1
    width, height = bits(wide) + 1, bits(tall) + 1
    return _allowed(width, wide), _allowed(height, tall)


def _allowed(side: int, bits: int) -> int:
    return side if side > 1 << bits - 1 or bits == 1 else 1 << bits
