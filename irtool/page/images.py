"""Copies of pictures for a browser: as large as they are, as a preview, and as a thumbnail."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from ..errors import PictureError
from ..picture import Picture, probe
from ..picture.encode import quantize

if TYPE_CHECKING:
    from ..detection import Diagnosis

THUMBNAIL = 192
"""Longer side of a thumbnail in pixels, enough for 96 on a dense screen."""
MOST_PIXELS, MOST_SIDE = 64_000_000, 16_384
"""What a browser shows as one image; larger pictures are reduced for it, and the page says so."""


def to_image(picture: Picture) -> Image.Image:
    """A picture in 8 bits, what is transparent over white."""
    pixels = picture.pixels
    if picture.alpha is not None:
        alpha = picture.alpha[:, :, None]
        pixels = pixels * alpha + (1 - alpha)
    return Image.fromarray(quantize(pixels, deep=False))


def reduced(image: Image.Image, side: int) -> Image.Image:
    """The image with sides of at most `side` pixels, never enlarged."""
    if max(image.size) <= side:
        return image
    scale = side / max(image.size)
    size = [max(1, round(length * scale)) for length in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.BOX, reducing_gap=2.0)


def as_shown(image: Image.Image) -> Image.Image:
    """The image as large as a browser shows it."""
    scale = min(1.0, (MOST_PIXELS / (image.width * image.height)) ** 0.5, MOST_SIDE / max(image.size))
    return image if scale == 1 else reduced(image, int(max(image.size) * scale))


def jpeg(image: Image.Image, quality: int = 92) -> bytes:
    """A JPEG without metadata, its colors at full resolution."""
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=quality, subsampling=0)
    return stream.getvalue()


def thumbnail(path: Path, max_pixels: int) -> bytes:
    """A thumbnail of a file, decoded at a fraction of its size where the format can.

    Raises:
        PictureError: it is no picture, or has more pixels than allowed.
        OSError, ValueError, SyntaxError: Pillow does not decode it.
    """
    _, width, height = probe(path)
    if width * height > max_pixels:
        raise PictureError(f"{path} has more than {max_pixels / 1e6:.0f} megapixels.")
    with Image.open(path) as image:
        image.draft("RGB", (THUMBNAIL, THUMBNAIL))
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        return jpeg(ImageOps.exif_transpose(image), 80)


def where(diagnosis: Diagnosis) -> dict[str, bytes]:
    """By degradation that is present or uncertain and has a place: a PNG with a pixel for each cell of the detector's
    map, in the tint of `detection.overlay` and as opaque as it is sure."""
    from ..detection.overlay import COLORS, LEAST  # torch: the server answers before it is loaded

    drawn = {}
    for kind in (*diagnosis.present, *diagnosis.uncertain):
        if kind in diagnosis.maps:
            hit = diagnosis.maps[kind].float().numpy()
            alpha = (0.6 * 255 * ((hit - LEAST) / (1 - LEAST)).clip(0, 1)).round().astype(np.uint8)
            color = np.broadcast_to(np.array(COLORS[kind], np.uint8), (*alpha.shape, 3))
            stream = io.BytesIO()
            Image.fromarray(np.dstack([color, alpha])).save(stream, "PNG")
            drawn[kind] = stream.getvalue()
    return drawn
