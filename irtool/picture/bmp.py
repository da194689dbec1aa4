"""BMP files: what Pillow does not read of them (colour spaces, free bit fields), and files with transparency.

Layout: BITMAPINFOHEADER, BITMAPV4HEADER and BITMAPV5HEADER of the Windows GDI reference.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image

from . import stated
from .raw import DecodedFile, Guard, RefusedError, common, samples

_RLE8, _RLE4, _BITFIELDS, _ALPHA_BITFIELDS = 1, 2, 3, 6
_CONVERT = "Convert it to PNG with the program that made it."


def load_bmp(data: bytes, guard: Guard) -> DecodedFile:
    """Decode a BMP."""
    from PIL import BmpImagePlugin

    try:
        file = BmpImagePlugin.BmpImageFile(BytesIO(data))
    except OSError as error:
        fields = _bit_fields(data, guard)
        if fields is not None:
            return fields
        if "nsupported" in str(error) or "nknown" in str(error):
            raise RefusedError(f"is a BMP of a kind that irtool does not read ({error})", _CONVERT) from error
        raise
    guard(file.size, alpha=file.mode == "RGBA")
    im: Image.Image = file
    if int.from_bytes(data[30:34], "little") in (_RLE8, _RLE4) and _header_size(data) >= 40:
        im = _run_lengths(data, file)
    im.load()
    color, alpha = samples(im)
    notes: tuple[str, ...] = ()
    if data[14 + 56 : 14 + 60] == b"KNIL" and _header_size(data) >= 124:
        notes = ("the colour profile that it names lies in another file: the pixels are treated as sRGB",)
    return DecodedFile(color, alpha, notes=notes, **{**common(file), "icc": _profile(data, color.shape[2] == 1)})


def _run_lengths(data: bytes, im: Image.Image) -> Image.Image:
    """The picture of a run-length encoded BMP. Pillow refuses those that leave pixels out, which are of color 0 then,
    and takes a step of Python for each pixel left out."""
    width, height = im.size
    rows = np.zeros((height, width), np.uint8)
    for x, y, run in _runs(data, height, fine=data[30] == _RLE4):
        if y < height and x < width:
            seen = run[: width - x]
            rows[y, x : x + len(seen)] = seen
    if im.mode == "1":
        rows *= 255
    indexed = Image.fromarray(rows[::-1] if int.from_bytes(data[22:26], "little", signed=True) > 0 else rows)
    if im.mode == "P" and im.palette is not None:
        indexed.putpalette(im.palette.palette, im.palette.rawmode or im.palette.mode)
    indexed.info = im.info
    return indexed


def _runs(data: bytes, height: int, *, fine: bool) -> Iterator[tuple[int, int, np.ndarray]]:
    """Column, row (counted as stored) and indexes of each run; `fine`: two indexes in a byte.

    Raises:
        ValueError: the file ends before the picture does.
    """
    at, x, y = int.from_bytes(data[10:14], "little"), 0, 0
    while at + 2 <= len(data):
        count, value = data[at], data[at + 1]
        at += 2
        if not count and value == 0:
            x, y = 0, y + 1
        elif not count and value == 1:
            return
        elif not count and value == 2:
            if at + 2 > len(data):
                break
            x, y, at = x + data[at], y + data[at + 1], at + 2
        else:
            size = count or value
            packed = bytes([value]) * size if count else data[at : at + ((size + 1) // 2 if fine else size)]
            at += 0 if count else len(packed) + len(packed) % 2
            run = np.frombuffer(packed, np.uint8)
            yield x, y, (np.stack([run >> 4, run & 15], axis=1).reshape(-1) if fine else run)[:size]
            x += size
    if y < height - 1:
        raise ValueError("the file ends early")


def _header_size(data: bytes) -> int:
    return int.from_bytes(data[14:18], "little")


def _profile(data: bytes, gray: bool) -> bytes | None:
    """The colours that a header of version 4 or 5 states, as a profile."""
    if _header_size(data) < 108 or len(data) < 14 + 108:
        return None
    space = data[14 + 56 : 14 + 60]
    if space == b"DEBM" and _header_size(data) >= 124 and len(data) >= 14 + 124:
        offset, size = struct.unpack_from("<II", data, 14 + 112)
        return data[14 + offset : 14 + offset + size] or None if size <= 8 << 20 else None
    if space != bytes(4):  # "sRGB" and "Win " are sRGB
        return None
    ends = np.array(struct.unpack_from("<9i", data, 14 + 60), float).reshape(3, 3) / 2**30
    gammas = [value / 65536 for value in struct.unpack_from("<3I", data, 14 + 96)]
    if not (ends.sum(axis=1) > 0.1).all() or not all(0.2 <= gamma <= 5 for gamma in gammas):
        return None  # a header of zeros states nothing
    white = ends.sum(axis=0)
    xy = [(x / (x + y + z), y / (x + y + z)) for x, y, z in (white, *ends)]
    return stated.from_gamma(sum(gammas) / 3, tuple(xy), gray)


def _bit_fields(data: bytes, guard: Guard) -> DecodedFile | None:
    """A picture of 16 or 32 bits a pixel whose channels lie wherever masks say; None if the file is none."""
    size = _header_size(data)
    if size < 40 or len(data) < 14 + 40 + 12:
        return None
    start = int.from_bytes(data[10:14], "little")
    width, height, _, depth, kind = struct.unpack_from("<iiHHI", data, 18)
    if kind not in (_BITFIELDS, _ALPHA_BITFIELDS) or depth not in (16, 32):
        return None
    count = 4 if size >= 56 or kind == _ALPHA_BITFIELDS else 3
    masks = struct.unpack_from(f"<{count}I", data, 14 + 40)
    guard((width, abs(height)), more=24)
    stride = (width * depth // 8 + 3) // 4 * 4
    if width <= 0 or not height or start + stride * abs(height) > len(data):
        raise ValueError("the file ends early")
    rows = np.frombuffer(data, np.uint8, stride * abs(height), start).reshape(abs(height), stride)
    pixels = np.ascontiguousarray(rows[:, : width * depth // 8]).view(f"<u{depth // 8}")
    pixels = pixels[::-1] if height > 0 else pixels
    if any(mask and (mask >> _low(mask)) & ((mask >> _low(mask)) + 1) for mask in masks):
        raise RefusedError("is a BMP whose channels are scattered bits", _CONVERT)
    if not all(masks[:3]):
        raise RefusedError("is a BMP without one of its colours", _CONVERT)
    deep = any(bin(mask).count("1") > 8 for mask in masks)
    channels = [_scaled(pixels, mask, deep) for mask in masks if mask]
    color = np.stack(channels[:3], axis=-1)
    return DecodedFile(color, channels[3] if len(channels) > 3 else None, icc=_profile(data, False))


def _low(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _scaled(pixels: np.ndarray, mask: int, deep: bool) -> np.ndarray:
    """The channel (H, W) under a mask, uint8, or uint16 if `deep`."""
    most, top = mask >> _low(mask), 65535 if deep else 255
    values = (pixels & pixels.dtype.type(mask)) >> pixels.dtype.type(_low(mask))
    if most == top:
        return values.astype(np.uint16 if deep else np.uint8)
    return ((values.astype(np.uint64) * top + most // 2) // most).astype(np.uint16 if deep else np.uint8)


def encode_bmp(codes: np.ndarray, dpi: tuple[float, float] | None) -> bytes:
    """A BMP of (H, W, 2 or 4) uint8 with transparency. Pillow's have rows of 32 bits that it reads back without alpha;
    a header of version 4 names the mask of it."""
    if codes.shape[2] == 2:
        codes = codes[..., [0, 0, 0, 1]]
    height, width = codes.shape[:2]
    rows = np.ascontiguousarray(codes[::-1, :, [2, 1, 0, 3]]).tobytes()
    dots = [min(round(d / 0.0254), 2**31 - 1) for d in dpi or (0, 0)]
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(rows), *dots, 0, 0)
    header += masks + b"BGRs" + bytes(48)  # the colour space is sRGB, so end points and gammas are unused
    return b"".join([struct.pack("<2sIHHI", b"BM", 14 + 108 + len(rows), 0, 0, 14 + 108), header, rows])
