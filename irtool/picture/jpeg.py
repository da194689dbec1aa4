"""JPEG files: segments on the way in and out, and the decoder. Pixels are Pillow's (libjpeg-turbo's).

Pillow gives no word on what it skipped, joined or made up, and refuses metadata larger than one segment. So the
segments are read and written here. Layout: ITU-T T.81, annex B; JFIF 1.02; Exif 2.32, 4.7.2; Adobe XMP Part 3, 1.1.3.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np

from . import exif as exif_room
from . import xmp as xmp_room
from .model import JpegSettings
from .raw import DecodedFile, Guard, RefusedError, common, from_cmyk, samples

_EXIF, _XMP, _EXTENSION = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_SEGMENT = 65533  # bytes in a segment beside its length
_MAX_SCANS = 100  # libjpeg passes over the whole picture for each; encoders write 10, rarely 20
_MAX_EXTENDED = 64 << 20
_MAX_SEGMENTS = 10_000  # before the first scan; the largest profile has 255, XMP of 64 MiB 1,000

# The end of entropy-coded data: a marker that is neither a stuffed zero, a restart, nor a fill byte.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_FRAMES = {
    **dict.fromkeys((0xC0, 0xC1, 0xC2, 0xC9, 0xCA), ""),
    **dict.fromkeys((0xC3, 0xCB), "a lossless JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "a hierarchical JPEG"),
    0xF7: "a JPEG-LS file",
}
_CONVERT = "Convert it to PNG or TIFF with the program that made it."


@dataclass
class Structure:
    """What the markers of a JPEG file say.

    Attributes:
        frame: marker of the frame (0xC0 baseline, 0xC2 progressive, ...), 0 if there is none.
        precision, width, height, components: of the frame.
        segments: (marker, content) of those before the first scan.
        scans: how many.
        coded: bytes of entropy-coded data in all scans.
        blocks: 8 x 8 blocks of all components.
        end: offset behind the end marker, or of the end of the file where that is missing.
        whole: the end marker is there.
        coefficients: for each component (by its number in the file) the coefficients that have all their bits, as a
            mask; scans of a progressive file bring them one after the other.
    """

    frame: int = 0
    precision: int = 8
    width: int = 0
    height: int = 0
    components: int = 0
    segments: list[tuple[int, bytes]] = field(default_factory=list)
    scans: int = 0
    coded: int = 0
    blocks: int = 0
    end: int = 0
    whole: bool = False
    coefficients: dict[int, int] = field(default_factory=dict)

    @property
    def has_all_scans(self) -> bool:
        """All coefficients of all components have been in a scan to their last bit."""
        done = [mask == (1 << 64) - 1 for mask in self.coefficients.values()]
        return bool(self.components) and len(done) == self.components and all(done)

    def chunks(self, marker: int, head: bytes) -> Iterator[bytes]:
        """The contents behind `head` of the segments that begin with it."""
        return (body[len(head) :] for kind, body in self.segments if kind == marker and body.startswith(head))


def structure(data: bytes) -> Structure:
    """Walk over the markers of a file, to its end marker or as far as it goes."""
    found, at = Structure(end=len(data)), 2
    while at + 4 <= len(data) or data[at : at + 2] == b"\xff\xd9":
        if data[at] != 0xFF:
            at += 1  # as decoders do: bytes between segments are passed over
            continue
        marker = data[at + 1]
        if marker == 0xD9:
            found.end, found.whole = at + 2, True
            return found
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        body = data[at + 4 : at + 2 + length]
        if marker in _FRAMES and not found.frame and len(body) >= 6:
            found.frame = marker
            found.precision, found.height, found.width, found.components = struct.unpack_from(">BHHB", body)
            found.blocks = _blocks(found, body)
        if not found.scans:
            found.segments.append((marker, body))
            if len(found.segments) > _MAX_SEGMENTS:
                return found
        at += 2 + length
        if marker == 0xDA:
            found.scans += 1
            _note_scan(found, body)
            if found.scans > _MAX_SCANS:
                return found
            ended = _MARKER.search(data, at)
            found.coded += (ended.start() if ended else len(data)) - at
            at = ended.start() if ended else len(data)
    return found


def _note_scan(found: Structure, body: bytes) -> None:
    count = body[0] if body else 0
    if len(body) < 4 + 2 * count:
        return
    first, last, shift = body[1 + 2 * count : 4 + 2 * count]
    done = ((1 << 64) - 1 if last > 63 else (1 << (last + 1)) - 1) & ~((1 << first) - 1) if not shift & 15 else 0
    for component in body[1 : 1 + 2 * count : 2]:
        found.coefficients[component] = found.coefficients.get(component, 0) | done


def _blocks(frame: Structure, body: bytes) -> int:
    sampled = [(value >> 4, value & 15) for value in body[7 : 6 + 3 * frame.components : 3]]
    wide, tall = max((h for h, _ in sampled), default=1) or 1, max((v for _, v in sampled), default=1) or 1
    return sum(-(-frame.width * h // (8 * wide)) * -(-frame.height * v // (8 * tall)) for h, v in sampled if h and v)


def load_jpeg(data: bytes, guard: Guard) -> DecodedFile:
    """Decode a JPEG; a second picture behind it (a phone's preview, gain map or video) is told of and left."""
    from PIL import JpegImagePlugin

    found = structure(data)
    _check(found)
    if not found.frame:
        raise ValueError("no frame header")
    exif = b"".join(found.chunks(0xE1, _EXIF)) or None
    profile = any(found.chunks(0xE2, b"ICC_PROFILE\0"))
    # Progressive files are held as coefficients: two bytes for each sample.
    more = 2 * found.components if found.frame in (0xC2, 0xCA) else 0
    guard((found.width, found.height), profile=profile or exif_room.is_adobe_rgb(exif), more=more)
    notes = []
    if not found.whole:
        data = _completed(data, found)
        notes.append("its end marker is missing, but no pixel is")
    # The class itself, not Image.open: a JPEG with a second picture behind stays a JPEG.
    im = JpegImagePlugin.JpegImageFile(BytesIO(data))
    guard(im.size)
    im.load()
    if found.whole and _ends_flat(im) and not _is_complete(im, data[: found.end - 2], _FILLERS[0]):
        raise ValueError("its data ends early")
    meta = common(im)
    meta["exif"] = exif
    if profile and not meta["icc"]:
        notes.append("its colour profile is damaged or incomplete and was dropped: it is treated as sRGB")
    if any(b"jumb" in body[:64] for body in found.chunks(0xEB, b"JP")):
        notes.append("its content credentials (C2PA) are not kept: they are of the picture as it was")
    meta["xmp"] = _packet(found, notes)
    aspect = im.info.get("jfif_density") if im.info.get("jfif_unit") == 0 else None
    aspect = aspect if aspect and aspect[0] != aspect[1] and min(aspect) > 0 else None
    if aspect:
        meta["dpi"] = None  # Pillow takes it from EXIF, or makes up 72
    if behind := _behind(data, found, "mp" in im.info):
        notes.append(behind)
        meta["xmp"] = meta["xmp"] and xmp_room.without_dangling(meta["xmp"])
    sampling = JpegImagePlugin.get_sampling(im)
    tables = tuple(tuple(table) for _, table in sorted(im.quantization.items()))
    # A layout Pillow cannot write (4:1:1, 4:4:0) becomes 4:4:4: larger, but nothing is lost. At most two tables, which
    # is what its writer assigns to luma and chroma.
    # As for what the file says of its picture: only where its planes are luma and chroma, of a layout that is known.
    known = len(tables) <= 2 and (im.mode == "L" or (sampling >= 0 and im.info.get("adobe_transform") != 0))
    progressive = bool(im.info.get("progressive"))
    settings = JpegSettings(tables[:2], max(sampling, 0), progressive, int(known)) if tables else None
    comment = _joined(found.chunks(0xFE, b""))
    blocks = tuple(("APP13", body) for body in found.chunks(0xED, b""))
    if im.mode == "CMYK":
        color, note = from_cmyk(im, meta["icc"])
        notes.append(note)
        meta["icc"] = None
        settings = None
    else:
        color, _ = samples(im)
    return DecodedFile(
        color, jpeg=settings, comment=comment, blocks=blocks, notes=tuple(notes), aspect=aspect, **meta
    )  # fmt: skip


def _check(found: Structure) -> None:
    """Refuse what is sound but of a kind that is not decoded, and what cannot hold the pixels it claims."""
    if kind := _FRAMES.get(found.frame):
        raise RefusedError(f"is {kind}", _CONVERT)
    if found.frame and found.width and not found.height:
        raise RefusedError("is a JPEG whose height is told behind its pixels (DNL)", _CONVERT)
    if found.frame and found.precision != 8:
        raise RefusedError(f"is a {found.precision}-bit JPEG, of which irtool reads those of 8 bits", _CONVERT)
    if found.frame and found.components not in (1, 3, 4):
        raise RefusedError(f"is a JPEG of {found.components} channels, which name no colours", _CONVERT)
    if len(found.segments) > _MAX_SEGMENTS:
        raise RefusedError(f"is a JPEG of more than {_MAX_SEGMENTS} segments", "Save it anew with another program.")
    if found.scans > _MAX_SCANS:
        raise RefusedError(f"is a JPEG of more than {_MAX_SCANS} scans", "Save it anew with another program.")
    # A block takes two codes (its mean, and that no more follows) of a bit at least; in progressive files one.
    bits = 1 if found.frame in (0xC2, 0xCA) else 2
    if found.frame and found.frame < 0xC9 and 8 * found.coded < bits * found.blocks:
        raise ValueError("its data ends early")


def _completed(data: bytes, found: Structure) -> bytes:
    """The file with an end marker, if that is all it lacks."""
    from PIL import JpegImagePlugin

    body = data.rstrip(b"\xff") if data.endswith(b"\xff") else data
    im = JpegImagePlugin.JpegImageFile(BytesIO(body + b"\xff\xd9"))
    im.load()
    if not found.has_all_scans or not all(_is_complete(im, body, filler) for filler in _FILLERS):
        raise ValueError("the file ends early")
    return body + b"\xff\xd9"


def _ends_flat(im: Any) -> bool:
    """Whether the last 64 x 8 pixels have one colour, as where libjpeg fills in what is missing."""
    corner = np.asarray(im.crop((max(0, im.width - 64), max(0, im.height - 8), im.width, im.height)))
    return bool((corner == corner[-1:, -1:]).all())


_FILLERS = (b"\x55\xaa\x36\xc9" * 512, b"\x00\xfe\x00\x12" * 512)


def _is_complete(im: Any, body: bytes, filler: bytes) -> bool:
    """Whether all blocks of a decoded file are in its data `body` (without an end marker): then codes that follow it
    are never read, and otherwise they change what is decoded."""
    from PIL import JpegImagePlugin

    other = JpegImagePlugin.JpegImageFile(BytesIO(body + filler + b"\xff\xd9"))
    other.load()
    bands = ((0, top, im.width, min(top + 256, im.height)) for top in range(0, im.height, 256))
    return all(im.crop(band).tobytes() == other.crop(band).tobytes() for band in bands)


def _joined(comments: Iterator[bytes]) -> bytes | None:
    """One comment of all: a full segment goes on in the next, another is a line of its own."""
    out = bytearray()
    for comment in comments:
        out += (b"" if not out or len(out) % _SEGMENT == 0 else b"\n") + comment
    return bytes(out) or None


def _packet(found: Structure, notes: list[str]) -> bytes | None:
    """The XMP packet, its extension merged into it."""
    main = next(found.chunks(0xE1, _XMP), None)
    if not main:
        return None
    guid = xmp_room.extended_guid(main)
    if guid is None:
        return main
    extension = bytearray()
    for part in found.chunks(0xE1, _EXTENSION):
        if len(part) < 40 or part[:32].upper() != guid.upper():
            continue
        size, offset = struct.unpack_from(">II", part, 32)
        if size > _MAX_EXTENDED or offset + len(part) - 40 > size:
            break
        extension.extend(bytes(max(0, size - len(extension))))
        extension[offset : offset + len(part) - 40] = part[40:]
    whole = xmp_room.merged(main, bytes(extension)) if extension else None
    if whole is None:
        notes.append("the extended part of its XMP cannot be read and was dropped")
        return xmp_room.without_extension(main)
    return whole


def _behind(data: bytes, found: Structure, several: bool) -> str:
    """The note on what follows the picture in its file, empty where nothing does."""
    rest = data[found.end : found.end + 4096].lstrip(b"\0")
    size = len(data) - found.end
    if b"ftyp" in rest[:64] or (size > 64 and b"ftyp" in data[found.end : found.end + (1 << 20)]):
        return f"the video behind the picture ({size / 1e6:.1f} MB, a motion photo) is not kept"
    if several or rest.startswith(b"\xff\xd8\xff"):
        return "the second picture in the file (a preview or gain map) is not kept"
    if size > 64 and rest:
        return f"{size} bytes that follow the picture in its file are not kept"
    return ""


def with_metadata(
    data: bytes,
    *,
    exif: bytes | None,
    xmp: bytes | None,
    comment: bytes | None,
    iptc: tuple[bytes, ...],
    aspect: tuple[int, int] | None,
    notes: list[str],
) -> bytes:
    """A JPEG file as Pillow writes it (JFIF, perhaps a profile) with metadata of any size behind its JFIF segment.

    What does not fit a segment is made to: EXIF loses its maker note and then its largest entries, XMP is split into a
    main packet and an extension. `notes` gets a sentence on whatever is lost.
    """
    at = 2
    if data[2:4] == b"\xff\xe0":
        at += 2 + struct.unpack_from(">H", data, 4)[0]
        if aspect is not None and data[6:11] == b"JFIF\0":
            data = data[:13] + struct.pack(">BHH", 0, *(min(value, 65535) for value in aspect)) + data[18:]
    parts: list[bytes] = []
    if exif:
        block, dropped = exif_room.fitted(exif, _SEGMENT - len(_EXIF))
        if block is None:
            notes.append("its EXIF is too large for a JPEG and was dropped")
        else:
            parts.append(_segment(0xE1, _EXIF + block))
            if dropped:
                names = ", ".join(_tag_name(tag) for tag in dropped[:5]) + (" ..." if len(dropped) > 5 else "")
                notes.append(f"its EXIF is too large for a JPEG: left out {names}")
    if xmp:
        parts += _xmp_segments(xmp, notes)
    parts += [_segment(0xED, body) for body in iptc if len(body) <= _SEGMENT]
    if comment:
        # A longer comment goes on in the next segment.
        parts += [_segment(0xFE, comment[i : i + _SEGMENT]) for i in range(0, len(comment), _SEGMENT)]
    return b"".join([data[:at], *parts, data[at:]]) if parts else data


def _xmp_segments(packet: bytes, notes: list[str]) -> list[bytes]:
    limit = _SEGMENT - len(_XMP)
    if len(packet) > limit:
        packet = xmp_room.trimmed(packet)
    if len(packet) <= limit:
        return [_segment(0xE1, _XMP + packet)]
    divided = xmp_room.split(packet, limit)
    if divided is None:
        notes.append("its XMP is too large for a JPEG and was dropped")
        return []
    main, extension, guid = divided
    step = 65000
    parts = (extension[i : i + step] for i in range(0, len(extension), step))
    heads = (guid + struct.pack(">II", len(extension), i) for i in range(0, len(extension), step))
    return [
        _segment(0xE1, _XMP + main),
        *(_segment(0xE1, _EXTENSION + head + part) for head, part in zip(heads, parts, strict=True)),
    ]


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _tag_name(tag: int) -> str:
    from PIL import ExifTags

    return ExifTags.TAGS.get(tag, f"tag {tag}")
