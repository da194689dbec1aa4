"""Pack the tensors of a text model; `irtool.language.packing` reads them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from irtool.language.packing import LEAST, SCALE, STEPS, TABLE, Array, decode_scale, per_row

_MOST = {4: 7, 8: 127}
"""The largest level by bits."""


def pack(weights: Mapping[str, Array]) -> dict[str, Array]:
    """Tensors as they are stored; what has rows gets a tensor of scales beside it.

    Args:
        weights: float32 tensors by name; those that end in "embed.weight" are tables (N, C), C even.
    """
    packed: dict[str, Array] = {}
    for name, value in weights.items():
        if name.endswith(TABLE):
            packed[name], packed[name + SCALE] = _nibbles(value)
        elif value.ndim > 1:
            scale = per_row(value, np.abs(value).max(axis=tuple(range(1, value.ndim))) / _MOST[8]).astype(np.float16)
            scale = np.maximum(scale, np.float16(1e-6))
            packed[name] = np.rint(value / scale.astype(np.float32)).clip(-_MOST[8], _MOST[8]).astype(np.int8)
            packed[name + SCALE] = scale
        else:
            packed[name] = value.astype(np.float16)
    return packed


def _nibbles(table: Array) -> tuple[Array, Array]:
    """A table in 4 bits, two values a byte, and the codes of the scales of its rows: of a few, those of least error."""
    best = np.full(len(table), np.inf)
    found, codes = np.zeros(table.shape, np.uint8), np.zeros(len(table), np.uint8)
    for part in (0.6, 0.7, 0.8, 0.9, 1.0):  # clipping the largest values of a row may serve the others
        scale = np.maximum(np.abs(table).max(axis=1) * part / _MOST[4], 1e-9)
        code = np.rint((np.log2(scale) - LEAST) * STEPS).clip(0, 255).astype(np.uint8)
        scale = per_row(table, decode_scale(code))
        level = np.rint(table / scale).clip(-8, _MOST[4])
        error = ((level * scale - table) ** 2).sum(axis=1)
        better = error < best
        best[better], codes[better], found[better] = error[better], code[better], level[better] + 8
    return found[:, 0::2] << 4 | found[:, 1::2], codes
