"""Pictures on disk: written whole or not at all, and found in folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from itertools import takewhile
from pathlib import Path

import numpy as np

from ..errors import FileError, NothingToDoError, PictureError
from ..fileio import atomic_write, exists
from .encode import encode, encode_page
from .formats import SUFFIXES, format_for, format_named
from .model import Picture


def write(
    picture: Picture,
    path: str | Path,
    *,
    format: str | None = None,
    quality: int | None = None,
    strip: bool = False,
    replace: bool = True,
    notes: list[str] | None = None,
) -> Path:
    """Encode and write a picture; the file appears whole or not at all.

    It is written beside its target under a hidden name, to the disk, and then renamed, so that neither an error nor an
    interruption nor a power cut leaves half a file. A file that is replaced hands on its permissions; a new one is no
    more open than the picture's source.

    Args:
        path: the file to write; its folder must exist.
        format: a format name; by default the one the suffix names.
        quality: as in `encode`.
        strip: as in `encode`.
        replace: whether a file that is there already, by the moment of writing, is replaced.
        notes: as in `encode`.

    Returns:
        the path written.

    Raises:
        UsageError: the suffix or the format is unknown.
        PictureError: the target is the picture's own source, is there already or no regular file, or cannot be written;
            or the picture does not fit the format.
        UnavailableError: the format needs an optional package.
    """
    path = Path(path)
    kind = format_named(format) if format is not None else format_for(path)
    if picture.source is not None and same_file(path, picture.source):
        raise PictureError(f"{path} is the input, which is never written to", "Choose another name or folder.")
    data = encode(picture, kind.name, quality=quality, strip=strip, notes=notes)
    return save_bytes(data, path, replace=replace, like=picture.source)


def write_page(page: np.ndarray, path: Path, *, replace: bool = True, like: Path | None = None) -> Path:
    """Write a drawn (H, W, 3) uint8 page as a JPEG; raises as `save_bytes`."""
    return save_bytes(encode_page(page), path, replace=replace, like=like)


def save_bytes(data: bytes, path: str | Path, *, replace: bool = True, like: Path | None = None) -> Path:
    """Write a file whole or not at all, as `write` does, for bytes that are encoded already.

    Args:
        data, path: what to write, and where.
        replace, like: as in `irtool.fileio.atomic_open`.

    Raises:
        PictureError: the target is there already, no regular file, or cannot be written.
    """
    try:
        return atomic_write(path, data, replace=replace, like=like)
    except FileError as error:
        raise PictureError(error.message, error.hint) from error


def same_file(a: Path, b: Path) -> bool:
    """Whether two paths are of one file; what cannot be looked at is none."""
    try:
        return a.samefile(b)
    except (OSError, ValueError):
        return False


@dataclass(frozen=True)
class FoundPicture:
    """A picture to work on.

    Attributes:
        path: the file.
        root: the folder whose tree an output folder mirrors; for a named file, the folder it is in; for a pattern, the
            folders before its first wildcard.
    """

    path: Path
    root: Path

    @property
    def relative(self) -> Path:
        """The path below `root`."""
        return self.path.relative_to(self.root)


def find(inputs: Sequence[str | Path], *, recursive: bool = False) -> list[FoundPicture]:
    """The pictures that files, folders and patterns stand for, each once, in the order given; those of a folder or a
    pattern are sorted.

    A folder gives the files whose suffix names a picture format, without hidden ones; a named file is taken whatever
    its name. A pattern such as ``**/*.jpg`` gives the pictures that match it, and what is in folders that do; ``**``
    stands for any folders. What does not exist and what cannot be listed is handed on too: `read` then says what is
    wrong with it, and the rest of a run goes on.

    Raises:
        NothingToDoError: nothing matches a pattern.
    """
    found: dict[Path, FoundPicture] = {}
    for text in inputs:
        item = Path(text)
        if is_pattern(text):
            root, paths = pattern_root(str(text)), _matching(str(text), recursive)
        elif is_folder(item):
            root, paths = item, list(_listing(item, recursive))
        else:
            root, paths = item.parent, [item]
        for path in paths:
            found.setdefault(path, FoundPicture(path, root))
    return list(found.values())


def is_pattern(text: str | Path) -> bool:
    """Whether an input is a pattern with the wildcards ``*``, ``?`` or ``[...]``, and not the name of a file or an
    address."""
    return isinstance(text, str) and _has_wildcard(text) and "://" not in text and not exists(text)


def pattern_root(pattern: str) -> Path:
    """The folders before the first wildcard of a pattern."""
    return Path(*takewhile(lambda part: not _has_wildcard(part), Path(pattern).parts))


def _has_wildcard(text: str) -> bool:
    return any(mark in text for mark in "*?[")


def _matching(pattern: str, recursive: bool) -> list[Path]:
    paths: list[Path] = []
    for path in map(Path, sorted(glob(pattern, recursive=True))):  # noqa: PTH207 (Path.glob takes no absolute pattern)
        if is_folder(path):
            paths += _listing(path, recursive)
        elif path.suffix.lower() in SUFFIXES:
            paths.append(path)
    if not paths:
        raise NothingToDoError(f"No picture matches {pattern}.", "** stands for any folders: '**/*.jpg'.")
    return paths


def is_folder(path: Path) -> bool:
    """Whether a path is that of a folder; what cannot be looked at is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _listing(folder: Path, recursive: bool) -> Iterator[Path]:
    """The pictures below a folder in the order of their names, a folder's where its name comes."""
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        if path is not folder and not is_folder(path):
            yield path
            continue
        try:
            with os.scandir(path) as entries:
                inside = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
        except OSError:
            yield path
            continue
        waiting += [path / entry.name for entry in reversed(inside) if _is_wanted(entry, recursive)]


def _is_wanted(entry: os.DirEntry[str], recursive: bool) -> bool:
    """Whether what a folder holds is a picture by its name, or a folder to look into. No device, pipe or socket is."""
    try:
        if entry.is_dir():
            # A linked folder could lead back up.
            return recursive and not entry.is_symlink()
        odd = not entry.is_file() and not entry.is_symlink()
    except OSError:
        odd = False
    return not odd and Path(entry.name).suffix.lower() in SUFFIXES
