"""Models as files that run without irtool: ONNX and OpenVINO, in floating point and in 8-bit integers."""

from __future__ import annotations

from .files import FORMATS, OPSET, export, format_of

__all__ = ["FORMATS", "OPSET", "export", "format_of"]
