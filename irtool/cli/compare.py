"""irtool compare: two pictures side by side, and how close they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import EXIT_OK, PictureError
from . import options
from .output import Output

if TYPE_CHECKING:
    import numpy as np


def compare(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="A picture, such as the input.", show_default=False)],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="Another, such as the result.", show_default=False)],
    reference: Annotated[
        Path | None, typer.Option("--truth", metavar="PICTURE", help="Ground truth that both are scored against.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="PATH", help="Write the two side by side.")
    ] = None,
    existing: options.Overwrite = "error",
    json: options.Json = False,
) -> int:
    """Compare two pictures.

    PSNR and SSIM on 8-bit RGB without a crop; with -o also the two side by side.
    """
    from ..metrics import to_8bit
    from ..picture import Picture, encode, read, save_bytes, side_by_side
    from ..targets import Item, check_targets

    overwrite = options.may_overwrite(existing, *([output] if output else []))
    if output is not None:
        from ..picture import format_for

        format_for(output)
        check_targets(
            [Item(path, None, None) for path in (before, after, reference) if path] + [Item(None, output, None)]
        )
    pictures = {
        path: to_8bit(read(path).pixels) for path in dict.fromkeys((before, after, reference)) if path is not None
    }
    out = Output(json=json)
    record: dict[str, object] = {"type": "comparison", "before": str(before), "after": str(after)}
    if reference is None:
        measured = _measure(pictures, before, after)
        record |= measured
        out.result(_format_scores(measured))
    else:
        first, second = _measure(pictures, reference, before), _measure(pictures, reference, after)
        record |= {"truth": str(reference), "before_to_truth": first, "after_to_truth": second}
        out.result(f"before  {_format_scores(first)}")
        out.result(f"after   {_format_scores(second)}")
        if first["psnr"] is not None and second["psnr"] is not None:
            gain = round(second["psnr"] - first["psnr"], 4)
            record["psnr_gain"] = gain
            out.result(f"gain    PSNR {gain:+.2f} dB")
    if output is not None:
        import numpy as np

        drawn = side_by_side(pictures[before], pictures[after])
        data = encode(Picture(drawn.astype(np.float32) / 255), format_for(output).name)
        save_bytes(data, output, replace=overwrite)
        record["output"] = str(output)
    out.record(record)
    return EXIT_OK


def _measure(pictures: dict[Path, np.ndarray], reference: Path, image: Path) -> dict[str, float | None]:
    """PSNR (None where equal: it is infinite) and SSIM (None where the pictures are too small for its window)."""
    from ..metrics import SSIM_SMALLEST, psnr, ssim

    a, b = pictures[reference], pictures[image]
    if a.shape != b.shape:
        sizes = f"{reference} is {a.shape[1]}x{a.shape[0]} and {image} is {b.shape[1]}x{b.shape[0]} pixels"
        raise PictureError(f"The pictures differ in size: {sizes}.", "Compare pictures of one size.")
    decibels = psnr(a, b)
    similarity = round(ssim(a, b), 6) if min(a.shape[:2]) >= SSIM_SMALLEST else None
    return {"psnr": None if decibels == float("inf") else round(decibels, 4), "ssim": similarity}


def _format_scores(measured: dict[str, float | None]) -> str:
    decibels, similarity = measured["psnr"], measured["ssim"]
    first = "equal" if decibels is None else f"PSNR {decibels:.2f} dB"
    return first + (", too small for SSIM" if similarity is None else f", SSIM {similarity:.4f}")
