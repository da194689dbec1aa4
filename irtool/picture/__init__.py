"""Pictures in and out. Decoding and encoding live in this room and nowhere else.

`read` gives a `Picture` (upright sRGB float32 and all that must survive), `encode` and `write` give it back to a file.
"""

from __future__ import annotations

from .decode import MAX_PIXELS, Frames, FramesError, probe, read, read_frames, read_stored
from .encode import FramesWriter, encode
from .files import FoundPicture, find, is_pattern, pattern_root, same_file, save_bytes, write, write_page
from .formats import FORMATS, SUFFIXES, Format, format_for, format_named, sniff, suffix_for
from .model import JpegSettings, Picture
from .sheet import sheet, side_by_side

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "SUFFIXES",
    "Format",
    "FoundPicture",
    "Frames",
    "FramesError",
    "FramesWriter",
    "JpegSettings",
    "Picture",
    "encode",
    "find",
    "format_for",
    "format_named",
    "is_pattern",
    "pattern_root",
    "probe",
    "read",
    "read_frames",
    "read_stored",
    "same_file",
    "save_bytes",
    "sheet",
    "side_by_side",
    "sniff",
    "suffix_for",
    "write",
    "write_page",
]
