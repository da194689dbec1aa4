"""From a picture to a diagnosis: which degradations are present, or none."""

from __future__ import annotations

from . import gate
from .detector import Detector, Diagnosis, load

__all__ = ["Detector", "Diagnosis", "gate", "load"]
