"""The registry of checkpoints (weights.toml): what there is, where its file lies, whether it is intact. No torch."""

from __future__ import annotations

from .files import is_present, locate, verify
from .registry import DEFAULT_DETECTOR, DEFAULT_RESTORER, Record, get, records

__all__ = ["DEFAULT_DETECTOR", "DEFAULT_RESTORER", "Record", "get", "is_present", "locate", "records", "verify"]
