"""The least memory that `irtool restore` does a picture with, and what it then takes; printed to benchmarks/memory.md.

    python benchmarks/memory.py --sizes 1 4 12 24 48

Every picture is restored by the real command in a process of its own. The least is what the refusal says at a limit
that is too low, or more where that does not suffice; with that limit the picture must come out, at a peak within it
(and 5 % more). A third run has no limit. The peak is what the kernel says of the process when it has ended (ru_maxrss).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
Image.MAX_IMAGE_PIXELS = None


def picture(path: Path, megapixels: float) -> None:
    """Write a smooth picture of about so many megapixels, three by two."""
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    small = np.random.default_rng(0).integers(0, 255, (50, 75, 3), dtype=np.uint8)
    options = {"quality": 92} if path.suffix in (".jpg", ".webp") else {}
    Image.fromarray(small).resize((height * 3 // 2, height), Image.Resampling.BICUBIC).save(path, **options)


# Runs a command and says on stdout, after all else, how much it held. A process of its own, which is small: ru_maxrss
# of a command begins with what the process held that started it.
MEASURED = """
import os, sys
pid = os.fork()
if not pid:
    os.execv(sys.argv[1], sys.argv[1:])
_, status, used = os.wait4(pid, 0)
print(used.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def restore(path: Path, model: str, limit: int | None) -> tuple[int, int, str]:
    """Exit code, peak in bytes and what was said."""
    command = [sys.executable, "-m", "irtool", "restore", str(path), "--task", "denoise", "--model", model, "--quiet"]
    command += ["--threads", "1", "--existing", "overwrite", "-o", str(path.with_name(f"out{path.suffix}"))]
    command += [] if limit is None else ["--max-memory", f"{limit}MB"]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", MEASURED, *command], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return done.returncode, int(done.stdout.split()[-1]) * 1024, done.stderr.strip()


def row(megapixels: float, suffix: str, model: str, unbounded: bool) -> list[str]:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"in.{suffix}"
        picture(path, megapixels)
        _, refused, told = restore(path, model, 60)
        found = re.search(r"needs about (\d+) MB", told)
        assert found is not None, told
        least = int(found[1]) + 1
        for _ in range(8):  # the estimate may be too low: then the least is where it succeeds
            code, peak, told = restore(path, model, least)
            if code == 0:
                break
            least = round(least * 1.04)
        kept = "yes" if code == 0 and peak <= least * 1.05e6 else f"no ({told or 'above it'})"
        free = restore(path, model, None)[1] if unbounded else 0
    return [
        f"{megapixels:g}", suffix, Path(model).name.removesuffix(".safetensors"), str(least), f"{peak / 1e6:.0f}", kept,
        f"{refused / 1e6:.0f}", f"{free / 1e6:.0f}" if free else "",
    ]  # fmt: skip


HEAD = ["megapixels", "format", "model", "least, MB", "peak at that limit, MB", "kept", "refusal, MB", "no limit, MB"]


def written(path: Path) -> dict[tuple[float, str, str], list[str]]:
    """The rows of an earlier run, by size, format and model."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {(float(found[0]), found[1], found[2]): found for found in cells if re.fullmatch(r"[\d.]+", found[0])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=float, nargs="+", default=[1, 4, 12, 24, 48])
    parser.add_argument("--formats", nargs="+", default=["jpg", "png", "tif", "webp", "avif"])
    parser.add_argument("--model", default="irtool-nano.v1")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "memory.md")
    asked = parser.parse_args()
    rows = written(asked.output)
    for megapixels in asked.sizes:
        # The formats differ by little: above 12 megapixels the two that most people have stand for all.
        for suffix in asked.formats if megapixels <= 12 else [f for f in asked.formats if f in ("jpg", "png")]:
            made = row(megapixels, suffix, asked.model, suffix == "jpg")
            rows[megapixels, suffix, made[2]] = made
            print(*made, flush=True)
            write(asked.output, rows)
    sys.exit(any(line[HEAD.index("kept")] != "yes" for line in rows.values()))


def write(path: Path, rows: dict[tuple[float, str, str], list[str]]) -> None:
    """Write the table; rows of sizes, formats and models that were not asked for stay."""
    build = "CUDA" if torch.version.cuda else "the CPU"
    lines = [
        "# Least memory of `irtool restore`",
        "",
        f"`python benchmarks/memory.py`: one thread, torch {torch.__version__} built for {build}, {sys.platform}. "
        "Least: what the refusal of a lower limit asks for, or more where that does not suffice. Refusal: the peak of "
        "the process that refuses. MB are 10^6 bytes.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "| " + " | ".join("---" if name in ("format", "model", "kept") else "---:" for name in HEAD) + " |",
        *("| " + " | ".join(line) + " |" for _, line in sorted(rows.items())),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
