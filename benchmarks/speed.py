"""Speed and memory of the shipped model, printed as markdown.

    python benchmarks/speed.py [--device cpu|cuda] [--threads N] [--before TREE] [--out benchmarks/speed.md]
    python benchmarks/speed.py --profile 1|12

Ratios are of runs in one process on one machine, alternating, the median of each; a plain NAFNet-32 is the yardstick,
in float32 as it is written and in bfloat16 with channels last. The share of the peak is that of a product of two
2048 x 2048 matrices in the same type in the same run. "Beside a busy loop" is with one process that computes without
end. Peak memory is what a fresh `irtool restore` process on a JPEG reports. With --before, whole processes of another
source tree are timed in turns with this one's. --profile prints where the time of one whole command goes.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import io
import json
import os
import platform
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the command line does, before torch is imported

import numpy as np
import torch
from plain_nafnet import NAFNet
from publish import publish

from irtool import engine, models
from irtool.models.base import Condition

PLAIN_GMACS = 195
"""Multiply-accumulates of the plain NAFNet-32 a megapixel, in 1e9."""
SAMPLE = Path(__file__).parents[1] / "docs" / "samples" / "noise.jpg"
ASSET = Path(models.__file__).parent.parent / "assets" / "irtool-small.v3.safetensors"


def seconds(call: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def photo(height: int, width: int, path: Path) -> None:
    """A photograph: the noisy sample of the documentation, repeated by reflection."""
    from PIL import Image

    pixels = np.asarray(Image.open(SAMPLE))[:height, :width]
    repeated = np.pad(pixels, ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)), mode="symmetric")
    Image.fromarray(repeated).save(path, quality=92)


@contextlib.contextmanager
def busy_loop() -> Iterator[None]:
    """One process beside us that computes without end."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def peak_of(arguments: list[str], tree: Path | None = None) -> tuple[float, float]:
    """Peak memory in MiB as the process itself reports it, and wall-clock seconds, of a fresh process."""
    start = time.perf_counter()
    tree = tree or Path(models.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    command = [sys.executable, "-m", "irtool", *arguments, "--json"]
    # `-m` looks in the working directory first.
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment, cwd=tree)
    record, *_, summary = (json.loads(line) for line in done.stdout.splitlines())
    peak = record["peak_bytes"] or summary.get(
        "peak_resident_bytes", 0
    )  # where nothing was restored, nothing was measured
    return peak / 2**20, time.perf_counter() - start


