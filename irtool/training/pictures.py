"""The pictures of a run: found in folders and manifests, decoded once, and read in pieces from then on.

Decoding takes far longer than cutting a crop, and several processes want the same pictures. Each is therefore decoded
once into a file of raw pixels in the cache, which is then mapped into memory: a crop costs what its rows cost, the
processes share what the system has read, and the next run begins at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import picture
from ..data.pairs import DEGRADED_NAMES, REFERENCE_NAMES
from ..errors import FileError, IrtoolError, UsageError, reason
from ..fileio import atomic_open, is_folder, is_regular, resolved
from ..tables import rows
from ..weights.hub import assets_cache
from .recipe import Pairs, Recipe

LIMIT = 2_000_000  # clean pictures with more pixels are reduced by whole factors: their own grain goes, and it fits
Named = dict[str, list[Path]]
_ROLES = frozenset(DEGRADED_NAMES + REFERENCE_NAMES)
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
class PicturePair:
    """A degraded picture, its clean twin of the same size, and the ids of the damage."""

    degraded: Decoded
    clean: Decoded
    task: tuple[str, ...]


@dataclass(frozen=True)
class PictureSet:
    """All that a run learns from.

    Attributes:
        clean: to be degraded.
        held_out: clean ones that are kept back.
        pairs: one list for each of `Recipe.pairs`.
        skipped: one sentence for each file that could not be used.
    """

    clean: Sequence[Decoded]
    held_out: Sequence[Decoded]
    pairs: Sequence[Sequence[PicturePair]]
    skipped: Sequence[str]

    def digest(self) -> str:
        """Changes when a picture is added, lost or replaced."""
        every = [p.path.name for p in (*self.clean, *self.held_out)]
        every += [side.path.name for pairs in self.pairs for t in pairs for side in (t.degraded, t.clean)]
        return hashlib.sha256("\n".join(every).encode()).hexdigest()


def gather(recipe: Recipe, root: Path, cache: Path | None = None) -> PictureSet:
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
    pairs = [_picture_pairs(root, entry, cache, recipe.region, skipped) for entry in recipe.pairs]
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
    held_out = [p for i, p in enumerate(clean) if i in chosen]
    return PictureSet([p for i, p in enumerate(clean) if i not in chosen], held_out, pairs, skipped)


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
            status = path.stat()
            if not is_regular(path):
                return f"{path} is no regular file."
        except (OSError, ValueError) as error:
            return f"{path} cannot be read: {reason(error)}."
        key = f"{resolved(path)} {status.st_size} {status.st_mtime_ns} {limit} 1"
        target = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy"
        size = _kept(target)
        if size is None:
            try:
                pixels = _reduced(picture.read(path).pixels, limit)
            except IrtoolError as error:
                return error.message
            _keep((pixels * 255 + 0.5).astype(np.uint8), target)
            size = pixels.shape[:2]
        return Decoded(path, target, *size)

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


def _kept(path: Path) -> tuple[int, int] | None:
    """Height and width of the picture that a file of the cache holds whole; None where it does not."""
    with contextlib.suppress(OSError, ValueError, EOFError):  # absent, or cut short by a disk that failed
        pixels = np.load(path, mmap_mode="r")
        if pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8:
            return pixels.shape[0], pixels.shape[1]
    return None


def _keep(pixels: np.ndarray, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_open(target) as file:
            np.save(file, np.ascontiguousarray(pixels))
    except (OSError, FileError) as error:
        raise IrtoolError(
            f"Decoded pictures cannot be kept in {target.parent}: {reason(error)}.",
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
        if is_folder(place):
            paths |= dict.fromkeys(found.path for found in picture.find([place], recursive=True))
        elif is_regular(place):
            paths |= dict.fromkeys(row["clean"] for row in manifest(place, ("clean",)))
        else:
            raise _absent(place)
    return list(paths)


def _absent(place: Path) -> UsageError:
    return UsageError(
        f"{place} is not a folder, nor a manifest.", "Give the folder that holds the training data with --data."
    )


def manifest(path: Path, columns_wanted: Sequence[str]) -> list[dict[str, Path]]:
    """Read a list of pictures: a table with a header, its columns separated by tabs, commas or semicolons.

    Args:
        path: the table. Its columns are named in the first line; "clean" may also be called "file". Other columns are
            for other readers. A file named there is relative to the folder of the table.
        columns_wanted: the columns to read, of "clean" and "degraded".

    Raises:
        FileError: it cannot be read.
        UsageError: it is no table, or lacks a column.
    """
    found = rows(path)
    columns: dict[str, str] = {}
    for name in columns_wanted:
        column = next((c for c in _COLUMNS[name] if found and c in found[0]), None)
        if column is None:
            raise UsageError(
                f"{path} has no column '{name}'.", "Its first line must name the columns, separated by tabs."
            )
        columns[name] = column
    return [{name: path.parent / row[column] for name, column in columns.items() if row.get(column)} for row in found]


def matched(
    degraded: Sequence[Path], clean: Sequence[Path], skipped: list[str], below: tuple[Path, Path] | None = None
) -> list[tuple[Path, Path]]:
    """Put each degraded picture beside its clean one.

    Two files belong together where the stem of the degraded one is that of the clean one, or begins with it and goes
    on with "_" or "-", and where they lie in the same sub-folder: blur/A/1.png and sharp/A/1.png. So do A/blur/1.png
    and A/sharp/1.png: where no sub-folder is the same, those that say what is in them ("blur", "gt") do not count.
    Clean pictures that lie in no sub-folder belong to degraded ones in any, and the other way round. Among several
    clean ones of one stem, the one with the degraded picture's own suffix is taken.

    Args:
        degraded, clean: files.
        skipped: gets a sentence for each degraded picture without a clean one, or with several to choose from.
        below: the folders that the sub-folders of the degraded and of the clean pictures are counted from.
    """
    roots = below or (Path(), Path())
    exact: dict[tuple[str, ...], Named] = defaultdict(lambda: defaultdict(list))
    loose: dict[tuple[str, ...], Named] = defaultdict(lambda: defaultdict(list))
    every: Named = defaultdict(list)
    for path in clean:
        folders = _folders(path, roots[1])
        exact[folders][path.stem].append(path)
        loose[_without_roles(folders)][path.stem].append(path)
        every[path.stem].append(path)
    pairs = []
    for path in degraded:
        folders = _folders(path, roots[0])
        bare = _without_roles(folders)
        ends = [len(path.stem)] + [i for i in range(len(path.stem) - 1, 0, -1) if path.stem[i] in "_-"]
        # Without sub-folders on one side; never from another sub-folder, which holds other pictures of these names.
        anywhere = loose.get((), {}) if bare else every
        candidates = next(
            (named[path.stem[:end]] for named in (exact.get(folders, {}), loose.get(bare, {}), anywhere) for end in ends
             if path.stem[:end] in named),
            [],
        )  # fmt: skip
        own = [p for p in candidates if p.suffix == path.suffix] if len(candidates) > 1 else candidates
        if len(own) == 1:
            pairs.append((path, own[0]))
        elif not candidates:
            skipped.append(f"{path} has no clean twin of that name.")
        else:
            names = ", ".join(str(p) for p in candidates[:3])
            skipped.append(f"{path} has {len(candidates)} clean twins of that name ({names}): nobody can tell which.")
    return pairs


def _folders(path: Path, root: Path) -> tuple[str, ...]:
    """The sub-folders between a root and a picture."""
    return path.parent.relative_to(root).parts if path.is_relative_to(root) else path.parent.parts


def _without_roles(folders: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in folders if _plain(name) not in _ROLES)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _of_role(paths: Sequence[Path], root: Path, names: Sequence[str]) -> list[Path]:
    """The pictures that lie in folders of these names."""
    return [p for p in paths if any(_plain(part) in names for part in p.parent.relative_to(root).parts)]


def _picture_pairs(root: Path, entry: Pairs, cache: Path, smallest: int, skipped: list[str]) -> list[PicturePair]:
    if entry.manifest:
        if not is_regular(root / entry.manifest):
            raise _absent(root / entry.manifest)
        listed = manifest(root / entry.manifest, ("degraded", "clean"))
        pairs = [(row["degraded"], row["clean"]) for row in listed if len(row) == 2]
    else:
        places = root / entry.degraded, root / entry.clean
        low, high = (_listed(root, [name]) for name in (entry.degraded, entry.clean))
        if places[0] == places[1] and is_folder(places[0]):  # GoPro: SEQUENCE/blur and SEQUENCE/sharp in one tree
            kinds = _of_role(low, places[0], DEGRADED_NAMES), _of_role(high, places[0], REFERENCE_NAMES)
            low, high = kinds if all(kinds) else (low, high)
        pairs = matched(low, high, skipped, places)
    # Not reduced: the grain of a real pair is what is to be learned.
    every = list(dict.fromkeys(path for pair in pairs for path in pair))
    decoded = {one.source: one for one in _usable(decode(every, cache, None, skipped), smallest, skipped)}
    matched_pairs = []
    for first, second in pairs:
        if first not in decoded or second not in decoded:
            continue  # told already
        a, b = decoded[first], decoded[second]
        if (a.height, a.width) == (b.height, b.width):
            matched_pairs.append(PicturePair(a, b, entry.task))
        else:
            skipped.append(f"{first} is {a.width}x{a.height}, its clean twin {b.width}x{b.height}.")
    return matched_pairs


def licenses(pictures: PictureSet, root: Path) -> dict[str, int]:
    """How many pictures stand under which licence, as ``manifest.tsv`` at the data root says (columns "file" and
    "licence"); "not stated" for the others. The model card quotes this."""
    license_of: dict[Path, str] = {}
    path = root / "manifest.tsv"
    if is_regular(path):
        for row in rows(path):
            license_of[resolved(root / row.get("file", ""))] = row.get("licence") or row.get("license") or ""
    used = [p.source for p in (*pictures.clean, *pictures.held_out)]
    used += [side.source for pairs in pictures.pairs for t in pairs for side in (t.degraded, t.clean)]
    return dict(Counter(license_of.get(resolved(p), "") or "not stated" for p in dict.fromkeys(used)).most_common())
