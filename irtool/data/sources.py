"""From what a user names, a set or folders, to its pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import UnavailableError, UsageError
from .fetch import expected, home
from .pairs import PairSet, between, clean, discover
from .registry import Dataset, get_dataset


def find(
    dataset: str | None = None,
    root: Path | None = None,
    lq: Path | None = None,
    gt: Sequence[Path] = (),
    degrade: str | None = None,
) -> tuple[Dataset | None, PairSet]:
    """The set that is meant, if it has a name, and its pairs.

    Args:
        dataset: its name, or a TOML of the user's own.
        root: where it lies; None for `irtool.data.fetch.home`.
        lq, gt: folders, instead of a set.
        degrade: a degradation string; degraded pictures are made and not looked for.

    Raises:
        UsageError: too much or too little is named.
        UnavailableError: it is not there; the hint says where it comes from.
    """
    if (dataset is None) == (not gt):
        raise UsageError("Name a data set, or folders.", "irtool eval --dataset NAME --root DIR, or --lq DIR --gt DIR.")
    if lq is not None and degrade is not None:
        raise UsageError("--lq and --degrade exclude each other.", "Degraded pictures are given, or made.")
    if dataset is None:
        if lq is None and degrade is None:
            raise UsageError("Degraded pictures are missing.", "Give --lq DIR, or --degrade CHAIN.")
        return None, between(lq, gt) if lq is not None else clean(gt)
    if lq is not None:
        raise UsageError("--lq belongs to --gt, not to a set.", "irtool eval --lq DIR --gt DIR")
    known = get_dataset(dataset)
    return known, _custom(known, degrade) if known.gt else _published(known, root, degrade)


def _custom(known: Dataset, degrade: str | None) -> PairSet:
    references = [Path(folder) for folder in known.gt]
    if degrade is not None:
        return clean(references)
    if not known.lq:
        raise _clean_set(known)
    return between(Path(known.lq), references)


def _published(known: Dataset, root: Path | None, degrade: str | None) -> PairSet:
    place = root or home(known.name)
    if not place.is_dir():
        fetch = f"irtool download {known.name} fetches it. " if known.archive else ""
        if root is None:
            where = "Name its folder with --root, or the folder above it with IRTOOL_DATASETS. "
            raise UnavailableError(
                f"{known.title} is not here and does not ship with irtool.", where + fetch + expected(known)
            )
        raise UnavailableError(f"{known.title} is not here: there is no folder '{place}'.", fetch + expected(known))
    try:
        return discover(place, known.layout, only_clean=degrade is not None, folders=known.folders)
    except UnavailableError as error:
        if known.degrade and degrade is None and _holds_pictures(place):
            raise _clean_set(known) from error
        raise UnavailableError(error.message, expected(known)) from error


def _holds_pictures(place: Path) -> bool:
    try:
        return bool(discover(place, only_clean=True).pairs)
    except UnavailableError:
        return False


def _clean_set(known: Dataset) -> UsageError:
    if not known.degrade:
        return UsageError(f"{known.name} names no degraded pictures.", "Give --degrade CHAIN, or lq in its file.")
    return UsageError(
        f"{known.title or known.name} is a set of clean pictures, scored under {', '.join(known.degrade)}.",
        f"--degrade '{known.degrade[0]}'",
    )
