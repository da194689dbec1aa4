"""Operators that pictures are observed through: ``y = A(x) + sigma n``. Their strings: `irtool.diffusion.observation`.

An operator maps pictures (N, C, H, W) to observations and can be differentiated. A `LinearOperator` also knows its
singular value decomposition ``A = U S V^T``, which conditional samplers use without ever forming a matrix: `spectrum`
is ``V^T``, `from_spectrum` is ``V``, and ``spectrum(pinv(y))`` is ``S^+ U^T y``. For a blur ``V`` is the unitary
Fourier transform, so coefficients may be complex; white noise is white noise there too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Operator(Protocol):
    """Something that pictures are observed through."""

    def __call__(self, x: Tensor, /) -> Tensor: ...


class LinearOperator:
    """An operator with a known singular value decomposition.

    Attributes:
        singular: singular values, in the shape of a coefficient or one that broadcasts to it; 0 where nothing is seen.
    """

    singular: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """A x."""
        raise NotImplementedError

    def pinv(self, y: Tensor) -> Tensor:
        """The picture of least norm among those closest to the observation: A^+ y."""
        raise NotImplementedError

    def spectrum(self, x: Tensor) -> Tensor:
        """V^T x."""
        return x

    def from_spectrum(self, c: Tensor) -> Tensor:
        """V c."""
        return c

    def observed(self, y: Tensor) -> Tensor:
        """S^+ U^T y: an observation as coefficients, 0 where nothing is seen."""
        return self.spectrum(self.pinv(y)) * (self.singular > 0).to(y.device)


class Identity(LinearOperator):
    """Everything is seen, for denoising."""

    def __init__(self) -> None:
        self.singular = torch.ones(())

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def pinv(self, y: Tensor) -> Tensor:
        return y


class Mask(LinearOperator):
    """Only some pixels are seen; the others are 0.

    Args:
        keep: 1 where the picture is seen and 0 where it is not, (H, W) or (N, 1, H, W).
    """

    def __init__(self, keep: Tensor) -> None:
        self.keep = keep.float()
        self.singular = self.keep

    def __call__(self, x: Tensor) -> Tensor:
        return x * self.keep

    def pinv(self, y: Tensor) -> Tensor:
        return y * self.keep


def _basis(size: int) -> Tensor:
    """An orthonormal basis (size, size), a vector per row, the first one constant."""
    start = torch.eye(size, dtype=torch.float64)
    start[:, 0] = 1
    q, _ = torch.linalg.qr(start)
    return (q * q[0, 0].sign()).T.float().contiguous()


class Downsample(LinearOperator):
    """Means of blocks.

    Args:
        factor: side of a block; height and width of pictures must be multiples of it.
    """

    def __init__(self, factor: int) -> None:
        self.factor = factor
        self.basis = _basis(factor**2)
        self.singular = torch.zeros(factor**2, 1, 1)
        self.singular[0] = 1 / factor

    def __call__(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.factor)

    def pinv(self, y: Tensor) -> Tensor:
        return y.repeat_interleave(self.factor, -2).repeat_interleave(self.factor, -1)

    def spectrum(self, x: Tensor) -> Tensor:
        blocks = F.pixel_unshuffle(x, self.factor).unflatten(1, (x.shape[1], -1))
        return torch.einsum("ij,ncjhw->ncihw", self.basis.to(x), blocks)

    def from_spectrum(self, c: Tensor) -> Tensor:
        blocks = torch.einsum("ij,ncihw->ncjhw", self.basis.to(c), c)
        return F.pixel_shuffle(blocks.flatten(1, 2), self.factor)


class Gray(LinearOperator):
    """The mean of the three channels: (N, 3, H, W) -> (N, 1, H, W)."""

    def __init__(self) -> None:
        self.basis = _basis(3)
        self.singular = torch.tensor([3**-0.5, 0, 0]).view(3, 1, 1)

    def __call__(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)

    def pinv(self, y: Tensor) -> Tensor:
        return y.expand(-1, 3, -1, -1)

    def spectrum(self, x: Tensor) -> Tensor:
        return torch.einsum("ij,njhw->nihw", self.basis.to(x), x)

    def from_spectrum(self, c: Tensor) -> Tensor:
        return torch.einsum("ij,nihw->njhw", self.basis.to(c), c)


class Blur(LinearOperator):
    """Convolution with borders that wrap around.

    Args:
        kernel: (k, k), k odd, of sum 1.
        size: height and width of the pictures, at least k.
        least: frequencies of which a smaller share passes count as not seen.
    """

    def __init__(self, kernel: Tensor, size: tuple[int, int], least: float = 1e-3) -> None:
        self.kernel, self.size = kernel, size
        k = kernel.shape[-1]
        padded = F.pad(kernel.float(), (0, size[1] - k, 0, size[0] - k))
        self.transfer = torch.fft.fft2(padded.roll((-(k // 2), -(k // 2)), (0, 1)))
        gain = self.transfer.abs()
        self.singular = torch.where(gain >= least, gain, 0.0)

    def _filtered(self, x: Tensor, transfer: Tensor) -> Tensor:
        return torch.fft.ifft2(torch.fft.fft2(x) * transfer.to(x.device)).real

    def __call__(self, x: Tensor) -> Tensor:
        return self._filtered(x, self.transfer)

    def pinv(self, y: Tensor) -> Tensor:
        callback = self.singular > 0
        return self._filtered(y, torch.where(callback, 1 / torch.where(callback, self.transfer, 1), 0))

    def spectrum(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x, norm="ortho")

    def from_spectrum(self, c: Tensor) -> Tensor:
        return torch.fft.ifft2(c, norm="ortho").real


class Matrix(LinearOperator):
    """Any linear operator on vectors (N, D), by a dense decomposition.

    Args:
        matrix: (M, D).
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        _, s, vt = torch.linalg.svd(matrix, full_matrices=True)
        self.v = vt.T
        self.singular = torch.cat([s, s.new_zeros(matrix.shape[1] - len(s))])
        self.inverse = torch.linalg.pinv(matrix)

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.matrix.T

    def pinv(self, y: Tensor) -> Tensor:
        return y @ self.inverse.T

    def spectrum(self, x: Tensor) -> Tensor:
        return x @ self.v

    def from_spectrum(self, c: Tensor) -> Tensor:
        return c @ self.v.T


