"""Format x mode x depth: what is read is what was stored, and what is written is what was given."""

from __future__ import annotations

import zlib
from io import BytesIO

import numpy as np
import picture_samples as make
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from irtool.errors import PictureError, UsageError
from irtool.picture import FORMATS, Picture, encode, read, suffix_for
from irtool.picture.png import chunks


def codes_of(picture: Picture) -> np.ndarray:
    """(H, W, 3 or 4) integers at the picture's depth; every value must be one of the depth's levels."""
    top = 255 if picture.bits == 8 else 65535
    values = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    scaled = values.astype(np.float64) * top
    assert np.abs(scaled - np.rint(scaled)).max() < 0.01
    return np.rint(scaled).astype(int)


def as_rgb(codes: np.ndarray) -> np.ndarray:
    codes = np.atleast_3d(codes).astype(int)
    n = codes.shape[2]
    color = np.repeat(codes[..., :1], 3, axis=2) if n < 3 else codes[..., :3]
    return np.dstack([color, codes[..., -1]]) if n in (2, 4) else color


def check(data: bytes, codes: np.ndarray, format: str) -> Picture:
    picture = read(data)
    assert picture.format == format
    assert picture.bits == codes.dtype.itemsize * 8
    assert picture.gray == (np.atleast_3d(codes).shape[2] < 3)
    assert picture.pixels.dtype == np.float32
    assert (codes_of(picture) == as_rgb(codes)).all()
    return picture


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (3, 7), (11, 6)])
def test_png_is_read_exactly(size: tuple[int, int], n: int, dtype: type, interlaced: bool) -> None:
    codes = make.noise(*size, n, dtype)
    check(make.png(codes, interlaced=interlaced), codes, "PNG")


def test_png_of_fewer_bits_and_palettes() -> None:
    bits = make.noise(9, 13, 1) > 127
    assert (codes_of(read(make.saved(Image.fromarray(bits), "PNG")))[..., 0] == bits * 255).all()
    palette = Image.fromarray(make.noise(8, 8, 1) % 16).convert("P")
    palette.putpalette(list(range(0, 96, 2)))
    data = make.saved(palette, "PNG", bits=4)
    picture = read(data)
    assert not picture.gray
    assert picture.alpha is None
    assert (codes_of(picture) == np.asarray(palette.convert("RGB"))).all()
    clear = make.saved(palette, "PNG", transparency=bytes(range(16)))
    assert (codes_of(read(clear))[..., 3] == np.asarray(palette)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("n", [1, 3])
def test_png_transparent_color(n: int, dtype: type) -> None:
    codes = make.noise(5, 6, n, dtype) % 3  # many pixels share a channel with the key and few share all
    key = np.atleast_3d(codes)[2, 3]
    data = make.png(codes, extra=make.chunk(b"tRNS", key.astype(">u2").tobytes()))
    picture = read(data)
    hidden = (np.atleast_3d(codes) == key).all(axis=-1)
    assert picture.alpha is not None
    assert 1 <= hidden.sum() < 30
    assert ((picture.alpha == 0) == hidden).all()
    assert (codes_of(picture)[..., :3] == as_rgb(codes)).all()
    assert picture.gray == (n == 1)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", ["plain", "deflate", "tiled", "planar", "planar deflate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_tiff_is_read_exactly(n: int, dtype: type, layout: str, order: str) -> None:
    codes = make.noise(21, 35, n, dtype)
    options: dict = {"photometric": "minisblack" if n < 3 else "rgb"}
    if layout in ("deflate", "tiled", "planar deflate"):
        options |= {"compression": "zlib", "predictor": True}
    if layout == "tiled":
        options |= {"tile": (16, 16)}
    if layout.startswith("planar") and n > 1:
        options |= {"planarconfig": "separate"}
    if n in (2, 4):
        options |= {"extrasamples": ["unassalpha"]}
    out = BytesIO()
    stored = np.moveaxis(codes, -1, 0) if "planarconfig" in options else codes
    tifffile.imwrite(out, stored, byteorder=order, metadata=None, **options)
    check(out.getvalue(), codes, "TIFF")


def test_tiff_white_is_zero_and_premultiplied() -> None:
    codes = make.noise(4, 5, 1, np.uint16)
    out = BytesIO()
    tifffile.imwrite(out, 65535 - codes, photometric="miniswhite", metadata=None)
    check(out.getvalue(), codes, "TIFF")
    alpha = np.full((4, 5), 32768, np.uint16)
    color = make.noise(4, 5, 3, np.uint16) // 2
    out = BytesIO()
    stored = np.dstack([color, alpha])
    tifffile.imwrite(out, stored, photometric="rgb", extrasamples=["assocalpha"], metadata=None)
    picture = read(out.getvalue())
    expected = np.minimum(color / 32768, 1)
    assert np.abs(picture.pixels - expected).max() < 2 / 65535
    assert (codes_of(picture)[..., 3] == 32768).all()


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "jpeg", "raw"])
def test_tiff_compressions_of_8_bits(compression: str) -> None:
    smooth = np.asarray(Image.fromarray(make.noise(4, 4, 3)).resize((40, 30)))
    picture = read(make.saved(smooth, "TIFF", compression=compression))
    assert np.abs(codes_of(picture) - smooth).max() <= (12 if compression == "jpeg" else 0)


