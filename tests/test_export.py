"""irtool export: graphs that give what irtool gives, in ONNX Runtime and OpenVINO."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compact_samples import random_net
from PIL import Image

from irtool import engine
from irtool.errors import UsageError
from irtool.exporting import export, format_of
from irtool.exporting.graphs import statistics
from irtool.models import etds, loading
from irtool.models.base import Condition, Model
from irtool.models.compact import CompactModel
from irtool.models.etds import ETDS, DualStreamETDS
from irtool.models.etds_int8 import QuantizedETDS, calibrated, rounded_weight, sum_preserving, weight_scale
from irtool.models.global_stats import global_stats

SIZES = ((37, 53), (131, 33), (64, 49))
CPU = torch.device("cpu")


def runs(path: Path) -> list[tuple[str, object]]:
    """What runs a file, by runtime."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return [("onnxruntime", lambda image: session.run(["restored"], {"image": image})[0])]
    compiled = _core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [("openvino", lambda image: compiled(image)["restored"])]


@functools.cache
def _core() -> Any:
    """One for the process: OpenVINO 2026.4.1's CPU plugin, when unloaded, leaves a signal stack in memory that it has
    freed, and the next signal, such as that of a worker that ends, is a segmentation fault."""
    import openvino

    return openvino.Core()


def upscaler(scale: int = 2) -> ETDS:
    torch.manual_seed(scale)
    net = etds.fused(DualStreamETDS(scale, 2, 8))
    torch.nn.init.normal_(net.conv_last.weight[:, :5], std=0.1)
    return net.eval().requires_grad_(False)


def differs(path: Path, model: Model, tasks: dict[str, float]) -> float:
    """The most by which a file differs from what the engine makes of whole pictures."""
    bound, worst = model.bind(Condition(tasks)), 0.0
    for height, width in SIZES:
        image = torch.rand(1, 3, height, width)
        want = engine.run(bound, image[0], device=CPU, dtype="fp32", tile="off").pixels.numpy()
        for _, run in runs(path):
            got = run(image.numpy())[0]  # type: ignore[operator]
            assert got.shape == want.shape
            worst = max(worst, float(np.abs(got - want).max()))
    return worst


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_an_upscaler_gives_the_same_outside_of_irtool_at_odd_sizes(tmp_path: Path, suffix: str) -> None:
    _need("onnx", "onnxscript", "onnxruntime", *(["openvino"] if suffix == ".xml" else []))
    net = upscaler()
    model = loading.wrap(net.eval(), {"architecture": "etds"})
    files = export(model, tmp_path / f"net{suffix}")
    assert all(file.is_file() for file in files)
    assert differs(files[0], model, {}) < 1e-4


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_restorer_gives_the_same_outside_of_irtool_at_odd_sizes(tmp_path: Path, suffix: str) -> None:
    _need("onnx", "onnxscript", "onnxruntime", *(["openvino"] if suffix == ".xml" else []))
    model = CompactModel(random_net())
    files = export(model, tmp_path / f"net{suffix}", tasks={"noise": 1.0})
    assert differs(files[0], model, {"noise": 1.0}) < 1e-4
    assert differs(files[0], model, {"rain": 1.0}) > 1e-3  # the task is in the file


def test_integers_give_what_their_simulation_gives(tmp_path: Path) -> None:
    _need("onnx", "onnxruntime")
    quantized = calibrated(upscaler(3), torch.rand(2, 3, 24, 24)).eval().requires_grad_(False)
    model = loading.wrap(quantized, {"architecture": "etds-int8"})
    (path,) = export(model, tmp_path / "net.onnx")
    # Sums of a runtime's integers are exact, those of floats are not: a value between two levels may fall to either.
    image = torch.rand(1, 3, 37, 53)
    ((_, run),) = runs(path)
    error = np.abs(run(image.numpy()) - quantized(image).numpy())  # type: ignore[operator]
    assert error.max() <= 2.1 / 255 and error.mean() < 0.05 / 255
    import onnx

    weights = [t for t in onnx.load(str(path)).graph.initializer if t.name.endswith("weight.codes")]
    assert len(weights) == 4 and {t.data_type for t in weights} == {onnx.TensorProto.INT8}


