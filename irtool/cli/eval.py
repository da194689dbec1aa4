"""irtool eval: restorers scored on pairs, under a named protocol."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, UsageError
from ..shard import parse as parse_shard
from ..weights.registry import DEFAULT_DETECTOR, DEFAULT_RESTORER
from . import options
from .eval_tables import show_comparison, show_list, show_summary
from .output import Bar, Output

if TYPE_CHECKING:
    from ..evaluation.summary import Record

EXISTING = ("overwrite", "error")
LISTS = ("datasets", "protocols", "metrics")


def eval(  # noqa: C901, PLR0912, PLR0915 (what excludes what among the flags)
    listing: Annotated[
        str | None, typer.Argument(metavar="|".join(LISTS), help="List these instead.", show_default=False)
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", metavar="NAME|FILE.toml", help="The data set, or a TOML of your own.")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="DIR", help="Folder of the data set. Default: NAME under IRTOOL_DATASETS."),
    ] = None,
    lq: Annotated[Path | None, typer.Option("--lq", metavar="DIR", help="Degraded pictures, instead of a set.")] = None,
    gt: Annotated[
        list[Path] | None, typer.Option("--gt", metavar="DIR", help="Ground truth; repeat it for several folders.")
    ] = None,
    degrade: Annotated[
        str | None,
        typer.Option("--degrade", metavar="CHAIN", help="Degrade the ground truth, such as 'noise(50)'."),
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
        typer.Option("--task", metavar="TASK", help="Task of the model. Default: that of the data set."),
    ] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Find the tasks in each picture instead.")] = False,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol", metavar="NAME", help="Scoring protocol. Default: that of the data set, else canonical."
        ),
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics",
            metavar="A,B",
            help="Beside PSNR and SSIM: lpips (through the protocol's network), lpips-alex, lpips-vgg, fid, blur.",
        ),
    ] = "",
    only: Annotated[str | None, typer.Option("--only", metavar="GLOB", help="Only pairs whose names match.")] = None,
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
    existing: Annotated[
        str | None,
        typer.Option(
            "--existing",
            metavar="overwrite|error",
            help="Where an output of --csv or --save-images exists. Default: error; with --resume overwrite.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, max=2**32 - 1, help="Random seed of --degrade.")
    ] = 0,
    device: options.Device = "auto",
    dtype: options.Dtype = "fp32",
    tile: options.Tile = "auto",
    max_memory: options.MaxMemory = None,
    ensemble: options.Ensemble = False,
    threads: options.Threads = None,
    jobs: options.Jobs = "1",
    shard: options.ShardOption = None,
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
    arguments = dict(locals())
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
    overwrite = options.one_of(existing or ("overwrite" if resume else "error"), EXISTING, "--existing") == EXISTING[0]
    options.one_of(dtype, options.DTYPES, "--dtype")
    options.check_device(device)
    if jobs != "1" and (shard is not None or "fid" in metrics):
        raise UsageError("--jobs excludes --shard, and fid, which needs all pictures.", "Leave one of them out.")
    share = None if shard is None else parse_shard(shard)
    memory = None if max_memory is None else options.parse_bytes(max_memory)

    from ..data import get_protocol
    from ..metrics.extra import METRICS

    metric_names = [name.strip() for name in metrics.split(",") if name.strip()]
    for name in metric_names:
        options.one_of(name, ("lpips", *METRICS), "--metrics")
    if protocol is not None:
        get_protocol(protocol)
    options.set_threads(threads)

    from .. import api
    from ..evaluation.run import NO_MODEL
    from ..evaluation.session import Pairs, Session, request_of

    pairs = Pairs.of(dataset, root, lq, gt or (), degrade, only, limit)
    out.note(f"{pairs.whole} {'pair' if pairs.whole == 1 else 'pairs'}: {pairs.found.layout}")
    for name in pairs.found.unused[:5]:
        out.note(f"note: no degraded picture belongs to the truth {name}")
    if model != NO_MODEL:
        infos = api.prepare([model], detector=detector if auto else None, device=device)
        for remark in infos[model].remarks:
            out.note(f"{model}: {remark}")
    request = request_of(
        pairs, model=model, tasks=task, auto=auto, protocol=protocol, metrics=metric_names, degrade=degrade,
        detector=detector, device=device, seed=seed, dtype=dtype, tile=tile, max_memory=memory, ensemble=ensemble,
    )  # fmt: skip
    count = options.jobs(jobs, len(pairs.found.pairs), device)
    stack = ExitStack()
    if count > 1:
        from ..evaluation.outputs import check_outputs
        from ..evaluation.report import RUN
        from .eval_shards import score_shards

        if report is not None and not resume and (report / RUN).exists():
            raise UsageError(f"{report} holds a run already.", "Go on with it by --resume, or name another folder.")
        check_outputs(pairs.found, csv=csv, images=save_images, report=report, read=(), overwrite=overwrite)
        work = report or Path(stack.enter_context(TemporaryDirectory(prefix="irtool-")))
        try:
            score_shards(arguments, count, work, len(pairs.found.pairs), out)
        except KeyboardInterrupt:
            stack.close()
            out.note("interrupted")
            return EXIT_INTERRUPTED
    data_set_files = [Path(dataset)] if dataset and dataset.endswith(".toml") else []
    session = Session(
        pairs,
        request,
        report=work if count > 1 else report,
        resume=resume or count > 1,
        images=save_images,
        csv=csv,
        overwrite=overwrite or count > 1,
        read=data_set_files,
        shard=share,
    )
    out.record(session.head)
    try:
        with out.progress(len(session.request.found.pairs)) as bar:
            for _ in session.run(_Listener(out, bar)):
                pass
    except KeyboardInterrupt:
        out.note(f"interrupted after {len(session.records)} of {len(session.request.found.pairs)} pairs")
        go_on = "Run the same command with --resume." if report else "With --report a run can be resumed."
        out.note(f"hint: {go_on}")
        return EXIT_INTERRUPTED
    summary, title, rows, page = session.conclude(against is not None)
    out.record(summary)
    show_summary(out, title, session.head, summary, rows)
    stack.close()
    if page is not None and report is not None:
        out.note(f"report: {page}")
    return EXIT_SOME_FAILED if summary["failed"] else EXIT_OK


class _Listener:
    """Shows what happens during a session (`irtool.evaluation.session.Listener`)."""

    def __init__(self, out: Output, bar: Bar) -> None:
        self.out, self.begin, self.tiles, self.end = out, bar.begin, bar.tiles, bar.end

    def record(self, record: Record) -> None:
        self.end()
        self.out.record(record)
        _print_record(self.out, record)


def _print_record(out: Output, record: Record) -> None:
    if "error" in record:
        out.note(f"error: {record['name']}: {record['error']}")
        return
    low, high = (record[side]["psnr"] for side in ("input", "output"))
    shown = ["equal" if value is None else f"{value:.2f}" for value in (low, high)]
    out.detail(f"{record['name']}: {shown[0]} -> {shown[1]} dB, {record['seconds']:.2f} s")