@pytest.mark.parametrize("n", [1, 3, 4])
def test_bmp_is_read_exactly(n: int) -> None:
    codes = make.noise(5, 7, n)
    if n == 4:
        codes = codes[..., :3]  # Pillow writes no alpha that a reader would find
    check(make.saved(codes, "BMP"), codes, "BMP")


@pytest.mark.parametrize("n", [3, 4])
def test_lossless_webp_is_read_exactly_and_stays_lossless(n: int) -> None:
    codes = make.noise(9, 8, n)
    data = make.saved(codes, "WEBP", lossless=True, exact=True, exif=make.exif_block(1))
    picture = check(data, codes, "WEBP")
    assert picture.lossless
    assert (codes_of(read(encode(picture))) == codes).all()
    lossy = read(make.saved(codes, "WEBP", quality=80))
    assert not lossy.lossless


def test_gif_of_one_frame_becomes_png() -> None:
    palette = Image.fromarray(make.noise(6, 6, 1)).convert("P")
    picture = read(make.saved(palette, "GIF"))
    assert picture.format == "PNG"
    assert suffix_for(picture.format, "x.gif") == ".png"
    assert (codes_of(picture) == np.asarray(palette.convert("RGB"))).all()


LOSSLESS = ["PNG", "TIFF", "BMP"]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("format", LOSSLESS)
def test_lossless_round_trip(format: str, transparent: bool, gray: bool, bits: int) -> None:
    top = 65535 if bits == 16 else 255
    dtype = np.uint16 if bits == 16 else np.uint8
    color = make.noise(7, 3, 1 if gray else 3, dtype)
    alpha = make.noise(7, 3, 1, dtype, seed=1) if transparent else None
    pixels = as_rgb(color).astype(np.float32) / np.float32(top)
    picture = Picture(
        pixels, None if alpha is None else alpha.astype(np.float32) / np.float32(top), bits=bits, gray=gray
    )
    again = read(encode(picture, format))
    kept = 16 if bits == 16 and FORMATS[format].deep else 8
    assert again.bits == kept
    assert (again.alpha is not None) == transparent
    if not (format == "BMP" and transparent):  # BMP has no grey with alpha
        assert again.gray == gray
    step = 0 if kept == bits else 0.51 / 255
    assert np.abs(again.pixels - pixels).max() <= step
    if alpha is not None and again.alpha is not None and picture.alpha is not None:
        assert np.abs(again.alpha - picture.alpha).max() <= step


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_deep_files_are_what_other_readers_expect(n: int) -> None:
    codes = make.noise(6, 9, n, np.uint16)
    picture = read(make.png(codes))
    stored = tifffile.imread(BytesIO(encode(picture, "TIFF")))
    assert stored.dtype == np.uint16
    assert (stored == codes).all()
    with Image.open(BytesIO(encode(picture, "PNG"))) as im:
        im.load()
        if n == 1:
            assert im.mode == "I;16"
            assert (np.asarray(im) == codes).all()
        else:
            assert (np.asarray(im)[..., -1] == codes[..., -1] >> 8).all()
    with Image.open(BytesIO(encode(read(make.png(make.noise(6, 9, n))), "TIFF"))) as im:
        assert (np.asarray(im) == make.noise(6, 9, n)).all()


