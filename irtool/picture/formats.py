"""The picture formats irtool knows: their suffixes, what they can carry, how their files begin."""

from __future__ import annotations

import difflib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from . import camera_raw


@dataclass(frozen=True)
class Format:
    """One file format.

    Attributes:
        name: as used in `Picture.format`.
        suffixes: lower case with the dot, the usual one first.
        max_side: the most pixels a side can have, in the format or in its codec.
        deep: carries 16 bits.
        alpha: carries transparency.
        gray: carries a single channel.
        icc: carries a colour profile; where not, colours are written as sRGB.
        exif: carries EXIF and XMP.
        writable: irtool writes it.
    """

    name: str
    suffixes: tuple[str, ...]
    max_side: int = 2**31 - 1
    deep: bool = False
    alpha: bool = True
    gray: bool = True
    icc: bool = True
    exif: bool = True
    writable: bool = True


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), max_side=65500, alpha=False),
        Format("PNG", (".png",), deep=True),
        Format("TIFF", (".tif", ".tiff"), deep=True),
        Format("WEBP", (".webp",), max_side=16383, gray=False),
        Format("BMP", (".bmp", ".dib"), icc=False, exif=False),
        Format("AVIF", (".avif",), max_side=32768, gray=False),
        Format("HEIF", (".heic", ".heif", ".hif"), max_side=16384, gray=False),
        Format("GIF", (".gif",), writable=False),
        Format("RAW", camera_raw.SUFFIXES, deep=True, writable=False),
    )
}

SUFFIXES: frozenset[str] = frozenset(
    s for f in FORMATS.values() if f.name != "RAW" or importlib.util.find_spec("rawpy") for s in f.suffixes
)
"""Lower-case suffixes that a folder listing takes for pictures; camera raw files where they can be read."""

_BY_SUFFIX = {s: f for f in FORMATS.values() for s in f.suffixes}
_WRITABLE = ", ".join(f.suffixes[0][1:] for f in FORMATS.values() if f.writable)


def format_named(word: str) -> Format:
    """The format a person names: "jpg", "JPEG", ".tif", "webp".

    Raises:
        UsageError: no such format, with the closest one.
    """
    key = word.strip().lower().lstrip(".")
    known = {s[1:]: f for s, f in _BY_SUFFIX.items()} | {n.lower(): f for n, f in FORMATS.items()}
    if key in known:
        return known[key]
    close = difflib.get_close_matches(key, known, n=1)
    raise UsageError(
        f"unknown picture format '{word}'", f"Did you mean {close[0]}?" if close else f"Formats: {_WRITABLE}."
    )


def format_for(path: Path | str) -> Format:
    """The format a file name asks for by its suffix.

    Raises:
        UsageError: the suffix is missing or unknown.
    """
    suffix = Path(path).suffix.lower()
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    raise UsageError(f"{path}: the suffix does not name a picture format", f"Use one of: {_WRITABLE}.")


def suffix_for(format: str, like: Path | str | None = None) -> str:
    """The suffix for a file of this format: that of `like` (spelling kept) where it fits, else the usual one."""
    found = format_named(format)
    suffix = Path(like).suffix if like is not None else ""
    return suffix if suffix.lower() in found.suffixes else found.suffixes[0]


_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}


def sniff(data: bytes) -> str | None:
    """The format of a file from its first bytes (a few hundred at least), or None."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if camera_raw.is_raw(data):
        return "RAW"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if data[4:8] == b"ftyp":
        return _sniff_heif(data)
    # "BM" alone is too common a beginning: the header size that follows must be one that exists.
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in (12, 16, 40, 52, 56, 64, 108, 124):
        return "BMP"
    return None


_OTHERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (4, b"JXL ", "a JPEG XL picture"),
    (4, b"jP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (0, b"#?RADIANCE", "a Radiance HDR picture"),
    (0, b"qoif", "a QOI picture"),
    (0, b"\0\0\1\0", "an icon (ICO)"),
    (0, b"DDS ", "a texture (DDS)"),
    *((0, b"P%c" % kind, "a Netpbm picture (PBM, PGM, PPM, PAM or PFM)") for kind in b"1234567Ff"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "an archive or an office document"),
    (0, b"\x1f\x8b", "a compressed file (gzip)"),
    (4, b"ftypqt  ", "a video"),
    (4, b"ftypmp4", "a video"),
    (4, b"ftypisom", "a video"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, without the file that it stands for"),
)


def other_kind(data: bytes) -> str:
    """What a file is, from its first bytes, that `sniff` does not know; empty where that cannot be told."""
    for at, mark, what in _OTHERS:
        if data[at : at + len(mark)] == mark:
            return what
    text = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")) and b"<svg" in text:
        return "a drawing (SVG)"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page, not the picture that it may show"
    return "nothing but zeros, as a crash or a broken copy leaves it" if data and not any(data[:4096]) else ""


def _sniff_heif(data: bytes) -> str | None:
    """AVIF or HEIF by the brands of a file that begins with an ``ftyp`` box, or None."""
    size = int.from_bytes(data[:4], "big")
    brands = {data[i : i + 4] for i in (8, *range(16, min(size, len(data)) - 3, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if brands & _HEIF_BRANDS:
        return "HEIF"
    if brands & {b"mif1", b"msf1"}:  # the container only: the kind of its items decides
        return "AVIF" if b"av01" in data else "HEIF"
    return None
