"""A light start and threads that do not wait for each other."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from irtool import cores
from irtool.engine import device as tune
from irtool.models.compact import CompactNet
from irtool.ops import in_strips

HEAVY = (
    "torch._dynamo",
    "torch._inductor",
    "sympy",
    "skimage",
    "scipy",
    "huggingface_hub",
    "transformers",
    "open_clip",
    "rich.progress",
    "irtool.language",
    "irtool.training",
    "irtool.evaluation",
    "irtool.synth.table",
)


def test_a_picture_is_restored_without_importing_what_is_not_used(environment, using, photo, tmp_path):
    source = photo(tmp_path / "a.jpg")
    code = (
        "import sys, json; from irtool.cli import main; "
        f"code = main(['restore', {str(source)!r}, '-q']); "
        f"print(json.dumps([code, [m for m in {HEAVY!r} if m in sys.modules]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | using("mixed"), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [0, []], done.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active"), ({"KMP_BLOCKTIME": "5"}, None),
     ({"GOMP_SPINCOUNT": "9"}, None)],
)  # fmt: skip
def test_the_command_line_lets_threads_sleep_unless_told_otherwise(environment, given, expected):
    clean = {k: v for k, v in environment.items() if not k.startswith(("OMP_WAIT", "KMP_", "GOMP_"))} | given
    code = (
        "import os, sys; sys.argv = ['irtool', '--version']; from irtool.cli import run; run(); "
        "assert 'torch' not in sys.modules; print(os.environ.get('OMP_WAIT_POLICY'))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(expected)


def test_irtool_as_a_library_leaves_the_threads_as_they_are(environment):
    clean = {k: v for k, v in environment.items() if not k.startswith("OMP_WAIT")}
    code = "import os, irtool.api; print(os.environ.get('OMP_WAIT_POLICY'))"
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def test_strips_cover_every_row_once_in_several_threads_and_hand_on_modes_and_errors():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        rows, seen = torch.zeros(101), set()
        meeting = threading.Barrier(3, timeout=60)  # passes only if three threads are in it at the same time

        def work(top: int, end: int) -> None:
            if top < 30:
                meeting.wait()
            seen.add((threading.get_ident(), torch.get_num_threads(), torch.is_inference_mode_enabled()))
            rows[top:end] += 1

        with torch.inference_mode():
            in_strips(101, 10, work, torch.device("cpu"))
        assert rows.unique().tolist() == [1.0]
        assert len({ident for ident, _, _ in seen}) == 3 and {(n, mode) for _, n, mode in seen} == {(1, True)}

        def broken(top: int, end: int) -> None:
            raise ValueError(f"strip {top}")

        with pytest.raises(ValueError, match="strip 0"):
            in_strips(101, 10, broken, torch.device("cpu"))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_strips_of_several_threads_give_what_the_whole_gives(monkeypatch, count):
    torch.manual_seed(0)
    net = CompactNet(width=8, encoder=(1, 1), middle=1, decoder=(1, 2), rank=2, hidden=8).eval().requires_grad_(False)
    torch.nn.init.normal_(net.head.weight, std=0.05)
    net.merge({"noise": 1.0})
    x, context = torch.rand(1, 3, 104, 72), torch.rand(1, net.embed[0].in_features - len(net.tasks))
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with torch.inference_mode():
            whole = net(x, context)
            monkeypatch.setattr("irtool.ops.STRIP", 1)  # four rows and sixteen columns at a time
            assert torch.allclose(net(x, context), whole, atol=1e-5)
    finally:
        torch.set_num_threads(before)


def test_free_cores_follow_the_quota_and_what_runs(monkeypatch, tmp_path):
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(cores, "_CGROUPS", ((str(quota),),))
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)), raising=False)
    running = [1]
    monkeypatch.setattr(cores, "_running", lambda: running[0])
    assert (cores.usable(), cores.free()) == (16, 16)
    running[0] = 6
    assert cores.free() == 11
    running[0] = 60
    assert cores.free() == 8
    quota.write_text("250000 100000\n")
    assert (cores.usable(), cores.free()) == (2, 2)
    quota.write_text("max 100000\n")
    assert cores.usable() == 16
    quota.write_text("50000 100000\n")
    assert (cores.usable(), cores.free()) == (1, 1)


def test_the_number_type_is_measured_once_and_again_on_another_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ASSETS_CACHE", str(tmp_path))
    tune.cpu_dtype.cache_clear()
    calls = []
    real = tune.measure
    monkeypatch.setattr(tune, "measure", lambda: calls.append(1) or real(0.01))
    first = tune.cpu_dtype()
    tune.cpu_dtype.cache_clear()
    assert tune.cpu_dtype() == first and len(calls) == 1
    kept = json.loads((tmp_path / "irtool/tuned.json").read_text())
    assert kept["machine"] == tune._machine() and kept["float32"] > 0 and kept["bfloat16"] > 0
    other = "float32" if kept["dtype"] == "bfloat16" else "bfloat16"
    (tmp_path / "irtool/tuned.json").write_text(json.dumps(kept | {"dtype": other}))
    tune.cpu_dtype.cache_clear()
    assert tune.cpu_dtype() == getattr(torch, other) and len(calls) == 1  # taken from the disk
    for damaged in (json.dumps(kept | {"machine": "another"}), "{", "[]", json.dumps(kept | {"dtype": "int3"})):
        (tmp_path / "irtool/tuned.json").write_text(damaged)
        tune.cpu_dtype.cache_clear()
        calls.clear()
        assert tune.cpu_dtype() in tune._CPU_DTYPES.values() and len(calls) == 1
    tune.cpu_dtype.cache_clear()


def test_doctor_shows_what_was_tuned(cli, tmp_path):
    done = cli("doctor", "--tune", "--json", env={"HF_ASSETS_CACHE": str(tmp_path)})
    report = json.loads(done.stdout)
    assert "float32" in report["torch"]["tuned"] and report["usable_cores"] >= report["free_cores"] >= 1
    assert Path(tmp_path / "irtool/tuned.json").exists()


def test_doctor_counts_cuda_libraries_that_nothing_can_use(tmp_path):
    from irtool.cli.doctor import _cuda_bytes

    folder = tmp_path / "torch"
    for name, size in {"nvidia/cublas/lib/libcublas.so.12": 700, "torch/lib/libtorch_cuda.so": 300,
                       "torch/lib/libtorch_cpu.so": 50}.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    assert _cuda_bytes(folder) == 1000


def test_a_bench_gives_a_share_of_the_peak_and_where_the_time_goes(monkeypatch):
    from irtool.cli import bench

    monkeypatch.setattr(bench, "PRODUCT", 256)
    monkeypatch.setattr(bench, "ROUNDS", 1)
    found = bench.bench("cpu", side=64)
    assert found["megapixels_per_second"] > 0 and found["peak_gflops"] > 0 and 0 < found["share_of_peak"] < 2
    assert 0 < sum(found["time"].values()) <= 1.01 and len(found["time"]) == bench.TOP
