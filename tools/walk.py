"""Count the files, functions and moves between files from `irtool restore PICTURE --auto` to the written file.

    python tools/walk.py [PICTURE] [--list]

Every call of a function of irtool counts, in all threads, in the order in which they happen; what runs while a module
is imported, comprehensions and generated code do not. A *move* is a call into another file than the call before it.
A stretch that is repeated at once, such as one block of a network after the other, counts once.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType


def record(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """(file, function) of every call of a function of irtool while the command runs."""
    import irtool
    from irtool.cli.app import main

    root = f"{Path(irtool.__file__).parent}/"
    calls: list[tuple[str, str]] = []
    importing: dict[int, int] = {}

    def note(frame: FrameType, event: str, _argument: object) -> None:
        code, thread, caller = frame.f_code, threading.get_ident(), frame.f_back
        if code.co_name == "<module>":
            importing[thread] = importing.get(thread, 0) + (event == "call") - (event == "return")
        elif event != "call" or importing.get(thread) or not code.co_filename.startswith(root):
            return
        elif not code.co_name.startswith("<") and not (caller and "importlib" in caller.f_code.co_filename):
            calls.append((code.co_filename[len(root) :], f"{code.co_name}:{code.co_firstlineno}"))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            code = main(arguments)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    if code:
        raise SystemExit(f"the command failed with exit code {code}")
    return calls


def visits(calls: Sequence[tuple[str, str]]) -> list[str]:
    """The files in the order they are entered, with repetitions of a stretch left out."""
    path: list[str] = []
    for file, _ in calls:
        if not path or path[-1] != file:
            path.append(file)
        # a, b, a, b is a loop between two files: it is walked once; so with stretches up to six files long.
        for length in range(1, 7):
            if len(path) >= 2 * length and path[-length:] == path[-2 * length : -length]:
                del path[-length:]
                break
    return path


def picture(folder: Path) -> Path:
    """A small photograph-like JPEG with noise, in which something is found."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).normal(0, 45, (160, 208, 3))
    ramp = np.linspace(60, 190, 208)[None, :, None] + 25 * np.sin(np.arange(160) / 9)[:, None, None]
    Image.fromarray((ramp + noise).clip(0, 255).astype(np.uint8)).save(folder / "a.jpg", quality=92)
    return folder / "a.jpg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("picture", nargs="?", type=Path)
    parser.add_argument("--list", action="store_true", help="print the walk")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = told.picture or picture(Path(folder))
        calls = record(["restore", str(source), "--auto", "-o", str(Path(folder) / "out.jpg"), "--quiet"])
    path = visits(calls)
    if told.list:
        print(" -> ".join(path))
        for name in sorted(set(path)):
            print(f"  {name}: entered {path.count(name)} times")
    print(f"{len(set(path))} files, {len(set(calls))} functions, {len(path) - 1} moves")


if __name__ == "__main__":
    main()
