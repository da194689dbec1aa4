"""TIFF: read through Pillow (both bytes of 16-bit colour), written here because Pillow writes no 16-bit colour.

Layout: TIFF 6.0, sections 2, 4, 8, 14 (predictor) and 18 (alpha); deflate as in Adobe Photoshop TIFF Technical Notes;
BigTIFF as in libtiff.
"""

from __future__ import annotations

import struct
import sys
import zlib
from io import BytesIO
from typing import Any

import numpy as np

from . import exif as exif_room
from . import stated
from .raw import DecodedFile, Guard, RefusedError, common, from_cmyk, join, samples, sane_dpi, single

_CONVERT = "Convert it to 8-bit or 16-bit RGB or grey first."
_MAX_METADATA = 16 << 20

_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_DEFLATE = (8, 32946)


def load_tiff(  # noqa: C901, PLR0912, PLR0915 (the cases of the format, in order)
    data: bytes, guard: Guard, page: int | None = None
) -> DecodedFile:
    """Decode a TIFF of one full picture, perhaps with smaller copies before or behind it; or a page of several."""
    from PIL import TiffImagePlugin

    order: exif_room.Order = "<" if data.startswith(b"II") else ">"
    pages = list(exif_room.directories(data))
    whole = page_numbers(order, pages)
    if not whole:
        raise RefusedError(
            "is a camera raw file, or a TIFF of reduced copies alone", "Develop it to a 16-bit TIFF or a JPEG first."
        )
    if page is None:
        single(len(whole), "a TIFF")
    number = whole[page or 0]
    directory = pages[number]
    width, height = _first(order, directory, 256, 0), _first(order, directory, 257, 0)
    bits, channels = _first(order, directory, 258, 1), _first(order, directory, 277, 1)
    if bits > 16 or _first(order, directory, 339, 1) == 3:
        raise RefusedError("holds floating-point or 32-bit pixels", _CONVERT)
    if _first(order, directory, 339, 1) == 2:
        raise RefusedError("holds signed numbers, which are no colours", _CONVERT)
    deep, transparent, profile = bits > 8, channels in (2, 4), 34675 in directory or 319 in directory
    guard((width, height), deep=deep, alpha=transparent, profile=profile)
    wide, tall = (max(1, _first(order, directory, tag, 1)) for tag in (322, 323))
    if wide > width or tall > height:
        guard((wide, tall), deep=deep, alpha=transparent)  # a tile is decoded as a whole
    notes = []
    if more := _unexplained(order, directory, channels):
        notes.append(more)
    # What the page itself does not say may stand in the first one.
    metadata = exif_room.metadata_of(pages[0]) | exif_room.metadata_of(directory)
    exif = None
    if metadata or (page is not None and order == ">"):  # so that pages without any are in one order with the rest
        exif, dropped = exif_room.fitted(exif_room.block_of(order, metadata), _MAX_METADATA)
        if dropped:
            notes.append(f"private metadata of more than {_MAX_METADATA >> 20} MiB was dropped")
    data, number = _for_pillow(data, number, order, directory)
    apart = _first(order, directory, 284, 1) == 2
    if (channels == 2 and (apart or bits == 16)) or (
        channels > 2 and bits == 16 and apart and _first(order, directory, 259, 1) in _DEFLATE
    ):
        return _by_tifffile(data, number, order, directory, exif, notes)

    def opened() -> TiffImagePlugin.TiffImageFile:
        try:
            im = TiffImagePlugin.TiffImageFile(BytesIO(data))
            im.seek(number)
        except SyntaxError as error:
            if "unknown pixel mode" in str(error):  # sound, but a combination that Pillow has no name for
                raise RefusedError("holds pixels in an unusual layout", _CONVERT) from error
            raise
        # Without an EXIF orientation Pillow would turn the picture as its XMP says, which nothing else does.
        im.info.pop("xmp", None)
        return im

    im = opened()
    guard(im.size, deep=deep, alpha=transparent, profile=profile)
    packet = directory.get(700) or pages[0].get(700)
    meta = {**common(im), "exif": exif, "xmp": packet[2] if isinstance(packet, tuple) and packet[2] else None}
    if 282 not in directory:
        meta["dpi"] = None  # Pillow makes up 1 dpi
    # Pillow applies the orientation itself when it loads a TIFF, if its tag has the usual type.
    turned = im.getexif().get(exif_room.ORIENTATION) in range(2, 9)
    alpha: np.ndarray | None
    if bits == 16 and im.mode in ("RGB", "RGBA"):
        color, alpha = _color16(im, opened(), order)
    else:
        im.load()
        if im.mode == "CMYK":
            color, note = from_cmyk(im, meta["icc"])
            alpha, meta["icc"] = None, None
            notes.append(note)
        else:
            color, alpha = samples(im)
        if color.dtype == np.uint16:
            if bits == 12:
                color = ((color.astype(np.uint32) * 65535 + 2047) // 4095).astype(np.uint16)
            if _first(order, directory, 262, 1) == 0:  # white is zero; Pillow turns over 8 bits only
                color = 65535 - color
    if not meta["icc"] and color.shape[2] == 3:
        meta["icc"] = _stated_profile(order, directory)
    return DecodedFile(color, alpha, orientation_applied=turned, notes=tuple(notes), **meta)


def page_numbers(order: str, pages: list[exif_room.Directory]) -> list[int]:
    """Which directories of a TIFF are of pictures, not of reduced copies or masks."""
    return [i for i, page in enumerate(pages) if not _first(order, page, 254, 0) & (_REDUCED | _MASK)]


def _first(order: str, directory: exif_room.Directory, tag: int, default: int) -> int:
    """The first number of an integer entry."""
    return next(iter(exif_room.numbers(order, directory.get(tag))), default)


def _for_pillow(data: bytes, number: int, order: exif_room.Order, directory: exif_room.Directory) -> tuple[bytes, int]:
    """The file and the number of its picture, with the directory said anew where Pillow does not know what it says:
    big-endian BigTIFF; big-endian 16-bit gray whose zero is white (the caller turns it over); further samples before
    the transparency, or of several kinds."""
    changed: exif_room.Directory = {}
    if order == ">" and _first(order, directory, 258, 1) == 16 and _first(order, directory, 262, 1) == 0:
        changed[262] = (3, 1, struct.pack(order + "H", 1))
    kinds = exif_room.numbers(order, directory.get(338))
    plain = tuple(kind if not i and kind in (1, 2) else 0 for i, kind in enumerate(kinds))
    if kinds != plain:
        changed[338] = (3, len(plain), struct.pack(f"{order}{len(plain)}H", *plain))
    if not changed and data[:4] != b"MM\0+":
        return data, number
    at = len(data) + len(data) % 2
    if at > 2**32 - (1 << 26):
        raise RefusedError("is a TIFF of more than 4 GB in a layout that is read from smaller ones only", _CONVERT)
    whole = {tag: entry for tag, entry in (directory | changed).items() if not exif_room.is_wide(entry)}
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", at)
    return b"".join([head, data[8:], bytes(len(data) % 2), exif_room.serialize(order, whole, at)]), 0


def _stated_profile(order: str, directory: exif_room.Directory) -> bytes | None:
    """The white point and the primaries that a TIFF states, as a profile. TIFF 6.0, 20; its default gamma is 2.2."""
    values: list[float] = []
    for tag, count in ((318, 2), (319, 6)):
        entry = directory.get(tag)
        if not isinstance(entry, tuple) or entry[:2] != (5, count):
            return None
        pairs = struct.unpack(f"{order}{2 * count}I", entry[2])
        values += [top / (bottom or 1) for top, bottom in zip(pairs[::2], pairs[1::2], strict=True)]
    return stated.from_gamma(2.2, tuple(zip(values[::2], values[1::2], strict=True)))


def _unexplained(order: str, directory: exif_room.Directory, channels: int) -> str:
    """The note on samples that are neither colour nor transparency (infrared, depth), empty where there are none."""
    colors = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}.get(_first(order, directory, 262, 1), channels)
    kinds = exif_room.numbers(order, directory.get(338))
    extra = max(0, channels - colors)
    lost = extra - min(extra, sum(kind in (1, 2) for kind in kinds[:1]))
    if not lost:
        return ""
    return f"{lost} further channel(s) in it, such as infrared, are not kept"


