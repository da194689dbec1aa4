"""Kills, full disks and a hub that lies, counted; printed to benchmarks/trust_hub.md.

    python benchmarks/trust_hub.py --kills 100 --lies 60

Kill points: `irtool eval` with a report, pictures and a table, `irtool restore` of a folder with pages side by side,
`irtool degrade` and the conversion of a model file are killed (SIGKILL, SIGTERM, SIGINT, SIGHUP) at moments spread over
the run, and run again. Counted is what is wrong then: a file that is half, an input that has changed, a temporary file
that stays, figures that differ.

Hub: a server on the loopback interface (tests/hubserver.py) gives lying headers, bodies and listings. Counted are files
outside the cache, files taken that are not the announced ones, tokens sent to another host, runs without an end,
tracebacks and "a bug in irtool".
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save as to_safetensors

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import skimage.metrics  # noqa: E402, F401
from hubserver import TOKEN, Faults, HubServer, Repository  # noqa: E402

import irtool.evaluation.session  # noqa: E402 (imported once, before all forks)
import irtool.training.export  # noqa: E402, F401
from irtool.cli import main  # noqa: E402
from irtool.evaluation import read_run  # noqa: E402
from irtool.weights import transfer  # noqa: E402

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
PATIENCE = 300


class Child:
    """`irtool` as a user runs it, in a process of its own that is forked from this one: what takes seconds to import is
    imported already.

    Args:
        arguments: of the command line.
        where: its current folder.
        variables: of its environment.
    """

    def __init__(self, arguments: list[str], where: Path, **variables: str) -> None:
        self.told = where.parent / f"{where.name}.told"
        self.pid = os.fork()
        if self.pid:
            return
        code = 70
        try:
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            descriptor = os.open(self.told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            os.chdir(where)
            os.environ.update(variables)
            if endpoint := variables.get("HF_ENDPOINT"):
                constants.ENDPOINT = endpoint
                constants.HUGGINGFACE_CO_URL_TEMPLATE = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
                constants.HF_HUB_DOWNLOAD_TIMEOUT = 3
                transfer.PATIENCE = 2.0
            code = main(arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def runs(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def kill(self, name: str) -> None:
        os.kill(self.pid, getattr(signal, name))

    def wait(self, patience: float = PATIENCE) -> int | None:
        """Its exit code, below 0 for a signal; None where it did not end in time, and was killed."""
        end = time.monotonic() + patience
        while self.runs():
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return None
            time.sleep(0.005)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def words(self) -> str:
        return self.told.read_text(errors="replace") if self.told.exists() else ""


def content(folder: Path) -> dict[str, str]:
    """Hashes of all files, the hub's cache and irtool's own left out."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and "home" not in p.parts
    }


