"""Published files, fetched: from the Hugging Face hub by its own client and into its own cache, or from an address.

What the hub has is brought by `hf_hub_download`, Xet included. Everything that a server sends on the way passes
`transfer.guarded`, since a server, or who stands for one (HF_ENDPOINT, a proxy), may lie: names that would lead out of
the cache, bodies without end, compressed or too slow, and bytes that are not those it announced.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UnavailableError, UsageError
from ..fileio import is_regular
from . import npm
from .registry import File

if TYPE_CHECKING:
    from .transfer import Announced

REPOSITORIES = {"hf-hub": "model", "hf-dataset": "dataset"}
"""Kinds of sources on the hub, and what the hub calls such a repository."""
AGAIN = "Check the connection and run the same command again."
LARGEST = 64 * 2**30
"""Bytes that a file may have of which nobody knows the size; a hundred times the largest network here."""
LARGEST_LISTING = 32 * 2**20


class OtherFileError(UnavailableError):
    """What a server has is not the file that is wanted.

    Attributes:
        difference: how it differs.
    """

    def __init__(self, file: File, difference: str) -> None:
        super().__init__(f"{file.name} is not the file that was registered ({difference}); it is not used.")
        self.difference = difference


def offline() -> bool:
    """Whether IRTOOL_OFFLINE (the flag --offline) or HF_HUB_OFFLINE forbids downloads."""
    values = (os.environ.get(name, "").strip().lower() for name in ("IRTOOL_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value in ("1", "true", "yes", "on") for value in values)


def hub_cache() -> Path:
    """Where the hub's client keeps what it downloads: HF_HUB_CACHE, or ``hub`` under HF_HOME."""
    return _variable("HF_HUB_CACHE", "hub")


def assets_cache() -> Path:
    """Where the hub's client has other programs keep their files: HF_ASSETS_CACHE, or ``assets`` under HF_HOME."""
    return _variable("HF_ASSETS_CACHE", "assets") / "irtool"


def _variable(name: str, below: str) -> Path:
    # The client's own constants, without importing it: listing models takes no longer than listing files.
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.path.expandvars(os.environ.get(name) or Path(home) / below)).expanduser()


def cached(file: File) -> Path | None:
    """Where a published file lies already; None where it does not. Nothing is asked of anybody."""
    if file.kind == "manual":
        return None
    if file.kind not in REPOSITORIES:
        path = _address_path(file)
        return path if is_regular(path) else None
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _download(file, local_files_only=True)
    except LocalEntryNotFoundError:
        return None


def fetch(file: File, *, refresh: bool = False) -> Path:
    """The published file on this disk, downloaded where it is not there yet.

    Args:
        file: one that a program can fetch: "hf-hub", "hf-dataset", "https" or "npm".
        refresh: ask the hub whether a revision that can move has moved.

    Raises:
        UnavailableError: it is not here and cannot be fetched; the message says why and the hint what to do.
    """
    path = cached(file)
    if path and (offline() or not refresh):
        return path
    if offline():
        raise UnavailableError(
            f"{file.name} is not here, and irtool is offline.",
            "Run it once without --offline, IRTOOL_OFFLINE and HF_HUB_OFFLINE.",
        )
    from .transfer import DifferentError, bring

    try:
        if file.kind in REPOSITORIES:
            return _from_hub(file, path)
        if file.kind == "npm":
            return npm.fetch(file, _address_path(file))
        return bring(file, _address_path(file), LARGEST)
    except DifferentError as error:
        raise OtherFileError(file, str(error)) from error
    except _failures() as error:
        if path:  # the hub cannot be asked whether its file has changed
            return path
        raise _unavailable(error, file) from error


def split(source: str) -> tuple[str, str, str]:
    """Repository, revision and path in it of ``hf-hub:ORG/REPO[@REVISION][:PATH]``; "main" and "" where left out.

    The same for ``hf-dataset:``, a repository of data.

    Raises:
        UsageError: it is not written so.
    """
    match = re.fullmatch(r"(?:hf-hub|hf-dataset):([\w.-]+/[\w.-]+)(?:@([\w./-]+))?(?::([^:]+))?", source)
    if match is None or "--" in match[1] or ".." in source:
        raise UsageError(f"'{source}' names no file on the hub.", "Write hf-hub:ORG/REPO@REVISION:FILE.")
    return match[1], match[2] or "main", match[3] or ""


