"""Scoring restorers on pairs: one protocol, one record per picture, one summary, and what was made of them."""

from __future__ import annotations

from .run import Request, evaluate, header
from .summary import compare, interval, read_run, summarise

__all__ = ["Request", "compare", "evaluate", "header", "interval", "read_run", "summarise"]
