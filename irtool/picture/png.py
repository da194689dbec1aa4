"""PNG chunks: checked and sorted on the way in, built on the way out; and an encoder for 8 and 16 bits.

Pillow skips the checksums of pixel data and truncates 16-bit colour to 8 bits, so both are done here. Specification:
PNG, third edition (W3C, 2025).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from . import stated
from .raw import RefusedError

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# What the pixel decoder needs; everything else is metadata and is handled here.
_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"}
# Colour and text chunks that stay true for restored pixels and are carried from PNG to PNG.
COLOR_CHUNKS = ("gAMA", "cHRM", "sRGB", "cICP", "mDCV", "cLLI")
TEXT_CHUNKS = ("tEXt", "zTXt", "iTXt")

# Lengths of those that have one; a chunk of another length is damaged, and readers refuse the whole file for it.
_LENGTHS = {"gAMA": 4, "cHRM": 32, "sRGB": 1, "cICP": 4, "mDCV": 24, "cLLI": 8}

_XMP_KEY = b"XML:com.adobe.xmp"
_MAX_PROFILE = 8 << 20
_MAX_PACKET = 16 << 20
_MAX_TEXT, _MAX_ALL_TEXT = 1 << 20, 64 << 20  # what Pillow and others take; they refuse the picture for more


class DamagedPngError(ValueError):
    """The file ends early or a chunk that matters fails its checksum."""


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, content) of each chunk up to and with IEND; damaged chunks that are not needed for pixels are left out.

    A file that ends without IEND gives none; whether its pixels are whole is for the decoder to say.

    Raises:
        DamagedPngError: a chunk of pixels fails its checksum or ends early, or there are two headers.
    """
    at, headers = len(SIGNATURE), 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            if kind in _PIXEL_CHUNKS - {b"IEND"} or at + 8 + length > len(data):
                raise DamagedPngError("the file ends early")
            return
        body = data[at + 8 : end - 4]
        if zlib.crc32(body, zlib.crc32(kind)) == struct.unpack_from(">I", data, end - 4)[0]:
            headers += kind == b"IHDR"
            if headers > 1:
                # The first would be checked and the second decoded.
                raise DamagedPngError("it has two headers")
            yield kind, body
            if kind == b"IEND":
                return
        elif kind in _PIXEL_CHUNKS:
            raise DamagedPngError(f"a {kind.decode('latin-1')} chunk fails its checksum")
        at = end


def checked(parts: list[tuple[bytes, bytes]]) -> tuple[list[tuple[bytes, bytes]], list[str]]:
    """The chunks of a PNG that begins as one does, without a transparency that does not fit it, and notes on them.

    Raises:
        DamagedPngError: there is no header.
        RefusedError: it is no PNG as the standard has it.
    """
    if parts and parts[0][0] == b"CgBI":
        raise RefusedError(
            "is a PNG of Apple's own variety (CgBI), as apps for iPhones hold it", "Convert it with pngcrush."
        )
    if not parts or parts[0][0] != b"IHDR" or len(parts[0][1]) != 13:
        raise DamagedPngError("the header is missing")
    notes = [] if parts[-1][0] == b"IEND" else ["its end marker is missing, but no pixel is"]
    # By color type (11.3.1.1); the others have none.
    lengths = {0: (2,), 2: (6,), 3: range(1, 257)}.get(parts[0][1][9], ())
    if any(kind == b"tRNS" and len(body) not in lengths for kind, body in parts):
        parts = [part for part in parts if part[0] != b"tRNS"]
        notes.append("a transparency that does not fit its kind of pixels was dropped")
    if any(kind == b"caBX" for kind, _ in parts):
        notes.append("its content credentials (C2PA) are not kept: they are of the picture as it was")
    return parts, notes


