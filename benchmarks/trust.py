"""Damaged and hostile picture files, counted; printed to benchmarks/trust.md.

    python benchmarks/trust.py --files 10000

Every sample of tests/test_picture_fuzz.py (all formats, depths and kinds of metadata) is damaged in one to three ways,
decoded, and what is read is written to a file in a format in turn and read again. A worker does 250 files; its memory
is looked at after each, and one that says nothing for a minute of its own time, or a quarter of an hour, counts as a
hang. The bombs of tests/test_memory.py come in processes of their own. Kills, full disks and hubs are counted by
benchmarks/trust_hub.py.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import queue
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from test_memory import BOMBS, measured  # noqa: E402
from test_picture_fuzz import VALID, damaged  # noqa: E402

from irtool.errors import PictureError, UnavailableError  # noqa: E402
from irtool.memory import Budget, peak_resident_bytes, resident_bytes  # noqa: E402
from irtool.picture import read, write  # noqa: E402

BATCH, PATIENCE, WAIT = 250, 60.0, 900.0
TARGETS = ("png", "jpg", "tif", "webp", "bmp")
ROOM = 150 << 20
"""What a file of some kilobytes may take beyond what the interpreter and its libraries do."""


def work(first: int, folder: str, told: Any) -> None:
    """Try the files of numbers `first` on, and say of each what became of it."""
    np.seterr(all="ignore")
    kinds = list(VALID)
    for kind in kinds:  # loads all decoders
        read(VALID[kind](), budget=Budget(None)) if kind != "tiff two pages" else None
    base = resident_bytes()
    budget = Budget(base + ROOM)
    for number in range(first, first + BATCH):
        rng = np.random.default_rng(number)
        kind = kinds[number % len(kinds)]
        data = VALID[kind]()
        for _ in range(int(rng.integers(1, 4))):
            data = damaged(data, rng) or b"\0"
        path, found = Path(folder) / f"{number}.{TARGETS[number % len(TARGETS)]}", "refused"
        try:
            picture = read(data, name=kind, budget=budget)
            found = "read"
            write(picture, path)
            shape = read(path).pixels.shape
            found = "written" if shape == picture.pixels.shape else "half-written"
        except (PictureError, UnavailableError):
            if path.exists():
                found = "half-written"
        except Exception:
            found = "traceback"
            traceback.print_exc()
        path.unlink(missing_ok=True)
        told.put((number, kind, found, (peak_resident_bytes() or 0) - base))
    left = [entry.name for entry in Path(folder).iterdir()]
    told.put((None, "", "left over" if left else "done", 0))


def _spent(pid: int | None) -> float:
    """Seconds of CPU time of a process; 0 where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def batch(first: int, counts: Counter[str]) -> int:
    """Run one worker; returns the most memory that it took."""
    context = multiprocessing.get_context("spawn")
    told, most = context.Queue(), 0
    with tempfile.TemporaryDirectory() as folder:
        worker = context.Process(target=work, args=(first, folder, told))
        worker.start()
        while True:
            begun, spent = time.monotonic(), _spent(worker.pid)
            try:
                while True:
                    try:
                        number, kind, found, taken = told.get(timeout=5)
                        break
                    except queue.Empty:
                        # Time of the worker's own: where others keep the machine, its start alone takes a minute.
                        waited = time.monotonic() - begun
                        if not worker.is_alive() or waited > WAIT or _spent(worker.pid) - spent > PATIENCE:
                            raise
            except queue.Empty:
                counts["hangs" if worker.is_alive() else "crashes"] += 1
                print(f"a worker said no more after file {first} on", file=sys.stderr)
                worker.terminate()
                break
            if number is None:
                counts["left over"] += found == "left over"
                break
            counts[found] += 1
            counts["files"] += 1
            counts["peak over budget"] += taken > ROOM and most <= ROOM
            if found in ("traceback", "half-written"):
                print(f"{number} {kind}: {found}", file=sys.stderr)
            most = max(most, taken)
        worker.join()
    return most


def bombs(counts: Counter[str]) -> list[tuple[str, dict[str, Any]]]:
    """Every bomb in a process of its own, decoded and encoded."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bomb"
        for name, made in BOMBS.items():
            path.write_bytes(made())
            found = measured(path, "tiff", "avif", hard=3 << 30)
            counts["bombs over budget"] += found["bytes"] > ROOM
            rows.append((name, found | {"size": path.stat().st_size}))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "trust.md")
    asked = parser.parse_args()
    counts: Counter[str] = Counter()
    begun, most = time.monotonic(), 0
    for first in range(0, asked.files, BATCH):
        most = max(most, batch(first, counts))
        print(json.dumps(counts), file=sys.stderr)
    rows = bombs(counts)
    names = ("files", "refused", "read", "written", "traceback", "crashes", "hangs", "half-written", "left over",
             "peak over budget", "bombs over budget")  # fmt: skip
    lines = [
        "# Damaged and hostile picture files",
        "",
        f"`python benchmarks/trust.py --files {asked.files}`, {time.monotonic() - begun:.0f} s on a busy machine. "
        '"written": read, written to a file in another format, and read back in the same size; "read": read, but '
        f"refused by the other format. The most that a worker took for its files: {most / 1e6:.0f} MB.",
        "",
        *("| " + " | ".join(row) + " |" for row in (("counted", "files"), ("---", "---:"))),
        *(f"| {name} | {counts[name]} |" for name in names),
        "",
        "| bomb | bytes | what was said | MB | s |",
        "| --- | ---: | --- | ---: | ---: |",
    ]
    for name, found in rows:
        said = found["told"].replace("|", "/").partition("bomb")[2].strip(": ") or found["told"]
        lines.append(
            f"| {name} | {found['size']} | {said[:90]} | {found['bytes'] / 1e6:.0f} | {found['seconds']:.1f} |"
        )
    asked.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
