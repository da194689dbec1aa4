"""What a reader must know before taking the figures of a run for those of a set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..data import Dataset, PairSet, Protocol, names_hash

NAMED = 10
"""Broken pairs that are named in one remark; the records name them all."""


def remarks(
    summary: dict[str, Any], found: PairSet, known: Dataset | None, protocol: Protocol, *, whole: int, synthetic: bool
) -> list[str]:
    """Sentences, none where there is nothing to say.

    Args:
        summary: of the run.
        found: the pairs that were scored.
        known: the set they are of, where it has a name.
        protocol: they were scored under.
        whole: pairs there were before some of them were chosen.
        synthetic: the degraded pictures were made of the true ones.
    """
    return [*_broken(summary), *(_against(summary, found, known, protocol, whole, synthetic) if known else ())]


def input_as_published(
    summary: dict[str, Any], known: Dataset | None, protocol: Protocol, synthetic: bool
) -> bool | None:
    """Whether the degraded pictures are as far from their truths as those of the published set.

    None where that cannot be told: the set is not complete, its figure is not known, or is of another protocol.
    """
    if known is None or known.input is None or synthetic or protocol.id != known.input.protocol:
        return None
    if not known.pairs or summary["scored"] != known.pairs:
        return None
    measured = summary["input"]["psnr"]["mean"]
    return measured is not None and abs(measured - known.input.psnr) <= known.input.within


def _broken(summary: dict[str, Any]) -> Iterator[str]:
    names = summary.get("failed_names", [])
    if names:
        more = "" if len(names) <= NAMED else f" and {len(names) - NAMED} more"
        message = f"{len(names)} of {summary['pairs']} pairs are broken and in no mean"
        yield f"{message}: {', '.join(names[:NAMED])}{more}"


def _against(
    summary: dict[str, Any], found: PairSet, known: Dataset, protocol: Protocol, whole: int, synthetic: bool
) -> Iterator[str]:
    if not known.pairs:
        return
    scored = summary["scored"]
    if scored != known.pairs:
        yield f"a part of the set: {scored} of {known.pairs} pairs; its figures are not those of the whole"
    elif known.names and names_hash([pair.name for pair in found.pairs]) != known.names:
        yield "complete in number, but under other file names than the published set has"
    if whole > known.pairs:
        yield f"{whole} pairs were found where the set has {known.pairs}"
    if input_as_published(summary, known, protocol, synthetic) is False and known.input is not None:
        measured = summary["input"]["psnr"]["mean"]
        shown = "equal pictures" if measured is None else f"{measured:.2f} dB"
        source = f" ({known.input.source})" if known.input.source else ""
        yield f"altered: its input gives {shown}, that of the published set {known.input.psnr:.2f} dB{source}"