@settings(max_examples=60, deadline=None)
@given(
    codes=st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda dtype: hnp.arrays(dtype, st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4)))
    ),
    smooth=st.booleans(),
)
def test_png_and_tiff_codecs_are_exact(codes: np.ndarray, smooth: bool) -> None:
    if smooth:  # slopes make the row filters other than "none" win
        codes = np.cumsum(codes >> 3, axis=1, dtype=codes.dtype)
    picture = read(make.png(codes))
    assert (codes_of(picture) == as_rgb(codes)).all()
    for format in ("PNG", "TIFF"):
        again = read(encode(picture, format))
        assert again.bits == picture.bits
        assert again.gray == picture.gray
        assert (codes_of(again) == as_rgb(codes)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_uses_every_row_filter_rightly(dtype: type) -> None:
    flat = make.noise(30, 40, 3, dtype)
    steps = flat % 5
    level = np.iinfo(dtype).max // 1000 * 7 + 1
    parts = [
        flat,
        np.cumsum(steps, axis=1, dtype=dtype) * dtype(level),
        np.repeat(flat[:1], 30, axis=0) + steps.astype(dtype),
        np.cumsum(np.cumsum(steps, axis=0, dtype=dtype), axis=1, dtype=dtype),
        np.asarray(Image.fromarray(make.noise(6, 6, 3)).resize((40, 30))).astype(dtype) * dtype(level),
    ]
    codes = np.vstack(parts)
    data = encode(read(make.png(codes)))
    assert (codes_of(read(data)) == codes).all()
    body = b"".join(part for kind, part in chunks(data) if kind == b"IDAT")
    rows = np.frombuffer(zlib.decompress(body), np.uint8).reshape(len(codes), -1)
    assert set(rows[:, 0]) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (48, 64)])
def test_lossy_round_trip_is_close(format: str, gray: bool, size: tuple[int, int]) -> None:
    small = make.noise(2, 2, 3)
    pixels = np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BILINEAR)) / np.float32(255)
    if gray:
        pixels = np.repeat(pixels[..., :1], 3, axis=2)
    again = read(encode(Picture(pixels.astype(np.float32), gray=gray), format))
    assert again.format == format
    assert again.pixels.shape == (*size, 3)
    if format == "JPEG":
        assert again.gray == gray
    assert np.abs(again.pixels - pixels).mean() < 0.04  # colour at half resolution costs this much on 7x3


@pytest.mark.parametrize("format", ["WEBP", "AVIF"])
def test_alpha_survives_lossy_formats(format: str) -> None:
    alpha = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    again = read(encode(Picture(np.full((8, 8, 3), 0.5, np.float32), alpha), format))
    assert again.alpha is not None
    assert np.abs(again.alpha - alpha).max() < (0.51 / 255 if format == "WEBP" else 0.04)


def test_alpha_becomes_white_where_it_cannot_be_kept() -> None:
    alpha = np.zeros((16, 16), np.float32)
    alpha[:, 8:] = 1
    again = read(encode(Picture(np.zeros((16, 16, 3), np.float32), alpha), "jpg"))
    assert again.alpha is None
    assert again.pixels[:, :8].min() > 0.97
    assert again.pixels[:, 8:].max() < 0.03


