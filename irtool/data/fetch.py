"""Data sets that a program may fetch, unpacked where eval looks for them by itself."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from filelock import FileLock

from ..errors import UnavailableError, reason
from ..weights import hub
from ..weights.files import compare
from .registry import Dataset

Notify = Callable[[str], None]


def home(name: str) -> Path:
    """Where a set is looked for by itself: a folder of its name in IRTOOL_DATASETS, else in the cache."""
    named = os.environ.get("IRTOOL_DATASETS")
    return (Path(named).expanduser() if named else hub.assets_cache() / "datasets") / name


def expected(known: Dataset) -> str:
    """For people: where a set is from, and what it looks like."""
    return f"{known.title or known.name} comes from {known.page}; expected layout: {known.layout}."


def obtain(known: Dataset, source: Path | None = None, notify: Notify = lambda text: None) -> Path:
    """Fetch a set, compare its archive, and unpack of it what is scored.

    Args:
        known: the set.
        source: its archive, fetched by hand; None to fetch it.
        notify: called with what is being done, for people.

    Returns:
        `home` of the set; as it is, where it is there already.

    Raises:
        UnavailableError: no program may fetch it, or it cannot be had now, or is not the registered one.
    """
    target = home(known.name)
    if target.is_dir():
        return target
    if known.archive is None:
        why = "its authors state no licence, or it lies where only a person can fetch it"
        raise UnavailableError(f"{known.title} has to be fetched by hand: {why}.", expected(known))
    if source is None:
        notify(f"{known.name}: {known.archive.source}")
        path = hub.fetch(known.archive)
    else:
        path = source
    notify(f"{known.name}: checking {path.name}")
    compare(known.name, known.page, known.archive, path, own_conversion=source is None)
    notify(f"{known.name}: unpacking")
    unpack(path, target, known.members)
    return target


def unpack(archive: Path, target: Path, members: tuple[str, ...]) -> None:
    """Unpack what matches of a zip file; the folder appears when it is whole.

    Args:
        archive: the file.
        target: folder that is not there yet.
        members: patterns of the paths wanted.

    Raises:
        UnavailableError: it is no zip file, is damaged, holds nothing that matches, or the disk has no room.
    """
    partial = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f".irtool-{target.name}.lock"), zipfile.ZipFile(archive) as packed:
            if target.is_dir():  # another process has unpacked it meanwhile
                return
            for left in target.parent.glob(f".irtool-unpacking-{target.name}-*"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            members_found = [
                i for i in packed.infolist() if not i.is_dir() and any(fnmatch(i.filename, m) for m in members)
            ]
            if not members_found:
                raise UnavailableError(f"{archive} holds nothing like {', '.join(members)}.", "It is another file.")
            hub.require_space([(target, sum(i.file_size for i in members_found))])
            partial = Path(tempfile.mkdtemp(prefix=f".irtool-unpacking-{target.name}-", dir=target.parent))
            for inside in members_found:
                parts = PurePosixPath(inside.filename).parts
                path = partial.joinpath(*(part for part in parts if part not in ("/", "..")))
                path.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(inside) as source, path.open("xb") as sink:
                    shutil.copyfileobj(source, sink)
                    sink.flush()
                    os.fsync(sink.fileno())
            partial.chmod(0o777 & ~_umask())
            partial.rename(target)
    except UnavailableError:
        raise
    except Exception as error:  # whatever a damaged archive makes zipfile and zlib trip over
        raise UnavailableError(f"{archive} could not be unpacked: {reason(error)}.", "Fetch it again.") from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before
