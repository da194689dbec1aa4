"""Data sets by name, their pairs on the disk, and the protocols they are scored under."""

from __future__ import annotations

from .pairs import Pair, PairSet, between, clean, discover
from .protocol import PROTOCOLS, Protocol, get_protocol
from .registry import Dataset, Known, datasets, get_dataset, names_hash

__all__ = [
    "PROTOCOLS",
    "Dataset",
    "Known",
    "Pair",
    "PairSet",
    "Protocol",
    "between",
    "clean",
    "datasets",
    "discover",
    "get_dataset",
    "get_protocol",
    "names_hash",
]