def test_very_long_picture() -> None:
    codes = make.noise(20, 20000, 3)
    for format in ("PNG", "TIFF", "BMP", "JPEG"):
        again = read(encode(read(make.saved(codes, "PNG")), format))
        assert again.pixels.shape == (20, 20000, 3)
        if format != "JPEG":  # long enough to be compressed in several pieces
            assert (np.rint(again.pixels * 255) == codes).all()
    with pytest.raises(PictureError, match="16383"):
        encode(again, "webp")


@pytest.mark.parametrize("quality", [93, 90])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_written_like_its_source(quality: int, subsampling: int, progressive: bool) -> None:
    smooth = np.asarray(Image.fromarray(make.noise(4, 4, 3)).resize((64, 48)))
    data = make.saved(smooth, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
    again = encode(read(data))
    with Image.open(BytesIO(data)) as old, Image.open(BytesIO(again)) as new:
        assert new.quantization == old.quantization
        assert new.layer == old.layer
        assert bool(new.info.get("progressive")) == progressive
    assert abs(len(again) / len(data) - 1) < 0.1


def test_jpeg_of_poor_quality_is_not_written_as_poor() -> None:
    codes = np.asarray(Image.fromarray(make.noise(8, 8, 3)).resize((64, 64)))
    poor = read(make.saved(codes, "JPEG", quality=10))
    floor = Image.open(BytesIO(make.saved(codes, "JPEG", quality=85)))
    assert Image.open(BytesIO(encode(poor))).quantization == floor.quantization
    gray = read(make.saved(codes[..., 0], "JPEG", quality=10))
    assert len(Image.open(BytesIO(encode(gray))).quantization) == 1


def test_jpeg_quality_given_and_default() -> None:
    codes = np.asarray(Image.fromarray(make.noise(8, 8, 3)).resize((64, 64)))
    picture = read(make.saved(codes, "JPEG", quality=92, subsampling=2))
    assert Image.open(BytesIO(encode(picture, quality=40))).quantization == (
        Image.open(BytesIO(make.saved(codes, "JPEG", quality=40))).quantization
    )
    converted = Image.open(BytesIO(encode(read(make.png(codes)), "jpeg")))
    assert converted.quantization == Image.open(BytesIO(make.saved(codes, "JPEG", quality=95))).quantization
    assert converted.layer == Image.open(BytesIO(make.saved(codes, "JPEG", subsampling=0))).layer
    sizes = [len(encode(picture, f, quality=q)) for f in ("webp", "avif") for q in (20, 95)]
    assert sizes[0] < sizes[1]
    assert sizes[2] < sizes[3]


def test_pixels_out_of_range_are_clipped() -> None:
    pixels = np.array([[[-1, 2, 0], [1e30, -1e30, 0.5]]], np.float32)
    assert (codes_of(read(encode(Picture(pixels), "png"))) == [[[0, 255, 0], [255, 0, 128]]]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("format", ["png", "jpg", "tiff", "webp", "bmp"])
def test_what_is_no_number_is_not_written(format: str, value: float) -> None:
    pixels = np.full((9, 9, 3), 0.5, np.float32)
    pixels[4, 5, 1] = value
    with pytest.raises(PictureError, match="not numbers"):
        encode(Picture(pixels, name="black.png"), format)


@pytest.mark.parametrize(("word", "quality"), [("jpgg", None), ("gif", None), ("png", 0), ("jpg", 101)])
def test_senseless_requests(word: str, quality: int | None) -> None:
    with pytest.raises(UsageError):
        encode(Picture(np.zeros((2, 2, 3), np.float32)), word, quality=quality)


def test_picture_refuses_wrong_shapes() -> None:
    picture = Picture(np.zeros((2, 3, 3), np.float32), np.zeros((2, 3), np.float32))
    assert picture.with_pixels(np.ones((2, 3, 3))).alpha is picture.alpha
    for bad in (np.zeros((3, 2, 3)), np.zeros((2, 3))):
        with pytest.raises(ValueError):
            picture.with_pixels(bad)
    with pytest.raises(ValueError):
        Picture(np.zeros((2, 3, 3), np.float32), np.zeros((3, 2), np.float32))
