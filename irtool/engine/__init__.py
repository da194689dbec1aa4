"""Where and how a network runs: device, number type, tiles, memory, folders."""

from __future__ import annotations

from .device import pick_device, pick_dtype
from .inference import EngineResult, run

__all__ = ["EngineResult", "pick_device", "pick_dtype", "run"]
