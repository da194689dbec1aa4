"""ICC profiles of the matrix and grey kinds, to sRGB and back, in float.

Camera, phone and display profiles (Display P3, Adobe RGB, ProPhoto, Rec. 2020) are a 3 x 3 matrix and three tone
curves; grey ones a single curve. Working with them directly keeps 16 bits and out-of-gamut colours, which Pillow's
8-bit ImageCms would lose, and makes the way back the exact inverse. Layout: ICC.1:2022, 7.2, 8.3, 10.6 and 10.18.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

# XYZ (D50, as profiles store it) of linear sRGB: IEC 61966-2-1 primaries, Bradford-adapted from D65.
_SRGB_TO_XYZ = np.array(
    [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
)
_MAX_CURVE = 1 << 16  # entries of a tone curve; profiles have 4096 at most
_STRIP = 1 << 17  # pixels worked on at a time: bounds the float64 temporaries to some 10 MB


def srgb_decode(values: np.ndarray) -> np.ndarray:
    """sRGB to linear light, any shape, IEC 61966-2-1; odd-symmetric below 0 and continued above 1."""
    size = np.abs(values)
    return np.copysign(np.where(size <= 0.04045, size / 12.92, ((size + 0.055) / 1.055) ** 2.4), values)


def srgb_encode(linear: np.ndarray) -> np.ndarray:
    """Linear light to sRGB, the inverse of `srgb_decode`."""
    size = np.abs(linear)
    return np.copysign(np.where(size <= 0.0031308, size * 12.92, 1.055 * size ** (1 / 2.4) - 0.055), linear)


@dataclass(frozen=True, eq=False)
class _Power:
    """y = (a x + b) ** g + e where x >= d, else c x + f (parametric curve type 4, which contains the others)."""

    g: float
    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0
    e: float = 0.0
    f: float = 0.0

    def linear(self, x: np.ndarray) -> np.ndarray:
        return np.where(x >= self.d, np.maximum(self.a * x + self.b, 0) ** self.g + self.e, self.c * x + self.f)

    def code(self, y: np.ndarray) -> np.ndarray:
        curved = (np.maximum(y - self.e, 0) ** (1 / self.g) - self.b) / self.a
        if self.d <= 0:
            return curved
        linear_threshold = float(self.linear(np.array(self.d)))
        straight = (y - self.f) / self.c if self.c > 0 else np.zeros_like(y)
        return np.where(y >= linear_threshold, curved, straight)


@dataclass(frozen=True, eq=False)
class _Table:
    """Evenly spaced samples over [0, 1], linear between them."""

    values: np.ndarray

    def linear(self, x: np.ndarray) -> np.ndarray:
        return np.interp(x, np.linspace(0, 1, len(self.values)), self.values)

    def code(self, y: np.ndarray) -> np.ndarray:
        return np.interp(y, self.values, np.linspace(0, 1, len(self.values)))


@dataclass(frozen=True, eq=False)
class Profile:
    """A profile that can be applied.

    Attributes:
        curves: one tone curve for grey, three for RGB.
        matrix: linear device RGB to linear sRGB, (3, 3); None for grey.
        back: its inverse.
        plain: it is sRGB to within one 8-bit step, so nothing needs converting.
    """

    curves: tuple[_Power | _Table, ...]
    matrix: np.ndarray | None
    back: np.ndarray | None
    plain: bool = False

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return len(self.curves)

    def to_srgb(self, codes: np.ndarray) -> np.ndarray:
        """(H, W, C) uint8 or uint16 device codes to (H, W, C) float32 sRGB; wide gamuts reach outside [0, 1]."""
        top = np.iinfo(codes.dtype).max
        levels = np.arange(top + 1) / top
        tables = [curve.linear(levels) for curve in self.curves]
        if self.matrix is None:
            return srgb_encode(tables[0]).astype(np.float32)[codes]
        out = np.empty(codes.shape, np.float32)
        for rows in strips(codes):
            linear = np.stack([table[codes[rows, :, i]] for i, table in enumerate(tables)], axis=-1)
            out[rows] = srgb_encode(linear @ self.matrix.T)
        return out

    def from_srgb(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, C) float sRGB, possibly outside [0, 1], to (H, W, C) float32 device values in [0, 1]."""
        out = np.empty(pixels.shape, np.float32)
        for rows in strips(pixels):
            linear = srgb_decode(pixels[rows].astype(np.float64))
            if self.back is not None:
                linear = linear @ self.back.T
            linear = linear.clip(0, 1)
            for i, curve in enumerate(self.curves):
                out[rows, :, i] = curve.code(linear[..., i])
        return out.clip(0, 1)


