"""One loader per file format: bytes to integer samples and metadata. `decode` turns what they raise into one error."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
from PIL import ImageFile

from ..errors import UnavailableError
from . import png, stated
from .av1 import coded_size
from .bmff import Boxes, boxes_of
from .bmp import load_bmp
from .camera_raw import load_raw
from .jpeg import load_jpeg
from .raw import DecodedFile, Guard, common, join, samples, sane_dpi, single
from .tiff import load_tiff
from .xmp import without_dangling


def load(format: str, data: bytes, guard: Guard) -> DecodedFile:
    """Decode `data`, which `sniff` found to be of `format`."""
    return _LOADERS[format](data, guard)


def _png(data: bytes, guard: Guard) -> DecodedFile:
    from PIL import PngImagePlugin

    parts, notes = png.checked(list(png.chunks(data)))
    found: dict[bytes, bytes] = {}
    for kind, body in parts:
        found.setdefault(kind, body)
    if len(found.get(b"acTL", b"")) == 8:
        single(struct.unpack(">I", found[b"acTL"][:4])[0], "an animation")
    width, height, depth, color_type = struct.unpack(">IIBB", found[b"IHDR"][:10])
    stated_colors = any(kind in found for kind in (b"iCCP", b"cICP", b"gAMA", b"cHRM"))
    transparent = color_type in (4, 6) or b"tRNS" in found
    guard((width, height), deep=depth == 16, alpha=transparent, profile=stated_colors)
    # Pillow sees only the chunks that make pixels: its limits on metadata must not refuse a picture.
    bare = png.pixels_only(parts)

    def opened(rawmode: str | None = None) -> PngImagePlugin.PngImageFile:
        im = PngImagePlugin.PngImageFile(BytesIO(bare))
        if rawmode is not None:
            im.tile = [im.tile[0]._replace(args=rawmode)]
        return im

    alpha: np.ndarray | None
    if depth == 16 and color_type == 4:
        four = np.asarray(opened("RGBA"))
        color, alpha = join(four[..., 0:1], four[..., 1:2]), join(four[..., 2], four[..., 3])
    elif depth == 16 and color_type in (2, 6):
        layout = "RGB" if color_type == 2 else "RGBA"
        color = join(np.asarray(opened(layout + ";16B")), np.asarray(opened(layout + ";16L")))
        color, alpha = color[..., :3], color[..., 3] if color_type == 6 else None
    else:
        im = opened()
        im.load()
        if depth == 16:
            im.info.pop("transparency", None)
        color, alpha = samples(im)
    if depth == 16 and b"tRNS" in found and alpha is None:
        key = np.frombuffer(found[b"tRNS"], ">u2", color.shape[2])
        alpha = np.where((color == key).all(axis=-1), 0, 65535).astype(np.uint16)

    meta, blocks = png_metadata(parts, found, notes)
    return DecodedFile(color, alpha, blocks=tuple(blocks), notes=tuple(notes), **meta)


def png_metadata(
    parts: list[tuple[bytes, bytes]], found: dict[bytes, bytes], notes: list[str]
) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    """Metadata as attributes of `DecodedFile`, and the chunks that are carried; what is dropped is added to the notes.

    `found` holds the first chunk of each kind.
    """
    meta = _png_metadata(parts, found)
    if b"iCCP" in found and meta["icc"] is None:
        notes.append("its colour profile is damaged or unreasonably large and was dropped")
    blocks, dropped = png.carried((kind, body) for kind, body in parts if png.raw_profile(kind, body) is None)
    if dropped:
        notes.append(f"{dropped} damaged or oversized text or colour chunks were dropped")
    if len(found.get(b"cICP", b"")) == 4 and not found[b"cICP"][3]:
        notes.append("its samples leave room at both ends (narrow range, as in videos), which is not undone")
    try:
        # cICP goes before iCCP, iCCP before all else.
        if "cICP" in {name for name, _ in blocks} or not meta["icc"]:
            meta["icc"] = png.stated_profile(blocks, found[b"IHDR"][9] in (0, 4))
    except ValueError as error:
        notes.append(f"its colours are stated in a way that is not converted ({error}): they are treated as sRGB")
    return meta, blocks


def _png_metadata(parts: list[tuple[bytes, bytes]], found: dict[bytes, bytes]) -> dict[str, Any]:
    """Profile, EXIF, XMP and resolution from chunks; where they are missing, from ImageMagick's raw profiles."""
    meta: dict[str, Any] = {"dpi": None, "aspect": None}
    meta["icc"] = png.read_icc(found[b"iCCP"]) if b"iCCP" in found else None
    meta["exif"] = found.get(b"eXIf", b"").removeprefix(b"Exif\0\0") or None
    packet = next((body for kind, body in parts if png.is_xmp(kind, body)), None)
    meta["xmp"] = packet and png.read_xmp(packet)
    if len(found.get(b"pHYs", b"")) == 9:
        x, y, unit = struct.unpack(">IIB", found[b"pHYs"])
        meta["dpi"] = sane_dpi((x * 0.0254, y * 0.0254)) if unit == 1 else None
        meta["aspect"] = (x, y) if unit == 0 and x != y and min(x, y) > 0 and max(x, y) < 2**31 else None
    for kind, body in parts:
        profile = png.raw_profile(kind, body) if kind in (b"tEXt", b"zTXt", b"iTXt") else None
        if profile is None:
            continue
        name, content = profile
        if name in ("exif", "app1") and content.startswith(b"Exif\0\0"):
            meta["exif"] = meta["exif"] or content[6:]
        elif name in ("xmp", "app1"):
            meta["xmp"] = meta["xmp"] or content.removeprefix(b"http://ns.adobe.com/xap/1.0/\0")
        elif name in ("icc", "icm"):
            meta["icc"] = meta["icc"] or content
    return meta


