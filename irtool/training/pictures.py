"""The pictures of a run: found in folders and manifests, decoded once, and read in pieces from then on.

Decoding takes far longer than cutting a crop, and several processes want the same pictures. Each is therefore decoded
once into a file of raw pixels in the cache, which is then mapped into memory: a crop costs what its rows cost, the
processes share what the system has read, and the next run begins at once.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import picture
from ..errors import IrtoolError, UsageError
from ..weights.hub import assets_cache
from .recipe import Pairs, Recipe

LIMIT = 2_000_000  # clean pictures with more pixels are reduced by whole factors: their own grain goes, and it fits
_COLUMNS = {"clean": ("clean", "file"), "degraded": ("degraded",)}


@dataclass(frozen=True)
class Decoded:
    """A picture in the cache.

    Attributes:
        source: where it came from.
        path: the file of its pixels.
        height, width: of the pixels.
    """

    source: Path
    path: Path
    height: int
    width: int

    @property
    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8 sRGB, mapped from the file."""
        mapped: np.ndarray = np.load(self.path, mmap_mode="r")
        return mapped


@dataclass(frozen=True)
class Twins:
    """A degraded picture, its clean twin of the same size, and the ids of the damage."""

    degraded: Decoded
    clean: Decoded
    task: tuple[str, ...]


@dataclass(frozen=True)
class Pictures:
    """All that a run learns from.

    Attributes:
        clean: to be degraded.
        held: clean ones that are kept back.
        pairs: one list for each of `Recipe.pairs`.
        skipped: one sentence for each file that could not be used.
    """

    clean: Sequence[Decoded]
    held: Sequence[Decoded]
    pairs: Sequence[Sequence[Twins]]
    skipped: Sequence[str]

    def digest(self) -> str:
        """Changes when a picture is added, lost or replaced."""
        every = [p.path.name for p in (*self.clean, *self.held)]
        every += [side.path.name for pairs in self.pairs for t in pairs for side in (t.degraded, t.clean)]
        return hashlib.sha256("\n".join(every).encode()).hexdigest()


def gather(recipe: Recipe, root: Path, cache: Path | None = None) -> Pictures:
    """Find and decode everything a recipe names.

    Args:
        recipe: its `data`, `pairs`, `region` and `hold` count here.
        root: folder that the recipe's folders lie in.
        cache: where decoded pictures are kept; by default beside irtool's other files under HF_HOME.

    Raises:
        UsageError: a folder is missing, or nothing usable is in what the recipe names.
        IrtoolError: the cache cannot be written.
    """
    cache = cache or assets_cache() / "pictures"
    skipped: list[str] = []
    clean = _usable(decode(_listed(root, recipe.data), cache, LIMIT, skipped), recipe.region, skipped)
    pairs = [_twins(root, entry, cache, recipe.region, skipped) for entry in recipe.pairs]
    if not clean and not any(pairs):
        places = ", ".join(str(root / name) for name in recipe.data)
        raise UsageError(f"No usable picture in {places}.", skipped[0] if skipped else "")
    if not clean and any(weight > 0 for weight in recipe.weights.values()):
        raise UsageError(
            f"No usable clean picture in {', '.join(str(root / name) for name in recipe.data)}.",
            "To train on pairs alone, set all weights to 0.",
        )
    for entry, found in zip(recipe.pairs, pairs, strict=True):
        if not found:
            raise UsageError(f"No usable pair in {entry.manifest or entry.degraded}.", skipped[-1] if skipped else "")
    count = min(recipe.hold, len(clean) // 10)
    # Spread over all folders, and the same ones whatever the seed.
    chosen = {round((i + 0.5) * len(clean) / count) for i in range(count)} if count else set()
    held = [p for i, p in enumerate(clean) if i in chosen]
    return Pictures([p for i, p in enumerate(clean) if i not in chosen], held, pairs, skipped)


def decode(paths: Sequence[Path], cache: Path, limit: int | None, skipped: list[str]) -> list[Decoded]:
    """Decode to uint8 sRGB, in the order given; what cannot be read is told in `skipped`.

    Args:
        paths: of pictures.
        cache: folder of decoded pictures; one that is there and fits the file's size and time is taken from there.
        limit: pixels above which a picture is reduced by a whole factor; None for never.
        skipped: gets a sentence for each that could not be read.

    Raises:
        IrtoolError: the cache cannot be written.
    """

    def one(path: Path) -> Decoded | str:
        try:
            about = path.stat()
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}."
        key = f"{path.resolve()} {about.st_size} {about.st_mtime_ns} {limit} 1"
        target = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy"
        if not target.is_file():
            try:
                pixels = _reduced(picture.read(path).pixels, limit)
            except IrtoolError as error:
                return error.message
            _keep((pixels * 255 + 0.5).astype(np.uint8), target)
        height, width = np.load(target, mmap_mode="r").shape[:2]
        return Decoded(path, target, height, width)

    # Decoding lets go of the interpreter, so threads are enough.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        results = list(threads.map(one, paths))
    skipped += [r for r in results if isinstance(r, str)]
    return [r for r in results if isinstance(r, Decoded)]