def _color16(first: Any, second: Any, order: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Colour and alpha, uint16, from two images opened on the same file: one decodes the high bytes, one the low."""
    if first.tag_v2.get(284, 1) == 2 and first.use_load_libtiff:
        # Pillow ignores the raw mode here, so the low bytes cannot be had.
        raise RefusedError("is a compressed 16-bit TIFF with its colours stored apart", "Save it interleaved first.")
    premultiplied = any("RGBa" in tile.args[0] for tile in first.tile)
    for im, low in ((first, False), (second, True)):
        im.tile = [tile._replace(args=(_one_byte(tile.args[0], order, low), *tile.args[1:])) for tile in im.tile]
        im.load()
    both = join(np.asarray(first), np.asarray(second))
    if first.mode == "RGB":
        return both, None
    color, alpha = both[..., :3], both[..., 3]
    return _straight(color, alpha) if premultiplied else color, alpha


def _straight(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colour (H, W, C) that is not multiplied by its transparency (H, W) any more."""
    top = np.iinfo(color.dtype).max
    whole = np.maximum(alpha, 1)[..., None].astype(np.uint32)
    return np.minimum((color * np.uint32(top) + whole // 2) // whole, top).astype(color.dtype)


def _one_byte(rawmode: str, order: str, low: bool) -> str:
    """The Pillow raw mode that takes the high or the low byte of 16-bit samples."""
    layout, _, end = rawmode.replace("RGBa", "RGBA").partition(";16")
    # libtiff hands on native order ("N"); Pillow names single planes without any.
    little = sys.byteorder == "little" if end == "N" else order == "<"
    return f"{layout};16{'L' if little != low else 'B'}"


def _by_tifffile(
    data: bytes, page: int, order: str, directory: exif_room.Directory, exif: bytes | None, notes: list[str]
) -> DecodedFile:
    """Gray with a second channel, of 16 bits or stored apart, and 16-bit colours stored apart: what Pillow does not
    read, or wrongly."""
    import tifffile

    _check_strips(data, order, directory)
    with tifffile.TiffFile(BytesIO(data)) as file:
        found = file.pages[page]
        assert isinstance(found, tifffile.TiffPage)
        colors = 3 if found.photometric == 2 else 1
        odd = found.photometric not in (0, 1, 2) or found.samplesperpixel < colors or found.imagedepth != 1
        if odd or found.dtype not in (np.uint8, np.uint16):
            raise RefusedError("holds pixels in an unusual layout", _CONVERT)
        array = found.asarray()
        if found.planarconfig == 2 and found.samplesperpixel > 1:
            array = np.moveaxis(array, 0, -1)
        icc, xmp = (found.tags[t].value if t in found.tags else None for t in (34675, 700))
        dpi = sane_dpi(found.get_resolution(unit=2)) if 282 in found.tags else None
    color, alpha = np.ascontiguousarray(array[..., :colors]), None
    if found.photometric == 0:
        color = np.iinfo(color.dtype).max - color
    kind = _first(order, directory, 338, 0)
    if array.shape[-1] > colors and kind in (1, 2):
        alpha = array[..., colors]
        color = _straight(color, alpha) if kind == 1 else color
    return DecodedFile(color, alpha, icc=icc, xmp=xmp, exif=exif, dpi=dpi, notes=tuple(notes))


def _check_strips(data: bytes, order: str, directory: exif_room.Directory) -> None:
    """Refuse strips that inflate to more than the picture holds: tifffile does not bound them."""
    numbers = exif_room.numbers
    offsets = numbers(order, directory.get(273)) or numbers(order, directory.get(324))
    lengths = numbers(order, directory.get(279)) or numbers(order, directory.get(325))
    compression = _first(order, directory, 259, 1)
    if compression not in (1, *_DEFLATE):
        raise RefusedError("holds such pixels in a compression that they are not read in", _CONVERT)
    width, height = _first(order, directory, 256, 0), _first(order, directory, 257, 0)
    # A tile may reach over the edge by its own size.
    wide, tall = width + _first(order, directory, 322, 0), height + _first(order, directory, 323, 0)
    whole = _first(order, directory, 277, 1) * 2 * wide * tall
    left = whole + 4096 * len(offsets)
    for offset, length in zip(offsets, lengths, strict=False):
        if compression in _DEFLATE:
            engine = zlib.decompressobj()
            left -= len(engine.decompress(data[offset : offset + length], left + 1))
        else:
            left -= length
        if left < 0:
            raise ValueError("its strips hold more than its pixels")


def _directory_of(exif: bytes | None) -> tuple[exif_room.Order, exif_room.Directory]:
    """Byte order and entries of an EXIF block; an empty directory for none, or one that cannot be parsed."""
    if exif:
        try:
            return exif_room.parse(exif)
        except ValueError:
            pass
    return "<", {}


def encode_tiff(
    codes: np.ndarray,
    *,
    icc: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> bytes:
    """A deflated TIFF file with horizontal prediction.

    Args:
        codes: (H, W, C) uint8 or uint16, C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.

    Raises:
        ValueError: it would not fit the format's 4 GB.
    """
    height, width, n = codes.shape
    order, directory = _directory_of(exif)
    rows = max(1, (1 << 19) // (width * n * codes.itemsize))
    strips = []
    for top in range(0, height, rows):
        block = codes[top : top + rows]
        delta = np.concatenate([block[:, :1], block[:, 1:] - block[:, :-1]], axis=1)
        strips.append(zlib.compress(delta.astype(codes.dtype.newbyteorder(order)).tobytes(), 6))
    lengths = [len(s) for s in strips]
    end = 8 + sum(lengths)
    if end > 2**32 - (1 << 26):
        raise ValueError("it does not fit a TIFF file, which holds at most 4 GB")
    offsets = [8, *(8 + int(s) for s in np.cumsum(lengths[:-1]))]

    def short(*values: int) -> exif_room.Entry:
        return (3, len(values), struct.pack(f"{order}{len(values)}H", *values))

    def long(*values: int) -> exif_room.Entry:
        return (4, len(values), struct.pack(f"{order}{len(values)}I", *values))

    directory |= {
        256: long(width),
        257: long(height),
        258: short(*[codes.itemsize * 8] * n),
        259: short(8),
        262: short(2 if n >= 3 else 1),
        273: long(*offsets),
        277: short(n),
        278: long(rows),
        279: long(*lengths),
        284: short(1),
        317: short(2),
    }
    if n in (2, 4):
        directory[338] = short(2)
    if dpi:
        directory |= {282 + i: (5, 1, struct.pack(order + "II", round(d * 1000), 1000)) for i, d in enumerate(dpi)}
        directory[296] = short(2)
    if xmp:
        directory[700] = (1, len(xmp), xmp)
    if icc:
        directory[34675] = (7, len(icc), icc)
    pad = b"\0" * (end % 2)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", end + len(pad))
    return b"".join([head, *strips, pad, exif_room.serialize(order, directory, end + len(pad))])
