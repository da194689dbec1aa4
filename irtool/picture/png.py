"""PNG chunks: checked and sorted on the way in, built on the way out; and an encoder for 8 and 16 bits.

Pillow skips the checksums of pixel data and truncates 16-bit colour to 8 bits, so both are done here. Specification:
PNG, third edition (W3C, 2025).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# What the pixel decoder needs; everything else is metadata and is handled here.
_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"}
# Colour and text chunks that stay true for restored pixels and are carried from PNG to PNG.
COLOUR_CHUNKS = ("gAMA", "cHRM", "sRGB", "cICP", "mDCV", "cLLI")
TEXT_CHUNKS = ("tEXt", "zTXt", "iTXt")

_XMP_KEY = b"XML:com.adobe.xmp"
_MAX_INFLATED = 64 << 20


class DamagedPng(ValueError):
    """The file ends early or a chunk that matters fails its checksum."""


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, content) of each chunk up to and with IEND; damaged chunks that are not needed for pixels are left out.

    Raises:
        DamagedPng: as it says.
    """
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        body = data[at + 8 : end - 4]
        if zlib.crc32(body, zlib.crc32(kind)) == struct.unpack_from(">I", data, end - 4)[0]:
            yield kind, body
            if kind == b"IEND":
                return
        elif kind in _PIXEL_CHUNKS:
            raise DamagedPng(f"a {kind.decode('latin-1')} chunk fails its checksum")
        at = end
    raise DamagedPng("the file ends early")


def pixels_only(parts: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG file of only the chunks that make the pixels."""
    return SIGNATURE + b"".join(chunk(kind, body) for kind, body in parts if kind in _PIXEL_CHUNKS)


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def _inflate(data: bytes) -> bytes:
    engine = zlib.decompressobj()
    out = engine.decompress(data, _MAX_INFLATED)
    if engine.unconsumed_tail:
        raise ValueError("compressed metadata is unreasonably large")
    return out


def read_icc(body: bytes) -> bytes | None:
    """The profile in an iCCP chunk, or None if it is damaged."""
    _, _, rest = body.partition(b"\0")
    try:
        return _inflate(rest[1:]) or None
    except (zlib.error, ValueError):
        return None


def read_xmp(body: bytes) -> bytes | None:
    """The XMP packet if this iTXt chunk holds one."""
    if not body.startswith(_XMP_KEY + b"\0"):
        return None
    compressed, rest = body[len(_XMP_KEY) + 1 : len(_XMP_KEY) + 2], body[len(_XMP_KEY) + 3 :]
    text = rest.split(b"\0", 2)[-1]
    try:
        return (_inflate(text) if compressed == b"\1" else text) or None
    except (zlib.error, ValueError):
        return None


def metadata_chunks(
    icc: bytes | None,
    exif: bytes | None,
    xmp: bytes | None,
    dpi: tuple[float, float] | None,
    blocks: tuple[tuple[str, bytes], ...],
) -> bytes:
    """The chunks to go between IHDR and the rest."""
    out = b""
    named = [(name.encode(), body) for name, body in blocks if name in COLOUR_CHUNKS]
    out += b"".join(chunk(kind, body) for kind, body in named)
    if icc:
        out += chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc, 9))
    if dpi:
        out += chunk(b"pHYs", struct.pack(">IIB", *(min(round(d / 0.0254), 2**31 - 1) for d in dpi), 1))
    if exif:
        out += chunk(b"eXIf", exif)
    if xmp:
        out += chunk(b"iTXt", _XMP_KEY + b"\0\0\0\0\0" + xmp)
    return out + b"".join(chunk(name.encode(), body) for name, body in blocks if name in TEXT_CHUNKS)


def encode_png(codes: np.ndarray, extra: bytes = b"") -> bytes:
    """A PNG file.

    Args:
        codes: (H, W, C) uint8 or uint16, C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
        extra: chunks to go after IHDR.
    """
    height, width, n = codes.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[n]
    step = codes.itemsize * n
    engine = zlib.compressobj(6)
    body = []
    # One row of context above and one pixel to the left, all zero at the borders, as the filters are defined.
    above = np.zeros((1, step + width * step), np.uint8)
    rows = max(1, (1 << 18) // (width * step))
    for top in range(0, height, rows):
        block = codes[top : top + rows].astype(codes.dtype.newbyteorder(">")).reshape(-1, width * n).view(np.uint8)
        padded = np.vstack([above, np.pad(block, ((0, 0), (step, 0)))])
        body.append(engine.compress(_filtered(padded, step).tobytes()))
        above = padded[-1:]
    body.append(engine.flush())
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * codes.itemsize, colour_type, 0, 0, 0))
    # Chunks of at most 1 MB, so that a reader can stream and no length overflows.
    data = b"".join(body)
    idat = b"".join(chunk(b"IDAT", data[i : i + (1 << 20)]) for i in range(0, len(data), 1 << 20))
    return SIGNATURE + header + extra + idat + chunk(b"IEND", b"")


def _filtered(padded: np.ndarray, step: int) -> np.ndarray:
    """(R, 1 + bytes) uint8: each row filtered, its filter type in front.

    The type is chosen per row by the least sum of absolute differences, the rule the specification suggests (12.7).
    """
    here, left = padded[1:, step:], padded[1:, :-step]
    up, corner = padded[:-1, step:], padded[:-1, :-step]
    choices = [here, here - left, here - up, here - ((left.astype(np.uint16) + up) >> 1).astype(np.uint8)]
    choices.append(here - _paeth(left, up, corner))
    costs = [np.abs(c.view(np.int8).astype(np.int16)).sum(axis=1, dtype=np.int64) for c in choices]
    best = np.argmin(costs, axis=0)
    out = np.empty((here.shape[0], 1 + here.shape[1]), np.uint8)
    out[:, 0] = best
    for kind, rows in enumerate(choices):
        out[best == kind, 1:] = rows[best == kind]
    return out


def _paeth(left: np.ndarray, up: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Whichever of the three neighbours is nearest to left + up - corner (9.4)."""
    a, b, c = (x.astype(np.int16) for x in (left, up, corner))
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    return np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, up, corner))
