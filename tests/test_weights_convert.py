"""Published files into safetensors: what is taken, what is refused, and that nothing in them is run."""

from __future__ import annotations

import argparse
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from irtool import weights
from irtool.errors import UnavailableError
from irtool.models import loading
from irtool.models.header import look
from irtool.weights import files
from irtool.weights.convert import convert, is_intact, read_published
from irtool.weights.registry import File

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(3)}


def converted(path: Path, *, state: str = "", allow: tuple[str, ...] = ()) -> Path:
    target = path.with_suffix(".safetensors")
    convert([(path, File("manual:x", state=state))], target, {"licence": "MIT"}, allow)
    return target


def equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[k].dtype == v.dtype and found[k].shape == v.shape and torch.equal(found[k], v)
        for k, v in expected.items()
    )


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: t,
        lambda t: {"state_dict": t, "epoch": 3},
        lambda t: {"epoch": 3, "model": {"params": t}},
        lambda t: {"params": {k: -v for k, v in t.items()}, "params_ema": t},
        lambda t: {f"module.{k}": v for k, v in t.items()},
        lambda t: {"state_dict": {f"module.net.{k}": v for k, v in t.items()}},
        lambda t: {"net": {f"netG.{k}": v for k, v in t.items()}, "opt": {"lr": 0.1}},
    ],
)
def test_weights_are_found_wherever_training_code_puts_them(tmp_path, wrap, new_format):
    path = tmp_path / "net.pth"
    torch.save(wrap(TENSORS), path, _use_new_zipfile_serialization=new_format)
    assert equal(load_file(converted(path)), TENSORS)


def test_a_place_in_the_file_can_be_named(tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"state_dict": {"model_R": {"b": torch.zeros(1)}, "model_L": TENSORS}}, path)
    assert equal(load_file(converted(path, state="state_dict.model_L")), TENSORS)
    with pytest.raises(UnavailableError, match=r"looked for state_dict\.model_X and found state_dict"):
        converted(path, state="state_dict.model_X")
    with pytest.raises(UnavailableError, match="holds no weights: irtool looked for params_ema, params"):
        converted(path)


def test_types_shapes_and_views_survive(tmp_path):
    base = torch.arange(12.0)
    odd = {
        "scalar": torch.tensor(3, dtype=torch.int64),
        "half": torch.randn(3, 2).half(),
        "bf16": torch.randn(5).bfloat16(),
        "flag": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "none": torch.zeros(0, 3),
        "turned": torch.arange(6.0).reshape(2, 3).t(),
        "first": base[:8],
        "second": base[4:],
        "whole": base,
    }
    path = tmp_path / "net.pth"
    torch.save(odd, path)
    target = converted(path)
    assert equal(load_file(target), odd) and is_intact(target)


def training_checkpoint(net: torch.nn.Module, path: Path) -> None:
    """Written as open_clip's trainer writes one: the optimiser with it, and the best score as a numpy number."""
    train = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(train, lr=2e-5)
    for parameter in train:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    held = {
        "epoch": 30,
        "name": "daclip",
        "state_dict": net.state_dict(),
        "optimizer": {**optimizer.state_dict(), "best": np.float64(0.5), "rate": np.float32(2e-5), "n": np.int64(3)},
        "scaler": {"scale": 65536.0, "growth_factor": 2.0},
    }
    torch.save(held, path)


def small_controller() -> torch.nn.Module:
    from irtool.models.daclip import DaCLIP

    torch.manual_seed(0)
    vision = {"image_size": 64, "layers": 2, "width": 64, "patch_size": 32}
    text = {"context_length": 77, "vocab_size": 100, "width": 64, "heads": 1, "layers": 1}
    return DaCLIP(32, vision, text)