def test_calibration_on_a_folder_and_a_fixed_size(tmp_path: Path) -> None:
    _need("onnx", "onnxscript", "onnxruntime")
    (tmp_path / "photos").mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((200, 180)).save(tmp_path / "photos" / f"{i}.png")
    model = loading.wrap(upscaler().eval(), {"architecture": "etds"})
    (path,) = export(model, tmp_path / "net.onnx", calibrate=tmp_path / "photos", size=(64, 48))
    image = np.asarray(Image.open(tmp_path / "photos" / "0.png"), np.float32)[:48, :64] / 255
    ((_, run),) = runs(path)
    got = run(np.ascontiguousarray(image.transpose(2, 0, 1))[None])  # type: ignore[operator]
    want = model.net(torch.from_numpy(image).permute(2, 0, 1)[None]).numpy()
    assert got.shape == (1, 3, 96, 128) and np.abs(got - want).mean() < 0.02
    compact = CompactModel(random_net())
    (path,) = export(compact, tmp_path / "c.onnx", tasks={"noise": 1.0}, calibrate=tmp_path / "photos")
    import onnx

    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(str(path)).graph.node)
    with pytest.raises(UsageError, match="holds no pictures"):
        export(model, tmp_path / "x.onnx", calibrate=tmp_path / "nowhere")


@pytest.mark.parametrize(("task", "reason"), [("missing", "found, and filled"), ("blur", "path of the camera")])
def test_what_is_not_in_the_network_is_not_exported(tmp_path: Path, task: str, reason: str) -> None:
    _need("onnx")
    with pytest.raises(UsageError, match=reason):
        export(CompactModel(random_net()), tmp_path / "net.onnx", tasks={task: 1.0})
    assert not (tmp_path / "net.onnx").exists()


@pytest.mark.parametrize("size", [(37, 53), (600, 41), (1100, 33)])
def test_statistics_of_the_graph_are_those_of_the_network(size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size)
    assert torch.allclose(statistics(image), global_stats(image), atol=1e-5)


def test_rounding_of_a_kernel_keeps_its_sum() -> None:
    weight = torch.randn(6, 5, 3, 3) * torch.logspace(-3, 0, 6)[:, None, None, None]
    found, step = sum_preserving(weight), weight_scale(weight)[:, None, None, None]
    assert ((found - weight).abs() <= 1.001 * step).all()
    assert ((found - weight).sum((2, 3)).abs() <= 0.501 * step[..., 0, 0]).all()
    assert torch.allclose(rounded_weight(found), found, atol=1e-7)
    assert torch.allclose(weight_scale(found), step.flatten())


def test_calibration_costs_little_and_shifts_no_color() -> None:
    net, images = upscaler(3), torch.rand(4, 3, 20, 20)
    quantized = calibrated(net, images)
    error = quantized(images) - net(images)
    assert 0 < error.abs().mean() < 0.01 and isinstance(quantized, QuantizedETDS)
    assert error.mean((0, 2, 3)).abs().max() < 0.1 / 255
    codes = 255 * quantized(images)
    assert torch.allclose(codes, codes.round(), atol=1e-3)
    torch.nn.init.constant_(net.conv_clip.weight, 0.5)
    with pytest.raises(ValueError, match="do not clip"):
        calibrated(net, images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.txt"], "does not end in .onnx or .xml"),
        (["net.onnx", "--format", "openvino"], "does not end in .xml"),
        (["net.onnx", "--format", "coreml"], "no format 'coreml'"),
        (["net.onnx", "--scale", "5"], "2, 3 or 4, not 5"),
        (["net.onnx", "--scale", "2", "--task", "noise"], "different models"),
        (["net.onnx", "--scale", "2", "--int8"], "needs pictures"),
        (["net.onnx", "--scale", "2", "--calibrate", "x"], "is for --int8"),
        (["net.onnx", "--scale", "2", "--size", "8x8"], "is no size"),
        (["irtool-upscale-x2", "net.onnx", "--scale", "3"], "enlarges 2 times, not 3"),
        (["a", "b", "net.onnx"], "Give a model and a file"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(cli, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = cli("export", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and not list(tmp_path.iterdir())


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from irtool.errors import UnavailableError

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UnavailableError, match="needs the package onnx") as error:
        export(loading.wrap(upscaler(), {"architecture": "etds"}), tmp_path / "net.onnx")
    assert "irtool[export]" in error.value.hint
    assert format_of(Path("a.xml")) == "openvino"


def test_the_example_of_the_page_runs_a_file_without_irtool(tmp_path: Path) -> None:
    _need("onnx", "onnxscript", "onnxruntime")
    export(loading.wrap(upscaler().eval(), {"architecture": "etds"}), tmp_path / "upscale.onnx")
    Image.fromarray(np.full((40, 50, 3), 128, np.uint8)).save(tmp_path / "photo.jpg")
    page = (Path(__file__).parents[1] / "docs" / "upscaling.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(example.splitlines()) <= 15 and "irtool" not in example
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, check=False, capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "photo.large.png").size == (100, 80)


def _need(*packages: str) -> None:
    for package in packages:
        pytest.importorskip(package, reason=f"{package} (extra export) is not installed")