def prepare(folder: Path) -> None:
    draw = np.random.default_rng(0)
    (folder / "gt").mkdir(parents=True)
    for i in range(6):
        coarse = draw.integers(0, 255, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((120, 90), Image.Resampling.BICUBIC).save(folder / "gt" / f"{i:02}.png")
    torch.save({"fc1.weight": torch.zeros(4, 384)}, folder / "net.pth")


EVAL = [
    "eval",
    "--gt",
    "gt",
    "--degrade",
    "noise(20)",
    "--model",
    "none",
    "--report",
    "out",
    "--save-images",
    "made",
    "--csv",
    "t.csv",
]
RESTORE = ["restore", "gt", "--task", "denoise", "--side-by-side", "-o", "done", "--existing", "skip"]
DEGRADE = ["degrade", "gt/00.png", "noise(20)|jpeg(q=20)", "-o", "worse.png", "--existing", "overwrite"]
CONVERT = [
    "restore",
    "gt/00.png",
    "--task",
    "denoise",
    "--model",
    "local:net.pth",
    "-o",
    "never.png",
]  # converted, and then no restorer


def figures(folder: Path) -> Any:
    return [(r["name"], r.get("output"), r.get("content")) for r in read_run(folder / "out")[1]]


def part(found: dict[str, str], *starts: str) -> dict[str, str]:
    return {name: digest for name, digest in found.items() if name.startswith(starts)}


def kills(count: int, told: Counter[str]) -> None:
    """Kill, run again, compare."""
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "model"
        prepare(model)
        home = {"HF_HOME": str(Path(place) / "home")}
        begun = time.monotonic()
        assert Child(EVAL, model, **home).wait() == 0
        lasts = time.monotonic() - begun
        right = figures(model)
        assert Child(DEGRADE, model, **home).wait() == 0
        assert Child(RESTORE, model, **home).wait() == 0
        whole = content(model)
        draw = random.Random(0)
        number = 0
        while told["kill points"] < count and number < 4 * count:
            number += 1
            folder = Path(place) / f"{number}"
            folder.mkdir()
            shutil.copytree(model / "gt", folder / "gt")
            shutil.copy(model / "net.pth", folder)
            home = {"HF_HOME": str(folder / "home")}
            before = content(folder)
            what = (EVAL, RESTORE, EVAL, RESTORE, DEGRADE, EVAL, RESTORE, CONVERT)[number % 8]
            running = Child(what, folder, **home)
            time.sleep(draw.uniform(0, lasts if what in (EVAL, RESTORE) else lasts / 4))
            told["kill points"] += running.runs()
            with contextlib.suppress(ProcessLookupError):
                running.kill(draw.choice(SIGNALS))
            told["hangs"] += running.wait() is None
            after = content(folder)
            told["inputs changed"] += sum(after.get(name) != digest for name, digest in before.items())
            for name in after:
                if name.endswith(".png") and ".irtool-" not in name:
                    try:
                        with Image.open(folder / name) as picture:
                            picture.load()
                    except OSError:
                        told["half-written outputs"] += 1
            more = ["--resume"] if (folder / "out/run.jsonl").exists() else ["--existing", "overwrite"]
            again = Child([*EVAL, *more] if what is EVAL else what, folder, **home)
            code = again.wait()
            told["bugs told"] += "a bug in irtool" in again.words()
            told["tracebacks"] += "Traceback" in again.words()
            told["hangs"] += code is None
            wanted = {id(EVAL): ("made/",), id(RESTORE): ("done/",), id(DEGRADE): ("worse.png",)}.get(id(what), ())
            same = part(content(folder), *wanted) == part(whole, *wanted) if wanted else True
            sound = code == (3 if what is CONVERT else 0) and (what is not EVAL or figures(folder) == right)
            told["reruns that differ"] += not (same and sound)
            told["temporary files left"] += sum(".irtool-" in name for name in everything(folder))
            shutil.rmtree(folder)
            print(number, what[0], dict(+told), file=sys.stderr, flush=True)


def everything(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*")]


def lies() -> Iterator[tuple[str, dict[str, Any]]]:
    """What a hub may say, without end: the first rounds have every kind once, later ones other values."""
    kinds: list[tuple[str, list[dict[str, Any]]]] = [
        ("etag", [{"etag": e} for e in ('"/tmp/x"', '"../../../../x"', '".."', '"a/../../b"', '""', '"\x1b[31m"')]),
        ("commit", [{"commit": c} for c in ("../../x", "/tmp/x", "x" * 40, "", "0" * 39)]),
        ("size", [{"size": s} for s in (0, 1, 10**18, 3)]),
        ("bytes", [{"flip": True}, {"flip": True, "length": "none"}]),
        ("encoding", [{"encoding": e} for e in ("gzip", "br", "deflate", "zstd", "x")]),
        ("length", [{"length": "endless"}]),
        ("speed", [{"piece": 2, "pause": 0.05}]),
        ("cuts", [{"cuts": [c] * 3} for c in (0, 1, 1000)]),
        ("listing", [{"listing": t} for t in (b"{}", b"null", b"[1]", b"[" * 50_000, b"x", b'[{"type": "file"}]')]),
        ("names", [{"listing": json.dumps([{"type": "file", "path": p, "size": 1, "oid": "0" * 40}]).encode()}
                   for p in ("/etc/x.pth", "../x.pth", "a/../../x.pth", "a\0.pth", "a\x1b[31m.pth", "\u202ex.pth")]),
        ("headers", [{"headers": {n: v}} for n, v in (("X-HF-Warning", "\x1b]0;x\x07"), ("X-Xet-Hash", "../../x"),
                     ("Content-Disposition", 'attachment; filename="\x1b[31m"'))]),
        ("redirect", [{"elsewhere": u} for u in ("file:///etc/passwd", "ftp://127.0.0.1/x", "http://127.0.0.1:9/x")]),
    ]  # fmt: skip
    for number in itertools.count():
        for name, values in kinds:
            yield name, values[number % len(values)]


def hub(count: int, told: Counter[str]) -> None:
    """Ask a hub that lies."""
    data = to_safetensors({"fc1.weight": torch.zeros(4, 384)})
    for kind, lie in itertools.islice(lies(), count):
        server = HubServer()
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "run"
            folder.mkdir()
            Image.new("RGB", (40, 40), (90, 120, 60)).save(folder / "in.png")
            server.repositories["acme/net"] = Repository({"net.safetensors": data})
            server.faults = Faults(**lie)
            name = "hf-hub:acme/net" + ("" if kind in ("listing", "names") else "@main:net.safetensors")
            command = ["restore", "in.png", "--task", "denoise", "--model", name, "-o", "out.png"]
            child = Child(
                command, folder, HF_HOME=str(folder / "home"), HF_ENDPOINT=server.address, HF_TOKEN=TOKEN,
                NO_PROXY="127.0.0.1,localhost",
            )  # fmt: skip
            code = child.wait()
            words = child.words()
            told["hub faults"] += 1
            told["hangs"] += code is None
            told["tracebacks"] += "Traceback" in words
            told["bugs told"] += "a bug in irtool" in words
            told["control characters told"] += any(c in words for c in "\x1b\x07\u202e")
            told["exit codes that are none"] += code not in (1, 2, 3)
            outside = [p for p in folder.iterdir() if p.name not in ("home", "in.png")]
            told["files outside the cache"] += len(outside) + Path("/tmp/x").exists()
            kept = [p for p in (folder / "home").rglob("*") if p.is_file() and "blobs" in p.parts]
            told["other files taken"] += sum(p.read_bytes() != data for p in kept)
            told["tokens sent on"] += sum(bool(r.token) for r in server.downloads())
        server.close()
        print(kind, lie if len(str(lie)) < 99 else "...", code, dict(+told), file=sys.stderr, flush=True)


RIGHT = ("kill points", "hub faults")
WRONG = (
    "inputs changed", "half-written outputs", "reruns that differ", "temporary files left", "tracebacks", "bugs told",
    "hangs", "control characters told", "exit codes that are none", "files outside the cache", "other files taken",
    "tokens sent on",
)  # fmt: skip


def count_all() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--lies", type=int, default=60)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "trust_hub.md")
    asked = parser.parse_args()
    told: Counter[str] = Counter(dict.fromkeys((*RIGHT, *WRONG), 0))
    kills(asked.kills, told)
    hub(asked.lies, told)
    lines = ["# Kills and a hub that lies", ""]
    lines += ["Printed by `python benchmarks/trust_hub.py`; wanted is 0 but in the first two rows.", ""]
    lines += ["| what | how often |", "|---|---|"]
    lines += [f"| {name} | {count} |" for name, count in told.items()]
    asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    sys.exit(any(count for name, count in told.items() if name not in RIGHT))


if __name__ == "__main__":
    count_all()
