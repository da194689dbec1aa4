"""Throughput of a folder against the number of processes and of pictures, printed as markdown with a plot.

    python benchmarks/scale.py [--jobs 1 2 4] [--pictures 50 200] [--side 256] [--out benchmarks/scale.md]

Every figure is of one whole command, `irtool restore FOLDER --task denoise --jobs N`, with its start; the pictures are
PNG of noise on a ramp. The plot is an SVG beside the page.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from publish import publish

from irtool import cores

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


def pictures(folder: Path, count: int, side: int) -> None:
    """Write `count` noisy pictures."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(60, 190, side)[None, :, None]
    folder.mkdir()
    for i in range(count):
        pixels = (ramp + rng.normal(0, 25, (side, side, 3))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:05}.png", compress_level=1)


def seconds(folder: Path, jobs: int) -> float:
    """Wall-clock time of one command."""
    with tempfile.TemporaryDirectory() as target:
        command = ["restore", str(folder), "-o", target, "--task", "denoise", "--jobs", str(jobs), "-q"]
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "irtool", *command], check=True)
        return time.perf_counter() - start


def plot(rates: dict[int, dict[int, float]], path: Path) -> None:
    """An SVG of pictures a second against pictures, a line for each number of processes."""
    width, height, left, bottom = 480, 280, 56, 40
    counts = sorted({count for by_count in rates.values() for count in by_count})
    top = max(rate for by_count in rates.values() for rate in by_count.values()) * 1.1

    def x(count: int) -> float:
        return left + (width - left - 90) * (counts.index(count) / max(1, len(counts) - 1))

    def y(rate: float) -> float:
        return height - bottom - (height - bottom - 20) * rate / top

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="14">pictures a second</text>',
    ]
    parts += [f'<text x="{x(c):.0f}" y="{height - 20}" text-anchor="middle">{c}</text>' for c in counts]
    parts += [
        f'<text x="{left - 6}" y="{y(top * share):.0f}" text-anchor="end">{top * share:.1f}</text>'
        for share in (0, 0.25, 0.5, 0.75)
    ]
    for (jobs, by_count), color in zip(rates.items(), COLORS, strict=False):
        points = " ".join(f"{x(count):.1f},{y(rate):.1f}" for count, rate in sorted(by_count.items()))
        last = max(by_count)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        label = f"{jobs} process{'es' if jobs > 1 else ''}"
        parts.append(f'<text x="{x(last) + 6:.0f}" y="{y(by_count[last]) + 4:.0f}" fill="{color}">{label}</text>')
    path.write_text("\n".join([*parts, f'<text x="{left}" y="{height - 4}">pictures in the folder</text>', "</svg>\n"]))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--pictures", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--out", type=Path)
    told = parser.parse_args(arguments)
    rates: dict[int, dict[int, float]] = {jobs: {} for jobs in told.jobs}
    lines = [
        "# Throughput of folders",
        "",
        f"Printed by `python benchmarks/scale.py`; {cores.usable()} cores, load of the machine before it "
        f"{os.getloadavg()[0]:.1f}; pictures of {told.side} x {told.side}.",
        "",
        "| pictures | processes | seconds | pictures a second | times one process |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as work:
        for count in told.pictures:
            pictures(folder := Path(work) / str(count), count, told.side)
            for jobs in told.jobs:
                elapsed = seconds(folder, jobs)
                rates[jobs][count] = count / elapsed
                gain = rates[jobs][count] / rates[told.jobs[0]][count]
                lines.append(f"| {count} | {jobs} | {elapsed:.1f} | {count / elapsed:.2f} | {gain:.2f} |")
    if told.out is not None:
        plot(rates, told.out.with_suffix(".svg"))
        lines += ["", f"![pictures a second]({told.out.with_suffix('.svg').name})"]
    publish(lines, told.out)


if __name__ == "__main__":
    main()
