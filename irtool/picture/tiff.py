"""TIFF: read through Pillow (both bytes of 16-bit colour), written here because Pillow writes no 16-bit colour.

Layout: TIFF 6.0, sections 2, 4, 8, 14 (predictor) and 18 (alpha); deflate as in Adobe Photoshop TIFF Technical Notes.
"""

from __future__ import annotations

import contextlib
import struct
import sys
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from . import exif as exif_room
from .raw import Guard, Raw, Refused, common, from_cmyk, join, samples, sane_dpi, single

_CONVERT = "Convert it to 8-bit or 16-bit RGB or grey first."


def load_tiff(data: bytes, guard: Guard) -> Raw:
    """Decode a TIFF of one full picture."""
    from PIL import Image, TiffImagePlugin

    _hush_libtiff()

    class Tiff(TiffImagePlugin.TiffImageFile):
        def load_prepare(self) -> None:
            # Pillow would check the size here against a global limit of its own; `guard` has done so with ours.
            if self._im is None:
                self.im = Image.core.new(self.mode, self._tile_size)
            super().load_prepare()

    try:
        order, directory = exif_room.parse(data)
    except ValueError:
        order, directory = "<", {}  # BigTIFF: Pillow reads the pixels, the EXIF is left behind
    bits = _number(order, directory.get(258), 1)
    if bits > 16 or _number(order, directory.get(339), 1) == 3:
        raise Refused("holds floating-point or 32-bit pixels", _CONVERT)
    if 50706 in directory or _number(order, directory.get(254), 0) & 1 or data[8:10] == b"CR":
        raise Refused("is a camera raw file", "Develop it to a 16-bit TIFF or a JPEG first.")
    metadata = exif_room.metadata_of(directory)
    exif = exif_room.block_of(order, metadata) if metadata else None
    if bits == 16 and _number(order, directory.get(277), 1) == 2:
        return _grey_alpha16(data, guard, exif)

    im = Tiff(BytesIO(data))
    guard(im.size)
    single(_pages(im), "a TIFF")
    meta = {**common(im), "exif": exif}
    if 282 not in directory:
        meta["dpi"] = None  # Pillow makes up 1 dpi
    notes: tuple[str, ...] = ()
    alpha: np.ndarray | None
    if bits == 16 and im.mode in ("RGB", "RGBA"):
        colour, alpha = _colour16(im, Tiff(BytesIO(data)), order)
    else:
        im.load()
        if im.mode == "CMYK":
            colour, note = from_cmyk(im, meta["icc"])
            alpha, meta["icc"], notes = None, None, (note,)
        else:
            colour, alpha = samples(im)
        if colour.dtype == np.uint16:
            if bits == 12:
                colour = ((colour.astype(np.uint32) * 65535 + 2047) // 4095).astype(np.uint16)
            if _number(order, directory.get(262), 1) == 0:  # white is zero; Pillow turns over 8 bits only
                colour = 65535 - colour
    # Pillow applies the orientation itself when it loads a TIFF.
    return Raw(colour, alpha, turned=True, notes=notes, **meta)


@cache
def _hush_libtiff() -> None:
    """Keep libtiff from printing on stderr about damaged files.

    Pillow turns its warnings off but not its errors. The library is private to Pillow's wheels, where it lies in one of
    two places; a Pillow built otherwise goes on printing, which does no harm.
    """
    import ctypes

    import PIL

    home = Path(PIL.__file__).parent
    for file in (*(home.parent / "pillow.libs").glob("libtiff*"), *(home / ".dylibs").glob("libtiff*")):
        with contextlib.suppress(OSError, AttributeError):
            setter = ctypes.CDLL(str(file)).TIFFSetErrorHandler
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)


def _number(order: str, entry: exif_room.Entry | exif_room.Directory | None, default: int) -> int:
    """The first number of a SHORT or LONG entry."""
    if not isinstance(entry, tuple) or entry[0] not in (3, 4) or not entry[1]:
        return default
    return int(struct.unpack_from(order + ("H" if entry[0] == 3 else "I"), entry[2])[0])


def _pages(im: Any) -> int:
    """Full pictures in a TIFF; reduced-size copies (thumbnails, pyramid levels) do not count."""
    full = 0
    for page in range(min(im.n_frames, 1000)):
        im.seek(page)
        full += not (im.tag_v2.get(254, 0) & 1)
    im.seek(0)
    return full


def _colour16(first: Any, second: Any, order: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Colour and alpha, uint16, from two images opened on the same file: one decodes the high bytes, one the low."""
    if first.tag_v2.get(284, 1) == 2 and first.use_load_libtiff:
        # Pillow ignores the raw mode here, so the low bytes cannot be had.
        raise Refused("is a compressed 16-bit TIFF with its colours stored apart", "Save it interleaved first.")
    premultiplied = any("RGBa" in tile.args[0] for tile in first.tile)
    for im, low in ((first, False), (second, True)):
        im.tile = [tile._replace(args=(_one_byte(tile.args[0], order, low), *tile.args[1:])) for tile in im.tile]
        im.load()
    both = join(np.asarray(first), np.asarray(second))
    if first.mode == "RGB":
        return both, None
    colour, alpha = both[..., :3], both[..., 3]
    if premultiplied:
        whole = np.maximum(alpha, 1)[..., None].astype(np.uint32)
        colour = np.minimum((colour * np.uint32(65535) + whole // 2) // whole, 65535).astype(np.uint16)
    return colour, alpha


def _one_byte(rawmode: str, order: str, low: bool) -> str:
    """The Pillow raw mode that takes the high or the low byte of 16-bit samples."""
    layout, _, end = rawmode.replace("RGBa", "RGBA").partition(";16")
    # libtiff hands on native order ("N"); Pillow names single planes without any.
    little = sys.byteorder == "little" if end == "N" else order == "<"
    return f"{layout};16{'L' if little != low else 'B'}"


def _grey_alpha16(data: bytes, guard: Guard, exif: bytes | None) -> Raw:
    """16-bit grey with alpha, which Pillow does not read."""
    import tifffile

    with tifffile.TiffFile(BytesIO(data)) as file:
        page = file.pages.first
        guard((page.imagewidth, page.imagelength))
        single(len(file.pages), "a TIFF")
        if page.photometric != 1 or page.samplesperpixel != 2 or page.dtype != np.uint16 or page.planarconfig != 1:
            raise Refused("holds pixels in an unusual layout", _CONVERT)
        array = page.asarray()
        icc, xmp = (page.tags[t].value if t in page.tags else None for t in (34675, 700))
        dpi = sane_dpi(page.get_resolution(unit=2)) if 282 in page.tags else None
    return Raw(array[..., :1], array[..., 1], icc=icc, xmp=xmp, exif=exif, dpi=dpi)


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
    order: exif_room.Order = "<"
    directory: exif_room.Directory = {}
    if exif:
        try:
            order, directory = exif_room.parse(exif)
        except ValueError:
            order, directory = "<", {}
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
    return b"".join([head, *strips, pad, exif_room.serialise(order, directory, end + len(pad))])
