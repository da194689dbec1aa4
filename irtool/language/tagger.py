"""The text model in NumPy, so that no sentence loads torch.

A token is the sum of its hashed features. Residual blocks of dilated convolutions see fifteen tokens on each side, and
a maximum over the sentence carries the rest. `tools/language` trains it in torch; a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ..errors import FileError, UnavailableError
from ..fileio import open_regular
from .labels import ACTS, KINDS, LEVELS
from .packing import unpack
from .tokens import BUCKETS, Token, features

Array = np.ndarray
HEADS = {"kind": len(KINDS), "act": len(ACTS), "level": len(LEVELS)}
_EPS = 1e-5
HINT = "irtool-words.v3 comes with irtool: leave out --text-model, or install irtool again."


@dataclass(frozen=True)
class Tags:
    """Probabilities of the labels of a sentence of T tokens.

    Attributes:
        kind: (T, len(KINDS)).
        act: (T, len(ACTS)).
        level: (T, len(LEVELS)).
        order: (len(ORDERS),).
    """

    kind: Array
    act: Array
    level: Array
    order: Array


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file."""
    try:
        open_regular(path).close()
        with safe_open(str(path), framework="np") as file:
            yield file
    except FileError as error:
        message = error.message if path.exists() else f"{path} does not exist"
        raise UnavailableError(f"{message}.", HINT) from error
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UnavailableError(f"{path} is no readable text model: {error}.", HINT) from error


def _is_tagger(file: Any) -> bool:
    return (file.metadata() or {}).get("architecture") == "tagger"


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _parts(rows: Array) -> Array:
    """The sum of the features within a token over the root of their number, so that long words weigh no more."""
    return rows.sum(axis=0) / max(1, len(rows)) ** 0.5


class Tagger:
    """A loaded text model.

    Args:
        nets: for each network its tensors by name, as in `tools.language.network.Member`.
        dilations: of the blocks.
    """

    def __init__(self, nets: Sequence[Mapping[str, Array]], dilations: Sequence[int]) -> None:
        self.nets = [_Net(weights, dilations) for weights in nets]

    @staticmethod
    def fits(path: Path) -> bool:
        """Whether the header of a safetensors file names this architecture.

        Raises:
            UnavailableError: it is missing or damaged.
        """
        with _opened(path) as file:
            return _is_tagger(file)

    @staticmethod
    def load(path: Path) -> Tagger:
        """Read a safetensors file, as `tools/language/training.py` writes it.

        Raises:
            UnavailableError: it is missing, damaged or holds something else.
        """
        with _opened(path) as file:
            if not _is_tagger(file):
                raise UnavailableError(f"{path} holds no text model.", HINT)
            weights = unpack({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 (not a mapping)
            config = json.loads(file.metadata()["config"])
            nets = [_below(f"nets.{i}.", weights) for i in range(config.get("members", 0))]
            if not nets or (len(nets[0]["kind.weight"]), len(nets[0]["embed.weight"])) != (len(KINDS), BUCKETS):
                raise UnavailableError(f"{path} was made for another version of irtool.", HINT)
            return Tagger(nets, config["dilations"])

    def __call__(self, tokens: list[Token]) -> Tags:
        """Label a sentence of at least one token: the mean of the networks."""
        rows = features(tokens)
        outputs = [net(rows) for net in self.nets]
        return Tags(*(sum(each[1:], each[0]) / len(each) for each in zip(*outputs, strict=True)))


def _below(prefix: str, weights: Mapping[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


class _Net:
    """One network."""

    def __init__(self, weights: Mapping[str, Array], dilations: Sequence[int]) -> None:
        self.weights, self.dilations = weights, tuple(dilations)

    def __call__(self, rows: list[list[int]]) -> tuple[Array, ...]:
        """The fields of `Tags`, from the features of every token."""
        w = self.weights
        table = w["embed.weight"]
        x = np.stack([table[row[0]] + _parts(table[row[1:]]) for row in rows])
        x = self._linear("enter", x)
        for i, dilation in enumerate(self.dilations):
            y = self._norm(f"blocks.{i}.norm", x)
            kernel = w[f"blocks.{i}.conv.weight"]  # (out, in, 3)
            padded = np.pad(y, ((dilation, dilation), (0, 0)))
            shifted = (padded[j * dilation : j * dilation + len(y)] @ kernel[:, :, j].T for j in range(3))
            y = sum(shifted, w[f"blocks.{i}.conv.bias"])
            x = x + self._linear(f"blocks.{i}.out", np.maximum(y, 0))
            x = x + self._linear(f"blocks.{i}.share", x.max(axis=0))
        x = self._norm("norm", x)
        return (*(_softmax(self._linear(name, x)) for name in HEADS), _softmax(self._linear("order", x.max(axis=0))))

    def _linear(self, name: str, x: Array) -> Array:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, name: str, x: Array) -> Array:
        centered = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centered**2).mean(axis=-1, keepdims=True) + _EPS)
        return centered / scale * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
