"""What the API takes for an image, and how arrays and tensors become a `Picture` and back."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import singledispatch
from os import PathLike
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from . import picture as pictures
from .errors import PictureError, UsageError
from .picture import Picture

Image = Picture | str | PathLike[str] | bytes | PIL.Image.Image | np.ndarray | Tensor
"""A path; the bytes of a file; a `PIL.Image`; an array (H, W, 3), (H, W, 1), (H, W) or, with alpha, (H, W, 4), of
uint8, uint16 or floats in [0, 1]; a tensor (3, H, W) or (1, H, W), also with a batch dimension of 1, of uint8 or floats
in [0, 1]; or a `Picture`. Arrays and tensors are sRGB."""

_DTYPES = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16, np.dtype(np.float32): 8, np.dtype(np.float64): 8,
           np.dtype(np.float16): 8}  # fmt: skip
_TIFF_ONLY = ("CMYK", "YCbCr", "LAB")  # modes that PNG does not have


@singledispatch
def to_picture(image: Any, name: str = "image") -> Picture:
    """A `Picture` of anything in `Image`; `name` is what messages call one without a path.

    Raises:
        UsageError: it is none of these, or of another shape or type.
        PictureError: it cannot be read, is empty, or has values that are not in [0, 1].
    """
    raise UsageError(
        f"`{name}` is {type(image).__name__}, no image.",
        "Give a path, bytes, a PIL.Image, a numpy array (H, W, 3) or a torch tensor (3, H, W).",
    )


@to_picture.register
def _picture(image: Picture, name: str = "image") -> Picture:
    return image


@to_picture.register(str)
@to_picture.register(PathLike)
def _path(image: str | PathLike[str], name: str = "image") -> Picture:
    return pictures.read(image)  # type: ignore[arg-type]


@to_picture.register(bytes)
@to_picture.register(bytearray)
def _bytes(image: bytes, name: str = "image") -> Picture:
    return pictures.read(bytes(image))


@to_picture.register
def _pil(image: PIL.Image.Image, name: str = "image") -> Picture:
    # Through a file in memory: orientation, profile, alpha and depth are then treated in one place.
    stream = io.BytesIO()
    profile: dict[str, Any] = {"icc_profile": image.info.get("icc_profile")}
    if exif := image.getexif().tobytes():
        profile["exif"] = exif
    if image.mode in _TIFF_ONLY:
        image.save(stream, "TIFF", **profile)
    else:
        image.save(stream, "PNG", compress_level=1, **profile)
    picture = pictures.read(stream.getvalue(), name=getattr(image, "filename", "") or name)
    return replace(picture, format="PNG")


@to_picture.register
def _array(image: np.ndarray, name: str = "image") -> Picture:
    channels = 1 if image.ndim == 2 else image.shape[2] if image.ndim == 3 else 0
    if channels not in (1, 3, 4) or 0 in image.shape:
        raise UsageError(
            f"`{name}` has the shape {image.shape}; an image is (H, W, 3), (H, W, 1), (H, W) or (H, W, 4).",
            "Tensors with the channels first are given as torch tensors.",
        )
    if image.dtype not in _DTYPES:
        raise UsageError(f"`{name}` is of {image.dtype}.", "Give uint8, uint16, or floats in [0, 1].")
    values = image.reshape(*image.shape[:2], channels)
    if image.dtype.kind == "u":
        values = values.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    else:
        values = np.array(values, dtype=np.float32)
        # NaN fails both comparisons.
        if not (values.min() >= 0 and values.max() <= 1):
            raise PictureError(f"`{name}` has floats outside [0, 1], or that are not finite.", "Divide or clip it.")
    color, alpha = (values[:, :, :3], values[:, :, 3].copy()) if channels == 4 else (values, None)
    pixels = np.repeat(color, 3, axis=2) if channels == 1 else np.ascontiguousarray(color)
    return Picture(pixels, alpha, _DTYPES[image.dtype], gray=channels == 1, name=name)


@to_picture.register
def _tensor(image: Tensor, name: str = "image") -> Picture:
    if image.ndim == 4 and image.shape[0] == 1:
        image = image[0]
    if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
        raise UsageError(
            f"`{name}` has the shape {tuple(image.shape)}; a tensor is (3, H, W) or (1, H, W).",
            "Restore the images of a batch one by one.",
        )
    if image.dtype != torch.uint8:
        if not image.is_floating_point():
            raise UsageError(f"`{name}` is of {image.dtype}.", "Give uint8, or floats in [0, 1].")
        image = image.float()
    return _array(image.detach().cpu().permute(1, 2, 0).numpy(), name)


def to_tensor(picture: Picture) -> Tensor:
    """(3, H, W) float32 in [0, 1] of a picture."""
    return torch.from_numpy(picture.pixels).permute(2, 0, 1).contiguous()


def to_array(picture: Picture) -> np.ndarray:
    """(H, W, 3), of a gray picture (H, W, 1), with alpha (H, W, 4) or (H, W, 2): uint8, or uint16 of a 16-bit one."""
    channels = [picture.pixels[:, :, :1] if picture.gray else picture.pixels]
    if picture.alpha is not None:
        channels.append(picture.alpha[:, :, None])
    dtype = np.uint16 if picture.bits == 16 else np.uint8
    values = np.concatenate(channels, axis=2) if len(channels) > 1 else channels[0]
    return np.round(values * np.float32(np.iinfo(dtype).max)).astype(dtype)
