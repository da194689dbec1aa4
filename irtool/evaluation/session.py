"""From what is asked of `irtool eval` to a scored set: the request made, its pairs scored, its figures concluded.

Nothing is printed here: records and remarks go to a `Listener`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol

from ..data import Dataset, PairSet, get_protocol
from ..data.sources import find
from ..errors import NothingToDoError, UsageError
from ..fileio import atomic_write, resolved
from ..metrics import extra
from ..plan import plan_tasks
from ..shard import Shard
from ..synth import parse
from .checks import input_as_published, remarks
from .outputs import check_outputs
from .published import rows_of
from .report import SHARDS, Report, cite, save_png, to_csv
from .run import NO_MODEL, EvalRequest, Record, evaluate, header
from .summary import summarize


class Listener(Protocol):
    """Told what happens during a session."""

    def begin(self, name: str) -> None:
        """A pair is now restored."""
        ...

    def tiles(self, done: int, total: int) -> None:
        """Tiles done of it."""
        ...

    def record(self, record: Record) -> None:
        """The record of a pair that has been scored, and written where it is kept."""
        ...


@dataclass(frozen=True)
class Pairs:
    """What is scored.

    Attributes:
        known: the data set, where it has a name.
        found: its pairs, those that were chosen.
        whole: how many there were before some of them were chosen.
        subject: what it is, for people.
    """

    known: Dataset | None
    found: PairSet
    whole: int
    subject: str

    @staticmethod
    def of(
        dataset: str | None,
        root: Path | None,
        lq: Path | None,
        gt: Sequence[Path],
        degrade: str | None,
        only: str | None = None,
        limit: int | None = None,
    ) -> Pairs:
        """Find the pairs (`irtool.data.sources.find`) and choose among them by a glob of names and a number.

        Raises:
            UsageError, UnavailableError: as `irtool.data.sources.find`.
            NothingToDoError: no pair has such a name.
        """
        known, found = find(dataset, root, lq, list(gt), degrade)
        chosen = [pair for pair in found.pairs if only is None or fnmatch(pair.name, only)]
        if not chosen:
            raise NothingToDoError(f"No pair is called '{only}'.", f"The first one is {found.pairs[0].name}.")
        subject = known.title or known.name if known else resolved(lq or (*gt, Path())[0]).name
        return Pairs(known, replace(found, pairs=tuple(chosen[:limit])), len(found.pairs), subject)


def request_of(  # noqa: PLR0913 (the settings, as keywords)
    pairs: Pairs,
    *,
    model: str,
    tasks: Sequence[str] | None = None,
    auto: bool = False,
    protocol: str | None = None,
    metrics: Sequence[str] = (),
    degrade: str | None = None,
    detector: str = "",
    device: str = "auto",
    **how: Any,
) -> EvalRequest:
    """What is to be scored, and how.

    Args:
        pairs: what.
        model: reference of the restorer, or `NO_MODEL`.
        tasks: what it is asked to remove; by default what the set is about, or the only thing it can.
        auto: what to remove is found in each image instead, by `detector`.
        protocol: its name; by default the set's own, else "canonical".
        metrics: names beside PSNR and SSIM; "lpips" is through the protocol's network.
        degrade: a degradation string, where degraded images are made.
        how: further attributes of `EvalRequest`.

    Raises:
        UsageError: the model must be told what to remove; and as `parse`, `get_protocol` and `make`.
        UnavailableError: weights or packages are not here.
    """
    from ..engine import pick_device

    known = pairs.known
    rules = get_protocol(protocol or (known.protocol if known else "canonical"))
    metric_names = dict.fromkeys(f"lpips-{rules.lpips}" if name == "lpips" else name for name in metrics)
    plan = None
    if model != NO_MODEL and not auto:
        plan = plan_tasks(tasks or [default_task(model, known)], 1.0, model)
    return EvalRequest(
        pairs.found,
        rules,
        model,
        plan,
        dataset=known.name if known else "",
        degrade=None if degrade is None else parse(degrade),
        extras=[extra.make(name, str(pick_device(device))) for name in metric_names],
        detector=detector if auto else "",
        device=device,
        **how,
    )


def default_task(model: str, known: Dataset | None) -> str:
    """What a model is asked where nothing is said: what the set is about, or the only thing it can.

    Raises:
        UsageError: it can do several things, and the set says nothing.
    """
    from .. import api

    info = api.info(model)
    if known and known.task and (known.task in info.tasks or not info.task_agnostic):
        return known.task
    if info.task_agnostic or len(info.tasks) == 1:
        return info.tasks[0]
    raise UsageError(
        f"{model} must be told what to undo.", f"Add `task`, or `auto`. It knows: {', '.join(info.tasks)}."
    )


class Session:
    """A run over pairs, with the folder and the files it leaves.

    Args:
        pairs, request: what is scored, and how.
        report: folder for the page and the run; None for none.
        resume: go on with the run in that folder.
        images: folder for the restored images, as PNG; None for none.
        csv: file for a line per pair; None for none.
        overwrite: images and lines may replace files that exist. Inputs are never written to.
        read: further files that are inputs.
        shard: score only this share of the pairs; its run goes into a folder of its own below that of the report, where
            a resumed run of the whole finds it.

    Attributes:
        head: the run's header, its first record.
        records: of the pairs, so far.

    Raises:
        UsageError: as `Report` and `check_outputs`; or a resumed run is to have a FID, which needs the features of all
            images; or a shard is to, or one of noise that is drawn pair after pair.
    """

    def __init__(  # noqa: PLR0913 (the settings, as keywords)
        self,
        pairs: Pairs,
        request: EvalRequest,
        *,
        report: Path | None = None,
        resume: bool = False,
        images: Path | None = None,
        csv: Path | None = None,
        overwrite: bool = False,
        read: Sequence[Path] = (),
        shard: Shard | None = None,
    ) -> None:
        local = [Path(m.removeprefix("local:")) for m in (request.model, request.detector) if m.startswith("local:")]
        check_outputs(pairs.found, csv=csv, images=images, report=report, read=[*read, *local], overwrite=overwrite)
        self.pairs, self.images, self.csv, self.overwrite = pairs, images, csv, overwrite
        self.records: list[Record] = []
        self.request = replace(request, keep=self._keep)
        self.head = header(self.request)
        if shard is not None:
            self._narrow(shard)
            report = report and report / SHARDS / str(shard).replace("/", "-of-")
        self.page = Report(report, self.head, resume) if report is not None else None
        if self.page is not None and self.page.done and any(one.id == "fid" for one in request.extras):
            raise UsageError("FID needs the features of all pictures.", "Leave `resume` or fid out.")

    def _narrow(self, shard: Shard) -> None:
        """Leave only the pairs of a shard; the header stays that of the whole."""
        request = self.request
        if any(one.id == "fid" for one in request.extras):
            raise UsageError("FID needs the features of all pictures.", "Leave `shard` or fid out.")
        if request.degrade is not None and request.protocol.noise == "stream":
            raise UsageError(
                f"The protocol {request.protocol.id} draws its noise pair after pair.", "Leave `shard` out."
            )
        pairs = tuple(pair for pair in request.found.pairs if shard.takes(pair.name))
        if not pairs:
            raise NothingToDoError(f"No pair belongs to the share {shard}.", "There are fewer pairs than shares.")
        self.request = replace(request, found=replace(request.found, pairs=pairs))

    def _keep(self, name: str, before: Any, after: Any, reference: Any) -> None:
        if self.page is not None:
            self.page.keep(name, before, after, reference)
        if self.images is not None:
            save_png(self.images, name, after, replace=self.overwrite)

    def run(self, listener: Listener) -> Iterator[Record]:
        """Score pair after pair; each record is on the disk before it is passed on."""
        done = self.page.done if self.page else {}
        for record in evaluate(self.request, done, listener.begin, listener.tiles):
            if self.page is not None:
                self.page.add(record)
            self.records.append(record)
            listener.record(record)
            yield record
        missing = self.page.missing_pictures(self.records) if self.page is not None else []
        if self.page is not None and missing:
            # Restored again: what the page shows and has no copy of any more.
            rest = {record["name"]: record for record in self.records if record["name"] not in missing}
            for _ in evaluate(replace(self.request, extras=(), keep=self.page.keep), rest, listener.begin):
                pass

    def conclude(self, against: bool = False) -> tuple[Record, str, Sequence[Any], Path | None]:
        """The figures of the run.

        Args:
            against: beside what the literature has.

        Returns:
            The summary, a title for it, the published rows, and the page.
        """
        known, request = self.pairs.known, self.request
        synthetic = request.degrade is not None
        summary = summarize(self.records, {one.id: one.total() for one in request.extras if one.id == "fid"})
        notes = remarks(summary, request.found, known, request.protocol, whole=self.pairs.whole, synthetic=synthetic)
        rows = rows_of(known.name, str(request.degrade) if synthetic else "") if against and known else ()
        if against and not rows:
            notes.append("no published rows are known for this set")
        title = f"{self.pairs.subject}, {request.model}"
        if known and known.pairs:
            summary["set_pairs"] = known.pairs
        summary |= {"notes": notes, "cite": cite(title, self.head, summary)}
        if input_as_published(summary, known, request.protocol, synthetic):
            summary["input_as_published"] = True
        page = None
        if self.page is not None:
            page = self.page.finish(self.records, summary, title=title, notes=notes, rows=rows)
        if self.csv is not None:
            atomic_write(self.csv, to_csv(self.records), replace=self.overwrite)
        return summary, title, rows, page
