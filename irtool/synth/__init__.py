"""Seeded synthetic degradations on torch, written as strings: ``rain(density=0.6)|jpeg(q=20)``.

`parse` reads a string into a `Chain`, `Chain.apply` degrades a batch, `random_chain` draws one for training, and
`TABLE` lists every degradation with its parameters, ranges and sources.
"""

from __future__ import annotations

from .chain import Chain, Step, parse
from .draw import TRAINING, random_chain
from .spec import Parameter, Spec
from .table import TABLE

__all__ = ["TABLE", "TRAINING", "Chain", "Parameter", "Spec", "Step", "parse", "random_chain"]
