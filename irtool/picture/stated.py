"""Colour that a file states otherwise than by an ICC profile, as an ICC profile.

AVIF, HEIF and PNG state it by code points (ITU-T H.273, "CICP"), PNG also by a gamma and chromaticities, BMP by the
same. Each becomes a matrix profile, so that pixels take the one way through `irtool.picture.color`, and a format that
cannot state colour as the source did gets the profile instead.
"""

from __future__ import annotations

import struct
from functools import lru_cache

import numpy as np

Chromaticities = tuple[tuple[float, float], ...]
"""(x, y) of white, red, green and blue."""

_D65, _C, _DCI = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351)
_BT709: Chromaticities = (_D65, (0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
_SMPTE170: Chromaticities = (_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
# ITU-T H.273, table 2. 2 is "unspecified".
_PRIMARIES: dict[int, Chromaticities] = {
    1: _BT709,
    2: _BT709,
    4: (_C, (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: (_D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: _SMPTE170,
    7: _SMPTE170,
    8: (_C, (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    9: (_D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: (_DCI, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: (_D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: (_D65, (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
# Table 3: exponents, 0 for the curve of sRGB. The curves of television cameras (1, 6, 14, 15) are shown as sRGB, as
# browsers and photo viewers do. PQ and HLG (16, 18) are of pictures with more light than sRGB has.
_TRANSFERS = {1: 0.0, 2: 0.0, 4: 2.2, 5: 2.8, 6: 0.0, 8: 1.0, 13: 0.0, 14: 0.0, 15: 0.0}

ADOBE_RGB: tuple[Chromaticities, float] = ((_D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), 563 / 256)
"""Chromaticities and exponent of Adobe RGB (1998)."""

_SRGB_CURVE = b"para" + struct.pack(
    ">I2H5i", 0, 3, 0, *(round(v * 65536) for v in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])


def from_code_points(primaries: int, transfer: int) -> bytes | None:
    """A profile of H.273 colour primaries and transfer characteristics; None where that is sRGB.

    Raises:
        ValueError: code points that a matrix profile cannot say (PQ, HLG, XYZ) or that there are not.
    """
    if primaries not in _PRIMARIES or transfer not in _TRANSFERS:
        raise ValueError(f"colour primaries {primaries} with transfer {transfer}")
    if _PRIMARIES[primaries] is _BT709 and _TRANSFERS[transfer] == 0:
        return None
    return profile(_PRIMARIES[primaries], _TRANSFERS[transfer])


def from_gamma(exponent: float | None, chromaticities: Chromaticities | None, gray: bool = False) -> bytes | None:
    """A profile of a decoding exponent (2.2 for a PNG whose gAMA is 1/2.2) and chromaticities, as PNG and BMP state
    them; what is not stated is as in sRGB. None where that is close to sRGB or makes no sense.

    Args:
        exponent: linear light is the sample to this power.
        chromaticities: of white, red, green, blue.
        gray: the picture has one channel.
    """
    if exponent is not None and not 0.2 <= exponent <= 5:
        exponent = None
    plain_curve = exponent is None or 2.1 <= exponent <= 2.3
    close = chromaticities is None or np.abs(np.subtract(chromaticities, _BT709)).max() < 0.005
    if plain_curve and (close or gray):
        return None
    try:
        return profile(_BT709 if close or chromaticities is None else chromaticities, exponent or 0.0, gray)
    except (ValueError, ZeroDivisionError, np.linalg.LinAlgError, struct.error):
        return None


@lru_cache(maxsize=8)
def profile(chromaticities: Chromaticities, exponent: float, gray: bool = False) -> bytes:
    """An ICC profile (version 2.4 layout with a version 4 curve) of chromaticities and an exponent, 0 for sRGB's curve.

    Primaries are turned into XYZ and adapted from their white to D50 (Bradford), as ICC.1:2022, annex E, has it.

    Raises:
        ValueError, numpy.linalg.LinAlgError: chromaticities that span no colours.
    """
    curve = _SRGB_CURVE if not exponent else b"curv" + struct.pack(">IIHH", 0, 1, round(exponent * 256), 0)
    if gray:
        return _assembled(b"GRAY", {b"wtpt": _xyz(_D50), b"kTRC": curve})
    if any(y <= 0 for _, y in chromaticities):
        raise ValueError("a chromaticity below the line")
    white, *colors = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in chromaticities)
    columns = np.array(colors).T
    columns = columns * np.linalg.solve(columns, white)
    adapt = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white)) @ _BRADFORD
    tags = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(_xyz, (adapt @ columns).T), strict=True))
    return _assembled(b"RGB ", {b"wtpt": _xyz(_D50), **tags, b"rTRC": curve, b"gTRC": curve, b"bTRC": curve})


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(v) * 65536) for v in values))


def _assembled(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A display profile with these tags. ICC.1:2022, 7."""
    name = b"as stated by the file\0"
    described = b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(78)
    tags = {b"desc": described, b"cprt": b"text\0\0\0\0CC0\0", **tags}
    at = 128 + 4 + 12 * len(tags)
    table, body = [struct.pack(">I", len(tags))], []
    placed: dict[bytes, int] = {}
    for tag, data in tags.items():
        if data not in placed:
            placed[data] = at
            body.append(data + b"\0" * (-len(data) % 4))
            at += len(body[-1])
        table.append(struct.pack(">4sII", tag, placed[data], len(data)))
    head = struct.pack(">I4sI4s4s4s12s4s", at, bytes(4), 0x04200000, b"mntr", space, b"XYZ ", bytes(12), b"acsp")
    head += bytes(28) + struct.pack(">3i", *(round(v * 65536) for v in _D50))
    return head.ljust(128, b"\0") + b"".join([*table, *body])
