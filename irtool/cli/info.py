"""irtool info: what a file is, and what irtool has done to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import EXIT_OK, EXIT_SOME_FAILED, IrtoolError, UsageError
from . import options
from .output import Output

if TYPE_CHECKING:
    from ..picture import Picture
    from ..provenance import Provenance


def info(
    inputs: options.Inputs,
    recursive: options.Recursive = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Say what pictures are and what irtool did to them.

    Reads the record that restore leaves in the XMP of JPEG, PNG, TIFF, WebP and AVIF files: version, plan, models with
    their sha256, and the sha256 of the source.
    """
    from .. import provenance
    from ..memory import Budget
    from ..picture import Picture
    from ..targets import Item, gather
    from .batch import Run, read

    out = Output(json=json, quiet=quiet)
    run = Run(out, ("recorded", "other"))
    code = EXIT_OK
    for found in gather(inputs, recursive=recursive):
        item = Item(None if found is None else found.path, None, None)
        try:
            frames = read(item, Budget(), several=True)
            picture = frames if isinstance(frames, Picture) else next(iter(frames))[0]
        except IrtoolError as error:
            run.failed(item, error)
            code = error.exit_code if inputs == [item.name] else EXIT_SOME_FAILED
            continue
        record = provenance.read(picture.xmp)
        count = 1 if isinstance(frames, Picture) else frames.count
        run.count(item, "other" if record is None else "recorded", {"frames": count, **_described(picture, record)})
        for line in _lines(item.name, picture, record, count):
            out.result(line)
    return run.summary(code)


def _described(picture: Picture, record: Provenance | None) -> dict[str, Any]:
    return {
        "format": picture.format,
        "width": picture.width,
        "height": picture.height,
        "bits": picture.bits,
        "gray": picture.gray,
        "alpha": picture.alpha is not None,
        "exif": picture.exif is not None,
        "icc": picture.icc is not None,
        "irtool": None if record is None else record.to_dict(),
    }


def _lines(name: str, picture: Picture, record: Provenance | None, count: int) -> list[str]:
    """What is said of a picture, in lines that can be searched."""
    kind = f"{name}: {picture.format}, {picture.width}x{picture.height}, {picture.bits} bits" + (
        f", {count} frames" if count > 1 else ""
    )
    if record is None:
        return [f"{kind}; no record of irtool"]
    from ..plan import Plan

    try:
        plan = str(Plan.from_dict(record.plan))
    except UsageError:
        plan = "a plan that this version does not know"
    lines = [f"{kind}; irtool {record.version}: {plan}"]
    lines += [f"{name}: model {model}, sha256 {digest or 'unknown'}" for model, digest in record.models.items()]
    return lines + ([f"{name}: source sha256 {record.source_sha256}"] if record.source_sha256 else [])