# Quantization tables of ITU-T T.81, Annex K, row by row.
_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, *[99] * 38,
)  # fmt: skip
_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


class Jpeg:
    """JPEG of pictures in [0, 1] with 4:2:0 chroma. Rounding counts as the identity for gradients.

    Args:
        quality: 1 to 100, on libjpeg's scale.
    """

    def __init__(self, quality: int) -> None:
        scale = 5000 / quality if quality < 50 else 200 - 2 * quality
        tables = torch.tensor([_LUMA, _CHROMA], dtype=torch.float32).view(2, 8, 8)
        self.tables = ((tables * scale + 50) / 100).floor().clamp(1, 255)
        k = torch.arange(8, dtype=torch.float64)
        dct = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) / 2
        dct[0] /= 2**0.5
        self.dct = dct.float()
        self.color = torch.tensor(_YCBCR)

    def _quantized(self, plane: Tensor, table: Tensor) -> Tensor:
        dct, table = self.dct.to(plane), table.to(plane)
        blocks = F.pixel_unshuffle(plane, 8).unflatten(1, (8, 8))  # (N, 8, 8, h, w)
        c = torch.einsum("ik,nklhw,jl->nijhw", dct, blocks, dct)
        steps = c / table[..., None, None]
        c = (steps + (steps.round() - steps).detach()) * table[..., None, None]
        return F.pixel_shuffle(torch.einsum("ki,nklhw,lj->nijhw", dct, c, dct).flatten(1, 2), 8)

    def __call__(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        x = F.pad(x, (0, -w % 16, 0, -h % 16), mode="replicate") * 255
        luma, chroma = torch.einsum("ij,njhw->nihw", self.color.to(x), x).split([1, 2], dim=1)
        luma = self._quantized(luma - 128, self.tables[0]) + 128
        small = self._quantized(F.avg_pool2d(chroma, 2).flatten(0, 1)[:, None], self.tables[1])
        chroma = F.interpolate(small.view(len(x), 2, *small.shape[-2:]), scale_factor=2, mode="nearest")
        inverse = torch.linalg.inv(self.color).to(x)
        back: Tensor = torch.einsum("ij,njhw->nihw", inverse, torch.cat([luma, chroma], dim=1))
        return back[..., :h, :w].clamp(0, 255) / 255


@dataclass(frozen=True)
class Chain:
    """Operators one after the other."""

    parts: tuple[Operator, ...]

    def __call__(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x


def gaussian_kernel(sigma: float) -> Tensor:
    """A Gaussian of unit sum (k, k), cut at three sigma."""
    radius = max(1, math.ceil(3 * sigma))
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    kernel = torch.outer(line, line)
    return (kernel / kernel.sum()).float()


def line_kernel(length: float, angle: float) -> Tensor:
    """A straight motion of `length` pixels, `angle` degrees from the horizontal (k, k), of unit sum."""
    radius = max(1, math.ceil(length / 2))
    kernel = torch.zeros(2 * radius + 1, 2 * radius + 1, dtype=torch.float64)
    samples = 16 * (2 * radius + 1)
    for i in range(samples):
        along = (i + 0.5) / samples * length - length / 2
        y, x = (radius - along * math.sin(math.radians(angle)), radius + along * math.cos(math.radians(angle)))
        top, left = int(y), int(x)
        for row, share in ((top, 1 - (y - top)), (top + 1, y - top)):
            for column, part in ((left, 1 - (x - left)), (left + 1, x - left)):
                if row <= 2 * radius and column <= 2 * radius:
                    kernel[row, column] += share * part
    return (kernel / kernel.sum()).float()
