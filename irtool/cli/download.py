"""irtool download: published weights, and the data sets that a program may fetch, brought and checked ahead of time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import EXIT_OK, EXIT_UNAVAILABLE, IrtoolError, UnavailableError, UsageError
from ..weights import Record, converted, get, obtain, records, state, verify
from ..weights.files import bytes_needed, is_other_form
from ..weights.hub import require_space
from . import options
from .models import format_size, print_models
from .output import Output, is_plain

if TYPE_CHECKING:
    from ..data import Dataset


def download(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", help="Models, as irtool models lists them; or data sets, as eval does.", show_default=False
        ),
    ] = None,
    all: Annotated[bool, typer.Option("--all", help="Every model that a program can fetch.")] = False,
    list: Annotated[
        bool, typer.Option("--list", help="List what can be downloaded, and what is here already.")
    ] = False,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="PATH", help="A file, or a folder of files, that you fetched by hand."),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="NAME", help="With 'experts': only for these tasks.", show_default=False),
    ] = None,
    permissive: Annotated[
        bool, typer.Option("--permissive", help="With 'experts': only models whose license allows commercial use.")
    ] = False,
    dry_run: options.DryRun = False,
    offline: options.Offline = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Fetch published weights, or a data set.

    A model comes with those it needs. Every file is held against its registered sha256 and converted to safetensors
    once; nothing in it is run. Downloads go on where they stopped, into the Hugging Face cache (HF_HOME, HF_HUB_CACHE,
    HF_ENDPOINT and proxies as usual).

    Few data sets may be fetched by a program: only where their authors state a licence and they lie on the hub.

    'experts' stands for the best model of every task, which restore --model best takes.

    irtool download daclip-universal
    irtool download experts --task derain
    """
    out = Output(json=json, quiet=quiet)
    from ..data import datasets

    if list:
        return _list(out)
    if names == ["experts"]:
        names = _experts(task or [], permissive)
    elif task or permissive:
        raise UsageError("--task and --permissive go with 'experts'.", "irtool download experts --task derain")
    sets = [found for found in datasets() if found.name in (names or ())]
    if sets:
        if len(sets) != len(names or ()):
            raise UsageError("Data sets and models are fetched by commands of their own.", f"Leave {sets[0].name} out.")
        return _download_data_sets(out, sets, source, dry_run)
    requested = _requested_records(names or [], all, source)
    if all:
        manual = ", ".join(record.id for record in records() if state(record) == "by hand")
        out.note(f"left out, since they have to be fetched by hand: {manual or 'none'}")
    if dry_run:
        return _plan(out, requested)
    _limit_hub_output(quiet)
    if source is None:
        _require_space(requested)
    return _models(out, requested, source)


def _list(out: Output) -> int:
    """Show the models, and the data sets that a program can fetch."""
    from ..data import datasets

    print_models(out, [record for record in records() if record.kind != "asset"])
    for known in datasets():
        if known.archive is not None:
            out.result("")
            out.result(f"data set {known.name}: {known.title}, {known.licence}")
            out.record({"type": "dataset", "id": known.name, "licence": known.licence})
    return EXIT_OK


def _models(out: Output, requested: Sequence[Record], source: Path | None) -> int:
    """Bring models; each that cannot be had is named."""
    failed = 0
    for record in requested:
        try:
            _one(out, record, source)
        except IrtoolError as error:
            failed += 1
            out.failure(error, record.id)
            out.record({"type": "download", "id": record.id, "state": "failed", "error": error.message})
    out.record({"type": "summary", "models": len(requested), "failed": failed})
    return EXIT_UNAVAILABLE if failed else EXIT_OK


def _download_data_sets(out: Output, requested: Sequence[Dataset], source: Path | None, dry_run: bool) -> int:
    """Bring data sets; each that cannot be had is named, with where it is from."""
    from ..data.fetch import expected, home, obtain

    if source is not None and (len(requested) != 1 or not source.expanduser().is_file()):
        raise UsageError(
            "--from takes the archive of one data set.", f"irtool download {requested[0].name} --from FILE"
        )
    _limit_hub_output(out.quiet)
    failed = 0
    for known in requested:
        folder = home(known.name)
        if dry_run:
            text = f"is here, {folder}" if folder.is_dir() else known.archive.source if known.archive else "by hand"
            out.result(f"{known.name}: {text}" + ("" if known.archive else f". {expected(known)}"))
            out.record({"type": "plan", "id": known.name, "state": text, "licence": known.licence})
            continue
        try:
            path = obtain(known, source.expanduser() if source else None, out.note)
        except IrtoolError as error:
            failed += 1
            out.failure(error, known.name)
            out.record({"type": "download", "id": known.name, "state": "failed", "error": error.message})
            continue
        out.result(f"{known.name} is here ({known.licence}): {path}")
        out.record({"type": "download", "id": known.name, "state": "here", "path": str(path)})
    out.record({"type": "summary", "sets": len(requested), "failed": failed})
    return EXIT_UNAVAILABLE if failed else EXIT_OK