def only_model(repo: str, revision: str) -> str:
    """The one model file of a repository.

    Raises:
        UnavailableError: the repository cannot be read.
        UsageError: it has none, or several to choose from.
    """
    from huggingface_hub import HfApi

    if offline():
        raise UnavailableError(
            f"The files of {repo} cannot be listed offline.", f"Write hf-hub:{repo}@{revision}:FILE."
        )
    from .transfer import PLAIN, guarded

    try:
        with guarded(LARGEST_LISTING):
            names = HfApi(headers=dict(PLAIN)).list_repo_files(repo, revision=revision)
    except _failures() as error:
        raise _unavailable(error, File(f"hf-hub:{repo}@{revision}")) from error
    except Exception as error:  # a listing of another shape trips the client wherever it may
        raise UnavailableError(f"The listing of {repo} is none that a hub gives.", "Is HF_ENDPOINT right?") from error
    unsafe = [name for name in names if not _is_safe(name)]
    if unsafe:
        raise UnavailableError(
            f"{repo} lists a file of an unsafe name, {str(unsafe[0])[:100]!r}.", "Write :FILE to name one."
        )
    for suffixes in ((".safetensors",), (".pth", ".pt", ".ckpt", ".bin")):
        found = [name for name in names if name.endswith(suffixes)]
        if len(found) == 1:
            return found[0]
        if found:
            more = f" and {len(found) - 8} more" if len(found) > 8 else ""
            message = f"{repo} has {len(found)} model files: {', '.join(found[:8])}{more}."
            raise UsageError(message, "Add :FILE to name one.")
    raise UsageError(f"{repo} has no model file.", f"It has: {', '.join(names[:8])}.")


def _is_safe(name: object) -> bool:
    """Whether a name from a listing is a plain relative path."""
    return (
        isinstance(name, str)
        and re.fullmatch(r"[^\x00-\x1f\x7f\\:]{1,1000}", name) is not None
        and not (name.startswith("/") or ".." in name.split("/"))
    )


def require_space(needed: Iterable[tuple[Path, int]]) -> None:
    """Check that so many bytes fit into folders, before any is fetched.

    Raises:
        UnavailableError: a disk has not room for all that goes on it.
    """
    disks: dict[int, tuple[Path, int]] = {}
    for folder, size in needed:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        disk = existing.stat().st_dev
        disks[disk] = (existing, disks.get(disk, (existing, 0))[1] + size)
    for existing, size in disks.values():
        free = shutil.disk_usage(existing).free
        if size > free:
            raise UnavailableError(
                f"{size / 1e9:.1f} GB are needed on the disk of {existing}, and {free / 1e9:.1f} GB are free.",
                "Make room, or name another disk with HF_HOME.",
            )


def _download(file: File, *, local_files_only: bool = False) -> Path:
    """`hf_hub_download` of a file on the hub."""
    from huggingface_hub import hf_hub_download

    from .transfer import PLAIN

    repo, revision, name = split(file.source)
    kind = REPOSITORIES[file.kind]
    found = hf_hub_download(
        repo,
        name,
        repo_type=kind,
        revision=revision,
        cache_dir=hub_cache(),
        headers=dict(PLAIN),
        local_files_only=local_files_only,
    )
    return Path(found)


def _from_hub(file: File, here: Path | None) -> Path:
    from .transfer import guarded

    with guarded(file.bytes or LARGEST, file.bytes) as announced:
        path = _download(file)
    if here is None or path.resolve() != here.resolve():
        _compare(file, path, announced)
    return path


def _compare(file: File, path: Path, announced: Announced) -> None:
    """Hold what was brought against the hash that the server has announced for it.

    Raises:
        OSError: it is another file; it is removed from the cache.
    """
    wrong = announced.differs(path)
    if wrong:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise OSError(f"{file.name} is not what the hub has announced ({wrong})")


def _address_path(file: File) -> Path:
    # Many files are called net_latest.pth: their hash tells them apart.
    return assets_cache() / "originals" / f"{(file.sha256 or '')[:12]}-{file.name}"


def _failures() -> tuple[type[Exception], ...]:
    """What can go wrong on the way, by no fault of irtool."""
    from huggingface_hub.errors import EntryNotFoundError, HTTPError, OfflineModeIsEnabled

    return (OSError, HTTPError, EntryNotFoundError, OfflineModeIsEnabled)


def _unavailable(error: Exception, file: File) -> UnavailableError:
    """For a person: what is wrong, and the next step."""
    from huggingface_hub import errors

    repo = split(file.source)[0] if file.kind in REPOSITORIES else ""
    login = "Run hf auth login"
    if isinstance(error, errors.GatedRepoError):
        return UnavailableError(
            f"{repo} is open only to those who accept its terms.", f"Accept them on its page. {login}."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return UnavailableError(
            f"There is no repository {repo} on the hub, or it is private.", f"{login} if it is yours."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UnavailableError(f"{repo} has no such revision.", "Name a commit, a tag or a branch after @.")
    if isinstance(error, errors.LocalEntryNotFoundError):
        return UnavailableError(f"{file.name} is not here, and the hub cannot be reached.", AGAIN)
    if isinstance(error, errors.EntryNotFoundError):
        return UnavailableError(f"{repo} has no file {split(file.source)[2]}.", "Its page lists what there is.")
    if getattr(getattr(error, "response", None), "status_code", None) == 404:
        have = "irtool download NAME --from FILE takes a copy that you have."
        return UnavailableError(f"{file.source} is no longer there.", have)
    message = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return UnavailableError(f"{file.name} could not be downloaded: {message[:300]}.", AGAIN)
