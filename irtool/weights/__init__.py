"""The registry of checkpoints (weights.toml): what there is, where it comes from, whether it is intact.

Nothing here imports torch but the conversion of a published file, when there is one to convert.
"""

from __future__ import annotations

from .files import converted, locate, obtain, state, verify
from .hub import offline
from .registry import DEFAULT_DETECTOR, DEFAULT_RESTORER, File, Record, companions, get, needs, records, restorers

__all__ = [
    "DEFAULT_DETECTOR",
    "DEFAULT_RESTORER",
    "File",
    "Record",
    "companions",
    "converted",
    "get",
    "locate",
    "needs",
    "obtain",
    "offline",
    "records",
    "restorers",
    "state",
    "verify",
]