def _experts(tasks: Sequence[str], permissive: bool) -> list[str]:
    """Ids of the best models, those of the tasks named by an id, verb or synonym."""
    from ..degradation import lookup
    from ..experts import wanted

    found = [record.id for record in wanted([lookup(word).id for word in tasks], permissive)]
    if not found:
        raise UsageError("No model was measured to be better than the default there.", "irtool models lists all.")
    return found


def _requested_records(names: Sequence[str], all_records: bool, source: Path | None) -> Sequence[Record]:
    """The records meant, with those they need before them, each once."""
    if bool(names) == all_records:
        raise UsageError("Name models, or give --all.", "irtool download --list shows them.")
    if source is not None and len(names) != 1:
        raise UsageError("--from takes one model.", "irtool download NAME --from FILE")
    if source is not None:
        named = [get(names[0])]
        if not source.expanduser().exists():
            raise UsageError(f"There is no file '{source}'.")
        if source.is_file() and len(named[0].originals) > 1:
            files = ", ".join(file.name for file in named[0].originals)
            raise UsageError(
                f"{named[0].id} is made of {len(named[0].originals)} files: {files}.", "Name their folder."
            )
    elif all_records:
        named = [record for record in records() if record.kind in ("hf-hub", "https", "npm")]
    else:
        named = [record for name in names for record in (*map(get, get(name).needs), get(name))]
    shipped = [record.id for record in named if record.kind == "asset"]
    if shipped:
        raise UsageError(f"{shipped[0]} ships with irtool; there is nothing to download.")
    return [*dict.fromkeys(named)]


def _limit_hub_output(quiet: bool) -> None:
    """The client's bar belongs on a terminal; its remarks on what it tries again are for those who want to read."""
    from huggingface_hub.utils import disable_progress_bars, logging

    if quiet or is_plain(sys.stderr):
        disable_progress_bars()
    if quiet:
        logging.set_verbosity_error()


def _plan(out: Output, requested: Sequence[Record]) -> int:
    """Say what would be fetched, how much it is, and whether there is room."""
    total, unknown = 0, 0
    for record in requested:
        found = state(record)
        size = 0 if found == "here" else record.bytes
        total += size or 0
        unknown += size is None
        text = {"here": "is here", "by hand": f"by hand, from {record.page}"}.get(found, format_size(record.bytes))
        out.result(f"{record.id}: {text}")
        out.record({"type": "plan", "id": record.id, "state": found, "bytes": record.bytes, "licence": record.licence})
    more = f", and {unknown} of unknown size" if unknown else ""
    out.result(f"{format_size(total)} to download{more}; up to as much again for the converted files")
    out.record({"type": "summary", "models": len(requested), "bytes": total, "unknown": unknown})
    _require_space(requested)
    return EXIT_OK


def _require_space(requested: Sequence[Record]) -> None:
    require_space(part for record in requested if state(record) == "to download" for part in bytes_needed(record))


def _one(out: Output, record: Record, source: Path | None) -> None:
    """Bring one model, and say what it turned out to be."""
    path = converted(record)
    done = "is here and intact"
    if source is not None or not path.is_file() or not _intact(record):
        obtain(record, source, out.note)
        done = "is here now"
    from ..models import loading

    unknown = [file.name for file in record.originals if file.sha256 is None]
    if source is not None and is_other_form(record, source):
        unknown = [source.name]
    try:
        family = loading.describe(path)[0]
    except UnavailableError:
        if unknown:
            path.unlink()  # nothing was known of the file, and it is not what it was taken for
        raise
    if unknown:
        out.note(
            f"{record.id}: no sha256 of {', '.join(unknown)} is known; it was taken since its tensors fit {family}"
        )
    out.result(f"{record.id} {done}: {family}, {format_size(path.stat().st_size)}, {path}")
    out.record(
        {
            "type": "download",
            "id": record.id,
            "state": "here",
            "family": family,
            "path": str(path),
            "compared": not unknown,
        }
    )


def _intact(record: Record) -> bool:
    try:
        verify(record)
    except UnavailableError:
        return False
    return True
