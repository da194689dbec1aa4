"""Pictures in object stores, on web servers and in archives, through fsspec (the extra ``irtool[remote]``).

An address is ``s3://bucket/folder/``, ``gs://``, ``hf://``, ``https://``, ``memory://``, or a .tar or .zip file, local
or at such an address; of an archive (also of the WebDataset layout) the pictures in it are taken.
"""

from __future__ import annotations

import os
import posixpath
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, cast

from .errors import NothingToDoError, PictureError, UnavailableError, UsageError, reason
from .fileio import is_regular
from .picture import SUFFIXES, format_for, format_named, suffix_for
from .picture.decode import MAX_PIXELS
from .shard import Shard
from .targets import Item, check_targets, gather, is_address, name_in_shards

ARCHIVES = (".tar", ".zip")
ATOMIC = ("s3", "s3a", "gs", "gcs", "az", "abfs")
"""Stores in which an object that is put appears whole or not at all."""
TRIES, PAUSE = 4, 0.5
"""How often a read is tried, and seconds before the second time; twice as long before each further one."""
LARGEST = 8 * MAX_PIXELS  # bytes of a file, as for local ones
PIECE = 1 << 20


@lru_cache(8)
def _file_system(text: str) -> tuple[Any, str, bool]:
    """The file system of an address or archive, the path in it, and whether it is an archive.

    Raises:
        UnavailableError: a package that it needs is not installed.
        UsageError: nobody knows such addresses.
    """
    try:
        import fsspec
    except ImportError as error:
        raise UnavailableError(f"{text} needs the package fsspec.", "pip install 'irtool[remote]'") from error
    archive = PurePosixPath(text).suffix.lower() in ARCHIVES
    if archive and "://" not in text and not is_regular(text):  # a named pipe would be waited for
        raise UnavailableError(f"{text} is no file that is there.", "Check its spelling.")
    try:
        if archive:
            return fsspec.filesystem(PurePosixPath(text).suffix[1:].lower(), fo=text), "", True
        system, path = fsspec.core.url_to_fs(text)
    except ImportError as error:
        raise UnavailableError(f"{text}: {reason(error)}.", "pip install 'irtool[remote]'") from error
    except ValueError as error:
        raise UsageError(f"{text}: {reason(error)}.", "Known are s3, gs, hf, https and others of fsspec.") from error
    except Exception as error:
        raise UnavailableError(f"{text} cannot be opened: {reason(error)}.", "Check its spelling.") from error
    return system, path, False


class RemotePath:
    """A file at an address, with what the command line uses of `pathlib.Path`.

    Args:
        base: an address or an archive.
        key: the path of the file in its file system.
        there: whether it was there when it was listed.
    """

    def __init__(self, base: str, key: str, there: bool = True) -> None:
        self.base, self.key, self._there = base, key, there

    def __str__(self) -> str:
        system, _, archive = _file_system(self.base)
        return f"{self.base}:{self.key}" if archive else str(system.unstrip_protocol(self.key))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and (self.base, self.key) == (other.base, other.key)

    def __hash__(self) -> int:
        return hash((self.base, self.key))

    @property
    def name(self) -> str:
        return PurePosixPath(self.key).name

    def exists(self) -> bool:
        """Whether it was there when the run began."""
        return self._there

    def read_bytes(self, limit: int = LARGEST) -> bytes:
        """The whole file; a connection that breaks off is tried again.

        Args:
            limit: bytes above which it is refused, whatever the other side says of its size.

        Raises:
            PictureError: it cannot be read, or is too large.
        """
        limit = min(limit, LARGEST)
        # Of a web server in one request, not in ranges, which not all of them know.
        options = {"block_size": 0} if self.base.startswith("http") else {}
        system = _file_system(self.base)[0]
        for number in range(TRIES):
            if number:
                time.sleep(PAUSE * 2 ** (number - 1))
            try:
                size = system.info(self.key).get("size")
                if size is not None and size > limit:
                    raise self._too_large(limit)
                with system.open(self.key, "rb", **options) as file:
                    data = b"".join(self._pieces(file, limit))
                if size is None or len(data) == size:
                    return data
                error: Exception = OSError(f"{len(data)} of {size} bytes came")
            except FileNotFoundError:
                raise PictureError(f"{self}: no such file", "Check the spelling.") from None
            except PictureError:
                raise
            except Exception as failed:  # each file system has errors of its own
                error = failed
        raise PictureError(f"{self}: cannot be read ({reason(error)})", "Check the connection, and run it again.")

    def _pieces(self, file: Any, limit: int) -> Iterator[bytes]:
        size = 0
        while piece := file.read(PIECE):
            size += len(piece)
            if size > limit:
                raise self._too_large(limit)
            yield piece

    def _too_large(self, limit: int) -> PictureError:
        what = "any picture" if limit >= LARGEST else "the memory left for it"
        return PictureError(f"{self}: the file is larger than {what}", "Allow more memory, or reduce it first.")

    def write_bytes(self, data: bytes) -> None:
        """Write the file: it appears whole or not at all.

        In an object store it is put once. Elsewhere it is written under another name, and renamed.

        Raises:
            PictureError: it cannot be written.
        """
        system, _, archive = _file_system(self.base)
        if archive:
            raise PictureError(f"{self}: archives are read, not written", "Name a folder.")
        protocols = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
        try:
            if any(name in ATOMIC for name in protocols):
                system.pipe_file(self.key, data)
                return
            folder = posixpath.dirname(self.key)
            system.makedirs(folder, exist_ok=True)
            temporary = f"{folder}/.irtool-{secrets.token_hex(8)}.tmp"
            try:
                system.pipe_file(temporary, data)
                system.mv(temporary, self.key)
            except BaseException:
                if system.exists(temporary):
                    system.rm_file(temporary)
                raise
        except Exception as error:
            raise PictureError(f"{self}: cannot be written ({reason(error)})", "Check your rights there.") from error


