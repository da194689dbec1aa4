"""Published files, fetched: from the Hugging Face hub by its own client and into its own cache, or from an address.

The client keeps no half of a file from one run to the next. So the bytes go through its `http_get` into a file of ours
beside the place where they belong, which the next run goes on with; the rest (addresses, tokens, gates, revisions, the
layout of the cache) is the client's `hf_hub_download`, which finds the bytes already there.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import UnavailableError, UsageError
from . import npm
from .registry import File

REPOSITORIES = {"hf-hub": "model", "hf-dataset": "dataset"}
"""Kinds of sources on the hub, and what the hub calls such a repository."""
GOES_ON = "Check the connection and run the same command again: it goes on where it stopped."


def offline() -> bool:
    """Whether IRTOOL_OFFLINE (the flag --offline) or HF_HUB_OFFLINE forbids downloads."""
    told = (os.environ.get(name, "").strip().lower() for name in ("IRTOOL_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value in ("1", "true", "yes", "on") for value in told)


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
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    repo, revision, name = split(file.source)
    try:
        return Path(
            hf_hub_download(
                repo,
                name,
                repo_type=REPOSITORIES[file.kind],
                revision=revision,
                cache_dir=hub_cache(),
                local_files_only=True,
            )
        )
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
    here = cached(file)
    if here and (offline() or not refresh):
        return here
    if offline():
        raise UnavailableError(
            f"{file.name} is not here, and irtool is offline.",
            "Run it once without --offline, IRTOOL_OFFLINE and HF_HUB_OFFLINE.",
        )
    try:
        if file.kind == "npm":
            return npm.fetch(file, _address_path(file))
        return _from_hub(file) if file.kind in REPOSITORIES else _from_address(file)
    except _failures() as error:
        if here:  # the hub cannot be asked whether its file has changed
            return here
        raise _explained(error, file) from error


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
    try:
        names = HfApi().list_repo_files(repo, revision=revision)
    except _failures() as error:
        raise _explained(error, File(f"hf-hub:{repo}@{revision}:")) from error
    for suffixes in ((".safetensors",), (".pth", ".pt", ".ckpt", ".bin")):
        found = [name for name in names if name.endswith(suffixes)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"{repo} has {len(found)} model files: {', '.join(found)}.", "Add :FILE to name one.")
    raise UsageError(f"{repo} has no model file.", f"It has: {', '.join(names[:8])}.")


def require_space(wanted: Iterable[tuple[Path, int]]) -> None:
    """Check that so many bytes fit into folders, before any is fetched.

    Raises:
        UnavailableError: a disk has not room for all that goes on it.
    """
    disks: dict[int, tuple[Path, int]] = {}
    for folder, size in wanted:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        disk = there.stat().st_dev
        disks[disk] = (there, disks.get(disk, (there, 0))[1] + size)
    for there, size in disks.values():
        free = shutil.disk_usage(there).free
        if size > free:
            raise UnavailableError(
                f"{size / 1e9:.1f} GB are needed on the disk of {there}, and {free / 1e9:.1f} GB are free.",
                "Make room, or name another disk with HF_HOME.",
            )


def _from_hub(file: File) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.file_download import repo_folder_name

    repo, revision, path = split(file.source)
    type = REPOSITORIES[file.kind]
    address = hf_hub_url(repo, path, repo_type=type, revision=revision)
    about = get_hf_file_metadata(address)
    folder = hub_cache() / repo_folder_name(repo_id=repo, repo_type=type)
    (folder / "snapshots").mkdir(parents=True, exist_ok=True)  # without which it would pass for a damaged one
    if about.etag and not (folder / "blobs" / about.etag).exists():
        # A token is for the hub alone, not for the store of large files that it sends on to.
        own = urlsplit(about.location)[:2] == urlsplit(address)[:2]
        _download(about.location, folder / "blobs" / about.etag, about.size, path, authorised=own)
    return Path(hf_hub_download(repo, path, repo_type=type, revision=revision, cache_dir=hub_cache()))


def _from_address(file: File) -> Path:
    target = _address_path(file)
    _download(file.source, target, file.bytes, file.name, authorised=False)
    return target


def _address_path(file: File) -> Path:
    # Many files are called net_latest.pth: their hash tells them apart.
    return assets_cache() / "originals" / f"{(file.sha256 or '')[:12]}-{file.name}"


def _download(address: str, target: Path, size: int | None, name: str, *, authorised: bool) -> None:
    """Bring one file, going on with what an earlier run has left of it."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    headers = {**build_hf_headers(token=None if authorised else False), "Accept-Encoding": "identity"}
    target.parent.mkdir(parents=True, exist_ok=True)
    # Called as the client calls what it leaves behind, so that `hf cache prune` clears it away.
    partial = target.with_name(f"{target.name}.incomplete")
    lock = assets_cache() / "locks" / f"{target.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if target.exists():  # another process has brought it meanwhile
            return
        if size is not None and partial.is_file() and partial.stat().st_size > size:
            partial.unlink()
        with partial.open("ab") as file:
            have = file.tell()
            http_get(address, file, resume_size=have, headers=headers, expected_size=size, displayed_filename=name)
        partial.replace(target)


def _failures() -> tuple[type[Exception], ...]:
    """What can go wrong on the way, by no fault of irtool."""
    from huggingface_hub.errors import EntryNotFoundError, HTTPError, OfflineModeIsEnabled

    return (OSError, HTTPError, EntryNotFoundError, OfflineModeIsEnabled)


def _explained(error: Exception, file: File) -> UnavailableError:
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
        return UnavailableError(f"{file.name} is not here, and the hub cannot be reached.", GOES_ON)
    if isinstance(error, errors.EntryNotFoundError):
        return UnavailableError(f"{repo} has no file {split(file.source)[2]}.", "Its page lists what there is.")
    if getattr(getattr(error, "response", None), "status_code", None) == 404:
        have = "irtool download NAME --from FILE takes a copy that you have."
        return UnavailableError(f"{file.source} is no longer there.", have)
    told = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return UnavailableError(f"{file.name} could not be downloaded: {told}.", GOES_ON)
