"""irtool degrade: a picture made worse on purpose, to try a restorer on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import EXIT_OK, UsageError
from ..shard import parse as parse_shard
from . import options
from .output import Output, write_stdout


def degrade(  # noqa: C901 (what excludes what among the flags)
    source: Annotated[
        str | None, typer.Argument(metavar="PICTURE", help="The picture or a folder; - is stdin.")
    ] = None,
    chain: Annotated[
        str | None, typer.Argument(metavar="CHAIN", help="What to do to it, such as 'rain(density=0.6)|jpeg(q=20)'.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="PATH", help="File, or - for stdout; else NAME.degraded.png."),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, max=2**63 - 1, help="The same seed gives the same result.")
    ] = 0,
    recursive: options.Recursive = False,
    existing: Annotated[
        str | None,
        typer.Option(
            "--existing",
            metavar="|".join(options.EXISTING),
            help="What to do where the output exists. Default: skip in folder runs; else error.",
        ),
    ] = None,
    jobs: options.Jobs = "1",
    shard: options.ShardOption = None,
    list: Annotated[bool, typer.Option("--list", help="List the degradations and their parameters.")] = False,
    sheet: Annotated[bool, typer.Option("--sheet", help="Draw a contact sheet of all degradations instead.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Degrade a picture, seeded."""
    if list:
        return _list(Output(json=json))
    if source is None or (chain is None) != sheet:
        raise UsageError(
            "degrade takes a picture and either a degradation string or --sheet.",
            "irtool degrade photo.jpg 'rain(density=0.6)|jpeg(q=20)' -o rainy.png",
        )
    if existing is not None:
        options.one_of(existing, options.EXISTING, "--existing")
    if chain is not None and Path(source).is_dir():
        if output is None:
            raise UsageError("A folder needs another one for the results.", "Name it with -o.")
        from .degrade_folder import degrade_folder

        return degrade_folder(
            source, chain, output, recursive=recursive, existing=existing or "skip", seed=seed, jobs=jobs,
            shard=None if shard is None else parse_shard(shard), json=json, quiet=quiet,
        )  # fmt: skip
    existing = existing or "error"
    if existing == "skip":
        raise UsageError("--existing skip is for folders.", "Choose overwrite, rename or error.")
    target = _target(source, output, existing, ".sheet.jpg" if sheet else ".degraded.png")
    if json and target is None:
        raise UsageError("--json and a picture on stdout exclude each other.", "Name a file with -o.")

    import numpy as np
    import torch

    from .. import synth
    from ..picture import Picture, encode, format_for, read, save_bytes

    parsed = None if chain is None else synth.parse(chain)
    kind = "PNG" if target is None else format_for(target).name
    picture = read(sys.stdin.buffer.read(), name="stdin") if source == "-" else read(source)
    if parsed is None:
        from ..synth.sheet import contact_sheet

        drawn = Picture(contact_sheet([picture.pixels], seed=seed).astype(np.float32) / 255)
    else:
        pixels = torch.from_numpy(picture.pixels).permute(2, 0, 1)[None].contiguous()
        degraded = parsed.apply(pixels, torch.Generator().manual_seed(seed))[0].permute(1, 2, 0)
        drawn = picture.with_pixels(degraded.contiguous().numpy())
    data = encode(drawn, kind)
    if target is None:
        write_stdout(data)
        return EXIT_OK
    save_bytes(data, target, replace=existing == "overwrite", like=picture.source)
    out = Output(json=json, quiet=quiet)
    words = "a sheet of all degradations" if parsed is None else str(parsed)
    if not quiet:
        out.result(f"{source} -> {target}: {words}, seed {seed}")
    out.record(
        {
            "type": "image",
            "input": source,
            "output": str(target),
            "chain": chain,
            "seed": seed,
        }
    )
    return EXIT_OK


def _target(source: str, output: str | None, existing: str, suffix: str) -> Path | None:
    """The output, None for stdout, after the same rules as in restore."""
    from ..targets import Item, check_targets, resolve_existing

    if output == "-" or (output is None and source == "-"):
        return None
    origin = None if source == "-" else Path(source)
    if output is None:
        assert origin is not None
        target = origin.with_name(origin.stem + suffix)
    else:
        target = Path(output)
        if target.is_dir():
            target = target / ((origin.stem if origin else "stdin") + suffix)
    items = [Item(origin, target, None)]
    check_targets(items)
    return resolve_existing(items, existing)[0][0].target


def _list(out: Output) -> int:
    from ..synth import TABLE

    for spec in TABLE.values():
        parameters = [
            {"name": p.name, "default": p.default, "range": p.range, "meaning": p.meaning} for p in spec.parameters
        ]
        out.record(
            {
                "type": "degradation",
                "id": spec.id,
                "summary": spec.summary,
                "source": spec.source,
                "parameters": parameters,
            }
        )
        out.result(f"{spec.id}: {spec.summary}")
        out.result(f"    after {spec.source}")
        for p in spec.parameters:
            out.result(f"    {p.name:<12}{p.default!s:<10}{p.range:<28}{p.meaning}")
    return EXIT_OK
