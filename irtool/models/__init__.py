"""Networks, one file per family, behind one small protocol (`Restorer`, `Expert`)."""

from __future__ import annotations

from . import loading
from .base import Capability, Expert, Restorer, WholeExpert
from .loading import ARCHITECTURES, load, save

__all__ = ["ARCHITECTURES", "Capability", "Expert", "Restorer", "WholeExpert", "load", "loading", "save"]
