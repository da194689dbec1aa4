"""Camera raw files by LibRaw (rawpy, extra "raw"): demosaiced, with the camera's white balance, as 16-bit sRGB.

Brightness is that of the sensor: nothing is stretched, and no camera's tone curve is imitated. A raw file often looks
darker than the camera's own JPEG; what is too dark is for a restorer to say.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from io import BytesIO

from ..errors import UnavailableError
from . import exif as exif_room
from .raw import DecodedFile, Guard

SUFFIXES = (
    ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".raf", ".orf", ".rw2", ".pef", ".srw", ".3fr",
    ".iiq", ".mef", ".mos", ".kdc", ".dcr", ".erf",
)  # fmt: skip
_SRGB_CURVE = (2.4, 12.92)  # exponent, and slope at black
_LIBRAW_BYTES = 20
"""What LibRaw holds for a pixel beside the result: the mosaic, four 16-bit channels and a copy."""
_DNG_VERSION, _SUB_DIRECTORIES, _SUBFILE, _MAKE, _PHOTOMETRIC = 50706, 330, 254, 271, 262
_CFA, _LINEAR_RAW = 32803, 34892
_SHORT = 3
_MAKER_NOTE, _EXIF = 0x927C, 0x8769
_KEPT = {270, 271, 272, exif_room.ORIENTATION, 306, 315, 33432, _EXIF, 0x8825}
"""Of the first directory: what tells of the photograph, and nothing of how the sensor's values are stored."""


def is_raw(data: bytes) -> bool:
    """Whether a file is a camera raw file, by its first bytes (of a TIFF those up to its first directory).

    A TIFF is one if it states a DNG version, or stores a mosaic, or if its first directory is a reduced picture of a
    camera whose full one is in a directory below (NEF, ARW, PEF and others).
    """
    if data.startswith((b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0")) or data[4:12] == b"ftypcrx ":
        return True
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return False
    first = _numbers(data)
    reduced = first.get(_SUBFILE) == 1 and _SUB_DIRECTORIES in first and _MAKE in first
    return data[8:10] == b"CR" or _DNG_VERSION in first or reduced or first.get(_PHOTOMETRIC) in (_CFA, _LINEAR_RAW)


def load_raw(data: bytes, guard: Guard) -> DecodedFile:
    """Demosaic a camera raw file.

    Raises:
        UnavailableError: rawpy is not installed.
    """
    try:
        import rawpy
    except ImportError:
        raise UnavailableError("camera raw files need an optional package", "pip install 'irtool[raw]'") from None
    with rawpy.imread(BytesIO(data)) as file:
        guard((file.sizes.iwidth, file.sizes.iheight), deep=True, more=_LIBRAW_BYTES)
        pixels = file.postprocess(
            use_camera_wb=True,
            no_auto_bright=True,
            output_bps=16,
            output_color=rawpy.ColorSpace.sRGB,
            gamma=_SRGB_CURVE,
        )
    return DecodedFile(pixels, orientation_applied=True, exif=_exif(data))


def _exif(data: bytes) -> bytes | None:
    """The EXIF block of a raw file that is a TIFF; of other containers none."""
    if data[:2] not in (b"II", b"MM") or data[2:4] not in (b"*\0", b"\0*"):
        return None
    order: exif_room.Order = "<" if data.startswith(b"II") else ">"
    kept: exif_room.Directory = {}
    with suppress(ValueError):
        first = next(exif_room.directories(data), {})
        kept = {tag: value for tag, value in exif_room.metadata_of(first).items() if tag in _KEPT}
    camera = kept.get(_EXIF)
    if isinstance(camera, dict):
        kept[_EXIF] = {tag: value for tag, value in camera.items() if tag != _MAKER_NOTE}
    return exif_room.block_of(order, kept) if kept else None


def _numbers(data: bytes) -> dict[int, int]:
    """Of the first directory of a TIFF as far as it is there: tag -> its value as a number, or an offset to it."""
    order = "<" if data.startswith(b"II") else ">"
    found: dict[int, int] = {}
    with suppress(struct.error):
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", data, at)
            (found[tag],) = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), data, at + 8)
    return found