def _reduced(pixels: np.ndarray, limit: int | None) -> np.ndarray:
    h, w = pixels.shape[:2]
    factor = max(1, round((h * w / limit) ** 0.5)) if limit else 1
    if factor == 1:
        return pixels
    h, w = h // factor, w // factor
    mean: np.ndarray = pixels[: h * factor, : w * factor].reshape(h, factor, w, factor, 3).mean(axis=(1, 3))
    return mean


def _keep(pixels: np.ndarray, target: Path) -> None:
    partial = target.with_suffix(f".{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.save(file, np.ascontiguousarray(pixels))
        partial.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise IrtoolError(
            f"Decoded pictures cannot be kept in {target.parent}: {error.strerror or error}.",
            "Set HF_ASSETS_CACHE to a folder with room: three bytes per pixel of the training pictures.",
        ) from error


def _usable(found: Iterable[Decoded], smallest: int, skipped: list[str]) -> list[Decoded]:
    kept = []
    for one in found:
        if min(one.height, one.width) < smallest:
            skipped.append(f"{one.source} is smaller than {smallest} pixels.")
        else:
            kept.append(one)
    return kept


def _listed(root: Path, names: Sequence[str]) -> list[Path]:
    """The pictures of folders and manifests, each once."""
    paths: dict[Path, None] = {}
    for name in names:
        place = root / name
        if place.is_dir():
            paths |= dict.fromkeys(found.path for found in picture.find([place], recursive=True))
        elif place.is_file():
            paths |= dict.fromkeys(row["clean"] for row in manifest(place, ("clean",)))
        else:
            raise _absent(place)
    return list(paths)


def _absent(place: Path) -> UsageError:
    return UsageError(
        f"{place} is not a folder, nor a manifest.", "Give the folder that holds the training data with --data."
    )


def manifest(path: Path, wanted: Sequence[str]) -> list[dict[str, Path]]:
    """Read a list of pictures: a table with a header, separated by tabs (commas where it is a .csv).

    Args:
        path: the table. Its columns are named in the first line; "clean" may also be called "file". Other columns are
            for other readers. A file named there is relative to the folder of the table.
        wanted: the columns to read, of "clean" and "degraded".

    Raises:
        UsageError: it cannot be read, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="," if path.suffix == ".csv" else "\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is no manifest: {error}.") from error
    columns: dict[str, str] = {}
    for name in wanted:
        column = next((c for c in _COLUMNS[name] if rows and c in rows[0]), None)
        if column is None:
            raise UsageError(
                f"{path} has no column '{name}'.", "Its first line must name the columns, separated by tabs."
            )
        columns[name] = column
    return [{name: path.parent / row[column] for name, column in columns.items() if row[column]} for row in rows]


def by_stem(degraded: Sequence[Path], clean: Sequence[Path], skipped: list[str]) -> list[tuple[Path, Path]]:
    """Put each degraded picture beside its clean twin: the same stem, or one that goes on with "_" or "-"."""
    known = {path.stem: path for path in clean}
    matched = []
    for path in degraded:
        stem = path.stem
        ends = [len(stem)] + [i for i in range(len(stem) - 1, 0, -1) if stem[i] in "_-"]
        twin = next((known[stem[:end]] for end in ends if stem[:end] in known), None)
        if twin is None:
            skipped.append(f"{path} has no clean twin of that name.")
        else:
            matched.append((path, twin))
    return matched


def _twins(root: Path, entry: Pairs, cache: Path, smallest: int, skipped: list[str]) -> list[Twins]:
    if entry.manifest:
        if not (root / entry.manifest).is_file():
            raise _absent(root / entry.manifest)
        rows = manifest(root / entry.manifest, ("degraded", "clean"))
        matched = [(row["degraded"], row["clean"]) for row in rows if len(row) == 2]
    else:
        matched = by_stem(_listed(root, [entry.degraded]), _listed(root, [entry.clean]), skipped)
    # Not reduced: the grain of a real pair is what is to be learned.
    every = list(dict.fromkeys(path for pair in matched for path in pair))
    decoded = {one.source: one for one in _usable(decode(every, cache, None, skipped), smallest, skipped)}
    twins = []
    for first, second in matched:
        if first not in decoded or second not in decoded:
            continue  # told already
        a, b = decoded[first], decoded[second]
        if (a.height, a.width) == (b.height, b.width):
            twins.append(Twins(a, b, entry.task))
        else:
            skipped.append(f"{first} is {a.width}x{a.height}, its clean twin {b.width}x{b.height}.")
    return twins


def licences(pictures: Pictures, root: Path) -> dict[str, int]:
    """How many pictures stand under which licence, as ``manifest.tsv`` at the data root says (columns "file" and
    "licence"); "not stated" for the others. The model card quotes this."""
    stated: dict[Path, str] = {}
    path = root / "manifest.tsv"
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                stated[(root / (row.get("file") or "")).resolve()] = row.get("licence") or row.get("license") or ""
    used = [p.source for p in (*pictures.clean, *pictures.held)]
    used += [side.source for pairs in pictures.pairs for t in pairs for side in (t.degraded, t.clean)]
    return dict(Counter(stated.get(p.resolve(), "") or "not stated" for p in dict.fromkeys(used)).most_common())
