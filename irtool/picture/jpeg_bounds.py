"""What a JPEG file says of the picture it was made from.

The encoder divides every coefficient of a block's cosine transform by an entry of the file's table and rounds. So the
picture that went in had each coefficient within half an entry of what is decoded; a restored picture that has it
further off cannot be what was compressed. Bringing it back within is the projection on the quantisation constraint set
(Zakhor, "Iterative procedures for reduction of blocking effects in transform image coding", IEEE TCSVT 1992).
"""

from __future__ import annotations

import numpy as np

from .model import JpegSettings

STEP_FRACTION = 0.25
"""How far from what is decoded a coefficient may be, as a share of its table's entry. Half is certain to hold the
truth; less is nearer to it in the mean, since most coefficients were rounded by less (the narrow constraint set of
Park and Lee, IEEE TCSVT 1999), and since a network errs most where the file errs least (docs/lab/experiments.md)."""
_ROWS = 128  # worked on at a time, in a processor's cache; a multiple of the 16 rows that 4:2:0 puts in one block

_FREQUENCY, _PLACE = np.mgrid[:8, :8]
# The orthonormal cosine transform of eight values (ITU-T T.81, A.3.3), one frequency a row.
_COSINES = np.cos((2 * _PLACE + 1) * _FREQUENCY * np.pi / 16) * np.where(_FREQUENCY == 0, 1 / 8, 1 / 4) ** 0.5
_COSINES = _COSINES.astype(np.float32)
_EIGHT = np.kron(np.eye(8, dtype=np.float32), _COSINES)  # of eight blocks side by side: larger products are faster


def project_to_jpeg_bounds(restored: np.ndarray, decoded: np.ndarray, settings: JpegSettings) -> np.ndarray:
    """A restored picture, no further from the decoded one than the file allows.

    Colours of a profile are compared as sRGB, which is near enough: the differences are small.

    Args:
        restored: (3, H, W) sRGB in [0, 1].
        decoded: the same as decoded from the file.
        settings: of the file. Where its blocks are not known (`JpegSettings.orientation` is 0) nothing is changed.

    Returns:
        (3, H, W) float32 in [0, 1]. Luma is held on the blocks of the file; chroma on those of the reduced planes,
        each pixel of which stands for the mean of those it was made from.
    """
    if not settings.orientation:
        return restored
    result = restored.astype(np.float32)  # a copy
    restored_stored, decoded_stored = (_as_stored(pixels, settings.orientation) for pixels in (result, decoded))
    for top in range(0, restored_stored.shape[1], _ROWS):
        rows = slice(top, top + _ROWS)
        allowed = _clamp_change(restored_stored[:, rows] - decoded_stored[:, rows], settings)
        for plane, before, change in zip(restored_stored[:, rows], decoded_stored[:, rows], allowed, strict=True):
            np.clip(before + change, 0, 1, out=plane)
    return result


def _as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """A view (3, H, W) of an upright picture as its file has it: the inverse of `irtool.picture.decode.upright`."""
    if orientation in (2, 3, 6, 7):
        upright = upright[:, :, ::-1]
    if orientation in (3, 4, 7, 8):
        upright = upright[:, ::-1]
    return upright.swapaxes(1, 2) if orientation >= 5 else upright


def _clamp_change(change: np.ndarray, settings: JpegSettings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A change (3, H, W) of colours, held to what the tables allow."""
    red, green, blue = change
    y = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601, as JFIF has it
    luma = _clamped(y, settings.tables[0])
    down, right = ((1, 1), (1, 2), (2, 2))[settings.subsampling]
    cb, cr = (_chroma(plane, down, right, settings.tables[-1]) for plane in ((blue - y) / 1.772, (red - y) / 1.402))
    return luma + 1.402 * cr, luma - 0.344136 * cb - 0.714136 * cr, luma + 1.772 * cb


def _chroma(plane: np.ndarray, down: int, right: int, table: tuple[int, ...]) -> np.ndarray:
    """A plane (H, W) whose means over `down` x `right` pixels are held to what a table allows."""
    height, width = plane.shape
    padded = np.pad(plane, ((0, -height % down), (0, -width % right)), mode="edge")
    parts = [padded[y::down, x::right] for y in range(down) for x in range(right)]
    small = sum(parts[1:], parts[0]) / len(parts)
    excess = _clamped(small, table) - small
    for part in parts:
        np.add(part, excess, out=part)  # a view of `padded`
    return padded[:height, :width]


def _clamped(plane: np.ndarray, table: tuple[int, ...]) -> np.ndarray:
    """A plane (H, W) whose blocks have no coefficient beyond `STEP_FRACTION` of a table's entry."""
    height, width = plane.shape
    padded = np.pad(plane, ((0, -height % 8), (0, -width % 64)), mode="edge")
    tall, wide = padded.shape
    limit = np.tile(np.float32(STEP_FRACTION / 255) * np.asarray(table, np.float32).reshape(8, 8), wide // 8)
    # Columns of every block, then its rows.
    frequencies = (_COSINES @ padded.reshape(-1, 8, wide)).reshape(-1, 64) @ _EIGHT.T
    clamped = np.clip(frequencies.reshape(-1, 8, wide), -limit, limit)
    back = _COSINES.T @ (clamped.reshape(-1, 64) @ _EIGHT).reshape(-1, 8, wide)
    return back.reshape(tall, wide)[:height, :width]
