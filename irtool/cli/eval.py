"""irtool eval: restorers scored on pairs, under a named protocol."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, NothingToDoError, UsageError
from ..weights.registry import DEFAULT_DETECTOR, DEFAULT_RESTORER
from . import options
from .evaltables import show_comparison, show_list, show_summary
from .output import Bar, Output

if TYPE_CHECKING:
    from ..data import Dataset, Found
    from ..evaluation import Request
    from ..evaluation.report import Report
    from ..evaluation.summary import Record

LISTS = ("datasets", "protocols", "metrics")


def eval(
    listing: Annotated[
        str | None, typer.Argument(metavar="|".join(LISTS), help="List these instead.", show_default=False)
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", metavar="NAME|FILE.toml", help="The data set, or a TOML of your own.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option("--root", metavar="DIR", help="Where it lies. Default: NAME under IRTOOL_DATASETS.")
    ] = None,
    lq: Annotated[Path | None, typer.Option("--lq", metavar="DIR", help="Degraded pictures, instead of a set.")] = None,
    gt: Annotated[
        list[Path] | None, typer.Option("--gt", metavar="DIR", help="Their truths; repeat it for several folders.")
    ] = None,
    degrade: Annotated[
        str | None,
        typer.Option(
            "--degrade", metavar="CHAIN", help="Make the degraded pictures of the truths, such as 'noise(50)'."
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            envvar="IRTOOL_MODEL",
            metavar="ID|local:PATH|hf-hub:REPO|none",
            help="The model; none scores the degraded pictures as they are.",
        ),
    ] = DEFAULT_RESTORER,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="TASK", help="What the model is told to undo. Default: what the set is about."),
    ] = None,
    auto: Annotated[bool, typer.Option("--auto", help="What to undo is found in each picture instead.")] = False,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", metavar="NAME", help="How it is scored. Default: the set's own, else canonical."),
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics",
            metavar="A,B",
            help="Beside PSNR and SSIM: lpips (through the protocol's network), lpips-alex, lpips-vgg, fid, blur.",
        ),
    ] = "",
    only: Annotated[str | None, typer.Option("--only", metavar="GLOB", help="Only pairs with such names.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Only the first N pairs.")] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="DIR", help="Write a page, and the run, into this folder.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder of --report.")] = False,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write a line per picture.")] = None,
    save_images: Annotated[
        Path | None, typer.Option("--save-images", metavar="DIR", help="Write the restored pictures as PNG.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="published", help="Show rows of the literature beside it.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", metavar="RUN RUN", help="Compare two runs instead, picture by picture."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Other noise for --degrade.")] = 0,
    device: options.Device = "auto",
    dtype: options.Dtype = "fp32",
    tile: options.Tile = "auto",
    max_memory: options.MaxMemory = None,
    ensemble: options.Ensemble = False,
    threads: options.Threads = None,
    offline: options.Offline = False,
    detector: options.Detector = DEFAULT_DETECTOR,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> int:
    """Score a model on pairs of degraded and true pictures.

    irtool eval --dataset lol --root DIR --model iat.lol-v1

    irtool eval --lq rain/ --gt norain/ --task derain --report out/
    """
    out = Output(json=json, quiet=quiet, verbose=verbose)
    if listing is not None:
        return show_list(out, options.one_of(listing, LISTS, "eval"))
    if compare is not None:
        return show_comparison(out, *compare)
    if against is not None:
        options.one_of(against, ("published",), "--against")
    if resume and report is None:
        raise UsageError("--resume goes on with a run in a folder.", "Name the folder with --report.")
    if auto and task:
        raise UsageError("--auto and --task exclude each other.", "Leave one of them out.")
    options.one_of(dtype, options.DTYPES, "--dtype")
    options.check_device(device)
    memory = None if max_memory is None else options.parse_bytes(max_memory)

    from ..data import get_protocol
    from ..data.sources import find
    from ..metrics.extra import METRICS

    wanted = [name.strip() for name in metrics.split(",") if name.strip()]
    for name in wanted:
        options.one_of(name, ("lpips", *METRICS), "--metrics")
    known, found = find(dataset, root, lq, gt or [], degrade)
    rules = get_protocol(protocol or (known.protocol if known else "canonical"))
    wanted = [*dict.fromkeys(f"lpips-{rules.lpips}" if name == "lpips" else name for name in wanted)]
    whole = len(found.pairs)
    out.note(f"{whole} {'pair' if whole == 1 else 'pairs'}: {found.layout}")
    for name in found.unused[:5]:
        out.note(f"note: no degraded picture belongs to the truth {name}")
    found = _chosen(found, only, limit)
    options.set_threads(threads)

    from .. import api
    from ..engine import pick_device
    from ..evaluation import Request, header
    from ..evaluation.report import Report, save_png, to_csv
    from ..evaluation.run import NO_MODEL
    from ..metrics.extra import make
    from ..picture import save_bytes
    from ..plan import plan_tasks
    from ..synth import parse

    chain = None if degrade is None else parse(degrade)
    plan = None
    if model != NO_MODEL:
        infos = api.prepare([model], detector=detector if auto else None, device=device)
        for remark in infos[model].remarks:
            out.note(f"{model}: {remark}")
        plan = None if auto else plan_tasks(task or [_task(model, known)], 1.0, model)
    keepers: list[Any] = []

    def keep(*kept: Any) -> None:
        for keeper in keepers:
            keeper(*kept)

    request = Request(
        found, rules, model, plan, dataset=known.name if known else "", degrade=chain,
        extras=[make(name, str(pick_device(device))) for name in wanted], seed=seed,
        device=device, dtype=dtype, tile=tile, max_memory=memory, ensemble=ensemble,
        detector=detector if auto else "", keep=keep,
    )  # fmt: skip
    head = header(request)
    page = Report(report, head, resume) if report is not None else None
    if page is not None and page.done and "fid" in wanted:
        raise UsageError("FID needs the features of all pictures.", "Leave --resume or fid out.")
    out.record(head)
    if page is not None:
        keepers.append(page.keep)
    if save_images is not None:
        keepers.append(lambda name, before, after, truth: save_png(save_images, name, after))
    records: list[Record] = []
    try:
        with out.progress(len(found.pairs)) as bar:
            for record in _scored(request, page, bar):
                records.append(record)
                out.record(record)
                _tell(out, record)
            if page is not None:
                _restore_shown(request, page, records, bar)
    except KeyboardInterrupt:
        out.note(f"interrupted after {len(records)} of {len(found.pairs)} pairs")
        out.note("hint: " + ("Run the same command with --resume." if page else "With --report a run can be resumed."))
        return EXIT_INTERRUPTED
    subject = known.title or known.name if known else (lq or (gt or [Path()])[0]).resolve().name
    summary = _conclude(out, request, head, records, page, known, subject, whole, against is not None)
    if csv is not None:
        save_bytes(to_csv(records).encode(), csv)
    return EXIT_SOME_FAILED if summary["failed"] else EXIT_OK


def _conclude(
    out: Output,
    request: Request,
    head: Record,
    records: list[Record],
    page: Report | None,
    known: Dataset | None,
    subject: str,
    whole: int,
    against: bool,
) -> Record:
    """The figures of a run told, and written to its page.

    Args:
        head, records: of the run.
        known: the set it was of, where it has a name.
        subject: what it was of, for people.
        whole: pairs there were before some of them were chosen.
        against: beside what the literature has.
    """
    from ..evaluation import summarise
    from ..evaluation.checks import input_as_published, remarks
    from ..evaluation.published import rows_of
    from ..evaluation.report import cite

    made = request.degrade is not None
    summary = summarise(records, {extra.id: extra.total() for extra in request.extras if extra.id == "fid"})
    notes = remarks(summary, request.found, known, request.protocol, whole=whole, made=made)
    rows = rows_of(known.name, str(request.degrade) if made else "") if against and known else ()
    if against and not rows:
        notes.append("no published rows are known for this set")
    title = f"{subject}, {request.model}"
    if known and known.pairs:
        summary["set_pairs"] = known.pairs
    summary |= {"notes": notes, "cite": cite(title, head, summary)}
    if input_as_published(summary, known, request.protocol, made):
        summary["input_as_published"] = True
    out.record(summary)
    show_summary(out, title, head, summary, rows)
    if page is not None:
        out.note(f"report: {page.finish(records, summary, title=title, notes=notes, rows=rows)}")
    return summary


def _chosen(found: Found, only: str | None, limit: int | None) -> Found:
    from dataclasses import replace

    pairs = [pair for pair in found.pairs if only is None or fnmatch(pair.name, only)]
    if not pairs:
        raise NothingToDoError(f"No pair is called '{only}'.", f"The first one is {found.pairs[0].name}.")
    return replace(found, pairs=tuple(pairs[:limit]))


def _task(model: str, known: Dataset | None) -> str:
    """What a model is asked where nothing is said: what the set is about, or the only thing it can."""
    from .. import api

    info = api.info(model)
    if known and known.task and (known.task in info.tasks or not info.task_agnostic):
        return known.task
    if info.task_agnostic or len(info.tasks) == 1:
        return info.tasks[0]
    raise UsageError(
        f"{model} must be told what to undo.", f"Add --task, or --auto. It knows: {', '.join(info.tasks)}."
    )


def _scored(request: Request, page: Report | None, bar: Bar) -> Iterator[Record]:
    """One record after the other, each on the disk before it is passed on."""
    from ..evaluation import evaluate

    for record in evaluate(request, page.done if page else {}, bar.begin, bar.tiles):
        bar.end()
        if page is not None:
            page.add(record)
        yield record


def _restore_shown(request: Request, page: Report, records: list[Record], bar: Bar) -> None:
    """Restore again what the page shows and has no copy of any more."""
    from dataclasses import replace

    from ..evaluation import evaluate

    lacking = page.lacking(records)
    if lacking:
        rest = {record["name"]: record for record in records if record["name"] not in lacking}
        for _ in evaluate(replace(request, extras=(), keep=page.keep), rest, bar.begin):
            pass


def _tell(out: Output, record: Record) -> None:
    if "error" in record:
        out.note(f"error: {record['name']}: {record['error']}")
        return
    low, high = (record[side]["psnr"] for side in ("input", "output"))
    shown = ["equal" if value is None else f"{value:.2f}" for value in (low, high)]
    out.detail(f"{record['name']}: {shown[0]} -> {shown[1]} dB, {record['seconds']:.2f} s")
