"""Weights of two formats older than torch: MatConvNet's .mat (HDF5) and Caffe's .caffemodel (a protocol buffer).

Both hold numbers and names only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import UnavailableError, reason

Arrays = dict[str, NDArray[np.float32]]


def read_matconvnet(path: Path) -> Arrays:
    """Convolutions of a MatConvNet network saved as MATLAB 7.3.

    Returns:
        ``conv0.weight`` (out, in, h, w), ``conv0.bias`` (out,), ``conv1.weight`` and so on, in the order of the layers.

    Raises:
        UnavailableError: h5py is not installed, or the file is no such network.
    """
    try:
        import h5py
    except ImportError as error:
        raise UnavailableError(f"{path} needs the package h5py.", "pip install 'irtool[mat]'") from error
    arrays: Arrays = {}
    try:
        with h5py.File(path, "r") as file:
            for reference in file["net/layers"][()].ravel():
                layer = file[reference]
                if "weights" not in layer:
                    continue
                weight, bias = (np.asarray(file[r][()], dtype=np.float32) for r in layer["weights"][()].ravel())
                # MATLAB counts columns first and drops a last axis of one: (out, in, w, h), (in, w, h) for one output.
                weight = weight.reshape(-1, *weight.shape[-3:]).transpose(0, 1, 3, 2)
                name = f"conv{len(arrays) // 2}"
                arrays |= {f"{name}.weight": np.ascontiguousarray(weight), f"{name}.bias": bias.ravel()}
    except Exception as error:  # whatever a damaged file makes HDF5 trip over
        raise UnavailableError(f"{path} holds no MatConvNet network: {reason(error)[:200]}.") from error
    return arrays


def read_caffe(path: Path) -> Arrays:
    """Learned layers of a Caffe network.

    Returns:
        ``NAME.weight`` in the shape of the file, (out, in, h, w) for a convolution, and ``NAME.bias`` (out,).

    Raises:
        UnavailableError: the file is no such network.
    """
    arrays: Arrays = {}
    try:
        # NetParameter: layer 100. LayerParameter: name 1, blobs 7. BlobProto: data 5, shape 7. BlobShape: dim 1.
        for layer in _fields(path.read_bytes(), 100):
            name = next(_fields(layer, 1)).decode()
            for kind, blob in zip(("weight", "bias"), _fields(layer, 7), strict=False):
                data = np.frombuffer(b"".join(_fields(blob, 5)), dtype="<f4").astype(np.float32)
                shape = list(_varints(b"".join(_fields(next(_fields(blob, 7)), 1))))
                arrays[f"{name}.{kind}"] = data.reshape(shape)
    except (ValueError, IndexError, StopIteration, OverflowError, OSError) as error:
        raise UnavailableError(f"{path} holds no Caffe network.") from error
    if not arrays:
        raise UnavailableError(f"{path} holds no Caffe network.")
    return arrays


def _fields(message: bytes, number: int) -> Iterator[bytes]:
    """Every length-delimited field of one number in a protocol buffer message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 2:
            length, at = _varint(message, at)
            end = at + length
        elif kind == 0:
            end = _varint(message, at)[1]
        elif kind in (1, 5):
            end = at + (8 if kind == 1 else 4)
        else:
            raise ValueError(f"field kind {kind}")
        if end > len(message):
            raise ValueError("a field goes past the end")
        if tag >> 3 == number and kind == 2:
            yield message[at:end]
        at = end


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits per byte, lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _varints(packed: bytes) -> Iterator[int]:
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        yield value
