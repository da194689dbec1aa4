"""Files and profiles for the picture tests, made without the code under test."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image

# Chromaticities of the primaries.
P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))

SRGB_CURVE = b"para" + struct.pack(
    ">I2H5i", 0, 3, 0, *(round(v * 65536) for v in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
)

_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D65, _D50 = np.array([0.95047, 1, 1.08883]), np.array([0.9642, 1, 0.8249])


def gamma_curve(gamma: float) -> bytes:
    return b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + b"\0\0"


def table_curve(values: np.ndarray) -> bytes:
    body = np.rint(values * 65535).astype(">u2").tobytes()
    return b"curv" + struct.pack(">II", 0, len(values)) + body + b"\0" * (len(body) % 4)


def _profile(space: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": b"desc" + struct.pack(">II", 0, 5) + b"test\0" + bytes(79), b"wtpt": _xyz(_D50), **tags}
    table, body, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        data = content + b"\0" * (-len(content) % 4)
        table += struct.pack(">4sII", name, at + len(body), len(data))
        body += data
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(
        ">I4sI4s4s4s12s4s", at + len(body), b"\0\0\0\0", 0x02400000, kind, space, pcs, bytes(12), b"acsp"
    )
    head += bytes(28) + struct.pack(">3i", *(round(v * 65536) for v in _D50))
    return head.ljust(128, b"\0") + table + body


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))


def rgb_profile(primaries: tuple[tuple[float, float], ...] = P3, curve: bytes = SRGB_CURVE) -> bytes:
    """A matrix profile with a D65 white, adapted to D50 as profiles are."""
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    xyz = xyz * np.linalg.solve(xyz, _D65)
    adapt = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ _D50) / (_BRADFORD @ _D65)) @ _BRADFORD
    columns = (adapt @ xyz).T
    tags = {name: _xyz(c) for name, c in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    return _profile(b"RGB ", b"XYZ ", tags | {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve})


def grey_profile(curve: bytes) -> bytes:
    return _profile(b"GRAY", b"XYZ ", {b"kTRC": curve})


def lut_profile(space: bytes, n: int) -> bytes:
    """A profile of lookup tables only (mft1): device corners to Lab, enough for ImageCms to convert from it."""
    nodes = np.stack(np.meshgrid(*[[0, 1]] * n, indexing="ij"), -1).reshape(-1, n)
    ink = nodes if n == 3 else (1 - nodes[:, :3]) * (1 - nodes[:, 3:])
    light = ink @ [0.3, 0.59, 0.11]
    lab = np.stack([light * 255, 128 + 60 * (ink[:, 0] - ink[:, 1]), 128 + 60 * (ink[:, 1] - ink[:, 2])], -1)
    ramp = bytes(range(256))
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    clut = lab.clip(0, 255).astype(np.uint8).tobytes()
    table = b"mft1" + struct.pack(">I4B", 0, n, 3, 2, 0) + identity + ramp * n + clut + ramp * 3
    return _profile(space, b"Lab ", {b"A2B0": table})


def exif_block(orientation: int | None = None, note: bytes = b"maker\0note\1\2\3", thumbnail: bool = True) -> bytes:
    """A big-endian EXIF block laid out by hand: make, orientation, maker note, pixel dimensions, thumbnail."""
    make = b"Irtool Camera\0"
    entries = [(0x010F, 2, len(make), make), (0x8769, 4, 1, None)]
    if orientation is not None:
        entries.insert(1, (0x0112, 3, 1, struct.pack(">HH", orientation, 0)))
    head, n = 8, len(entries)
    sub_at = head + 2 + 12 * n + 4
    subs = [
        (0x927C, 7, len(note), note),
        (0xA002, 3, 1, struct.pack(">HH", 999, 0)),
        (0xA003, 4, 1, struct.pack(">I", 999)),
    ]
    tail_at = sub_at + 2 + 12 * len(subs) + 4
    tail = b""

    def directory(items: list, after: int) -> bytes:
        nonlocal tail
        out = struct.pack(">H", len(items))
        for tag, kind, count, given in items:
            value = struct.pack(">I", sub_at) if given is None else given
            if len(value) > 4:
                offset = struct.pack(">I", tail_at + len(tail))
                tail += value + b"\0" * (len(value) % 2)
                value = offset
            out += struct.pack(">HHI", tag, kind, count) + value.ljust(4, b"\0")
        return out + struct.pack(">I", after)

    first = directory(entries, 0)
    second = directory(subs, 0)
    if thumbnail:
        first = first[:-4] + struct.pack(">I", tail_at + len(tail))
        tail += struct.pack(">H", 1) + struct.pack(">HHI4s", 0x0103, 3, 1, struct.pack(">HH", 6, 0)) + bytes(4)
    return b"MM\0*" + struct.pack(">I", 8) + first + second + tail


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d" dc:title="t"/></x:xmpmeta>'


def noise(height: int, width: int, n: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    top = np.iinfo(dtype).max
    out = np.random.default_rng(seed).integers(0, top, (height, width, n), dtype, endpoint=True)
    return out[..., 0] if n == 1 else out


def saved(image: Image.Image | np.ndarray, format: str, **options: object) -> bytes:
    out = BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(out, format, **options)
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _filter(kind: int, row: np.ndarray, above: np.ndarray, step: int) -> bytes:
    """One PNG row filtered the slow, literal way."""
    out = bytearray()
    for i in range(len(row)):
        a = int(row[i - step]) if i >= step else 0
        b = int(above[i])
        c = int(above[i - step]) if i >= step else 0
        p = a + b - c
        paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
        out.append((int(row[i]) - (0, a, b, (a + b) // 2, paeth)[kind]) % 256)
    return bytes([kind]) + bytes(out)


_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(
    codes: np.ndarray, *, interlaced: bool = False, extra: bytes = b"", filters: tuple[int, ...] = (0, 1, 2, 3, 4)
) -> bytes:
    """An 8-bit or 16-bit PNG of (H, W) or (H, W, C) codes, filters taken in turn row by row."""
    codes = np.atleast_3d(codes)
    height, width, n = codes.shape
    bits = codes.itemsize * 8
    raw = b""
    for x, y, dx, dy in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = codes[y::dy, x::dx]
        if not part.size:
            continue
        rows = (
            np.ascontiguousarray(part.astype(codes.dtype.newbyteorder(">"))).view(np.uint8).reshape(part.shape[0], -1)
        )
        above = np.zeros(rows.shape[1], np.uint8)
        for i, row in enumerate(rows):
            raw += _filter(filters[i % len(filters)], row, above, n * codes.itemsize)
            above = row
    header = struct.pack(">IIBBBBB", width, height, bits, {1: 0, 2: 4, 3: 2, 4: 6}[n], 0, 0, int(interlaced))
    data = chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + data
