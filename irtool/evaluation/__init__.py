"""Scoring restorers on pairs: one protocol, one record per picture, one summary, and what was made of them."""

from __future__ import annotations

from .run import EvalRequest, evaluate, header
from .summary import compare, interval, read_run, summarize

__all__ = ["EvalRequest", "compare", "evaluate", "header", "interval", "read_run", "summarize"]
