"""Networks, one file per family, behind one small protocol (`Restorer`, `Expert`)."""

from __future__ import annotations

from .base import Capability, Expert, Restorer
from .loading import ARCHITECTURES, load, save

__all__ = ["ARCHITECTURES", "Capability", "Expert", "Restorer", "load", "save"]
