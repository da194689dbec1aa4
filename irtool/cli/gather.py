"""irtool gather: what came of a folder run that was shared out among processes or machines."""

from __future__ import annotations

import json as jsons
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import EXIT_OK, EXIT_SOME_FAILED, UsageError
from . import options
from .output import Output

if TYPE_CHECKING:
    from ..targets import Item

GATHERED = "gathered.jsonl"


def gather(
    folder: Annotated[Path, typer.Argument(metavar="DST", help="The output folder of irtool restore or instruct.")],
    missing: Annotated[
        Path | None, typer.Option("--missing", metavar="FILE", help="Write the paths of what is to be done again.")
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Say what failed or is missing of a run in shards.

    Merges DST/.irtool/*.jsonl, lists the inputs once more, and exits with 1 if an output is not there. The same command
    that made the others then makes it.
    """
    from ..account import FOLDER, read
    from ..fileio import atomic_write
    from ..targets import is_done, names_in

    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder.", "Name the output folder of a run.")
    heads, records = read(folder)
    by_path = {record["path"]: record for record in records}
    expected = _expected(heads[-1], folder)
    out = Output(json=json, quiet=quiet)
    listing = cache(names_in)
    absent = [source for source, item in expected.items() if not any(map(is_done, item.existing(listing)))]
    for source in absent:
        known = by_path.get(source, {})
        status = "failed" if known.get("error") else "missing"
        out.result(f"{source}: {known.get('error') or 'missing: no process has finished it'}")
        out.record({"type": "image", "input": source, "status": status, "error": known.get("error")})
    done = [record for record in records if record["path"] not in absent]
    atomic_write(folder / FOLDER / GATHERED, "".join(jsons.dumps(line) + "\n" for line in (heads[-1], *records)))
    if missing is not None:
        atomic_write(missing, "".join(f"{source}\n" for source in absent))
    failed = sum(bool(by_path.get(source, {}).get("error")) for source in absent)
    counts = {"pictures": len(expected), "done": len(expected) - len(absent), "failed": failed}
    counts["missing"] = len(absent) - failed
    code = EXIT_SOME_FAILED if absent else EXIT_OK
    seconds = sum(record.get("seconds") or 0 for record in done)
    shards = sorted({head["shard"] for head in heads if head.get("shard")})
    out.record({"type": "summary", **counts, "seconds": round(seconds, 3), "shards": shards, "exit_code": code})
    words = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "pictures")
    where = f" in shards {', '.join(shards)}" if shards else ""
    out.note(f"{words}; {seconds:.1f} s of work{where}")
    return code


def _expected(head: dict[str, Any], folder: Path) -> dict[str, Item]:
    """Input -> item of all pictures of a run, as its command would list them now.

    Raises:
        UsageError: the inputs are not there from here, or the account was changed.
    """
    from ..picture import is_pattern
    from ..targets import make_items

    try:
        inputs, root = [str(Path(one)) for one in head["inputs"]], head.get("root")
        recursive, format = bool(head["recursive"]), head.get("format")
    except (KeyError, TypeError) as error:
        raise UsageError(f"The account of {folder} lacks {error}.", "Run the command again.") from None
    if gone := [one for one in inputs if not Path(one).exists() and not is_pattern(one)]:
        raise UsageError(f"The input {gone[0]} is not there.", "Gather on a machine that has the inputs.")
    items = make_items(
        inputs, output=f"{folder}/", recursive=recursive, format=format, root=None if root is None else Path(root),
        name=head.get("name"),
    )  # fmt: skip
    return {str(item.source): item for item in items if item.target is not None}
