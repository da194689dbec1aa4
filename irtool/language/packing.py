"""How a text model is kept small in its file: its table in 4 bits a number, its matrices in 8, the rest in float16."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Array = np.ndarray
TABLE, SCALE = "embed.weight", ".scale"
_MOST = {4: 7, 8: 127}
_STEPS, _LEAST = 16, -15.0
"""The scale of a row of the table is a power of two in steps of a sixteenth, from 2 ** -15 on, in one byte."""


def pack(weights: Mapping[str, Array]) -> dict[str, Array]:
    """Tensors as they are written; what has rows gets a tensor of scales beside it.

    Args:
        weights: float32 tensors by name; those that end in "embed.weight" are tables (N, C), C even.
    """
    made: dict[str, Array] = {}
    for name, value in weights.items():
        if name.endswith(TABLE):
            made[name], made[name + SCALE] = _nibbles(value)
        elif value.ndim > 1:
            scale = _rows(value, np.abs(value).max(axis=tuple(range(1, value.ndim))) / _MOST[8]).astype(np.float16)
            scale = np.maximum(scale, np.float16(1e-6))
            made[name] = np.rint(value / scale.astype(np.float32)).clip(-_MOST[8], _MOST[8]).astype(np.int8)
            made[name + SCALE] = scale
        else:
            made[name] = value.astype(np.float16)
    return made


def unpack(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The tensors as float32, as `pack` was given them but for rounding."""
    made: dict[str, Array] = {}
    for name, value in tensors.items():
        if name.endswith(SCALE):
            continue
        scale = tensors.get(name + SCALE)
        if scale is None:
            made[name] = value.astype(np.float32)
        elif value.dtype == np.uint8:
            both = np.stack([value >> 4, value & 15], axis=-1).reshape(len(value), -1)
            made[name] = (both.astype(np.float32) - 8) * _rows(both, _power(scale))
        else:
            made[name] = value.astype(np.float32) * scale.astype(np.float32)
    return made


def _rows(like: Array, values: Array) -> Array:
    """One value per row, shaped to be multiplied with an array."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def _power(code: Array) -> Array:
    return np.exp2(code.astype(np.float32) / _STEPS + _LEAST)


def _nibbles(table: Array) -> tuple[Array, Array]:
    """A table in 4 bits, two numbers a byte, and the codes of its rows' scales: those of some that err least."""
    best = np.full(len(table), np.inf)
    found, codes = np.zeros(table.shape, np.uint8), np.zeros(len(table), np.uint8)
    for part in (0.6, 0.7, 0.8, 0.9, 1.0):  # the largest numbers of a row may be cut for the sake of the others
        scale = np.maximum(np.abs(table).max(axis=1) * part / _MOST[4], 1e-9)
        code = np.rint((np.log2(scale) - _LEAST) * _STEPS).clip(0, 255).astype(np.uint8)
        scale = _rows(table, _power(code))
        level = np.rint(table / scale).clip(-8, _MOST[4])
        error = ((level * scale - table) ** 2).sum(axis=1)
        better = error < best
        best[better], codes[better], found[better] = error[better], code[better], level[better] + 8
    return found[:, 0::2] << 4 | found[:, 1::2], codes
