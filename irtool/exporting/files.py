"""Graphs as files."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ..errors import UnavailableError, UsageError
from ..fileio import atomic_write
from ..models.base import Model
from .graphs import Plain, WithContext, graph_of

OPSET = 18
FORMATS = {"onnx": ".onnx", "openvino": ".xml"}
SMALLEST = 32  # pixels a side that a graph of any size takes


def format_of(path: Path, format: str | None = None) -> str:
    """The format of a file to write, by name or by suffix.

    Raises:
        UsageError: neither tells, or they disagree.
    """
    by_suffix = next((name for name, suffix in FORMATS.items() if path.suffix == suffix), None)
    if format is not None and format not in FORMATS:
        raise UsageError(f"There is no format '{format}'.", f"Known: {', '.join(FORMATS)}.")
    if by_suffix is None or format not in (None, by_suffix):
        suffixes = FORMATS[format] if format else " or ".join(FORMATS.values())
        raise UsageError(f"{path} does not end in {suffixes}.", "Name the file .onnx, or .xml for OpenVINO.")
    return by_suffix


def export(
    model: Model,
    path: Path,
    *,
    tasks: dict[str, float] | None = None,
    name: str = "the model",
    size: tuple[int, int] | None = None,
    calibrate: Path | None = None,
    notes: dict[str, str] | None = None,
) -> list[Path]:
    """Write a model as a file that ONNX Runtime or OpenVINO runs.

    Args:
        model: loaded; see `graphs.graph_of` for which are exported.
        path: ends in .onnx or .xml; the weights of the latter are written beside it, in a .bin.
        tasks: what the model removes, where it is told.
        name: of the model, for messages.
        size: width and height that the graph is fixed to; None for any from 32 pixels a side.
        calibrate: folder of pictures like those it will see: weights and activations become 8-bit integers. A model
            that was trained as integers (`etds-int8`) needs none.
        notes: kept in the file's metadata.

    Returns:
        The files written.

    Raises:
        UsageError: the model is not exported, or the folder holds no picture.
        UnavailableError: a package of the extra "export" is absent.
    """
    kind = format_of(path)
    onnx = _package("onnx")
    graph = graph_of(model, tasks or {}, name)
    from . import int8

    with tempfile.TemporaryDirectory(prefix="irtool-") as folder:
        plain = Path(folder) / "model.onnx"
        if int8.is_integer(graph):
            int8.write_etds(graph, plain, size)
        elif calibrate is not None and int8.is_etds(graph):
            int8.write_etds(int8.calibrated_graph(graph, calibrate), plain, size)
        else:
            write_onnx(graph, plain, size)
            if calibrate is not None:
                plain = int8.quantized(plain, calibrate, size)
        loaded = onnx.load(str(plain))
        onnx.helper.set_model_props(loaded, {"source": name, **(notes or {})})
        onnx.checker.check_model(loaded)
        content = loaded.SerializeToString()
        if kind == "onnx":
            atomic_write(path, content)
            return [path]
        plain.write_bytes(content)
        openvino = _package("openvino")
        openvino.save_model(openvino.convert_model(str(plain)), str(Path(folder) / "model.xml"), compress_to_fp16=False)
        weights = path.with_suffix(".bin")
        atomic_write(weights, (Path(folder) / "model.bin").read_bytes())
        atomic_write(path, (Path(folder) / "model.xml").read_bytes())
        return [path, weights]


def write_onnx(graph: Plain | WithContext, path: Path, size: tuple[int, int] | None) -> None:
    """The float32 graph of a function."""
    _package("onnxscript")
    width, height = size or (64, 48)
    sides = {2: "height", 3: "width"} if size is None else {}
    # With gradients on, networks take their plain paths, not those that work strip by strip.
    with torch.enable_grad(), _silent():
        dims = {axis: torch.export.Dim(label, min=SMALLEST, max=1 << 16) for axis, label in sides.items()}
        program = torch.onnx.export(
            graph, (torch.rand(1, 3, height, width),), dynamo=True, opset_version=OPSET,
            input_names=["image"], output_names=["restored"], dynamic_shapes=({**dims},) if dims else None,
        )  # fmt: skip
    assert program is not None
    program.save(str(path))


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """torch's exporters print their progress and warn of packages that are not needed."""
    import logging

    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _package(name: str) -> Any:
    if name == "openvino":
        os.environ.setdefault("OPENVINO_TELEMETRY_DISABLED", "1")
    try:
        return import_module(name)
    except ImportError as error:
        raise UnavailableError(f"Exporting needs the package {name}.", 'pip install "irtool[export]"') from error