def strips(array: np.ndarray) -> list[slice]:
    """Row slices of some hundred thousand pixels each."""
    step = max(1, _STRIP // array.shape[1])
    return [slice(top, top + step) for top in range(0, array.shape[0], step)]


def channels(icc: bytes) -> int:
    """How many channels a profile's device side has: 1, 3, 4, or 0 if it cannot be told."""
    return {b"GRAY": 1, b"RGB ": 3, b"CMYK": 4}.get(icc[16:20], 0)


@lru_cache(maxsize=8)
def profile_of(icc: bytes) -> Profile | None:
    """The profile in usable form, or None if it is damaged or of a kind (lookup tables only) not handled here."""
    try:
        with np.errstate(all="ignore"):
            return _parse(icc)
    except (ValueError, IndexError, KeyError, struct.error, np.linalg.LinAlgError):
        return None


def converter(icc: bytes | None, n: int) -> Profile | None:
    """The profile that pixels of `n` channels must go through, or None if they can stay as they are.

    A grey picture may carry an RGB profile (its channels are then taken as equal); not the other way round.
    """
    profile = profile_of(icc) if icc else None
    return None if profile is None or profile.plain or profile.channels < n else profile


def _parse(icc: bytes) -> Profile:
    if icc[20:24] != b"XYZ ":
        raise ValueError("not a matrix profile")
    (count,) = struct.unpack_from(">I", icc, 128)
    view = memoryview(icc)  # slices of it copy nothing: all tags of a hostile profile may span the whole of it
    tags = {}
    for at in range(132, 132 + 12 * min(count, 256), 12):
        name, where, size = struct.unpack_from(">4sII", icc, at)
        tags[name] = view[where : where + size]
    if channels(icc) == 1:
        gray = Profile((_curve(tags[b"kTRC"]),), None, None)
        return Profile(gray.curves, None, None, plain=_is_plain(gray, 1))
    if channels(icc) != 3:
        raise ValueError("neither RGB nor grey")
    columns = [[v / 65536 for v in struct.unpack_from(">3i", tags[name], 8)] for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    matrix = np.linalg.inv(_SRGB_TO_XYZ) @ np.array(columns).T
    # White goes to white exactly, whatever the profile's rounding: neutrals must stay neutral.
    matrix /= matrix.sum(axis=1, keepdims=True)
    if not np.linalg.cond(matrix) < 1e4:
        raise ValueError("primaries do not span a colour space")
    curves = tuple(_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC"))
    rgb = Profile(curves, matrix, np.linalg.inv(matrix))
    return Profile(curves, matrix, rgb.back, plain=_is_plain(rgb, 3))


def _is_plain(profile: Profile, n: int) -> bool:
    ramp = np.array([0, 1, 2, 5, 13, 37, 64, 96, 128, 160, 192, 224, 255], np.uint8)
    grid = np.stack(np.meshgrid(*[ramp] * n, indexing="ij"), axis=-1).reshape(1, -1, n)
    return bool(np.abs(profile.to_srgb(grid) * 255 - grid).max() < 1)


# Parametric curve types 0 to 4: the names of their parameters in file order.
_PARAMETERS = ("g", "gab", "gabc", "gabcd", "gabcdef")


def _curve(tag: memoryview) -> _Power | _Table:
    if tag[:4] == b"para":
        (kind,) = struct.unpack_from(">H", tag, 8)
        names = _PARAMETERS[kind]
        p = dict(zip(names, (v / 65536 for v in struct.unpack_from(f">{len(names)}i", tag, 12)), strict=True))
        if kind in (1, 2):
            # y = (a x + b) ** g + c where x >= -b / a, else c: the linear part is flat.
            p["d"] = max(0.0, -p["b"] / p["a"]) if p["a"] else 0.0
            p["e"] = p["f"] = p.pop("c", 0.0)
        curve = _Power(**p)
        if not (0.1 <= curve.g <= 10 and curve.a > 0):
            raise ValueError("senseless exponent")
        return _rising(curve, curve.linear(np.linspace(0, 1, 65)))
    if tag[:4] != b"curv":
        raise ValueError("not a curve")
    (count,) = struct.unpack_from(">I", tag, 8)
    if count == 0:
        return _Power(1.0)
    if count == 1:
        gamma = struct.unpack_from(">H", tag, 12)[0] / 256
        if not 0.1 <= gamma <= 10:
            raise ValueError("senseless gamma")
        return _Power(gamma)
    if count > _MAX_CURVE or 12 + 2 * count > len(tag):
        raise ValueError("curve runs past its tag")
    values = np.frombuffer(tag, ">u2", count, 12) / 65535
    return _rising(_Table(values), values)


def _rising(curve: _Power | _Table, values: np.ndarray) -> _Power | _Table:
    """The curve, if these samples of it rise from about 0 to about 1, so that it can be inverted."""
    if not (np.abs(values).max() < 2 and values[-1] - values[0] > 0.5 and np.diff(values).min() > -1e-3):
        raise ValueError("senseless curve")
    return curve
