"""Pairs of degraded and true pictures, found in the layouts people have them in.

First the two folders are found by their names, or one folder with both kinds of files; then the rule under which most
degraded files find their truth. What finds none is kept and named: a broken pair is never left out in silence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import fileio
from ..errors import UnavailableError
from ..picture import SUFFIXES

# Names of folders, without case, hyphens and underscores, the most telling first.
DEGRADED_NAMES = (
    "lq", "input", "inputs", "low", "rain", "rainy", "rainstreak", "hazy", "haze", "in", "noisy", "noise", "real",
    "blur", "blurry", "blurred", "drop", "raindrop", "data", "shadow", "testa", "snow", "snowy", "synthetic",
    "degraded", "lrbicx3", "lr", "lrbicubic", "cropped", "corrupted", "masked",
)  # fmt: skip
REFERENCE_NAMES = (
    "gt", "target", "targets", "high", "norain", "clear", "clean", "sharp", "groundtruth", "truth", "shadowfree",
    "testc", "free", "normal", "mean", "hq", "hr", "original", "reference", "label", "labels", "gtclean", "nohaze",
)  # fmt: skip
# Words in file names that say what a file is, degraded -> true.
ROLES = (
    ("rain", "norain"), ("rain", "clean"), ("real", "mean"), ("noisy", "clean"), ("noisy", "gt"), ("low", "high"),
    ("low", "normal"), ("hazy", "gt"), ("hazy", "clear"), ("haze", "gt"), ("blur", "sharp"), ("shadow", "free"),
    ("input", "target"), ("lq", "gt"), ("lr", "hr"), ("degraded", "clean"), ("in", "gt"), ("snow", "clean"),
)  # fmt: skip
PARTS = ("train", "test", "val", "validation")
SUFFIX_ROLES = ("no_shadow", "noshadow", "free", "clean", "gt", "mean", "target", "clear")


@dataclass(frozen=True)
class Pair:
    """One picture to restore and to score.

    Attributes:
        name: of the degraded picture, with the folders above it that tell pictures apart, without suffix.
        degraded: its file; None where it is to be made from the truth.
        reference: the file it is held against; None where none was found.
    """

    name: str
    degraded: Path | None
    reference: Path | None


@dataclass(frozen=True)
class PairSet:
    """Pairs, sorted by name, and how they were found.

    Attributes:
        pairs: those that are whole and those whose truth is missing.
        layout: the folders and the rule, for people.
        unused: true pictures that no degraded one belongs to.
    """

    pairs: tuple[Pair, ...]
    layout: str
    unused: tuple[str, ...] = ()

    @property
    def broken(self) -> tuple[Pair, ...]:
        """Pairs without a truth."""
        return tuple(pair for pair in self.pairs if pair.reference is None)


Rule = tuple[str, Callable[[str], Iterable[str]]]


def _rules() -> list[Rule]:
    """(what it says, degraded stem -> stems its truth may have), the plainest first."""

    def swapped(stem: str, old: str, new: str) -> Iterable[str]:
        # The word must stand alone: the "rain" of "train" is none, that of "norain" neither.
        for match in re.finditer(rf"(?<![a-z]){old}(?![a-z])", stem, re.IGNORECASE):
            yield stem[: match.start()] + new + stem[match.end() :]

    def begins(separator: str) -> Callable[[str], Iterable[str]]:
        return lambda stem: [stem.split(separator)[0]] if separator in stem else []

    def without_scale(stem: str) -> Iterable[str]:
        return [re.sub(r"x\d$", "", stem)] if re.search(r"x\d$", stem) else []

    def number(stem: str) -> Iterable[str]:
        digits = re.findall(r"\d+", stem)
        return [f"#{int(digits[-1])}"] if digits else []

    rules: list[Rule] = [("the same name", lambda stem: [stem])]
    for old, new in ROLES:
        rules.append((f"'{old}' becomes '{new}'", lambda stem, old=old, new=new: swapped(stem, old, new)))  # type: ignore[misc]
    for word in SUFFIX_ROLES:
        rules.append((f"'_{word}' behind the name", lambda stem, word=word: [f"{stem}_{word}"]))  # type: ignore[misc]
    rules += [
        ("the name without its scale", without_scale),
        ("the part of the name before the first '_'", begins("_")),
        ("the part of the name before the first '-'", begins("-")),
        ("the last number of the name", number),
    ]
    return rules


def pictures(folder: Path) -> list[Path]:
    """Picture files of a folder, sorted by name; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def unique_names(files: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Names of picture files, each file under its own.

    Args:
        files: (prefix, file); the prefix, such as "sequence/", is put before the name.

    Returns:
        name -> file. The name is the stem; where files share prefix and stem (a.jpg, a.png), their whole file names.
    """
    every = list(dict.fromkeys(files))
    whole: set[tuple[str, Path]] = set()
    while True:
        named: dict[str, list[tuple[str, Path]]] = {}
        for prefix, path in every:
            short_name = path.name if (prefix, path) in whole else path.stem
            named.setdefault(prefix + short_name, []).append((prefix, path))
        clashing = {one for same in named.values() if len(same) > 1 for one in same} - whole
        if not clashing:
            return {name: same[0][1] for name, same in named.items()}
        whole |= clashing


def match(degraded: Mapping[str, Path], references: Mapping[str, Path], layout: str) -> PairSet:
    """Pair files by the rule under which most degraded ones find a truth.

    Args:
        degraded, references: name -> file, of `unique_names`; a name may have folders before it, which must then agree.
            Where truths share a stem, the one with the suffix of the degraded picture is its own.
        layout: where they were found, for people.
    """
    best: tuple[int, str, dict[str, str]] = (-1, "", {})
    numbered: dict[str, str] = {}
    for name in references:
        folder, stem = _split(name, references[name])
        digits = re.findall(r"\d+", stem)
        if digits:
            key = f"{folder}#{int(digits[-1])}"
            # Two truths of one number: the number tells nothing.
            numbered[key] = "" if key in numbered else name
    for rule_name, rule in _rules():
        partners: dict[str, str] = {}
        for name in degraded:
            folder, stem = _split(name, degraded[name])
            for candidate in (stem, *rule(stem)):
                key = folder + candidate
                keys = (numbered.get(key, ""),) if candidate.startswith("#") else (key, key + degraded[name].suffix)
                found = next((k for k in keys if k in references), None)
                if found is not None:
                    partners[name] = found
                    break
        if len(partners) > best[0]:
            best = (len(partners), rule_name, partners)
        if len(partners) == len(degraded):
            break
    _, rule_name, partners = best
    pairs = tuple(Pair(n, degraded[n], references[partners[n]] if n in partners else None) for n in sorted(degraded))
    unused = tuple(sorted(set(references) - set(partners.values())))
    return PairSet(pairs, f"{layout}; truth: {rule_name}", unused)


def _split(name: str, path: Path) -> tuple[str, str]:
    """The folders of a name, and the stem of its file."""
    folder, slash, _ = name.rpartition("/")
    return folder + slash, path.stem


def between(lq: Path, gts: Sequence[Path]) -> PairSet:
    """Pairs of two folders (or of one with several folders of truths), or of two files.

    Raises:
        UnavailableError: one of them does not exist or holds no picture.
    """
    if lq.is_file() and len(gts) == 1 and gts[0].is_file():
        return PairSet((Pair(lq.stem, lq, gts[0]),), f"{lq.name} against {gts[0].name}")
    degraded = _named([lq])
    references = _named(gts)
    return match(degraded, references, f"{lq.name}/ against {' and '.join(f'{gt.name}/' for gt in gts)}")


def clean(gts: Sequence[Path]) -> PairSet:
    """Clean pictures alone, to be degraded.

    Raises:
        UnavailableError: there are none.
    """
    listed = [_listed(gt) for gt in gts]
    named = [unique_names(files) for files in listed]
    if len({name for names in named for name in names}) < sum(map(len, named)):
        # Pictures of one name in several folders are different pictures: the folders tell them apart.
        above = Path(os.path.commonpath([gt.absolute() for gt in gts]))
        references = unique_names(
            (f"{gt.absolute().relative_to(above).as_posix()}/{prefix}", path)
            for gt, files in zip(gts, listed, strict=True)
            for prefix, path in files
        )
    else:
        references = {name: path for names in named for name, path in names.items()}
    pairs = tuple(Pair(name, None, path) for name, path in sorted(references.items()))
    return PairSet(pairs, f"clean pictures of {' and '.join(f'{gt.name}/' for gt in gts)}")


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    """The pictures of folders by name; where two folders hold one of the same name, that of the first."""
    named: dict[str, Path] = {}
    for folder in folders:
        named = unique_names(_listed(folder)) | named
    return named


def _listed(folder: Path) -> list[tuple[str, Path]]:
    """The pictures of a folder, with the folders between as prefix where it holds only folders; or one file.

    Raises:
        UnavailableError: it does not exist or holds no picture.
    """
    if not fileio.exists(folder):
        raise UnavailableError(f"There is no folder '{folder}'.", "Give the folder that holds the pictures.")
    files = [("", path) for path in ([folder] if folder.is_file() else pictures(folder))]
    if not files:
        below = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        files = [(p.relative_to(folder).as_posix().removesuffix(p.name), p) for p in below]
    if not files:
        raise UnavailableError(f"'{folder}' holds no pictures.", "Give the folder that holds them.")
    return files


def discover(root: Path, layout: str = "", only_clean: bool = False, folders: Sequence[str] = ()) -> PairSet:
    """Find the pairs of a data set under its folder.

    Args:
        root: the folder; the set may lie up to three folders deeper.
        layout: what the set is expected to look like, for the message.
        only_clean: the set is one of clean pictures; degraded ones are not looked for.
        folders: words that name the set's own folder where several sets lie under one root; looked into first.

    Raises:
        UnavailableError: there is no such folder, or nothing in it looks like the set.
    """
    if not root.is_dir():
        raise UnavailableError(f"There is no folder '{root}'.", f"Expected there: {layout}" if layout else "")
    places = sorted(_folders(root), key=lambda p: not any(word in _plain(str(p.relative_to(root))) for word in folders))
    if only_clean:
        holding = [place for place in places if pictures(place)]
        if holding:
            # Beside the clean pictures people keep noisy ones: noisy15/, noisy25/, original_png/.
            return clean([root if root in holding else min(holding, key=_cleanness)])
    for folder in places:
        for finder in (_two_folders, _sequences, _one_folder):
            found = finder(folder)
            if found is not None and len(found.broken) < len(found.pairs):
                return found
    raise UnavailableError(
        f"No pairs were found in '{root}'.",
        f"Expected: {layout}." if layout else "Name the two folders with --lq and --gt.",
    )


def _folders(root: Path, depth: int = 3) -> list[Path]:
    """The folder and those below it, nearer ones first; folders of a test part before others of their level."""
    level, found = [root], [root]
    for _ in range(depth):
        level = sorted((p for f in level for p in f.iterdir() if p.is_dir()), key=lambda p: ("test" not in p.name, p))
        found += level
    return found


def _plain(name: str) -> str:
    """Without case, hyphens and underscores."""
    return re.sub(r"[-_ ]", "", name.lower())


def _cleanness(folder: Path) -> int:
    """0 where a folder's name begins as those of true pictures do, 2 as those of degraded ones, else 1."""
    plain = _plain(folder.name)
    return 0 if plain.startswith(REFERENCE_NAMES) else 2 if plain.startswith(DEGRADED_NAMES) else 1


def _role(name: str) -> tuple[int, int] | None:
    """(0 degraded or 1 true, how telling) of a folder's name."""
    plain = _plain(name)
    for kind, names in enumerate((DEGRADED_NAMES, REFERENCE_NAMES)):
        if plain in names:
            return kind, names.index(plain)
    return None


def _two_folders(folder: Path) -> PairSet | None:
    roles: tuple[list[tuple[int, Path]], list[tuple[int, Path]]] = ([], [])
    for inside in sorted(p for p in folder.iterdir() if p.is_dir()):
        role, holding = _role(inside.name), _holding(inside)
        if role is not None and holding is not None:
            roles[role[0]].append((role[1], holding))
    if not roles[0] or not roles[1]:
        return None
    lq, gt = min(roles[0])[1], min(roles[1])[1]
    names = (place.relative_to(folder).as_posix() for place in (lq, gt))
    return match(_named([lq]), _named([gt]), "/ against ".join(names) + "/")


def _holding(folder: Path) -> Path | None:
    """The folder, or the only one inside it, that holds pictures: Rain100L has rain/X2/."""
    if pictures(folder):
        return folder
    inside = [p for p in folder.iterdir() if p.is_dir() and pictures(p)]
    return inside[0] if len(inside) == 1 else None


def _sequences(folder: Path) -> PairSet | None:
    """Sequences with blur/ and sharp/ each, as GoPro has them; train/ and test/ are no sequences."""
    degraded: dict[str, Path] = {}
    references: dict[str, Path] = {}
    for sequence in sorted(p for p in folder.iterdir() if p.is_dir()):
        low, high = sequence / "blur", sequence / "sharp"
        if sequence.name.lower() not in PARTS and low.is_dir() and high.is_dir():
            degraded |= unique_names((f"{sequence.name}/", p) for p in pictures(low))
            references |= unique_names((f"{sequence.name}/", p) for p in pictures(high))
    if not degraded or not references:
        return None
    return match(degraded, references, "SEQUENCE/blur/ against SEQUENCE/sharp/")


def _one_folder(folder: Path) -> PairSet | None:
    """Both kinds in one folder, told apart by a word in their names."""
    files = unique_names(("", p) for p in pictures(folder))
    for old, new in ROLES:
        role = re.compile(rf"(?<![a-z]){old}(?![a-z])", re.IGNORECASE)
        other = re.compile(rf"(?<![a-z]){new}(?![a-z])", re.IGNORECASE)
        references = {stem: path for stem, path in files.items() if other.search(stem)}
        degraded = {stem: path for stem, path in files.items() if role.search(stem) and stem not in references}
        if degraded and references:
            return match(degraded, references, f"both in one folder, '{old}' against '{new}'")
    return None
