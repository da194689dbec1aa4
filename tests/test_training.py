"""Runs: they learn, resume, stop in order, and leave what they promise."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from training_samples import CPU, TINY, tiny

from irtool import models
from irtool.degradation import IDS
from irtool.detection import load as load_detector
from irtool.errors import IrtoolError, UnavailableError, UsageError
from irtool.models.base import Condition
from irtool.training import export, log, loop, state
from irtool.training.distributed import ProcessGroup, StopSignal
from irtool.training.restorer import LOSSES, RestorerTask, restoration_loss
from irtool.training.tasks import training_task


class Seen(log.Callback):
    """Keeps what it is told, and raises at a step if asked to."""

    def __init__(self, fail_at: int = -1) -> None:
        self.lines: list[Any] = []
        self.notes: list[str] = []
        self.fail_at = fail_at

    def step(self, step: int, progress: float) -> None:
        if step == self.fail_at:
            raise InterruptedRunError

    def line(self, line: Any) -> None:
        self.lines.append(line)

    def note(self, text: str) -> None:
        self.notes.append(text)


class InterruptedRunError(Exception):
    pass


@pytest.fixture(autouse=True)
def cache(decoded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ASSETS_CACHE", str(decoded))


@pytest.fixture
def environment(environment: dict[str, str], decoded: Path) -> dict[str, str]:
    return environment | {"HF_ASSETS_CACHE": str(decoded)}


def train(photos: Path, out: Path, watcher: log.Callback | None = None, **changes: Any) -> Path:
    torch.set_num_threads(1)
    start = changes.pop("start", None)
    return loop.train(tiny(**changes), photos, out, device=CPU, callback=watcher, start=start)


def held_in(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def assert_equal_weights(a: Path, b: Path) -> None:
    one, two = held_in(a), held_in(b)
    assert one["step"] == two["step"]
    for part in ("net", "ema"):
        for name, value in one[part].items():
            assert torch.equal(value, two[part][name]), name


@pytest.mark.parametrize("kind", LOSSES)
def test_the_loss_is_the_same_for_the_same_relative_change_and_a_wrong_tone_weighs_less(kind):
    g = torch.Generator().manual_seed(0)
    clean = torch.rand(2, 3, 24, 24, generator=g)
    wave = torch.where(torch.rand(2, 3, 24, 24, generator=g) < 0.5, -1.0, 1.0)
    wave = wave - wave.mean(dim=(2, 3), keepdim=True)
    at = [float(restoration_loss(clean + size * wave, clean, kind)) for size in (0.3, 0.6, 1.2)]
    assert at[1] - at[0] == pytest.approx(at[2] - at[1], abs=0.05)  # a logarithm
    assert at[0] == pytest.approx(math.log(0.3), abs=0.1)
    assert float(restoration_loss(clean + 0.3, clean, kind)) == pytest.approx(math.log(0.3 / 4), abs=0.3)
    few = torch.zeros_like(clean)
    few[..., 0, 0] = 1  # one pixel far off: the square minds, the distance does not
    losses = [float(restoration_loss(clean + few, clean, each)) for each in LOSSES]
    assert losses[1] > losses[0] + 0.3


def test_a_run_learns_and_leaves_what_it_promises(photos, tmp_path):
    seen = Seen()
    changes = {"steps": 80, "rate": 5e-3, "weights": {"lowlight": 1.0}, "report_every": 20, "preview_every": 40}
    last = train(photos, tmp_path / "run", seen, **changes, keep=3, save_every=20)
    run, *logged = seen.lines
    assert run["pictures"] == 9 and run["held_out"] == 1 and run["skipped"] == 2
    assert [line["step"] for line in logged] == [20, 40, 60, 80]
    assert logged[-1]["loss"] < logged[0]["loss"] - 0.2
    assert logged[-1]["held_out/psnr"] > logged[1]["held_out/psnr"] + 0.5
    assert logged[-1]["held_out/psnr_gain"] > 0
    assert 0 <= logged[0]["waited"] <= 1 and logged[0]["samples_per_s"] > 0
    assert any("broken.png" in note for note in seen.notes) and "2 file(s) skipped" in seen.notes

    out = last.parent
    told = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in told] == [20, 40, 60, 80]
    assert told[1]["held_out/psnr"] == pytest.approx(logged[1]["held_out/psnr"], abs=1e-4)
    assert sorted(p.name for p in out.glob("*.pt")) == ["best.pt", "checkpoint.pt"] + [
        f"step-{n:08d}.pt" for n in (40, 60, 80)
    ]
    assert held_in(last)["step"] == 80
    assert held_in(out / "best.pt")["step"] in (40, 80)
    with Image.open(out / "curve.png") as curve, Image.open(out / "sheets" / "step-00000080.jpg") as sheet:
        assert curve.width == 900 and curve.height > 600  # a panel for the loss, and one for each held-out figure
        assert sheet.width > 3 * 40
    card = (out / "card.md").read_text()
    assert tiny(**changes, keep=3, save_every=20).sha256 in card
    assert f"{told[-1]['held_out/psnr']:.3f}" in card and "| CC0 | 9 |" in card and "| not stated | 1 |" in card


def test_an_interrupted_run_equals_one_that_was_not(photos, tmp_path):
    whole = train(photos, tmp_path / "a", steps=7)
    with pytest.raises(InterruptedRunError):
        train(photos, tmp_path / "b", Seen(fail_at=5), steps=7)
    assert held_in(tmp_path / "b" / "checkpoint.pt")["step"] == 3
    assert_equal_weights(whole, train(photos, tmp_path / "b", steps=7))
    steps = [json.loads(line)["step"] for line in (tmp_path / "b" / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6, 7]  # what was logged of steps that had to be done again is not there twice


def test_the_best_checkpoint_is_the_one_with_the_best_figure(photos, tmp_path, monkeypatch):
    real, figures = RestorerTask.preview, iter([1.0, 3.0, 2.0])

    def preview(self, net, held, made):
        found = real(self, net, held, made)
        return log.Preview({"psnr": next(figures)}, found.rows, found.titles, found.captions)

    monkeypatch.setattr(RestorerTask, "preview", preview)
    train(photos, tmp_path, steps=6, save_every=100, preview_every=2, keep=1)
    assert held_in(tmp_path / "best.pt")["step"] == 4
    assert held_in(tmp_path / "checkpoint.pt")["step"] == 6
    assert sorted(p.name for p in tmp_path.glob("step-*.pt")) == ["step-00000006.pt"]


def test_a_run_goes_on_only_by_its_own_recipe(photos, tmp_path):
    train(photos, tmp_path, steps=2)
    with pytest.raises(UsageError, match=r"rate: 0\.001 -> 0\.002"):
        train(photos, tmp_path, steps=4, rate=2e-3)
    assert held_in(train(photos, tmp_path, steps=4, report_every=3, keep=1))["step"] == 4


def test_a_run_starts_from_another(photos, tmp_path):
    first = train(photos, tmp_path / "a")
    begun = state.TrainState(training_task("restorer"), tiny(), CPU)
    begun.initialize_from(first)
    held = held_in(first)
    assert begun.step == 0
    assert all(torch.equal(v, held["ema"][k]) for k, v in begun.net.state_dict().items())
    exported = export.export(first, tmp_path / "a.safetensors")
    begun.initialize_from(exported)
    assert all(torch.allclose(v, held["ema"][k], atol=1e-3) for k, v in begun.net.state_dict().items())
    wider = tiny(model={**TINY["model"], "width": 16})
    with pytest.raises(UsageError, match="does not fit the network"):
        state.TrainState(training_task("restorer"), wider, CPU).initialize_from(exported)
    assert held_in(train(photos, tmp_path / "b", start=first, rate=1e-9))["ema"]["head.bias"].allclose(
        held["ema"]["head.bias"], atol=1e-6
    )


def test_checkpoints_of_the_first_version_are_exported_and_started_from(photos, tmp_path):
    held = held_in(train(photos, tmp_path / "a"))
    for name in ("row", "phase", "best", "data"):
        del held[name]
    for name in ("settings", "pairs", "hold", "group", "pool", "preview_every", "keep"):
        del held["recipe"][name]
    old = tmp_path / "b" / "checkpoint.pt"
    old.parent.mkdir()
    torch.save(held | {"taken": 8}, old)
    assert models.load(export.export(old, tmp_path / "old.safetensors")).info.name == "compact"
    assert held_in(train(photos, tmp_path / "c", start=old))["step"] == 6
    with pytest.raises(UsageError, match="older irtool") as caught:
        train(photos, tmp_path / "b")
    assert f"--start {old}" in caught.value.hint


def test_two_checkpoints_are_blended(photos, tmp_path):
    a = train(photos, tmp_path / "a", steps=2)
    b = train(photos, tmp_path / "b", steps=3, start=a)
    paths = [export.export(p, tmp_path / f"{p.parent.name}.safetensors") for p in (a, b)]
    paths.append(export.export(a, tmp_path / "c.safetensors", blend=b, share=0.25))
    one, two, mean = (load_file(p) for p in paths)
    assert any(not torch.equal(one[k], two[k]) for k in one)
    for k in one:
        torch.testing.assert_close(mean[k].float(), one[k].float().lerp(two[k].float(), 0.25), atol=1e-3, rtol=1e-2)
    haze = load_file(export.export(a, tmp_path / "h.safetensors", blend=paths[1], share=1, only="haze"))
    row = IDS.index("haze")
    for k in one:
        if k.endswith((".up", ".down")):
            torch.testing.assert_close(haze[k][row], two[k][row])
            others = torch.arange(len(IDS)) != row
            assert torch.equal(haze[k][others], one[k][others])
        else:
            assert torch.equal(haze[k], one[k])
    with pytest.raises(UsageError, match="no offsets of a task fog"):
        export.export(a, tmp_path / "d.safetensors", blend=b, only="fog")
    wider = train(photos, tmp_path / "w", steps=1, model={**TINY["model"], "width": 12})
    with pytest.raises(UsageError, match="another network"):
        export.export(a, tmp_path / "d.safetensors", blend=wider)
    with pytest.raises(UsageError, match="another network"):
        export.export(a, tmp_path / "d.safetensors", blend=wider, only="haze")


def test_a_task_learns_alone_and_no_other_changes(photos, tmp_path):
    first = export.export(train(photos, tmp_path / "a", steps=4), tmp_path / "a.safetensors")
    alone = {"settings": {"only": ["haze"]}, "weights": {"haze": 1.0, "mixed": 3.0}, "decay": 0.0}
    run = train(photos, tmp_path / "b", start=first, steps=6, **alone)
    second = export.export(run, tmp_path / "b.safetensors")
    one, two, row = load_file(first), load_file(second), IDS.index("haze")
    changed = {k for k in one if not torch.equal(one[k], two[k])}
    assert {k.rsplit(".", 1)[-1] for k in changed} == {"up", "down", "weight"}
    for k in changed:
        dim, place = (1, one[k].shape[1] - len(IDS) + row) if k == "embed.0.weight" else (0, row)
        assert k == "embed.0.weight" or k.endswith((".up", ".down"))
        others = torch.arange(one[k].shape[dim]) != place
        assert torch.equal(
            one[k].index_select(dim, others.nonzero()[:, 0]), two[k].index_select(dim, others.nonzero()[:, 0])
        )
    x = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    for task in ("noise", "rain", "haze"):
        a, b = (models.load(p).bind(Condition({task: 1.0})) for p in (first, second))
        same = torch.equal(*(bound.forward(*bound.prepare(x[None])) for bound in (a, b)))
        assert same == (task != "haze")


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"settings": {"only": ["fog"]}}, "only is a list of degradation ids"), ({"decay": 0.1}, "decay must be 0")],
)
def test_what_cannot_learn_alone_is_said(changes, told):
    with pytest.raises(UsageError, match=told):
        tiny(**{"settings": {"only": ["haze"]}, "decay": 0.0} | changes)


def test_exports_of_both_kinds_load(photos, tmp_path):
    target = export.export(train(photos, tmp_path / "a"), tmp_path / "r.safetensors", {"licence": "Apache-2.0"})
    expert = models.load(target).bind(Condition({"noise": 1.0}))
    assert expert.forward(*expert.prepare(torch.rand(1, 3, 16, 16))).shape == (1, 3, 16, 16)
    detector = {
        "kind": "detector",
        "model": {"widths": [16, 16], "hidden": 8},
        "phases": [{"until": 1.0, "crop": 48, "batch": 8}],
        "steps": 2,
    }
    seen = Seen()
    last = train(photos, tmp_path / "d", seen, **detector)
    assert 0 <= seen.lines[-1]["held_out/label_right"] <= 1
    target = export.export(last, tmp_path / "d.safetensors", {"thresholds": '{"noise": 0.7}'})
    loaded = load_detector(target, CPU)
    assert loaded.thresholds["noise"] == 0.7
    assert loaded.thresholds["rain"] == 0.5
    assert list(loaded.diagnose(torch.rand(3, 70, 50)).scores) == list(IDS)
    with pytest.raises(UsageError, match="no checkpoint"):
        export.export(target, tmp_path / "x.safetensors")


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_nan_stops_the_run_and_keeps_the_last_checkpoint(photos, tmp_path, monkeypatch, what):
    real = RestorerTask.loss

    def bad(self, net, batch, made, generator, step):
        loss, figures = real(self, net, batch, made, generator, step)
        if step == 4:
            # The square root of nothing is well, its slope is not.
            loss = loss * float("nan") if what == "loss" else loss + (net.head.bias.sum() * 0).sqrt()
        return loss, figures

    monkeypatch.setattr(RestorerTask, "loss", bad)
    with pytest.raises(IrtoolError, match="at step 4") as caught:
        train(photos, tmp_path)
    assert str(tmp_path / "checkpoint.pt") in caught.value.hint
    held = held_in(tmp_path / "checkpoint.pt")
    assert held["step"] == 3 and all(v.isfinite().all() for v in held["net"].values())
    monkeypatch.setattr(RestorerTask, "loss", real)
    assert held_in(train(photos, tmp_path))["step"] == 6


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """What the disk does when it is full: a write ends in the middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(photos, tmp_path):
    # Samples travel between processes through files in memory: these must stay below the limit.
    small = {"region": 16, "phases": [{"until": 1.0, "crop": 16, "batch": 8}], "preview_every": 1000}
    whole = train(photos, tmp_path / "a", **small, steps=9)
    with pytest.raises(InterruptedRunError):
        train(photos, tmp_path / "b", Seen(fail_at=7), **small, steps=9)
    last = tmp_path / "b" / "checkpoint.pt"
    before = last.read_bytes()
    with no_file_larger_than(len(before) * 3 // 4), pytest.raises(IrtoolError, match="step 9 cannot be written") as no:
        train(photos, tmp_path / "b", **small, steps=9)
    assert str(last) in no.value.hint and last.read_bytes() == before
    assert not list((tmp_path / "b").glob(".*"))
    assert_equal_weights(whole, train(photos, tmp_path / "b", **small, steps=9))
    (tmp_path / "c").write_text("no folder")
    with pytest.raises(IrtoolError, match="cannot write"):
        train(photos, tmp_path / "c", **small)


def command(photos: Path, out: Path, **changes: Any) -> list[str]:
    """The command that runs the tiny recipe."""

    def toml(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k} = {toml(v)}" for k, v in value.items()) + "}"
        return "[" + ", ".join(map(toml, value)) + "]" if isinstance(value, list) else json.dumps(value)

    every = [f"{k}={toml(v)}" for k, v in {**TINY, **changes}.items()]
    arguments = ["train", "--recipe", "default", "--data", str(photos), "--out", str(out), "--device", "cpu"]
    return [sys.executable, "-m", "irtool", *arguments, "--threads", "1", *every, "clip=1.0", "decay=0.0"]