def test_of_a_training_checkpoint_the_weights_are_kept_once_and_load_strictly(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    net = small_controller()
    path = tmp_path / "daclip_ViT-B-32.pt"
    training_checkpoint(net, path)
    expected = dict(net.state_dict())
    target = weights.locate(f"local:{path}")
    # The vision tower is in the state dict twice, in the file once; the state of the optimiser is left behind.
    unique = sum(p.numel() for p in net.parameters()) * 4
    assert unique < target.stat().st_size < unique + 40_000
    with safe_open(target, "pt") as file:
        assert len(file.keys()) < len(expected)
    read, header = loading.read(target)
    assert header["architecture"] == "daclip" and equal(dict(read.state_dict()), expected)
    assert weights.locate(f"local:{path}") == target
    # Another file under the same name is another file.
    torch.save({"state_dict": {k: -v for k, v in expected.items()}}, path)
    assert weights.locate(f"local:{path}") != target


class Mean:
    """Runs a command when it is unpickled the usual way."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("new_format", [True, False])
def test_nothing_in_a_pickle_is_run(tmp_path, new_format):
    path, trace = tmp_path / "net.pth", tmp_path / "ran"
    torch.save({"state_dict": TENSORS, "x": Mean(f"touch {trace}")}, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(UnavailableError, match=r"names posix\.system, which no weights need; it was not opened"):
        converted(path)
    assert not trace.exists() and sorted(p.name for p in tmp_path.iterdir()) == ["net.pth"]
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Mean(f"touch {trace}")))
    with pytest.raises(UnavailableError):
        converted(tmp_path / "plain.pth")
    assert not trace.exists()


def test_the_options_of_a_training_run_are_taken_only_where_a_record_says_so(tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"state_dict": TENSORS, "opts": argparse.Namespace(gamma=0.1)}, path)
    with pytest.raises(UnavailableError, match=r"argparse\.Namespace"):
        converted(path)
    assert equal(load_file(converted(path, allow=("argparse.Namespace",))), TENSORS)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 not a zip file",
        b"\x80\x02}q\x00.",
        b"a text that somebody put there",
        b"\x89HDF\r\n\x1a\n and no more",
        b"<html>Google Drive: quota exceeded</html>",
    ],
)
def test_a_file_that_is_none_is_an_error_with_its_name(tmp_path, content):
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(UnavailableError, match=r"net\.pth"):
        converted(path)


def test_a_torch_file_that_is_cut_or_scripted_or_holds_none_is_an_error(tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"state_dict": TENSORS}, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UnavailableError, match="damaged or no torch file"):
        converted(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how torch deprecates its scripts differs by version
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    with pytest.raises(UnavailableError, match="a program"):
        converted(path)
    circle: dict[str, Any] = {"epoch": 1}
    circle["model"] = circle
    for held in ({}, [], TENSORS["a.bias"], {"epoch": 1}, circle, {"a": torch.eye(2).to_sparse()}):
        torch.save(held, path)
        with pytest.raises(UnavailableError, match="holds no weights"):
            converted(path)


def test_damage_to_a_converted_file_is_seen(tmp_path):
    path = tmp_path / "net.pth"
    torch.save(TENSORS, path)
    target = converted(path)
    whole = bytearray(target.read_bytes())
    assert is_intact(target)
    for change in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), whole[:60] + b"x" + whole[61:], b""):
        target.write_bytes(change)
        assert not is_intact(target)


def test_a_file_that_was_not_written_as_it_should_be_gets_no_name(tmp_path, monkeypatch):
    path = tmp_path / "net.pth"
    torch.save(TENSORS, path)
    monkeypatch.setattr("irtool.weights.convert.is_intact", lambda path: False)
    with pytest.raises(UnavailableError, match="not written"):
        converted(path)
    assert [p.name for p in tmp_path.iterdir()] == ["net.pth"]


def _message(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""

    def varint(value: int) -> bytes:
        return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)

    return varint(number << 3 | 2) + varint(len(content)) + content


def test_a_caffe_model_is_read(tmp_path):
    weight = np.arange(2 * 3 * 3 * 3, dtype="<f4").reshape(2, 3, 3, 3)
    bias = np.array([0.5, -1], dtype="<f4")

    def blob(array: np.ndarray) -> bytes:
        return _message(5, array.tobytes()) + _message(7, _message(1, bytes(array.shape)))

    layer = _message(1, b"conv1") + b"\x50\x01" + b"\x2d" + struct.pack("<f", 1) + _message(7, blob(weight))
    relu = _message(100, _message(1, b"relu1"))
    path = tmp_path / "net.caffemodel"
    path.write_bytes(_message(1, b"a name") + _message(100, layer + _message(7, blob(bias))) + relu)
    found = read_published(path)
    assert equal(found, {"conv1.weight": torch.tensor(weight), "conv1.bias": torch.tensor(bias)})
    for content in (b"", path.read_bytes()[:-40], relu, b"\xff" * 9, b"\x07"):
        path.write_bytes(content)
        with pytest.raises(UnavailableError, match="no Caffe network"):
            read_published(path)


def test_a_matconvnet_model_is_read(tmp_path):
    h5py = pytest.importorskip("h5py", reason="the extra 'mat' is not installed")
    generator = np.random.default_rng(0)
    inner = generator.normal(size=(4, 3, 5, 3)).astype(np.float32)  # (out, in, w, h)
    last = generator.normal(size=(4, 3, 3)).astype(np.float32)  # one output: its axis is not written
    path = tmp_path / "net.mat"
    with h5py.File(path, "w") as file:
        references = []
        for number, weight in enumerate((inner, None, last)):
            layer = file.create_group(f"#refs#/{number}")
            if weight is not None:
                kept = [
                    file.create_dataset(f"#refs#/{number}{k}", data=d)
                    for k, d in (("w", weight), ("b", weight[:, 0, 0, :1] if weight.ndim == 4 else weight[:1, 0, :1]))
                ]
                layer["weights"] = np.array([[k.ref] for k in kept], dtype=h5py.ref_dtype)
            references.append([layer.ref])
        file["net/layers"] = np.array(references, dtype=h5py.ref_dtype)
    found = read_published(path)
    assert {k: tuple(v.shape) for k, v in found.items()} == {
        "conv0.weight": (4, 3, 3, 5), "conv0.bias": (4,), "conv1.weight": (1, 4, 3, 3), "conv1.bias": (1,)
    }  # fmt: skip
    assert found["conv0.weight"][1, 2, 0, 4] == inner[1, 2, 4, 0]
    with h5py.File(path, "w") as file:
        file["other"] = 1
    with pytest.raises(UnavailableError, match="no MatConvNet network"):
        read_published(path)


PEERS = {  # id of a record: files in the shared folder, tensors, numbers
    "prenet.rain100l": (["prenet/prenet6_rain100l.pth"], 32, 168_963),
    "prenet.rain100h": (["prenet/prenet6_rain100h.pth"], 32, 168_963),
    "prenet.rain1400": (["prenet/prenet6_rain1400.pth"], 32, 168_963),
    "gcanet.dehaze": (["gcanet/gcanet_dehaze.pth"], 75, 702_818),
    "aodnet.official": (["aod_net/aod_net_official.caffemodel"], 10, 1_761),
    "aodnet.pytorch": (["aod_net/aod_net_pytorch.pth"], 10, 1_761),
    "uretinex.lol": (
        [f"uretinex_net/{n}.pth" for n in ("init_low", "init_high", "unfolding", "L_adjust")],
        52,
        360_653,
    ),
    "zerodce.epoch99": (["zero_dce/zero_dce_epoch99.pth"], 14, 79_416),
    "iat.lol-v1": (["iat/iat_lol_v1.pth"], 161, 91_348),
    "ruas.lol": (["ruas/ruas_lol.pt"], 76, 3_438),
    "sci.medium": (["sci/sci_medium.pt"], 83, 20_390),
    "pairlie.published": (["pairlie/pairlie.pth"], 30, 341_767),
    "dncnn.color-blind": (["dncnn/cdncnn_blind_color.mat"], 40, 668_227),
    "instructir-lm.7d": (["instructir/lm_instructir_7d.pt"], 4, 100_359),
    "lkdnet-t.its": (["lkdnet/lkd_t_its.pth"], 206, 345_538),
    "a2net.raindrop": (["a2net/a2net_raindrop.pth"], 78, 402_803),
    "flol.all": (["flol/flolv2_all.pt"], 182, 94_518),
}


@pytest.mark.parametrize("id", PEERS)
def test_real_published_files_are_the_registered_ones_and_convert(shared, tmp_path, monkeypatch, id):
    if id == "dncnn.color-blind":
        pytest.importorskip("h5py", reason="the extra 'mat' is not installed")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    names, tensors, numbers = PEERS[id]
    record = weights.get(id)
    for file, name in zip(record.originals, names, strict=True):
        (tmp_path / file.name).write_bytes((shared / "peers" / name).read_bytes())
    path = weights.obtain(record, tmp_path)
    header, shapes = look(path)
    assert header["architecture"] == record.family and header["licence"] == record.licence
    assert len(shapes) == tensors and sum(int(np.prod(s)) for s in shapes.values()) == numbers
    assert [name for name in loading.ARCHITECTURES if loading.recognize(shapes, [name])] == [record.family]
    net, _ = loading.read(path)
    assert net.state_dict().keys() == shapes.keys()
    assert weights.state(record) == "here" and weights.locate(id) == path
    files.verify.cache_clear()
    weights.verify(record)


@pytest.mark.parametrize("name", ["codecs_hex_34.pth", "stride0_2e9.pth"])
def test_small_hostile_pickles_take_neither_memory_nor_time(shared, tmp_path, name):
    code = (
        "import resource, sys; from pathlib import Path; from irtool.weights.convert import read_published\n"
        "from irtool.errors import UnavailableError\n"
        "import torch\n"
        "base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    read_published(Path(sys.argv[1]))\n"
        "except UnavailableError as error:\n    print(error.message)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(shared / "cases_attacks" / name)], capture_output=True, text=True, timeout=120,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}, check=True,
    )  # fmt: skip
    message, grown = done.stdout.splitlines()
    assert name in message and int(grown) < 150_000, done.stdout


def test_an_archive_that_unpacks_to_more_than_it_is_is_not_opened(tmp_path):
    torch.save({"a.weight": torch.zeros(1 << 20)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for member in plain.infolist():
            bomb.writestr(member.filename, plain.read(member))
    assert read_published(tmp_path / "plain.pth")["a.weight"].numel() == 1 << 20
    with pytest.raises(UnavailableError, match="compressed archive"):
        read_published(tmp_path / "bomb.pth")


def test_tensors_larger_than_their_file_are_refused(tmp_path):
    for weights_ in ({"a": torch.zeros(1).expand(1 << 28)}, {"a": torch.zeros(9).as_strided((3000, 3000), (0, 0))}):
        torch.save(weights_, tmp_path / "net.pth")
        with pytest.raises(UnavailableError, match="larger than itself"):
            read_published(tmp_path / "net.pth")
    many = torch.zeros(10_000)
    torch.save({f"{i}": many[i:] for i in range(200)}, tmp_path / "net.pth")
    with pytest.raises(UnavailableError, match="larger than itself"):
        read_published(tmp_path / "net.pth")
    shared_ = torch.zeros(10_000)
    torch.save({f"{i}": shared_ for i in range(200)}, tmp_path / "net.pth")  # one tensor under many names
    assert len(read_published(tmp_path / "net.pth")) == 200


@pytest.mark.parametrize("size", [4, 4_000_000])
def test_a_caffe_model_of_ones_is_no_network_at_once(tmp_path, size):
    (tmp_path / "net.caffemodel").write_bytes(b"\xff" * size)
    with pytest.raises(UnavailableError, match="no Caffe network"):
        read_published(tmp_path / "net.caffemodel")


def test_a_checkpoint_of_a_training_run_names_the_command_that_exports_it(tmp_path):
    torch.save({"net": {}, "ema": {"a": torch.zeros(1)}, "step": 1, "recipe": {}}, tmp_path / "best.pt")
    with pytest.raises(UnavailableError, match="a checkpoint of irtool train") as raised:
        read_published(tmp_path / "best.pt")
    assert raised.value.hint == f"irtool train export {tmp_path / 'best.pt'} FILE.safetensors"


def test_another_file_of_the_same_name_size_and_time_is_converted_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ASSETS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "net.pth"
    found = []
    for value in (1.0, 2.0, 1.0):
        torch.save({"a.weight": torch.full((4,), value)}, path)
        os.utime(path, ns=(10**18, 10**18))
        found.append(weights.locate(f"local:{path}"))
    assert found[0] == found[2] != found[1]
    assert load_file(found[1])["a.weight"][0] == 2


def test_what_is_no_readable_regular_file_is_said(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.pth")
    for reference in (
        f"local:{tmp_path / 'pipe.pth'}",
        "local:~nobody-of-that-name/x.pth",
        "local:a\0b",
        "local:" + "x" * 300,
    ):
        with pytest.raises(UnavailableError, match="There is no model file"):
            weights.locate(reference)
    with pytest.raises(UnavailableError, match="no regular file"):
        read_published(tmp_path / "pipe.pth")
