"""The account of a folder run that was shared out (``--jobs``, ``--shard``) or is reviewed (``--review``): a line of
JSON per picture.

It lies beside the outputs, in the hidden folder ``.irtool``.

Outputs are written whole or not at all, and they decide what is done; the account says how they came about and what
went wrong. Every process of a run, on whatever machine, appends to a file of its own.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from . import __version__
from .errors import FileError, UsageError, reason
from .fileio import sha256
from .plan import Plan
from .provenance import model_sha256
from .shard import Shard

FOLDER = ".irtool"
LARGEST_LINE = 1 << 20  # bytes: a plan and a path take thousands


class Account:
    """A file of the account, open for one run.

    Args:
        folder: the output folder; made where it is not there.
        run: what gives the same outputs again: the arguments of `irtool.targets.make_items`.
        shard: the share of this process; None where it does all.

    Raises:
        FileError: it cannot be written.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any], shard: Shard | None) -> None:
        part = "all" if shard is None else f"shard-{shard.index + 1}-of-{shard.count}"
        name = f"{part}.{platform.node() or 'host'}-{os.getpid()}-{time.time_ns()}.jsonl"
        self.folder, self.path = folder, folder / FOLDER / name
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = self.path.open("xb", buffering=0)
        except OSError as error:
            raise FileError(f"{self.path} cannot be written: {reason(error)}.", "Check the output folder.") from error
        head = {"type": "run", "irtool": __version__, "time": time.time(), "shard": shard and str(shard), **run}
        self._add(head)

    def add(self, source: Path, target: Path, status: str, record: Mapping[str, Any]) -> None:
        """Write what became of a picture.

        Args:
            source, target: its paths.
            status: "restored", "clean" or "failed".
            record: as the command prints it.
        """
        plan = record.get("plan")
        line: dict[str, Any] = {
            "type": "image",
            "time": time.time(),
            "path": str(source.absolute()),
            "output": str(target),
            "relative": os.path.relpath(target, self.folder),
        }
        line |= {
            "status": status,
            "sha256_in": _sha256(source),
            "sha256_out": None if status == "failed" else _sha256(target),
            "model_sha256": _models(plan),
            "plan": plan,
            "diagnosis": record.get("diagnosis"),
            "change": record.get("change"),
            "seconds": record.get("seconds"),
            "error": record.get("error"),
        }
        self._add(line)

    def _add(self, line: Mapping[str, Any]) -> None:
        # One write for one line: a kill leaves it whole, or a last line without an end, which readers leave out.
        try:
            self._file.write(json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise FileError(f"{self.path} cannot be written: {reason(error)}.", "Make room on the disk.") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _sha256(path: Path) -> str | None:
    try:
        return sha256(path)
    except OSError:
        return None


def _models(plan: Mapping[str, Any] | None) -> dict[str, str | None]:
    return {model: model_sha256(model) for model in Plan.from_dict(plan).models} if plan else {}


def read(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The account of an output folder: the heads of its runs, and of each picture the last line; oldest first.

    Raises:
        UsageError: there is none.
    """
    files = sorted((folder / FOLDER).glob("*.jsonl"))
    lines = [line for file in files for line in _lines(file)]
    lines.sort(key=lambda line: line["time"])
    heads = [line for line in lines if line.get("type") == "run"]
    if not heads:
        raise UsageError(f"{folder} has no account of a run.", "Runs with --shard, --jobs or --review keep one.")
    last: dict[str, dict[str, Any]] = {}
    for line in lines:
        if line.get("type") == "image":
            last[line["path"]] = line
    return heads, list(last.values())


def _lines(file: Path) -> list[dict[str, Any]]:
    found = []
    with file.open("rb") as stream:
        while raw := stream.readline(LARGEST_LINE):
            try:
                line = json.loads(raw)
            except ValueError:
                continue  # a process was killed in the middle of it
            known = isinstance(line, dict) and isinstance(line.get("time"), (int, float))
            if known and (line.get("type") == "run" or isinstance(line.get("path"), str)):
                found.append(line)
    return found
