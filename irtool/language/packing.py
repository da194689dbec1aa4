"""How the tensors of a text model are stored: embedding tables in 4 bits, matrices in 8, vectors in float16.

`tools/language/packing.py` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Array = np.ndarray
TABLE, SCALE = "embed.weight", ".scale"
STEPS, LEAST = 16, -15.0
"""The scale of a row of a table is 2 ** (code / STEPS + LEAST), its code one byte."""


def unpack(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The stored tensors by name as float32; those named `SCALE` hold the scales of the rows of others."""
    found: dict[str, Array] = {}
    for name, value in tensors.items():
        if name.endswith(SCALE):
            continue
        scale = tensors.get(name + SCALE)
        if scale is None:
            found[name] = value.astype(np.float32)
        elif value.dtype == np.uint8:
            nibbles = np.stack([value >> 4, value & 15], axis=-1).reshape(len(value), -1)
            found[name] = (nibbles.astype(np.float32) - 8) * per_row(nibbles, decode_scale(scale))
        else:
            found[name] = value.astype(np.float32) * scale.astype(np.float32)
    return found


def per_row(like: Array, values: Array) -> Array:
    """One value per row, shaped to be multiplied with an array."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def decode_scale(code: Array) -> Array:
    """float32 scales of their one-byte codes."""
    return np.exp2(code.astype(np.float32) / STEPS + LEAST)
