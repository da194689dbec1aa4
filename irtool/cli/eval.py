"""irtool eval: restorers scored on pairs, under a named protocol."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, NothingToDoError, UnavailableError, UsageError
from ..weights.registry import DEFAULT_DETECTOR, DEFAULT_RESTORER
from . import options
from .output import Output, is_plain

if TYPE_CHECKING:
    from ..data import Dataset, Found, Protocol
    from ..evaluation.published import Row
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
        Path | None, typer.Option("--root", metavar="DIR", help="Where it lies. Default: IRTOOL_DATASETS/NAME.")
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
        str, typer.Option("--metrics", metavar="A,B", help="Beside PSNR and SSIM: lpips-alex, lpips-vgg, fid, blur.")
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
        return _list(out, options.one_of(listing, LISTS, "eval"))
    if compare is not None:
        return _compare(out, *compare)
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
    from ..metrics.extra import METRICS

    wanted = [name.strip() for name in metrics.split(",") if name.strip()]
    for name in wanted:
        options.one_of(name, METRICS, "--metrics")
    known, found = _pairs(dataset, root, lq, gt or [], degrade)
    rules = get_protocol(protocol or (known.protocol if known else "canonical"))
    whole = len(found.pairs)
    found = _chosen(found, only, limit)
    for name in found.unused[:5] if limit is None and only is None else ():
        out.note(f"note: no degraded picture belongs to the truth {name}")
    out.detail(f"found {whole} pairs: {found.layout}")
    options.set_threads(threads)

    from ..evaluation import Request, evaluate, header, summarise
    from ..evaluation.published import rows_of
    from ..evaluation.report import Report, save_png, to_csv
    from ..evaluation.run import NO_MODEL
    from ..metrics.extra import make
    from ..picture import save_bytes
    from ..plan import plan_tasks
    from ..synth import parse

    chain = None if degrade is None else parse(degrade)
    plan = None
    if model != NO_MODEL and not auto:
        plan = plan_tasks(task or [_task(model, known, out)], 1.0, model)
    keepers: list[Any] = []

    def keep(*kept: Any) -> None:
        for keeper in keepers:
            keeper(*kept)

    request = Request(
        found, rules, model, plan, dataset=known.name if known else "", degrade=chain,
        extras=[make(name, _metric_device(device)) for name in wanted], seed=seed,
        device=device, dtype=dtype, tile=tile, max_memory=memory, detector=detector if auto else "",
        keep=keep,
    )  # fmt: skip
    if model != NO_MODEL:
        from .. import api

        api.prepare(model=model, detector=detector if auto else None, device=device)
    head = header(request)
    out.record(head)
    page = Report(report, head, resume) if report is not None else None
    if page is not None:
        keepers.append(page.keep)
        if wanted and "fid" in wanted and page.done:
            raise UsageError("FID needs the features of all pictures.", "Leave --resume or fid out.")
    if save_images is not None:
        keepers.append(lambda name, before, after, truth: save_png(save_images, name, after))
    done = page.done if page is not None else {}
    records: list[Record] = []
    try:
        with out.progress(len(found.pairs)) as bar:
            for record in evaluate(request, done, bar.begin, bar.tiles):
                bar.end()
                records.append(record)
                if page is not None:
                    page.add(record)
                out.record(record)
                _tell(out, record)
            if page is not None:
                again = page.lacking(records)
                rest = {r["name"]: r for r in records if r["name"] not in again}
                for _ in evaluate(request, rest, bar.begin, bar.tiles) if again else ():
                    pass
    except KeyboardInterrupt:
        out.note(f"interrupted after {len(records)} of {len(found.pairs)} pairs")
        out.note("hint: " + ("Run the same command with --resume." if page else "With --report a run can be resumed."))
        return EXIT_INTERRUPTED
    summary = summarise(records, {extra.id: extra.total() for extra in request.extras if extra.id == "fid"})
    notes = _checks(known, rules, found, whole, summary, chain is not None)
    summary["notes"] = notes
    rows = rows_of(known.name, str(chain) if chain else "") if against and known else ()
    if against and not rows:
        notes.append("no published rows are known for this set")
    out.record(summary)
    subject = known.title or known.name if known else (lq or (gt or [Path()])[0]).name
    title = f"{subject}, {model}"
    _show(out, title, head, summary, rows)
    if csv is not None:
        save_bytes(to_csv(records).encode(), csv)
    if page is not None:
        out.note(f"report: {page.finish(records, summary, title=title, notes=notes, rows=rows)}")
    return EXIT_SOME_FAILED if summary["failed"] else EXIT_OK


def _metric_device(device: str) -> str:
    from ..engine import pick_device

    return str(pick_device(device))


def _pairs(
    dataset: str | None, root: Path | None, lq: Path | None, gt: Sequence[Path], degrade: str | None
) -> tuple[Dataset | None, Found]:
    """The set that is meant, if it has a name, and its pairs."""
    from ..data import between, clean, discover, get_dataset

    if (dataset is None) == (not gt):
        raise UsageError("Name a data set, or folders.", "irtool eval --dataset NAME --root DIR, or --lq DIR --gt DIR.")
    if lq is not None and degrade is not None:
        raise UsageError("--lq and --degrade exclude each other.", "Degraded pictures are given, or made.")
    known = None if dataset is None else get_dataset(dataset)
    if known is None or known.gt:
        lows = lq if known is None else Path(known.lq) if known.lq and degrade is None else None
        highs = gt if known is None else [Path(folder) for folder in known.gt]
        if lows is None and degrade is None:
            if known is None or not known.degrade:
                raise UsageError("Degraded pictures are missing.", "Give --lq DIR, or --degrade CHAIN.")
            raise UsageError(_degrade_hint(known), f"--degrade '{known.degrade[0]}'")
        found = between(lows, highs) if lows is not None else clean(highs)
    else:
        place = root
        if place is None and os.environ.get("IRTOOL_DATASETS"):
            place = Path(os.environ["IRTOOL_DATASETS"]) / known.name
        expected = f"{known.title} comes from {known.page}; expected layout: {known.layout}."
        if place is None:
            raise UnavailableError(f"Where is {known.title}? It does not ship with irtool.", f"--root DIR. {expected}")
        if not place.is_dir():
            raise UnavailableError(f"{known.title} is not here: there is no folder '{place}'.", expected)
        if known.degrade and degrade is None:
            try:
                found = discover(place, known.layout)
            except UnavailableError:
                raise UsageError(_degrade_hint(known), f"--degrade '{known.degrade[0]}'") from None
        else:
            try:
                found = discover(place, known.layout, only_clean=degrade is not None)
            except UnavailableError as error:
                raise UnavailableError(error.message, expected) from error
    return known, found


def _degrade_hint(known: Dataset) -> str:
    return f"{known.title} is a set of clean pictures, scored under {', '.join(known.degrade)}."


def _chosen(found: Found, only: str | None, limit: int | None) -> Found:
    from dataclasses import replace

    pairs = [pair for pair in found.pairs if only is None or fnmatch(pair.name, only)]
    if not pairs:
        raise NothingToDoError(f"No pair is called '{only}'.", f"The first one is {found.pairs[0].name}.")
    return replace(found, pairs=tuple(pairs[:limit]))


def _task(model: str, known: Dataset | None, out: Output) -> str:
    """What a model is asked where nothing is said: what the set is about, or the only thing it can."""
    from .. import api

    api.prepare(model=model)
    capability = api._restorer(model).capability
    if known and known.task and (known.task in capability.tasks or not capability.blind):
        return known.task
    if capability.blind or len(capability.tasks) == 1:
        return capability.tasks[0]
    raise UsageError(
        f"{model} must be told what to undo.", f"Add --task, or --auto. It knows: {', '.join(capability.tasks)}."
    )


def _tell(out: Output, record: Record) -> None:
    if "error" in record:
        out.note(f"error: {record['name']}: {record['error']}")
        return
    low, high = (record[side]["psnr"] for side in ("input", "output"))
    shown = ["equal" if value is None else f"{value:.2f}" for value in (low, high)]
    out.detail(f"{record['name']}: {shown[0]} -> {shown[1]} dB, {record['seconds']:.2f} s")


def _checks(known: Dataset | None, rules: Protocol, found: Found, whole: int, summary: Record, made: bool) -> list[str]:
    """What a reader must know before taking the figures for those of the set."""
    from ..data import names_hash

    notes = []
    scored = summary["scored"]
    if summary["failed"]:
        names = summary["failed_names"]
        more = "" if len(names) <= 10 else f" and {len(names) - 10} more"
        told = f"{len(names)} of {summary['pairs']} pairs are broken and in no mean"
        notes.append(f"{told}: {', '.join(names[:10])}{more}")
    if known is None or not known.pairs:
        return notes
    if scored != known.pairs:
        notes.append(f"a part of the set: {scored} of {known.pairs} pairs; its figures are not those of the whole")
    elif known.names and names_hash([pair.name for pair in found.pairs]) != known.names:
        notes.append("complete in number, but under other file names than the published set has")
    if whole > known.pairs:
        notes.append(f"{whole} pairs were found where the set has {known.pairs}")
    if known.input is not None and scored == known.pairs and not made and rules.id == known.input.protocol:
        measured = summary["input"]["psnr"]["mean"]
        if measured is None or abs(measured - known.input.psnr) > known.input.within:
            shown = "equal pictures" if measured is None else f"{measured:.2f} dB"
            notes.append(f"altered: its input gives {shown}, that of the published set {known.input.psnr:.2f} dB")
        else:
            summary["input_as_published"] = True
    return notes


def _show(out: Output, title: str, head: Record, summary: Record, rows: Sequence[Row]) -> None:
    """The summary for people."""
    from ..evaluation.report import cost, subtitle

    if out.json:
        return
    lines = [["", "input", "output", "95 % interval"]]

    def cell(value: float | None, metric: str) -> str:
        return "equal" if value is None else f"{value:.{2 if metric in ('psnr', 'fid') else 4}f}"

    for metric, o in summary.get("output", {}).items():
        name = "PSNR, dB" if metric == "psnr" else metric.upper()
        low = summary["input"].get(metric)
        span = f"{cell(o['low'], metric)} to {cell(o['high'], metric)}" if o.get("low") is not None else ""
        lines.append([name, cell(low["mean"], metric) if low else "", cell(o["mean"], metric), span])
    gain = summary.get("gain")
    if gain and gain["mean"] is not None:
        span = f"{gain['low']:+.2f} to {gain['high']:+.2f}"
        lines.append(["gain, dB", "", f"{gain['mean']:+.2f}", span])
    out.result(title)
    out.result(subtitle(head, summary))
    for line in _table(lines):
        out.result(line)
    if summary.get("scored"):
        known = "; input as published" if summary.get("input_as_published") else ""
        out.result(cost(summary) + known)
    for note in summary["notes"]:
        out.note(f"warning: {note}")
    if rows:
        out.result("published:")
        told = [["", "PSNR", "SSIM", "protocol", "remarks"]]
        for row in rows:
            figures = ["" if v is None else f"{v:.{n}f}" for v, n in ((row.psnr, 2), (row.ssim, 3))]
            told.append([row.method, *figures, row.protocol, row.remark])
        for line in _table(told):
            out.result(line)


def _table(lines: Sequence[Sequence[str]]) -> list[str]:
    """Rows drawn by rich where stdout is a terminal, else aligned text."""
    if is_plain(sys.stdout):
        from .models import table

        return table(lines)
    from rich.console import Console
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(lines[0]):
        figures = all(line[number][-1:].isdigit() or line[number] in ("", "equal") for line in lines[1:])
        drawn.add_column(name, justify="right" if figures and number else "left", overflow="fold")
    for line in lines[1:]:
        drawn.add_row(*line)
    console = Console()
    with console.capture() as captured:
        console.print(drawn)
    return captured.get().rstrip("\n").split("\n")


def _compare(out: Output, first: Path, second: Path) -> int:
    """Two runs, picture by picture."""
    from ..evaluation.summary import compare, read_run

    told = compare(read_run(first), read_run(second))
    out.record(told)
    if out.json:
        return EXIT_OK
    for key in told["differ"]:
        out.note(f"warning: the runs differ in {key}")
    if told["content_differs"]:
        out.note(f"warning: {told['content_differs']} pictures have other files")
    lines = [["", told["models"][0], told["models"][1], "difference", "95 % interval", "higher", "lower"]]
    for metric, m in told["metrics"].items():
        places = 2 if metric == "psnr" else 4
        d = m["difference"]
        span = f"{d['low']:+.{places}f} to {d['high']:+.{places}f}"
        figures = [f"{m['first']:.{places}f}", f"{m['second']:.{places}f}", f"{d['mean']:+.{places}f}", span]
        lines.append([metric.upper(), *figures, str(m["higher"]), str(m["lower"])])
    out.result(f"{told['pictures']} pictures in both runs")
    for line in _table(lines):
        out.result(line)
    return EXIT_OK


def _list(out: Output, what: str) -> int:
    """The sets, protocols or metrics that are known."""
    from dataclasses import asdict

    from ..data import PROTOCOLS, datasets
    from ..metrics.extra import METRICS

    if what == "datasets":
        for known in datasets():
            out.record({"type": "dataset"} | {k: v for k, v in asdict(known).items() if k not in ("lq", "gt")})
        rows = [["name", "task", "pairs", "protocol", "suites", "origin"]]
        rows += [[d.name, d.task, str(d.pairs), d.protocol, " ".join(d.suites), d.page] for d in datasets()]
    elif what == "protocols":
        for p in PROTOCOLS.values():
            out.record({"type": "protocol"} | p.to_dict())
        rows = [["name", "what is scored", "after"]]
        rows += [[p.id, p.summary, p.source] for p in PROTOCOLS.values()]
    else:
        for name in METRICS:
            out.record({"type": "metric", "id": name})
        rows = [["psnr, ssim"], *[[name] for name in METRICS]]
    for line in _table(rows):
        out.result(line)
    return EXIT_OK
