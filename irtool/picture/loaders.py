"""One loader per file format: bytes to integer samples and metadata. `decode` turns what they raise into one error."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np

from ..errors import UnavailableError
from . import png
from .model import JpegSettings
from .raw import Guard, Raw, common, from_cmyk, join, samples, sane_dpi, single
from .tiff import load_tiff


def load(format: str, data: bytes, guard: Guard) -> Raw:
    """Decode `data`, which `sniff` found to be of `format`."""
    return _LOADERS[format](data, guard)


def _jpeg(data: bytes, guard: Guard) -> Raw:
    from PIL import JpegImagePlugin

    # The class itself, not Image.open: a phone's JPEG with a second picture behind (preview, gain map) stays a JPEG.
    im = JpegImagePlugin.JpegImageFile(BytesIO(data))
    guard(im.size)
    im.load()
    meta = common(im)
    notes = []
    if "mp" in im.info:
        notes.append("the second picture in the file (a preview or gain map) is not kept")
    sampling = JpegImagePlugin.get_sampling(im)
    tables = tuple(tuple(table) for _, table in sorted(im.quantization.items()))
    # A layout Pillow cannot write (4:1:1, 4:4:0) becomes 4:4:4: larger, but nothing is lost. At most two tables, which
    # is what its writer assigns to luma and chroma.
    # As for what the file says of its picture: only where its planes are luma and chroma, of a layout that is known.
    known = len(tables) <= 2 and (im.mode == "L" or (sampling >= 0 and im.info.get("adobe_transform") != 0))
    progressive = bool(im.info.get("progressive"))
    settings = JpegSettings(tables[:2], max(sampling, 0), progressive, int(known)) if tables else None
    comment = im.info.get("comment")
    blocks = tuple((name, body) for name, body in im.applist if name == "APP13")
    if im.mode == "CMYK":
        colour, note = from_cmyk(im, meta["icc"])
        notes.append(note)
        meta["icc"] = None
        settings = None
    else:
        colour, _ = samples(im)
    return Raw(colour, jpeg=settings, comment=comment or None, blocks=blocks, notes=tuple(notes), **meta)


def _png(data: bytes, guard: Guard) -> Raw:
    from PIL import PngImagePlugin

    parts = list(png.chunks(data))
    if not parts or parts[0][0] != b"IHDR" or len(parts[0][1]) != 13:
        raise png.DamagedPng("the header is missing")
    found: dict[bytes, bytes] = {}
    for kind, body in parts:
        found.setdefault(kind, body)
    if len(found.get(b"acTL", b"")) == 8:
        single(struct.unpack(">I", found[b"acTL"][:4])[0], "an animation")
    width, height, depth, colour_type = struct.unpack(">IIBB", found[b"IHDR"][:10])
    guard((width, height))
    # Pillow sees only the chunks that make pixels: its limits on metadata must not refuse a picture.
    bare = png.pixels_only(parts)

    def opened(rawmode: str | None = None) -> PngImagePlugin.PngImageFile:
        im = PngImagePlugin.PngImageFile(BytesIO(bare))
        if rawmode is not None:
            im.tile = [im.tile[0]._replace(args=rawmode)]
        return im

    alpha: np.ndarray | None
    if depth == 16 and colour_type == 4:
        four = np.asarray(opened("RGBA"))
        colour, alpha = join(four[..., 0:1], four[..., 1:2]), join(four[..., 2], four[..., 3])
    elif depth == 16 and colour_type in (2, 6):
        layout = "RGB" if colour_type == 2 else "RGBA"
        colour = join(np.asarray(opened(layout + ";16B")), np.asarray(opened(layout + ";16L")))
        colour, alpha = colour[..., :3], colour[..., 3] if colour_type == 6 else None
    else:
        im = opened()
        im.load()
        if depth == 16:
            im.info.pop("transparency", None)
        colour, alpha = samples(im)
    if depth == 16 and b"tRNS" in found and alpha is None:
        key = np.frombuffer(found[b"tRNS"], ">u2", colour.shape[2])
        alpha = np.where((colour == key).all(axis=-1), 0, 65535).astype(np.uint16)

    meta: dict[str, Any] = {"xmp": None, "dpi": None}
    meta["icc"] = png.read_icc(found[b"iCCP"]) if b"iCCP" in found else None
    meta["exif"] = found.get(b"eXIf", b"").removeprefix(b"Exif\0\0") or None
    if len(found.get(b"pHYs", b"")) == 9:
        x, y, unit = struct.unpack(">IIB", found[b"pHYs"])
        meta["dpi"] = sane_dpi((x * 0.0254, y * 0.0254)) if unit == 1 else None
    blocks = []
    for kind, body in parts:
        packet = png.read_xmp(body) if kind == b"iTXt" else None
        if packet is not None:
            meta["xmp"] = packet
        elif kind.decode("latin-1") in (*png.COLOUR_CHUNKS, *png.TEXT_CHUNKS):
            blocks.append((kind.decode("latin-1"), body))
    return Raw(colour, alpha, blocks=tuple(blocks), **meta)


def _webp(data: bytes, guard: Guard) -> Raw:
    from PIL import WebPImagePlugin

    im = WebPImagePlugin.WebPImageFile(BytesIO(data))
    guard(im.size)
    single(im.n_frames, "an animated WebP")
    im.load()
    colour, alpha = samples(im)
    return Raw(colour, alpha, lossless=_webp_lossless(data), **common(im))


def _webp_lossless(data: bytes) -> bool:
    """Whether the picture chunk is VP8L. Layout: RFC 9649, 2.3."""
    at = 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        if kind in (b"VP8 ", b"VP8L"):
            return bool(kind == b"VP8L")
        at += 8 + size + size % 2
    return False


def _avif(data: bytes, guard: Guard) -> Raw:
    from PIL import AvifImagePlugin

    if not AvifImagePlugin.SUPPORTED:
        raise UnavailableError("this build of Pillow cannot read AVIF", "pip install --upgrade pillow")
    im = AvifImagePlugin.AvifImageFile(BytesIO(data))
    guard(im.size)
    single(im.n_frames, "an AVIF sequence")
    im.load()
    colour, alpha = samples(im)
    return Raw(colour, alpha, **common(im))


def _heif(data: bytes, guard: Guard) -> Raw:
    try:
        import pillow_heif
    except ImportError:
        raise UnavailableError("HEIF pictures need an optional package", "pip install 'irtool[heif]'") from None
    im = pillow_heif.HeifImageFile(BytesIO(data))
    guard(im.size)
    im.load()
    colour, alpha = samples(im)
    # pillow-heif turns the pixels upright and resets the orientation by itself.
    return Raw(colour, alpha, turned=True, **common(im))


def _bmp(data: bytes, guard: Guard) -> Raw:
    from PIL import BmpImagePlugin

    im = BmpImagePlugin.BmpImageFile(BytesIO(data))
    guard(im.size)
    im.load()
    colour, alpha = samples(im)
    return Raw(colour, alpha, **common(im))


def _gif(data: bytes, guard: Guard) -> Raw:
    from PIL import GifImagePlugin

    im = GifImagePlugin.GifImageFile(BytesIO(data))
    guard(im.size)
    single(im.n_frames, "an animated GIF")
    im.load()
    colour, alpha = samples(im)
    return Raw(colour, alpha, comment=im.info.get("comment") or None, **common(im))


_LOADERS = {
    "JPEG": _jpeg,
    "PNG": _png,
    "TIFF": load_tiff,
    "WEBP": _webp,
    "AVIF": _avif,
    "HEIF": _heif,
    "BMP": _bmp,
    "GIF": _gif,
}
