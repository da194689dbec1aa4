"""irtool export: a model as a file that runs without irtool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import EXIT_OK, UsageError
from ..weights.registry import DEFAULT_RESTORER, DEFAULT_UPSCALER
from . import options
from .output import Output


def export(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] FILE",
            help="The model (default: irtool-small; with --scale one that enlarges) and the .onnx or .xml to write.",
            show_default=False,
        ),
    ],
    format: Annotated[
        str | None, typer.Option("--format", metavar="onnx|openvino", help="Default: as the file's suffix says.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="TASK", help="What a restorer is to remove; repeat it or use commas."),
    ] = None,
    scale: Annotated[
        int | None, typer.Option("--scale", metavar="2|3|4", help="Export the model that enlarges that many times.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="WxH", help="Fix the graph to one size; default: any from 32 pixels."),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Weights and activations as 8-bit integers.")] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option("--calibrate", metavar="DIR", help="Pictures like those it will see, for --int8."),
    ] = None,
    existing: options.Overwrite = "error",
    offline: options.Offline = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Write a model as a file that runs without irtool.

    irtool export irtool-small denoise.onnx --task denoise

    irtool export --scale 3 upscale.xml --int8 --calibrate photos/

    The graph takes "image", (1, 3, H, W) float32 RGB in [0, 1], and gives "restored".
    """
    from ..exporting.files import OPSET, format_of
    from ..plan import SCALES

    if len(targets) > 2:
        raise UsageError("Give a model and a file to write.", "irtool export irtool-small denoise.onnx --task denoise")
    path = Path(targets[-1])
    kind = format_of(path, format)
    options.may_overwrite(existing, path, *([path.with_suffix(".bin")] if kind == "openvino" else []))
    if scale is not None and scale not in SCALES:
        raise UsageError(f"--scale is 2, 3 or 4, not {scale}.")
    if scale is not None and task:
        raise UsageError("--scale and --task are of different models.", "Export two files.")
    if calibrate is not None and not int8:
        raise UsageError("--calibrate is for --int8.", "Add --int8, or leave it out.")
    sides = None if size is None else _sides(size)
    fallback = DEFAULT_RESTORER if scale is None else DEFAULT_UPSCALER.format(scale=scale)
    reference = targets[0] if len(targets) == 2 else fallback
    from ..api import cached_model
    from ..plan import plan_tasks

    steps = plan_tasks(task, 1.0, "one pass").steps if task else ()
    weights = dict(steps[0].task_weights) if steps else {}
    model = cached_model(reference)
    if scale is not None and model.info.scale != scale:
        raise UsageError(
            f"{reference} enlarges {model.info.scale} times, not {scale}.", "Leave --scale or the model out."
        )
    integer = model.info.name == "etds-int8"
    if int8 and calibrate is None and not integer:
        raise UsageError("--int8 needs pictures to find the ranges of values with.", "Add --calibrate FOLDER.")
    from ..exporting import export as write

    written = write(model, path, tasks=weights, name=reference, size=sides, calibrate=calibrate)
    out = Output(json=json, quiet=quiet)
    total = sum(file.stat().st_size for file in written)
    fixed = f"{sides[0]}x{sides[1]}" if sides else "any size from 32x32"
    precision = "int8" if int8 or integer else "float32"
    out.record(
        {"type": "export", "model": reference, "files": [str(file) for file in written], "bytes": total, "opset": OPSET}
        | {"format": kind, "precision": precision, "tasks": weights, "scale": model.info.scale, "size": sides}
    )
    if not quiet:
        names = " and ".join(map(str, written))
        out.result(f"{reference} -> {names}: {precision}, opset {OPSET}, {fixed}, {total / 1e3:.0f} kB")
    return EXIT_OK


def _sides(text: str) -> tuple[int, int]:
    wide, times, high = text.lower().partition("x")
    if not times or not wide.isdecimal() or not high.isdecimal() or min(int(wide), int(high)) < 32:
        raise UsageError(f"--size '{text}' is no size.", "Write width x height from 32 pixels, such as 640x360.")
    return int(wide), int(high)