def throughput(device: torch.device, rounds: int) -> list[str]:
    bound = models.load(ASSET).bind(Condition({"noise": 1.0}))
    plain = NAFNet().eval().to(device)
    x = torch.rand(3, 1024, 1024, generator=torch.Generator().manual_seed(0))
    on_device = x[None].to(device)

    def ours(dtype: str) -> Callable[[], object]:
        return lambda: engine.run(bound, x, device=device, dtype=dtype, tile="auto")

    def yardstick() -> object:
        with torch.inference_mode():
            return plain(on_device).cpu()

    fast = NAFNet().eval().to(device, torch.bfloat16, memory_format=torch.channels_last)
    fast_input = on_device.to(torch.bfloat16, memory_format=torch.channels_last)

    def fast_yardstick() -> object:
        with torch.inference_mode():
            return fast(fast_input).cpu()

    def product(dtype: torch.dtype) -> Callable[[], object]:
        matrix = torch.rand(2048, 2048).to(device, dtype)
        return lambda: matrix @ matrix

    macs = models.load(ASSET).info.gmacs_per_megapixel * 1.048576
    plain_macs = PLAIN_GMACS * 1.048576
    entries: dict[str, tuple[Callable[[], object], float, str]] = {
        "irtool-small.v3, bf16": (ours("bf16"), macs, "bf16"),
        "irtool-small.v3, fp32": (ours("fp32"), macs, "fp32"),
        "plain NAFNet-32, fp32": (yardstick, plain_macs, "fp32"),
        "plain NAFNet-32, bf16, channels last": (fast_yardstick, plain_macs, "bf16"),
        "product, fp32": (product(torch.float32), 2048**3 / 1e9, "fp32"),
        "product, bf16": (product(torch.bfloat16), 2048**3 / 1e9, "bf16"),
    }
    times = _alternated({name: call for name, (call, _, _) in entries.items()}, rounds, device)
    with busy_loop():
        beside = _alternated({name: call for name, (call, _, _) in list(entries.items())[:2]}, rounds, device)
    median = {name: statistics.median(elapsed) for name, elapsed in times.items()}
    peak = {kind: entries[f"product, {kind}"][1] / median[f"product, {kind}"] for kind in ("fp32", "bf16")}
    base = median["plain NAFNet-32, fp32"]
    lines = [
        "| network, 1024x1024 | GMACs | seconds, median (min to max) | MP/s | times plain NAFNet-32, fp32 "
        "| share of peak | beside a busy loop |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, elapsed in list(times.items())[:4]:
        mid, (_, work, kind) = median[name], entries[name]
        spread = f"{min(elapsed):.3f} to {max(elapsed):.3f}"
        slower = f"{statistics.median(beside[name]) / mid:.2f} times as long" if name in beside else ""
        lines.append(
            f"| {name} | {work:.0f} | {mid:.3f} ({spread}) | {1.048576 / mid:.2f} | {base / mid:.1f} "
            f"| {work / mid / peak[kind]:.2f} | {slower} |"
        )
    lines += ["", f"The peak: {2 * peak['fp32']:.0f} GFLOP/s in float32, {2 * peak['bf16']:.0f} in bfloat16."]
    return lines


def _alternated(entries: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each call in each round, in turns; a first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in entries}
    for count in range(rounds + 1):
        for name, call in entries.items():
            elapsed = seconds(call, device)
            if count:
                times[name].append(elapsed)
    return times


def whole_process(device: str, before: Path | None, rounds: int) -> list[str]:
    lines = [
        "| `irtool restore`, fresh process | seconds | peak memory, MiB | times as fast as before |",
        "|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name, (h, w) in {"1 MP JPEG": (832, 1248), "12 MP JPEG": (3000, 4000)}.items():
            source = Path(folder) / f"{h}.jpg"
            photo(h, w, source)
            denoise = ["--task", "denoise"]
            ways: list[tuple[list[str], bool]] = [(denoise, False), (["--task", "deblur"], False), (["--auto"], False)]
            ways += [(denoise, True)]
            if h > 1000:
                ways += [([*denoise, "--max-memory", "1200MB"], False)]
            for way, busy in ways:
                target = str(Path(folder) / "out.jpg")
                arguments = ["restore", str(source), "-o", target, "--existing", "overwrite", "--device", device, *way]
                runs: dict[Path | None, list[tuple[float, float]]] = {tree: [] for tree in {None, before}}
                with busy_loop() if busy else contextlib.nullcontext():
                    for _ in range(rounds):
                        for tree, seen in runs.items():
                            seen.append(peak_of(arguments, tree))
                peak = max(peak for peak, _ in runs[None])
                elapsed = statistics.median(elapsed for _, elapsed in runs[None])
                gain = ""
                if before is not None:
                    gain = f"{statistics.median(elapsed for _, elapsed in runs[before]) / elapsed:.1f}"
                beside = ", beside a busy loop" if busy else ""
                lines.append(f"| {name} {' '.join(way)}{beside} | {elapsed:.1f} | {peak:.0f} | {gain} |")
    return lines


def start_up(rounds: int) -> list[str]:
    lines = [
        "| command | seconds, median (min to max) | times `python -c pass` | times `import torch` |",
        "|---|---|---|---|",
    ]
    folder = tempfile.TemporaryDirectory()
    photo(256, 384, small := Path(folder.name) / "small.jpg")
    target = str(Path(folder.name) / "out.jpg")
    commands = {
        "python -c pass": ["-c", "pass"],
        "python -c 'import torch'": ["-c", "import torch"],
        "irtool restore small.jpg (0.1 MP)": [
            "-m",
            "irtool",
            "restore",
            str(small),
            "-o",
            target,
            "--existing",
            "overwrite",
        ],
        "irtool --version": ["-m", "irtool", "--version"],
        "irtool --help": ["-m", "irtool", "--help"],
        "irtool models": ["-m", "irtool", "models"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for count in range(rounds + 1):
        for name, arguments in commands.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            if count:
                times[name].append(time.perf_counter() - start)
    folder.cleanup()
    base, torch_alone = (statistics.median(times[n]) for n in ("python -c pass", "python -c 'import torch'"))
    for name, elapsed in times.items():
        mid = statistics.median(elapsed)
        spread = f"{min(elapsed):.3f} to {max(elapsed):.3f}"
        lines.append(f"| `{name}` | {mid:.3f} ({spread}) | {mid / base:.1f} | {mid / torch_alone:.2f} |")
    return lines


def profile(megapixels: int) -> None:
    """Print the functions that one whole command spends the time of the processor in, imports included."""
    from irtool.cli import main as irtool_main

    with tempfile.TemporaryDirectory() as folder:
        photo(*({1: (832, 1248), 12: (3000, 4000)}[megapixels]), source := Path(folder) / "in.jpg")
        profiler = cProfile.Profile(time.process_time)
        with contextlib.redirect_stdout(io.StringIO()):
            profiler.runcall(irtool_main, ["restore", str(source), "-o", str(Path(folder) / "out.jpg"), "--auto"])
    pstats.Stats(profiler).sort_stats("cumulative").print_stats(r"irtool|\{built-in method torch", 60)


def load_times() -> list[str]:
    start = time.perf_counter()
    restorer = models.load(ASSET)
    middle = time.perf_counter()
    restorer.bind(Condition({"noise": 1.0}))
    return [f"Loading the weights took {middle - start:.2f} s, merging a task {time.perf_counter() - middle:.2f} s."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path, help="another source tree, to compare whole processes with")
    parser.add_argument("--profile", type=int, choices=(1, 12), help="megapixels of a picture to profile instead")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.profile:
        profile(args.profile)
        return
    if args.threads:
        torch.set_num_threads(args.threads)
    device = engine.pick_device(args.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    dtype = str(engine.pick_dtype("auto", device, probe=True)).removeprefix("torch.")
    capability = models.load(ASSET).info
    lines = [
        "# Speed and memory",
        "",
        f"Printed by `python benchmarks/speed.py --device {args.device}`; {where}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, --dtype auto is {dtype}.",
        "",
        f"The shipped network: {capability.parameters / 1e6:.2f} M parameters with the offsets of all tasks, "
        f"{capability.gmacs_per_megapixel:.0f} GMACs per megapixel.",
        "",
        *throughput(device, args.rounds),
        "",
        *load_times(),
        "",
        *whole_process(args.device, args.before, max(1, args.rounds // 2)),
        "",
        *start_up(2 * args.rounds),
    ]
    publish(lines, args.out)


if __name__ == "__main__":
    main()
