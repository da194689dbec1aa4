"""The Picture: pixels the networks can use, and everything else of the file that must survive."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from . import exif as exif_blocks
from . import xmp as xmp_packets


@dataclass(frozen=True)
class JpegSettings:
    """How the source JPEG was compressed.

    Attributes:
        tables: quantisation tables in natural (row by row) order, 64 entries each: luma, then chroma.
        subsampling: Pillow's code, 0 for 4:4:4, 1 for 4:2:2, 2 for 4:2:0.
        progressive: several scans rather than one.
        orientation: EXIF orientation (1 to 8) that the decoded pixels were turned upright from; 0 where they no longer
            are those of the file, or where its blocks are laid out in a way that Pillow does not tell.
    """

    tables: tuple[tuple[int, ...], ...]
    subsampling: int
    progressive: bool = False
    orientation: int = 0


@dataclass(frozen=True, eq=False)
class Picture:
    """One decoded picture, upright, in sRGB.

    Attributes:
        pixels: (H, W, 3) float32, sRGB, in [0, 1]; a grey picture has three equal channels.
        alpha: (H, W) float32 in [0, 1], not premultiplied, or None.
        bits: 8 or 16, the depth it is written with where the format allows.
        gray: written as one channel where the format allows.
        neutral: black and white stored in three equal channels; what is written has three equal channels too.
        format: a name in `FORMATS` that it is written as unless told otherwise: the source's format, or "PNG"
            for a source that irtool reads but does not write (GIF).
        icc: the source's colour profile; on write the pixels are converted back to it.
        exif: EXIF as a TIFF structure without the "Exif" prefix, orientation already set to 1.
        xmp: the XMP packet.
        dpi: horizontal and vertical dots per inch.
        aspect: horizontal and vertical density of pixels that are not square, where only their ratio is stated.
        jpeg: how a JPEG source was compressed.
        lossless: a WebP source was compressed without loss.
        comment: the free comment of a JPEG or GIF.
        blocks: further named blocks kept only when the format stays the same (PNG text and colour chunks, JPEG IPTC).
        out_of_gamut: (H, W, 3) float32 or None: what the source's gamut had outside [0, 1] of sRGB. It is added to
            `pixels` before they go back to the profile, so that a wide-gamut picture keeps its strongest colours.
        source: the file it came from, if any; `write` refuses to overwrite it.
        original: the bytes of that file as they were read; None once the pixels are no longer its.
        name: what messages call it.
        notes: plain sentences on what was converted or could not be kept.
    """

    pixels: np.ndarray = field(repr=False)
    alpha: np.ndarray | None = field(default=None, repr=False)
    bits: int = 8
    gray: bool = False
    neutral: bool = False
    format: str = "PNG"
    icc: bytes | None = field(default=None, repr=False)
    exif: bytes | None = field(default=None, repr=False)
    xmp: bytes | None = field(default=None, repr=False)
    dpi: tuple[float, float] | None = None
    aspect: tuple[int, int] | None = None
    jpeg: JpegSettings | None = None
    lossless: bool = False
    comment: bytes | None = None
    blocks: tuple[tuple[str, bytes], ...] = ()
    out_of_gamut: np.ndarray | None = field(default=None, repr=False)
    source: Path | None = None
    original: bytes | None = field(default=None, repr=False)
    name: str = "picture"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or 0 in self.pixels.shape:
            raise ValueError(f"pixels must be (H, W, 3) and not empty, got {self.pixels.shape}")
        for extra in (self.alpha, self.out_of_gamut):
            if extra is not None and extra.shape[:2] != self.pixels.shape[:2]:
                raise ValueError(f"pixels are {self.pixels.shape[:2]} but alpha or beyond is {extra.shape[:2]}")
        if self.bits not in (8, 16):
            raise ValueError(f"bits must be 8 or 16, got {self.bits}")

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.pixels.shape[1])

    @property
    def source_sha256(self) -> str:
        """sha256 of the file it was decoded from; empty where there is none, or the pixels are no longer the file's."""
        return "" if self.original is None else hashlib.sha256(self.original).hexdigest()

    def with_pixels(self, pixels: np.ndarray) -> Picture:
        """The same picture with other colours: (H, W, 3) of the same size; everything else is kept.

        Black and white stays black and white: of a grey or neutral picture the channels become their mean.

        Raises:
            ValueError: the size differs from this picture's.
        """
        if pixels.shape != self.pixels.shape:
            raise ValueError(f"pixels must be {self.pixels.shape}, got {pixels.shape}")
        pixels = self._colored(pixels)
        return replace(self, pixels=pixels, jpeg=self.jpeg and replace(self.jpeg, orientation=0), original=None)

    def enlarged(self, pixels: np.ndarray, alpha: np.ndarray | None, out_of_gamut: np.ndarray | None) -> Picture:
        """The same picture at another size: EXIF and XMP state the new one, dots per inch stay.

        Args:
            pixels, alpha, out_of_gamut: as of `Picture`, of one size.
        """
        height, width = pixels.shape[:2]
        return replace(
            self,
            pixels=self._colored(pixels),
            alpha=alpha,
            out_of_gamut=out_of_gamut,
            exif=self.exif and exif_blocks.with_dimensions(self.exif, width, height),
            xmp=self.xmp and xmp_packets.with_dimensions(self.xmp, width, height),
            jpeg=self.jpeg and replace(self.jpeg, orientation=0),
            original=None,
        )

    def _colored(self, pixels: np.ndarray) -> np.ndarray:
        pixels = np.asarray(pixels, dtype=np.float32)
        if self.gray or self.neutral:
            pixels = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
        return pixels