def reached(out: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Wait until the log of a run tells of a step."""
    ending = time.monotonic() + 120
    while time.monotonic() < ending:
        lines = log.read(out / "log.jsonl")
        if lines and lines[-1]["step"] >= step:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    raise AssertionError(f"step {step} was not reached")


QUICK = {"region": 32, "weights": {"noise": 1.0, "clean": 0.5}}  # data that take no time to make
LONG = {"steps": 120, "save_every": 10, "report_every": 5, "preview_every": 90, **QUICK}


def test_killed_and_stopped_at_any_moment_a_run_ends_with_the_same_weights(photos, tmp_path, environment):
    out, whole = tmp_path / "b", train(photos, tmp_path / "a", **LONG)
    for number, after in ((signal.SIGKILL, 25), (signal.SIGINT, 60)):
        with subprocess.Popen(
            command(photos, out, **LONG), env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            reached(out, after, process)
            process.send_signal(number)
            said = process.communicate(timeout=60)[1]
        if number == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
        else:
            assert process.returncode == 130, said
            assert "saved at step" in said and "Traceback" not in said
            assert f"step {after}" in said
    assert 60 <= held_in(out / "checkpoint.pt")["step"] < 120
    assert_equal_weights(whole, train(photos, out, **LONG))


def test_asked_to_end_a_run_saves_where_it_is(photos, tmp_path):
    class Asks(Seen):
        def step(self, step: int, progress: float) -> None:
            if step == 4:
                os.kill(os.getpid(), signal.SIGTERM)

    before, seen = signal.getsignal(signal.SIGTERM), Asks()
    with pytest.raises(KeyboardInterrupt):
        train(photos, tmp_path, seen, steps=7)
    ended = held_in(tmp_path / "checkpoint.pt")["step"]
    assert ended in (4, 5) and f"saved at step {ended}; the same command goes on from there" in seen.notes
    assert signal.getsignal(signal.SIGTERM) is before
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop
        with pytest.raises(KeyboardInterrupt):  # who asks twice does not want to wait
            os.kill(os.getpid(), signal.SIGINT)


def process_of(launcher: int, rank: int) -> int:
    """The process that a launcher has started as `rank`, found by what it was told."""
    ending = time.monotonic() + 120
    while time.monotonic() < ending:
        for place in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
                told = (place / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if parent == launcher and f"RANK={rank}".encode() in told:
                return int(place.name)
        time.sleep(0.05)
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.skipif(sys.platform != "linux", reason="finds the process to kill in /proc")
def test_two_processes_have_the_loss_of_one_and_a_lost_one_ends_the_run(photos, tmp_path, environment):
    steps = {"steps": 120, "save_every": 10, "report_every": 5, "preview_every": 100, **QUICK}
    alone = train(photos, tmp_path / "a", **steps)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        [sys.executable, *launcher, *command(photos, tmp_path / "b", **steps)], env=environment, **pipes
    ) as launched:
        reached(tmp_path / "b", 60, launched)
        os.kill(process_of(launched.pid, 1), signal.SIGKILL)
        said = launched.communicate(timeout=60)[1]
    assert launched.returncode == 1, said
    assert "A process of the run has gone" in said and "goes on from the last checkpoint" in said, said
    assert "a bug in irtool" not in said and "processes 2" in said
    assert said.count("step 55") == 1  # told by one of them

    def losses(out: Path) -> dict[int, float]:
        return {line["step"]: line["loss"] for line in log.read(out / "log.jsonl")}

    # The samples do not depend on the number of processes, so it may also go on in one.
    lost = held_in(tmp_path / "b" / "checkpoint.pt")["step"]
    assert 60 <= lost < 120
    resumed = train(photos, tmp_path / "b", **steps)
    one, two = losses(tmp_path / "a"), losses(tmp_path / "b")
    assert list(one) == list(two)
    # fp32: sums over a batch in another order. The lines agree at first to the last digit kept; rounding then drifts.
    assert max(abs(one[s] - two[s]) for s in list(one)[:4]) <= 2e-5
    assert max(abs(one[s] - two[s]) for s in one) < 2e-3
    weights = zip(held_in(alone)["ema"].values(), held_in(resumed)["ema"].values(), strict=True)
    assert max(float((a - b).abs().max()) for a, b in weights) < 2e-3


def test_a_batch_that_cannot_be_shared_is_told(photos):
    with pytest.raises(UsageError, match="batch 4 cannot be shared by 8"):
        loop.require_divisible(tiny(), 8)
    with pytest.raises(UsageError, match="groups of a pool"):
        loop.require_divisible(tiny(group=16), 4)
    loop.require_divisible(tiny(), ProcessGroup(0, 4, CPU).world_size)


def test_tensorboard_is_written_or_named_as_missing(photos, tmp_path):
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(UnavailableError, match="not installed") as caught:
            log.TrainingLog(tmp_path, 0, tensorboard=True)
        assert "irtool[tensorboard]" in caught.value.hint
        return
    loop.train(tiny(), photos, tmp_path, device=CPU, tensorboard=True)
    written = list((tmp_path / "tensorboard").glob("events.*"))
    assert len(written) == 1 and written[0].stat().st_size > 1000


def test_rates_and_phases():
    made = tiny(warmup=10, rate=1.0)
    assert loop.rate_of(made, 0, 0.0) == pytest.approx(0.1)
    assert loop.rate_of(made, 20, 0.5) == pytest.approx(0.505)
    assert loop.rate_of(made, 20, 1.0) == pytest.approx(0.01)
    assert [loop.phase_of(made, p) for p in (0.0, 0.49, 0.5, 1.0)] == [0, 0, 1, 1]


def test_the_clock_ends_a_run_by_minutes(photos, tmp_path):
    before = time.monotonic()
    held = held_in(train(photos, tmp_path, minutes=0.01))
    assert held["seconds"] >= 0.6 and time.monotonic() - before < 30
    assert (tmp_path / "checkpoint.pt").samefile(max(tmp_path.glob("step-*.pt")))


def test_curves(tmp_path):
    from irtool.training.curve import chart, ticks

    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(-3.1, -2.6) == pytest.approx([-3.1, -3.0, -2.9, -2.8, -2.7, -2.6])
    blank = chart({"nothing": {"one point": [(1, 1)]}})
    assert (blank == 255).all()
    drawn = chart({"loss": {"a": [(0, 1), (5, float("nan")), (10, 0.5)], "b": [(0, 2), (10, 2)]}}, (400, 200))
    assert drawn.shape == (200, 400, 3)
    blue, red = ((drawn == np.array(color)).all(-1) for color in ((31, 119, 180), (214, 39, 40)))
    assert blue.sum() > 200 and red.sum() > 200
    rows = np.nonzero(blue[:, 71:240])[0]
    assert rows.max() - rows.min() > 30  # it falls
    rows = np.nonzero(red[:, 71:240])[0]
    assert rows.max() - rows.min() <= 2  # it does not
