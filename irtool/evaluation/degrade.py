"""Degraded pictures made from true ones, alike on every machine."""

from __future__ import annotations

import hashlib

import numpy as np

from ..data.protocol import Protocol
from ..errors import UsageError
from ..synth import Chain
from .score import quantize


def seed_of(*words: str) -> int:
    """A seed of 48 bits derived from words."""
    return int.from_bytes(hashlib.sha256("|".join(words).encode(errors="surrogateescape")).digest()[:6], "big")


class Degrader:
    """Makes degraded pictures in the order of their names.

    Args:
        chain: what to do.
        protocol: where noise is drawn from, and how the result is kept.
        dataset: name of the set, part of each picture's seed.
        seed: a further part of it.

    Raises:
        UsageError: the protocol scores given pictures only, or knows noise alone.
    """

    def __init__(self, chain: Chain, protocol: Protocol, dataset: str = "", seed: int = 0) -> None:
        if protocol.noise == "none":
            raise UsageError(
                f"The protocol {protocol.id} scores degraded pictures that lie in files.", "Name them with --lq."
            )
        self.chain, self.protocol, self.dataset, self.seed = chain, protocol, dataset, seed
        self.sigma: float | None = None
        if protocol.noise != "names":
            step = chain.steps[0]
            if len(chain.steps) != 1 or step.id != "noise" or step.parameters["kind"] != "gaussian":
                raise UsageError(
                    f"The protocol {protocol.id} says how Gaussian noise is made, and knows nothing else.",
                    "Use --degrade 'noise(25)', or --protocol canonical.",
                )
            self.sigma = float(step.parameters["sigma"])
            self.stream = np.random.RandomState(seed)

    def __call__(self, name: str, reference: np.ndarray) -> np.ndarray:
        """(H, W, 3) float32 in [0, 1] -> the same shape; beyond [0, 1] where the protocol does not clip noise."""
        if self.sigma is None:
            degraded = self._drawn(name, reference)
        else:
            degraded = reference + self._normal(reference.shape) * (self.sigma / 255)
        if self.protocol.noisy == "float":
            return degraded.astype(np.float32)
        return quantize(degraded, self.protocol.noisy).astype(np.float32) / np.float32(255)

    def skip(self, shape: tuple[int, ...]) -> None:
        """Pass over a picture (H, W, 3) that is not needed, so that those after it get their own noise."""
        if self.protocol.noise == "stream":
            self.stream.standard_normal(shape)

    def _normal(self, shape: tuple[int, ...]) -> np.ndarray:
        if self.protocol.noise == "restart":
            self.stream = np.random.RandomState(self.seed)
        return np.asarray(self.stream.standard_normal(shape))

    def _drawn(self, name: str, reference: np.ndarray) -> np.ndarray:
        import torch

        words = (self.dataset, str(self.chain), name, *([str(self.seed)] if self.seed else []))
        generator = torch.Generator().manual_seed(seed_of(*words))
        pixels = torch.from_numpy(np.ascontiguousarray(reference)).permute(2, 0, 1)[None]
        return self.chain.apply(pixels, generator)[0].permute(1, 2, 0).numpy()