def _listing(text: str, recursive: bool) -> list[tuple[RemotePath, str]]:
    """The pictures at an address, each with its path below it; sorted."""
    system, path, archive = _file_system(text)
    try:
        # A file is taken whatever its name; web servers list no folders.
        if not archive and (PurePosixPath(path).suffix.lower() in SUFFIXES or not system.isdir(path)):
            return [(RemotePath(text, path), PurePosixPath(path).name)]
        keys = sorted(system.find(path))
    except Exception as error:
        raise UnavailableError(
            f"{text} cannot be listed: {reason(error)}.", "Check the address and your rights."
        ) from error
    below = [(key, _inside(posixpath.relpath(key, path) if path else key)) for key in keys]
    return [
        (RemotePath(text, key), relative)
        for key, relative in below
        if PurePosixPath(key).suffix.lower() in SUFFIXES
        and not PurePosixPath(key).name.startswith(".")
        and (recursive or archive or "/" not in relative)
    ]


def make_items(
    inputs: Sequence[str],
    *,
    output: str | None,
    recursive: bool = False,
    format: str | None = None,
    shard: Shard | None = None,
) -> list[Item]:
    """As `irtool.targets.make_items`, where an input or the output is an address or an archive.

    Raises:
        UsageError: no output is named, it is an archive, or two inputs share one.
        UnavailableError: an address cannot be listed, or a package is missing.
        NothingToDoError: there is no picture.
    """
    if output is None or output == "-" or output.lower().endswith(ARCHIVES):
        raise UsageError(
            "An address or an archive needs a folder for the results.", "Name a folder or address with `output`."
        )
    found: list[tuple[Any, str]] = []
    for text in inputs:
        if is_address(text):
            found += _listing(text, recursive)
        else:
            local = gather([text], recursive=recursive)
            found += [(one.path, name_in_shards(one)) for one in local if one is not None]
    if not found:
        raise NothingToDoError(f"There are no pictures at {', '.join(inputs)}.", "Use `recursive` to look deeper.")
    kind = None if format is None else format_named(format).name
    target_of = _targets_below(output)
    items = []
    for source, relative, named, below in _told_apart(found, kind):
        # RemotePath has what is used of Path.
        items.append(Item(cast(Path, source), cast(Path, target_of(below)), named, relative=relative))
    _check(items)
    return [item for item in items if shard is None or shard.takes(item.relative)]


def _inside(name: str) -> str:
    """A name in a store or an archive as a path that stays below its folder: without a root and steps up."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(part.replace(":", "_") if os.name == "nt" else part for part in parts)


def _told_apart(found: Sequence[tuple[Any, str]], kind: str | None) -> Iterator[tuple[Any, str, str, str]]:
    """Source, path below the inputs, format and path below the output; those that would share an output keep their
    suffix in its name."""
    named = [(source, relative, kind or _format_by_name(relative)) for source, relative in found]
    plain = [str(PurePosixPath(relative).with_suffix(suffix_for(one, relative))) for _, relative, one in named]
    count = Counter(plain)
    for (source, relative, one), below in zip(named, plain, strict=True):
        yield source, relative, one, below if count[below] == 1 else relative + suffix_for(one, relative)


def _targets_below(output: str) -> Any:
    """Path below the output -> target."""
    if not is_address(output):
        return lambda below: Path(output) / below
    system, root, _ = _file_system(output)
    try:
        there = set(system.find(root)) if system.isdir(root) else set()
    except Exception as error:
        raise UnavailableError(f"{output} cannot be listed: {reason(error)}.", "Check your rights there.") from error

    def target(below: str) -> RemotePath:
        key = f"{root.rstrip('/')}/{below}"
        return RemotePath(output, key, key in there)

    return target


def _format_by_name(name: str) -> str:
    found = format_for(Path(name)) if PurePosixPath(name).suffix.lower() in SUFFIXES else format_named("png")
    return found.name if found.writable else "PNG"


def _check(items: Sequence[Item]) -> None:
    targets: dict[object, Item] = {}
    for item in items:
        other = targets.setdefault(item.target, item)
        if other is not item:
            raise UsageError(f"{other.name} and {item.name} would both be written to {item.target}.", "Run them apart.")
        if str(item.target) == item.name:
            raise UsageError(f"The output {item.target} is the input, which is never written to.", "Choose another.")
    check_targets([item for item in items if isinstance(item.source, Path) and isinstance(item.target, Path)])
