"""From the name of a model to a file that is known to be the right one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

from ..errors import UnavailableError, reason
from ..fileio import is_regular, sha256
from . import hub
from .registry import File, Record, get

LOCAL = "local:"
HUB = "hf-hub:"
# Part of the name of every converted file: another way of converting must not find the files of the old one.
CONVERTER = 1

Notify = Callable[[str], None]


def locate(reference: str) -> Path:
    """The safetensors file that a reference stands for, ready to load.

    What ships is compared with its sha256 once per process. What was published elsewhere is downloaded unless irtool is
    offline, compared, and converted once; from then on the converted file is taken.

    Args:
        reference: ``ID``; ``local:PATH``, safetensors or a published .pt or .pth; or
            ``hf-hub:ORG/REPO[@REVISION][:FILE]``.

    Raises:
        UsageError: there is no such id, or the reference is not written so.
        UnavailableError: the file is absent and cannot be had, or is not the registered one.
    """
    if reference.startswith(LOCAL):
        try:
            path = Path(reference.removeprefix(LOCAL)).expanduser()
        except RuntimeError:  # ~ of nobody
            path = Path(reference.removeprefix(LOCAL))
        if not is_regular(path):
            raise UnavailableError(f"There is no model file '{path}'.", "Give the path of a .safetensors or .pth file.")
        return _as_safetensors(path)
    if reference.startswith(HUB):
        return _as_safetensors(hub.fetch(hub_file(reference), refresh=True))
    record = get(reference)
    if record.kind == "asset":
        verify(record)
        return record.path
    path = converted(record)
    return path if is_regular(path) else obtain(record)


def state(record: Record) -> str:
    """ "here", "to download", "by hand" (a person has to fetch it) or "missing" (it should have shipped).

    Quick: reads nothing.
    """
    if record.kind == "asset":
        try:
            return "here" if record.path.stat().st_size == record.bytes else "missing"
        except OSError:
            return "missing"
    if converted(record).is_file():
        return "here"
    return "by hand" if record.kind == "manual" else "to download"


def converted(record: Record) -> Path:
    """Where the converted file of a record belongs.

    Its name depends on all that it was made of, so that a record that changes is converted again.
    """
    made_of = [(f.sha256 or f.source, f.state, f.prefix) for f in record.files]
    identity = json.dumps([CONVERTER, made_of, _header(record), record.allow], sort_keys=True)
    key = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return hub.assets_cache() / "converted" / f"{record.id}-{key}.safetensors"


def obtain(record: Record, source: Path | None = None, notify: Notify = lambda text: None) -> Path:
    """Fetch the files of a record, compare them, convert them, and return the converted file.

    Args:
        record: one that does not ship.
        source: instead of downloading: the file, or a folder with all of them under their names.
        notify: called with what is being done, for people.

    Raises:
        UnavailableError: a file cannot be had, is not the registered one, or cannot be converted.
    """
    if source is None:
        _require_obtainable(record)
    target = converted(record)
    found: dict[str, Path] = {}
    for file in record.originals:
        if source is None:
            notify(f"{record.id}: {file.source}")
            try:
                found[file.source] = hub.fetch(file)
            except hub.OtherFileError as error:
                raise _another(record.id, record.page, file, error.difference, ours=True) from error
        else:
            found[file.source] = source / file.name if source.is_dir() else source
        if is_other_form(record, source):
            continue
        notify(f"{record.id}: checking {file.name}")
        compare(record.id, record.page, file, found[file.source], own_conversion=source is None)
    notify(f"{record.id}: converting to safetensors")
    from .convert import convert  # needs torch, which listing models does without

    convert([(found[file.source], file) for file in record.files], target, _header(record), record.allow)
    return target


def is_other_form(record: Record, source: Path | None) -> bool:
    """Whether a file that a person has is another form of the weights, with which nothing can be compared."""
    return source is not None and source.is_file() and source.suffix in {Path(name).suffix for name in record.also}


def hub_file(reference: str) -> File:
    """What ``hf-hub:ORG/REPO[@REVISION][:FILE]`` names; without FILE the only model file of the repository."""
    repo, revision, path = hub.split(reference)
    return File(f"{HUB}{repo}@{revision}:{path or hub.only_model(repo, revision)}")


@cache
def verify(record: Record) -> None:
    """Check that the file of a record is there and intact: its sha256, or what it held when it was converted.

    Raises:
        UnavailableError: it is not.
    """
    if record.kind != "asset":
        _verify_converted(record)
        return
    again = "Install irtool again; or name another model with --model."
    if not record.path.is_file():
        raise UnavailableError(f"The weights of '{record.id}' are missing: {record.path}.", again)
    found = sha256(record.path)
    if found != record.files[0].sha256:
        mismatch = f"sha256 {found[:12]}..., expected {(record.files[0].sha256 or '')[:12]}..."
        message = f"The weights of '{record.id}' are not the registered ones ({mismatch}): {record.path}."
        raise UnavailableError(message, again)


def _verify_converted(record: Record) -> None:
    from .convert import is_intact

    path, again = converted(record), f"irtool download {record.id}"
    if not path.is_file():
        raise UnavailableError(f"The weights of '{record.id}' are not here.", again)
    if not is_intact(path):
        raise UnavailableError(f"The weights of '{record.id}' were damaged on the disk: {path}.", again)


def _header(record: Record) -> dict[str, str]:
    """What a converted file says of itself: all that loading it needs beside its tensors."""
    return {
        "id": record.id,
        "architecture": record.family,
        "settings": json.dumps(record.settings, sort_keys=True),
        "tasks": json.dumps(record.tasks),
        "licence": record.licence,
        "origin": record.origin,
    }


def bytes_needed(record: Record) -> list[tuple[Path, int]]:
    """Folders, and the bytes that will be written to each: what is to be fetched, and at most as much converted."""
    fetched = sum(file.bytes or 0 for file in record.originals if hub.cached(file) is None)
    folder = hub.hub_cache() if record.kind == "hf-hub" else hub.assets_cache()
    return [(folder, fetched), (hub.assets_cache(), record.bytes or 0)]


def _require_obtainable(record: Record) -> None:
    missing = [file for file in record.originals if hub.cached(file) is None]
    if record.kind == "manual":
        names = " and ".join(file.name for file in missing)
        raise UnavailableError(
            f"The weights of '{record.id}' have to be fetched by hand: {names} from {record.page}.",
            f"irtool download {record.id} --from {missing[0].name}",
        )
    if missing and hub.offline():
        message = f"The weights of '{record.id}' are not here, and irtool is offline."
        raise UnavailableError(message, f"irtool download {record.id}")
    hub.require_space(bytes_needed(record))


def compare(id: str, page: str, file: File, path: Path, *, own_conversion: bool) -> None:
    """Hold a published file against what is registered of it.

    Args:
        id, page: of the record or data set it belongs to, for people.
        file: size and sha256, as far as they are known.
        path: where it lies.
        own_conversion: irtool has fetched it: one that differs is removed, so that it is fetched again.

    Raises:
        UnavailableError: it cannot be read, or is another file.
    """
    try:
        size = path.stat().st_size
        if file.bytes is not None and size != file.bytes:
            mismatch = f"{size:,} bytes, expected {file.bytes:,}"
        elif file.sha256 is not None and (found := sha256(path)) != file.sha256:
            mismatch = f"sha256 {found[:12]}..., expected {file.sha256[:12]}..."
        else:
            return
    except OSError as error:
        raise UnavailableError(f"{path} cannot be read: {error.strerror}.") from error
    if own_conversion:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    raise _another(id, page, file, mismatch, ours=own_conversion)


def _another(id: str, page: str, file: File, message: str, *, ours: bool) -> UnavailableError:
    return UnavailableError(
        f"{file.name} is not the file that '{id}' was registered with ({message}); it is not used.",
        f"irtool download {id} fetches it again." if ours else f"The right one is {file.name} from {page}.",
    )


def _as_safetensors(path: Path) -> Path:
    """The file itself, or what it was converted to: once for each state of the file."""
    if path.suffix == ".safetensors":
        return path
    # By content: a name, a size and a time may be those of another file (cp -p, rsync -t, tar).
    try:
        identity = f"{CONVERTER} {path.name} {sha256(path)}"
    except OSError as error:
        raise UnavailableError(f"{path} cannot be read: {reason(error)}.") from error
    key = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:12]
    target = hub.assets_cache() / "converted" / f"{path.stem}-{key}.safetensors"
    if not target.is_file():
        from .convert import convert

        convert([(path, File(f"manual:{path.name}"))], target, {"source": path.name})
    return target
