"""Speed and memory of the shipped model, printed as markdown.

    python benchmarks/speed.py [--device cpu|cuda] [--threads N] [--out benchmarks/speed.md]

Ratios are of runs in one process on one machine, alternating, the median of each; a plain NAFNet-32 in float32 is the
yardstick. Peak memory is what a fresh `irtool restore` process on a JPEG reports.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from plain_nafnet import NAFNet
from publish import publish

from irtool import engine, models
from irtool.models.base import Condition

ASSET = Path(models.__file__).parent.parent / "assets" / "irtool-small.v1.safetensors"


def seconds(call: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def photo(height: int, width: int, path: Path) -> None:
    """A picture with the statistics of one: smooth shapes and fine noise."""
    g = torch.Generator().manual_seed(0)
    coarse = torch.nn.functional.interpolate(torch.rand(1, 3, 40, 60, generator=g), (height, width), mode="bicubic")[0]
    pixels = (coarse + 0.03 * torch.randn(coarse.shape, generator=g)).clamp(0, 1).permute(1, 2, 0)
    from PIL import Image

    Image.fromarray((pixels.numpy() * 255).astype(np.uint8)).save(path, quality=92)


def peak_of(arguments: list[str]) -> tuple[float, float]:
    """Peak memory in MiB as the process itself reports it, and wall-clock seconds, of a fresh process."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "irtool", *arguments, "--json"], stdout=subprocess.PIPE, check=True)
    record = json.loads(done.stdout.splitlines()[0])
    return record["peak_bytes"] / 2**20, time.perf_counter() - start


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

    entries = {
        "irtool-small.v1, --dtype auto": ours("auto"),
        "irtool-small.v1, fp32": ours("fp32"),
        "plain NAFNet-32, fp32": yardstick,
    }
    times: dict[str, list[float]] = {name: [] for name in entries}
    for count in range(rounds + 1):
        for name, call in entries.items():
            elapsed = seconds(call, device)
            if count:  # the first round warms up
                times[name].append(elapsed)
    base = statistics.median(times["plain NAFNet-32, fp32"])
    lines = [
        "| network, 1024x1024 | seconds, median (min to max) | MP/s | times as fast as plain NAFNet-32 |",
        "|---|---|---|---|",
    ]
    for name, elapsed in times.items():
        mid = statistics.median(elapsed)
        spread = f"{min(elapsed):.3f} to {max(elapsed):.3f}"
        lines.append(f"| {name} | {mid:.3f} ({spread}) | {1.048576 / mid:.2f} | {base / mid:.1f} |")
    return lines


def whole_process(device: str) -> list[str]:
    lines = ["| `irtool restore`, fresh process | seconds | peak memory, MiB |", "|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for name, (h, w) in {"1 MP JPEG": (832, 1248), "12 MP JPEG": (3000, 4000)}.items():
            source = Path(folder) / f"{h}.jpg"
            photo(h, w, source)
            denoise = ["--task", "denoise"]
            ways = [denoise, ["--task", "deblur"]] + ([[*denoise, "--max-memory", "1200MB"]] if h > 1000 else [])
            for way in ways:
                peak, elapsed = peak_of(
                    [
                        "restore",
                        str(source),
                        "-o",
                        str(Path(folder) / "out.jpg"),
                        "--existing",
                        "overwrite",
                        "--device",
                        device,
                        *way,
                    ]
                )
                lines.append(f"| {name} {' '.join(way)} | {elapsed:.1f} | {peak:.0f} |")
    return lines


def start_up(rounds: int) -> list[str]:
    lines = ["| command | seconds, median (min to max) | times `python -c pass` |", "|---|---|---|"]
    commands = {
        "python -c pass": ["-c", "pass"],
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
    base = statistics.median(times["python -c pass"])
    for name, elapsed in times.items():
        mid = statistics.median(elapsed)
        lines.append(f"| `{name}` | {mid:.3f} ({min(elapsed):.3f} to {max(elapsed):.3f}) | {mid / base:.1f} |")
    return lines


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
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = engine.pick_device(args.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    dtype = str(engine.pick_dtype("auto", device)).removeprefix("torch.")
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
        *whole_process(args.device),
        "",
        *start_up(2 * args.rounds),
    ]
    publish(lines, args.out)


if __name__ == "__main__":
    main()