def pixels_only(parts: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG file of only the chunks that make the pixels."""
    needed = [(kind, body) for kind, body in parts if kind in _PIXEL_CHUNKS and kind != b"IEND"]
    return SIGNATURE + b"".join(chunk(kind, body) for kind, body in [*needed, (b"IEND", b"")])


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def _inflate(data: bytes, limit: int) -> bytes:
    """What a zlib stream holds.

    Raises:
        ValueError, zlib.error: it holds more than `limit` bytes, or is damaged.
    """
    if limit <= 0:
        raise ValueError("compressed metadata is unreasonably large")
    engine = zlib.decompressobj()
    out = engine.decompress(data, limit)
    if engine.unconsumed_tail:
        raise ValueError("compressed metadata is unreasonably large")
    return out


def read_icc(body: bytes) -> bytes | None:
    """The profile in an iCCP chunk, or None if it is damaged."""
    _, _, rest = body.partition(b"\0")
    try:
        return _inflate(rest[1:], _MAX_PROFILE) or None
    except (zlib.error, ValueError):
        return None


def is_xmp(kind: bytes, body: bytes) -> bool:
    """Whether a chunk holds an XMP packet."""
    return kind == b"iTXt" and body.startswith(_XMP_KEY + b"\0")


def text_of(kind: bytes, body: bytes, limit: int = _MAX_TEXT) -> tuple[bytes, bytes]:
    """Keyword and text of a tEXt, zTXt or iTXt chunk.

    Raises:
        ValueError, zlib.error: it is damaged, or holds more than `limit` bytes.
    """
    keyword, zero, rest = body.partition(b"\0")
    if not zero or not 1 <= len(keyword) <= 79:
        raise ValueError("no keyword")
    if kind == b"tEXt":
        text, compressed = rest, False
    elif kind == b"zTXt":
        text, compressed = rest[1:], True
        if rest[:1] != b"\0":
            raise ValueError("unknown compression")
    else:
        compressed = rest[:1] == b"\1"
        parts = rest[2:].split(b"\0", 2)
        if rest[:1] not in (b"\0", b"\1") or (compressed and rest[1:2] != b"\0") or len(parts) != 3:
            raise ValueError("no international text")
        text = parts[2]
    text = _inflate(text, limit) if compressed else text
    if len(text) > limit:
        raise ValueError("text is unreasonably large")
    return keyword, text


def read_xmp(body: bytes) -> bytes | None:
    """The XMP packet in an iTXt chunk, or None if it is damaged."""
    try:
        return text_of(b"iTXt", body, _MAX_PACKET)[1] or None
    except (zlib.error, ValueError):
        return None


def carried(parts: Iterable[tuple[bytes, bytes]]) -> tuple[list[tuple[str, bytes]], int]:
    """The colour and text chunks that are sound enough to be written into another file, and how many are not.

    XMP packets and raw profiles are not among them: they are metadata of their own.
    """
    blocks: list[tuple[str, bytes]] = []
    colors: set[str] = set()
    dropped, left = 0, _MAX_ALL_TEXT
    for kind, body in parts:
        name = kind.decode("latin-1")
        if name in COLOR_CHUNKS:
            # Of two that say the same thing the first counts, as for other readers.
            sound = len(body) == _LENGTHS[name] and name not in colors
            colors.add(name)
        elif name in TEXT_CHUNKS and not is_xmp(kind, body):
            try:
                left -= len(text_of(kind, body, min(_MAX_TEXT, left))[1])
                sound = True
            except (zlib.error, ValueError):
                left -= len(body)
                sound = False
            sound = sound and left >= 0
        else:
            continue
        blocks += [(name, body)] * sound
        dropped += not sound
    return blocks, dropped


_RAW_PROFILE = b"Raw profile type "


def raw_profile(kind: bytes, body: bytes) -> tuple[str, bytes] | None:
    """Name and bytes of a profile that ImageMagick wrote as hexadecimal text, or None if the chunk holds none."""
    if not body.startswith(_RAW_PROFILE):
        return None
    try:
        keyword, text = text_of(kind, body, 2 * _MAX_PACKET)
        # A line feed, the name, the length, then the digits.
        _, name, length, digits = text.split(b"\n", 3)
        found = bytes.fromhex(digits.decode("ascii"))
    except (zlib.error, ValueError):
        return None
    name = keyword.removeprefix(_RAW_PROFILE).strip().lower() or name
    return (name.decode("latin-1"), found) if len(found) == int(length) else None


def stated_profile(blocks: Iterable[tuple[str, bytes]], gray: bool) -> bytes | None:
    """The colours that cICP, or without it sRGB, or without both gAMA and cHRM state, as a profile; None for sRGB.

    The order is that of the specification (4.3). iCCP stands between cICP and sRGB; that is for the caller.

    Raises:
        ValueError: cICP states colours that no matrix profile says.
    """
    found = dict(blocks)
    if len(found.get("cICP", b"")) == 4:
        return stated.from_code_points(found["cICP"][0], found["cICP"][1])
    if "sRGB" in found:
        return None
    gamma = struct.unpack(">I", found["gAMA"])[0] if "gAMA" in found else 0
    points = [value / 100000 for value in struct.unpack(">8I", found["cHRM"])] if "cHRM" in found else []
    pairs = tuple(zip(points[::2], points[1::2], strict=True)) or None
    return stated.from_gamma(100000 / gamma if gamma else None, pairs, gray)


def metadata_chunks(
    icc: bytes | None,
    exif: bytes | None,
    xmp: bytes | None,
    dpi: tuple[float, float] | None,
    aspect: tuple[int, int] | None,
    blocks: tuple[tuple[str, bytes], ...],
) -> bytes:
    """The chunks to go between IHDR and the rest."""
    out = b""
    named = [(name.encode(), body) for name, body in blocks if name in COLOR_CHUNKS]
    out += b"".join(chunk(kind, body) for kind, body in named)
    if icc:
        out += chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc, 9))
    if dpi:
        out += chunk(b"pHYs", struct.pack(">IIB", *(min(round(d / 0.0254), 2**31 - 1) for d in dpi), 1))
    elif aspect:
        out += chunk(b"pHYs", struct.pack(">IIB", *aspect, 0))
    if exif:
        out += chunk(b"eXIf", exif)
    if xmp:
        out += chunk(b"iTXt", _XMP_KEY + b"\0\0\0\0\0" + xmp)
    return out + b"".join(chunk(name.encode(), body) for name, body in blocks if name in TEXT_CHUNKS)


def with_chunks(data: bytes, extra: bytes) -> bytes:
    """A PNG file with further chunks after its header."""
    end = len(SIGNATURE) + 25
    return data[:end] + extra + data[end:]


def encode_png(codes: np.ndarray, extra: bytes = b"") -> bytes:
    """A PNG file.

    Args:
        codes: (H, W, C) uint8 or uint16, C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
        extra: chunks to go after IHDR.
    """
    height, width, n = codes.shape
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[n]
    step = codes.itemsize * n
    engine = zlib.compressobj(6)
    parts = [
        SIGNATURE,
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * codes.itemsize, color_type, 0, 0, 0)),
    ]
    parts.append(extra)
    waiting: list[bytes] = []
    # One row of context above and one pixel to the left, all zero at the borders, as the filters are defined.
    above = np.zeros((1, step + width * step), np.uint8)
    rows = max(1, (1 << 18) // (width * step))
    for top in range(0, height, rows):
        block = codes[top : top + rows].astype(codes.dtype.newbyteorder(">")).reshape(-1, width * n).view(np.uint8)
        padded = np.vstack([above, np.pad(block, ((0, 0), (step, 0)))])
        waiting.append(engine.compress(_filtered(padded, step).tobytes()))
        above = padded[-1:]
        # Chunks of about 1 MB, so that a reader can stream, no length overflows, and nothing is there twice.
        if sum(map(len, waiting)) >= 1 << 20:
            parts.append(chunk(b"IDAT", b"".join(waiting)))
            waiting.clear()
    parts += [chunk(b"IDAT", b"".join([*waiting, engine.flush()])), chunk(b"IEND", b"")]
    return b"".join(parts)


def _filtered(padded: np.ndarray, step: int) -> np.ndarray:
    """(R, 1 + bytes) uint8: each row filtered, its filter type in front.

    The type is chosen per row by the least sum of absolute differences, the rule the specification suggests (12.7).
    """
    current, left = padded[1:, step:], padded[1:, :-step]
    up, corner = padded[:-1, step:], padded[:-1, :-step]
    choices = [current, current - left, current - up, current - ((left.astype(np.uint16) + up) >> 1).astype(np.uint8)]
    choices.append(current - _paeth(left, up, corner))
    costs = [np.abs(c.view(np.int8).astype(np.int16)).sum(axis=1, dtype=np.int64) for c in choices]
    best = np.argmin(costs, axis=0)
    out = np.empty((current.shape[0], 1 + current.shape[1]), np.uint8)
    out[:, 0] = best
    for kind, rows in enumerate(choices):
        out[best == kind, 1:] = rows[best == kind]
    return out


def _paeth(left: np.ndarray, up: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Whichever of the three neighbours is nearest to left + up - corner (9.4)."""
    a, b, c = (x.astype(np.int16) for x in (left, up, corner))
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    return np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, up, corner))
