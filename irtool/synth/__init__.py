"""Seeded synthetic degradations on torch, written as strings: ``rain(density=0.6)|jpeg(q=20)``.

`parse` reads a string into a `Chain`, `Chain.apply` degrades a batch, `random_chain` draws one for training, and
`TABLE` lists every degradation with its parameters, ranges and sources.
They are loaded at first use: `irtool.synth.ops` serves restoration too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .chain import Chain, Step, parse
    from .draw import TRAINING, random_chain
    from .spec import Parameter, Spec
    from .table import TABLE

_HOMES = {
    "Chain": "chain",
    "Parameter": "spec",
    "Spec": "spec",
    "Step": "chain",
    "TABLE": "table",
    "TRAINING": "draw",
    "parse": "chain",
    "random_chain": "draw",
}
__all__ = ["TABLE", "TRAINING", "Chain", "Parameter", "Spec", "Step", "parse", "random_chain"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'irtool.synth' has no attribute '{name}'")
    return getattr(import_module(f"irtool.synth.{_HOMES[name]}"), name)
