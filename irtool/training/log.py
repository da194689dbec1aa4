"""Logging of a run: log.jsonl, curve.png, sheets, TensorBoard."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UnavailableError
from ..fileio import atomic_write
from ..picture import Picture, encode, sheet
from .curve import chart
from .tasks import Preview


class Callback:
    """Callbacks of a run; these do nothing. The command line draws a progress bar."""

    def step(self, step: int, progress: float) -> None:
        """A step is done; `progress` is the share of the run that is."""

    def line(self, line: Mapping[str, Any]) -> None:
        """A line of the log."""

    def note(self, text: str) -> None:
        """A remark for people."""


class Meter:
    """Measurements between two lines of the log.

    Losses and figures stay on the device until a line is due, so that no step waits for them.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._clock = self._sampled = time.monotonic()
        self._clear()

    def _clear(self) -> None:
        self.losses: list[Tensor] = []
        self.figures: list[tuple[Sequence[str], dict[str, Tensor]]] = []
        self.samples, self.data_seconds, self.seconds = 0, 0.0, 0.0
        self._busy: list[float] = []
        self._checked = 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Measures the time spent waiting for data."""
        before = time.monotonic()
        yield
        self.data_seconds += time.monotonic() - before

    def add(self, loss: Tensor, figures: Mapping[str, Tensor], names: Sequence[str]) -> None:
        """Add a step: its loss, and metrics by name, scalars or (N,) for samples called `names`."""
        self.losses.append(loss)
        self.figures.append((names, {k: v.detach() for k, v in figures.items()}))
        self.samples += len(names)

    def lap(self) -> float:
        """Seconds since the last call."""
        now = time.monotonic()
        seconds, self._clock = now - self._clock, now
        self.seconds += seconds
        if self.device.type == "cuda" and now - self._sampled > 1:
            self._sampled = now
            # The driver's own figure, where the package that asks for it is installed.
            with contextlib.suppress(ModuleNotFoundError, RuntimeError):
                self._busy.append(torch.cuda.utilization(self.device))
        return seconds

    def not_finite(self) -> int | None:
        """How many steps ago the loss first was not finite; None where all are."""
        for i, loss in enumerate(self.losses[self._checked :], self._checked):
            if not math.isfinite(float(loss)):
                return len(self.losses) - i
        self._checked = len(self.losses)
        return None

    def take(self) -> dict[str, list[float]]:
        """[sum, count] of the loss and of each figure, also by the samples' names ("psnr/noise"); begins anew."""
        sums: dict[str, list[float]] = {}
        _add(sums, "loss", [float(loss) for loss in self.losses])
        for names, figures in self.figures:
            for key, value in figures.items():
                numbers = value.float().reshape(-1).tolist()
                _add(sums, key, numbers)
                if value.ndim and len(numbers) == len(names):
                    for name, number in zip(names, numbers, strict=True):
                        if "+" not in name:
                            _add(sums, f"{key}/{name}", [number])
        _add(sums, "waited", [self.data_seconds / max(self.seconds, 1e-9)])
        _add(sums, "samples_per_s", [self.samples / max(self.seconds, 1e-9)])
        if self._busy:
            _add(sums, "gpu_busy", [sum(self._busy) / len(self._busy) / 100])
        self._clear()
        return sums


def _add(sums: dict[str, list[float]], key: str, numbers: Sequence[float]) -> None:
    entry = sums.setdefault(key, [0.0, 0.0])
    entry[0], entry[1] = entry[0] + sum(numbers), entry[1] + len(numbers)


def means(shares: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """Means over the processes, from what each one's `Meter.take` gave; samples per second are added up."""
    total: dict[str, list[float]] = {}
    for sums in shares:
        for key, (value, count) in sums.items():
            entry = total.setdefault(key, [0.0, 0.0])
            entry[0], entry[1] = entry[0] + value, entry[1] + count
    mean = {key: value / count for key, (value, count) in total.items() if count}
    mean["samples_per_s"] = total["samples_per_s"][0]
    ordered = ("loss", "waited", "samples_per_s", "gpu_busy")
    return {k: mean[k] for k in (*(o for o in ordered if o in mean), *sorted(set(mean) - set(ordered)))}


class TrainingLog:
    """Writes the log, the curves and the sheets of a run.

    Args:
        out: folder of the run.
        step: the current step; lines of later steps are dropped, since they will be written again.
        tensorboard: also write event files.

    Raises:
        UnavailableError: TensorBoard is asked for and not installed.
    """

    def __init__(self, out: Path, step: int, *, tensorboard: bool = False) -> None:
        self.out = out
        self.path = out / "log.jsonl"
        self.lines = [line for line in read(self.path) if line["step"] <= step]
        atomic_write(self.path, "".join(json.dumps(line) + "\n" for line in self.lines).encode())
        self.board = _board(out) if tensorboard else None

    def add(self, line: Mapping[str, Any]) -> None:
        """One line of the log, which holds "step"."""
        rounded = {k: round(v, 5) if isinstance(v, float) else v for k, v in line.items()}
        self.lines.append(rounded)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounded) + "\n")
        if self.board is not None:
            for key, value in rounded.items():
                if key != "step" and isinstance(value, (int, float)):
                    self.board.add_scalar(key, value, rounded["step"])

    def show(self, preview: Preview, step: int) -> None:
        """The sheet of a preview."""
        if preview.rows:
            drawn = sheet(preview.rows, titles=preview.titles, captions=preview.captions, cell=(240, 240))
            _write_picture(self.out / "sheets" / f"step-{step:08d}.jpg", drawn)
            if self.board is not None:
                self.board.add_image("held out", drawn, step, dataformats="HWC")

    def draw(self) -> None:
        """curve.png: the loss, and the figures in training and held out."""
        panels: dict[str, dict[str, list[tuple[float, float]]]] = {"loss": {"loss": self._curve("loss")}}
        names = [k for line in self.lines for k in line if k.startswith("held_out/") and k.count("/") == 1]
        for name in dict.fromkeys(names):
            plain = name.removeprefix("held_out/")
            curves = {"training": self._curve(plain), "held out": self._curve(name)}
            panels[plain] = {n: c for n, c in curves.items() if c}
        _write_picture(self.out / "curve.png", chart(panels))

    def _curve(self, key: str) -> list[tuple[float, float]]:
        return [(line["step"], line[key]) for line in self.lines if isinstance(line.get(key), (int, float))]

    def close(self) -> None:
        """Finish the event files."""
        if self.board is not None:
            self.board.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; one that was cut short by a crash is left out."""
    lines = []
    if path.is_file():
        for text in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                if isinstance(line, dict) and math.isfinite(line.get("step", math.nan)):
                    lines.append(line)
    return lines


def _write_picture(path: Path, drawn: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "JPEG" if path.suffix == ".jpg" else "PNG"
    atomic_write(path, encode(Picture(drawn.astype("float32") / 255), kind))


def _board(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UnavailableError(
            "TensorBoard is not installed.", "pip install 'irtool[tensorboard]'; or leave --tensorboard out."
        ) from error
    return SummaryWriter(str(out / "tensorboard"))
