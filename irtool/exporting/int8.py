"""Graphs in 8-bit integers: ETDS by its own equalized calibration, other networks by ONNX Runtime's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import picture
from ..errors import UsageError
from ..models.etds import ETDS, RGB
from ..models.etds_int8 import QuantizedETDS, calibrated, weight_scale
from .graphs import Plain, WithContext

CROP = 160  # side of what calibration sees of a picture
MOST = 64  # pictures it sees


def is_integer(graph: Plain | WithContext) -> bool:
    """Whether a function is that of a network trained as integers."""
    return isinstance(graph.net, QuantizedETDS)


def is_etds(graph: Plain | WithContext) -> bool:
    """Whether a function is that of an `ETDS`."""
    return isinstance(graph.net, ETDS)


def samples(folder: Path, multiple: int = 1) -> Iterator[Tensor]:
    """The middle of each picture of a folder, (1, 3, S, S) in [0, 1].

    Raises:
        UsageError: there is none.
    """
    paths = [found.path for found in picture.find([folder], recursive=True)][:MOST] if folder.is_dir() else []
    if not paths:
        raise UsageError(f"{folder} holds no pictures to calibrate with.", "Name a folder of a few dozen photographs.")
    for path in paths:
        pixels = picture.read(path).pixels
        top, left = (max(0, (side - CROP) // 2) for side in pixels.shape[:2])
        part = pixels[top : top + CROP, left : left + CROP]
        part = np.pad(part, [(0, CROP - part.shape[0]), (0, CROP - part.shape[1]), (0, 0)], mode="reflect")
        yield torch.from_numpy(part).permute(2, 0, 1)[None]


def calibrated_graph(graph: Plain | WithContext, folder: Path) -> Plain:
    """The function of an `ETDS` with its ranges taken from the pictures of a folder."""
    assert isinstance(graph.net, ETDS)
    return Plain(calibrated(graph.net, torch.cat(list(samples(folder)))).eval().requires_grad_(False))


def write_etds(graph: Plain | WithContext, path: Path, size: tuple[int, int] | None) -> None:
    """The integer graph of a `QuantizedETDS`, in ONNX's QuantizeLinear and DequantizeLinear.

    Weights are stored as int8 with a scale per output channel, biases as int32, activations are uint8.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from .files import OPSET

    net = graph.net
    assert isinstance(net, QuantizedETDS)
    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def quantize(source: str, name: str, step: float) -> str:
        scale = constant(f"{name}.scale", np.array(step, np.float32))
        zero = constant(f"{name}.zero", np.array(0, np.uint8))
        nodes.append(helper.make_node("QuantizeLinear", [source, scale, zero], [f"{name}.codes"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}.codes", scale, zero], [name]))
        return name

    step = 1 / 255
    x = quantize("image", "input", step)
    for i, (layer, most) in enumerate(zip(net.layers(), net.ranges.tolist(), strict=True)):
        weight, scales = layer.weight.detach(), weight_scale(layer.weight)
        bias = layer.bias
        assert bias is not None
        if i == net.blocks + 1:  # the channel that only fills up to a multiple of four is of no use here
            weight, scales, bias = (part[: RGB * net.scale**2] for part in (weight, scales, bias))
        codes = (weight / scales[:, None, None, None]).round().clamp(-127, 127).to(torch.int8).numpy()
        sums = (bias.detach().double() / (scales.double() * step)).round().to(torch.int32).numpy()
        w, b = constant(f"layer{i}.weight.codes", codes), constant(f"layer{i}.bias.codes", sums)
        ws, bs = (
            constant(f"layer{i}.weight.scale", scales.numpy()),
            constant(f"layer{i}.bias.scale", scales.numpy() * np.float32(step)),
        )
        nodes.append(helper.make_node("DequantizeLinear", [w, ws], [f"layer{i}.weight"], axis=0))
        nodes.append(helper.make_node("DequantizeLinear", [b, bs], [f"layer{i}.bias"], axis=0))
        nodes.append(
            helper.make_node("Conv", [x, f"layer{i}.weight", f"layer{i}.bias"], [f"layer{i}.sum"], pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Relu", [f"layer{i}.sum"], [f"layer{i}.relu"]))
        step = most / 255
        x = quantize(f"layer{i}.relu", f"layer{i}", step)
    nodes.append(helper.make_node("Sub", [constant("one", np.array(1, np.float32)), x], ["turned"]))
    nodes.append(helper.make_node("DepthToSpace", ["turned"], ["restored"], blocksize=net.scale, mode="CRD"))
    width, height = size or ("width", "height")
    large = (net.scale * size[1], net.scale * size[0]) if size else ("rows", "columns")
    built = helper.make_graph(
        nodes,
        "etds",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, RGB, height, width])],
        [helper.make_tensor_value_info("restored", TensorProto.FLOAT, [1, RGB, *large])],
        constants,
    )
    model = helper.make_model(built, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="irtool")
    model.ir_version = 10  # what runtimes of the opset's time read
    onnx.save(model, str(path))


def quantized(path: Path, folder: Path, size: tuple[int, int] | None) -> Path:
    """A float graph with the weights and activations of its convolutions and matrix products in 8 bits, by ONNX
    Runtime's static quantization; beside `path`."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = (
                {"image": (image if size is None else _resized(image, size)).numpy()} for image in samples(folder)
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.images, None)

    prepared, target = path.with_name("prepared.onnx"), path.with_name("quantized.onnx")
    quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared), str(target), Reader(), per_channel=True, weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8, op_types_to_quantize=["Conv", "MatMul"],
        calibrate_method=CalibrationMethod.MinMax,
    )  # fmt: skip
    return target


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.nn.functional.interpolate(image, (size[1], size[0]), mode="bilinear", align_corners=False)