def contents(im: ImageFile.ImageFile) -> dict[str, bool]:
    """What Pillow says of a file before it is decoded, as a guard wants to know it."""
    return {"alpha": im.has_transparency_data, "profile": bool(im.info.get("icc_profile"))}


def _webp(data: bytes, guard: Guard) -> DecodedFile:
    from PIL import WebPImagePlugin

    im = WebPImagePlugin.WebPImageFile(BytesIO(data))
    guard(im.size, more=2, **contents(im))
    single(im.n_frames, "an animated WebP")
    im.load()
    color, alpha = samples(im)
    return DecodedFile(color, alpha, lossless=_webp_lossless(data), **common(im))


def _webp_lossless(data: bytes) -> bool:
    """Whether the picture chunk is VP8L. Layout: RFC 9649, 2.3."""
    at = 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        if kind in (b"VP8 ", b"VP8L"):
            return bool(kind == b"VP8L")
        at += 8 + size + size % 2
    return False


def _avif(data: bytes, guard: Guard) -> DecodedFile:
    from PIL import AvifImagePlugin

    if not AvifImagePlugin.SUPPORTED:
        raise UnavailableError("this build of Pillow cannot read AVIF", "pip install --upgrade pillow")
    im = AvifImagePlugin.AvifImageFile(BytesIO(data))
    guard(im.size, more=2, **contents(im))
    coded = coded_size(data)
    if coded[0] > im.width or coded[1] > im.height:
        guard(coded, more=2)
    single(im.n_frames, "an AVIF sequence", readable=False)
    im.load()
    color, alpha = samples(im)
    return DecodedFile(color, alpha, **_with_boxes(boxes_of(data), common(im)))


def _with_boxes(boxes: Boxes, meta: dict[str, Any]) -> dict[str, Any]:
    """The metadata of an AVIF or HEIF with the colours that its boxes state, and notes on what is left out."""
    notes = []
    if boxes.code_points is not None and not meta["icc"]:
        primaries, transfer, _ = boxes.code_points
        # As PNG says it, so that it goes into AVIF and PNG alike: RGB, full range.
        meta["blocks"] = (("cICP", bytes([min(primaries, 255), min(transfer, 255), 0, 1])),)
        try:
            meta["icc"] = stated.from_code_points(primaries, transfer)
        except ValueError as error:
            notes.append(f"its colours are stated in a way that is not converted ({error}): they are treated as sRGB")
    if boxes.gain_map:
        notes.append("its gain map is not kept")
    if boxes.depth_map:
        notes.append("its depth map is not kept")
    if notes and meta["xmp"]:
        meta["xmp"] = without_dangling(meta["xmp"])
    return {**meta, "notes": tuple(notes)}


def _heif(data: bytes, guard: Guard) -> DecodedFile:
    try:
        import pillow_heif
    except ImportError:
        raise UnavailableError("HEIF pictures need an optional package", "pip install 'irtool[heif]'") from None
    im = pillow_heif.HeifImageFile(BytesIO(data))
    guard(im.size, more=8, **contents(im))
    im.load()
    color, alpha = samples(im)
    # pillow-heif turns the pixels upright and resets the orientation by itself.
    return DecodedFile(color, alpha, orientation_applied=True, **_with_boxes(boxes_of(data), common(im)))


def _gif(data: bytes, guard: Guard) -> DecodedFile:
    from PIL import GifImagePlugin

    im = GifImagePlugin.GifImageFile(BytesIO(data))
    guard(im.size, **contents(im))
    single(im.n_frames, "an animated GIF")
    im.load()
    color, alpha = samples(im)
    return DecodedFile(color, alpha, comment=im.info.get("comment") or None, **common(im))


_LOADERS = {
    "JPEG": load_jpeg,
    "PNG": _png,
    "TIFF": load_tiff,
    "WEBP": _webp,
    "AVIF": _avif,
    "HEIF": _heif,
    "BMP": load_bmp,
    "GIF": _gif,
    "RAW": load_raw,
}
