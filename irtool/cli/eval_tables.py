"""What irtool eval prints: a run, two runs side by side, and what there is to choose from."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import EXIT_OK
from .output import Output, is_plain, printable

if TYPE_CHECKING:
    from ..evaluation.published import Row
    from ..evaluation.summary import Record


def show_summary(out: Output, title: str, head: Record, summary: Record, rows: Sequence[Row]) -> None:
    """The figures of a run, what a reader must know of them, and the rows of the literature among which they stand."""
    from ..evaluation.report import cost, measured, subtitle

    lines = [["", "input", "output", "95 % interval"]]
    for metric, o in summary.get("output", {}).items():
        low = summary.get("input", {}).get(metric)
        span = f"{cell(o['low'], metric)} to {cell(o['high'], metric)}" if o.get("low") is not None else ""
        lines.append([name_of(metric), cell(low["mean"], metric) if low else "", cell(o["mean"], metric), span])
    gain = summary.get("gain")
    if gain and gain["mean"] is not None:
        span = f"{gain['low']:+.2f} to {gain['high']:+.2f}"
        lines.append(["gain, dB", "", f"{gain['mean']:+.2f}", span])
    out.result(title)
    out.result(subtitle(head, summary))
    for line in table(lines):
        out.result(line)
    parts = [*cost(summary), *(["input as published"] if summary.get("input_as_published") else [])]
    if parts:
        out.result("; ".join(parts))
    if summary.get("scored"):
        out.result(f"quote: {summary['cite']}")
    for note in summary["notes"]:
        out.note(f"warning: {note}")
    if rows:
        own_row = measured(head, summary)
        out.result("beside the literature, as its authors print it:")
        table_rows = [["", "PSNR", "SSIM", "protocol", "remarks"]]
        for row in sorted([*rows, own_row], key=lambda row: -(row.psnr or 0)):
            figures = ["" if v is None else f"{v:.{n}f}" for v, n in ((row.psnr, 2), (row.ssim, 3))]
            table_rows.append([f"> {row.method}" if row is own_row else row.method, *figures, row.protocol, row.remark])
        for line in table(table_rows):
            out.result(line)


def show_comparison(out: Output, first: Path, second: Path) -> int:
    """Two runs, picture by picture."""
    from ..evaluation.summary import compare, read_run

    comparison = compare(read_run(first), read_run(second))
    out.record(comparison)
    for key in comparison["differ"]:
        out.note(f"warning: the runs differ in {key}")
    if comparison["content_differs"]:
        out.note(f"warning: {comparison['content_differs']} pictures have other files")
    for run, alone in zip((first, second), comparison["alone"], strict=True):
        if alone:
            out.note(f"note: left out, since in {run} alone: {alone}")
    lines = [["", comparison["models"][0], comparison["models"][1], "difference", "95 % interval", "higher", "lower"]]
    for metric, m in comparison["metrics"].items():
        places = 2 if metric == "psnr" else 4
        d = m["difference"]
        span = f"{d['low']:+.{places}f} to {d['high']:+.{places}f}"
        figures = [f"{m['first']:.{places}f}", f"{m['second']:.{places}f}", f"{d['mean']:+.{places}f}", span]
        lines.append([name_of(metric), *figures, str(m["higher"]), str(m["lower"])])
    out.result(f"pictures in both runs: {comparison['pictures']}")
    for line in table(lines):
        out.result(line)
    return EXIT_OK


def show_list(out: Output, what: str) -> int:
    """The data sets, protocols or metrics that are known."""
    from dataclasses import asdict

    from ..data import PROTOCOLS, datasets
    from ..metrics.extra import DESCRIPTIONS, METRICS

    if what == "datasets":
        for known in datasets():
            out.record({"type": "dataset"} | {k: v for k, v in asdict(known).items() if k not in ("lq", "gt")})
        rows = [["name", "task", "pairs", "input dB", "protocol", "licence", "suites", "origin"]]
        for d in datasets():
            figure = f"{d.input.psnr:.2f}" if d.input else ""
            license = "not stated" if d.licence == "NOASSERTION" else d.licence.removeprefix("LicenseRef-")
            origin = f"irtool download {d.name}" if d.archive else d.page
            rows.append([d.name, d.task, str(d.pairs), figure, d.protocol, license, " ".join(d.suites), origin])
    elif what == "protocols":
        for p in PROTOCOLS.values():
            out.record({"type": "protocol"} | p.to_dict())
        rows = [["name", "what is scored", "after"]]
        rows += [[p.id, p.summary, p.source] for p in PROTOCOLS.values()]
    else:
        for name in METRICS:
            out.record({"type": "metric", "id": name, "about": DESCRIPTIONS[name]})
        rows = [["name", "what it is"], ["psnr, ssim", "always; by scikit-image, as the protocol has it"]]
        rows += [[name, DESCRIPTIONS[name]] for name in METRICS]
    for line in table(rows):
        out.result(line)
    return EXIT_OK


def name_of(metric: str) -> str:
    """What a metric is called in a table."""
    return "PSNR, dB" if metric == "psnr" else metric.upper()


def cell(value: float | None, metric: str) -> str:
    """A figure with the places its metric is quoted with; None, the PSNR of equal pictures, in a word."""
    return "equal" if value is None else f"{value:.{2 if metric in ('psnr', 'fid') else 4}f}"


def table(lines: Sequence[Sequence[str]]) -> list[str]:
    """Rows drawn by rich where stdout is a terminal, else aligned text."""
    if is_plain(sys.stdout):
        from .models import table as aligned

        return aligned(lines)
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(lines[0]):
        figures = all(line[number][-1:].isdigit() or line[number] in ("", "equal") for line in lines[1:])
        drawn.add_column(name, justify="right" if figures and number else "left", overflow="fold")
    for line in lines[1:]:
        drawn.add_row(*(Text(printable(cell)) for cell in line))
    console = Console()
    with console.capture() as captured:
        console.print(drawn)
    return captured.get().rstrip("\n").split("\n")
