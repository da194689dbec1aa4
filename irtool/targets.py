"""Which pictures, and where the result of each goes. Everything is settled before work begins."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import NothingToDoError, PictureError, UsageError, reason
from .fileio import is_regular, resolved
from .naming import Template, tasks_of
from .picture import FoundPicture, find, format_for, format_named, is_pattern, same_file, sniff, suffix_for
from .shard import Shard

if TYPE_CHECKING:
    from .plan import Plan

STDIO = "-"
SUFFIX = ".restored"
SIDE = ".side-by-side"
STEPS = ".steps"
_OURS = re.compile(rf"({re.escape(SUFFIX)}|\.degraded|{re.escape(SIDE)}|{re.escape(STEPS)})(-\d+)?$")


@dataclass(frozen=True)
class Item:
    """One picture to be restored.

    Attributes:
        source: the input, None for stdin.
        target: the output, None for stdout.
        format: of the output; None keeps the input's.
        side: where a before/after picture goes, if one is wanted.
        trajectory: where a sheet of a diffusion model's steps goes, if one is wanted.
        relative: the input below its folder, by which shards share the pictures out.
        template: makes the names of the outputs once it is known what is removed; until then `target` stands for them.
            None where they are known.
    """

    source: Path | None
    target: Path | None
    format: str | None
    side: Path | None = None
    trajectory: Path | None = None
    relative: str = ""
    template: Template | None = None

    @property
    def outputs(self) -> tuple[Path, ...]:
        """All files that are written."""
        return tuple(path for path in (self.target, self.side, self.trajectory) if path is not None)

    @property
    def name(self) -> str:
        """What messages call the input."""
        return "stdin" if self.source is None else str(self.source)

    def for_plan(self, plan: Plan) -> Item:
        """The item with the names that its outputs have under a plan."""
        return self if self.template is None or self.target is None else self._named(tasks_of(plan))

    def existing(self, listing: Callable[[Path], list[str]] | None = None) -> list[Path]:
        """The outputs that are there, also where it is not known yet what is removed; `listing` gives the sorted names
        in a folder."""
        if self.template is None or self.target is None:
            return [path for path in self.outputs if _is_there(path)]
        names = (listing or names_in)(self.target.parent)
        for name in self.template.matching(self._stem, self.target.suffix, names):
            named = replace(self, target=self.target.with_name(name), template=None)
            return [path for path in _with_sheets_of(named, self).outputs if _is_there(path)]
        return []

    @property
    def _stem(self) -> str:
        return "stdin" if self.source is None else self.source.stem

    def _named(self, tasks: str) -> Item:
        assert self.template is not None and self.target is not None
        target = self.target.with_name(self.template.fill(self._stem, tasks, self.target.suffix))
        return _with_sheets_of(replace(self, target=target, template=None), self)


def is_address(text: str) -> bool:
    """Whether an input or output lies in a store, on a server or in an archive (`irtool.remote`)."""
    return "://" in text or text.lower().endswith((".tar", ".zip"))


def gather(
    inputs: Sequence[str], *, recursive: bool, output: Path | None = None, template: Template | None = None
) -> list[FoundPicture | None]:
    """The pictures that the arguments stand for; None is stdin.

    Results of earlier runs that lie in an input folder are left out: all below `output`, and names that irtool gives or
    that `template` gives to another picture there.

    Raises:
        UsageError: stdin is named along with other inputs.
        NothingToDoError: there is no picture.
    """
    if STDIO in inputs:
        if len(inputs) > 1:
            raise UsageError("- (stdin) cannot be combined with other inputs.")
        return [None]
    folders = [Path(i) for i in inputs if Path(i).is_dir()]
    named = set(inputs)
    own = resolved(output) if output is not None and output.is_dir() else None

    found = find(inputs, recursive=recursive)
    stems = {(one.path.parent, one.path.stem) for one in found}

    def is_result(one: FoundPicture) -> bool:
        if str(one.path) in named:
            return False
        if own is not None and own in resolved(one.path).parents:
            return True
        stem = None if template is None else template.stem_of(one.path.name)
        if stem not in (None, one.path.stem) and (one.path.parent, stem) in stems:
            return True
        # Only beside the picture that it is of: others may call their pictures so.
        mark = _OURS.search(one.path.stem)
        while mark is not None:
            stem = one.path.stem[: mark.start()]
            if (one.path.parent, stem) in stems:
                return True
            mark = _OURS.search(stem)
        return False

    pictures = [one for one in found if not is_result(one)]
    if not pictures:
        deeper = not recursive and any(p.is_dir() for folder in folders for p in folder.iterdir())
        hint = (
            "Use `recursive` to look into the folders below."
            if deeper
            else "Give pictures, or a folder that holds some."
        )
        raise NothingToDoError(f"There are no pictures in {', '.join(map(str, folders))}.", hint)
    return list(pictures)


def has_folder(inputs: Iterable[str]) -> bool:
    """Whether one of the inputs is a folder, or a pattern, which stands for many pictures too."""
    return any(i != STDIO and (Path(i).is_dir() or is_pattern(i)) for i in inputs)


def make_items(  # noqa: PLR0913 (the settings, as keywords)
    inputs: Sequence[str],
    *,
    output: str | None,
    recursive: bool,
    format: str | None,
    side_by_side: bool = False,
    preview_steps: bool = False,
    root: Path | None = None,
    others: Sequence[Path] = (),
    shard: Shard | None = None,
    name: str | None = None,
) -> list[Item]:
    """Name the output of every input, or of those of a shard.

    Args:
        inputs: as given.
        output: a file, a folder, ``-`` for stdout, or None: beside the input as NAME.restored.EXT (stdin: stdout).
        recursive: take folders with all below them.
        format: a format name, or None to keep that of each input.
        side_by_side: also name a before/after picture.
        preview_steps: also name a sheet of a diffusion model's steps.
        root: an output folder mirrors the tree below it for named files too.
        others: further files that are read, such as a mask, and must not be written to.
        shard: the share that is wanted; what is checked is checked of all.
        name: a template of the outputs' names (`irtool.naming.Template`), in the folder `output` or beside
            their inputs; it does not count where `output` names a file.

    Raises:
        UsageError: two inputs share an output, an output is an input, `output` does not fit the inputs, or `name` is no
            template.
        NothingToDoError: there is no picture.
    """
    kind = None if format is None else format_named(format).name
    template = None if name is None else Template(name)
    folder = _output_folder(inputs, output)
    found = gather(inputs, recursive=recursive, output=folder, template=None if output else template)
    if output == STDIO and len(found) > 1:
        raise UsageError(f"`output` - takes one picture, and there are {len(found)}.", "Name a folder with `output`.")
    items = []
    for one in found:
        source = None if one is None else one.path
        if output == STDIO or (source is None and output is None):
            items.append(Item(source, None, kind))
            continue
        if output is not None and folder is None:
            target = Path(output)
            named = format_for(target).name if kind is None or target.suffix else kind
            if kind is not None and named != kind:
                raise UsageError(
                    f"`output` {target} and `format` {format} name different formats.", "Leave one of them out."
                )
            items.append(Item(source, target, named))
            continue
        suffix = suffix_for(kind or _format_of(source), source)
        if folder is None:
            assert source is not None
            target = source.with_name(source.stem + SUFFIX + suffix)
        else:
            relative = Path("stdin") if one is None else _relative(one, root)
            # A folder that cannot be listed stands for itself, and its path below itself is empty.
            target = (
                folder / relative.with_name(relative.stem + suffix) if relative.name else folder / f"unread{suffix}"
            )
        items.append(Item(source, target, kind or format_for(target).name, template=template))
    if (side_by_side or preview_steps) and any(item.target is None for item in items):
        flag = "`side_by_side`" if side_by_side else "`preview_steps`"
        raise UsageError(f"{flag} needs an output file to lie beside.", "Name one with `output`.")
    items = _told_apart(items) if template is None else [_provisional(item) for item in items]
    items = [_with_sheets(item, side_by_side, preview_steps) for item in items]
    check_targets(items, others)
    items = [replace(item, relative=name_in_shards(one)) for item, one in zip(items, found, strict=True)]
    return items if shard is None else [item for item in items if shard.takes(item.relative)]


def _provisional(item: Item) -> Item:
    """An item with a name by its template; where that tells what is removed, one that stands for it."""
    if item.template is None:
        return item
    named = item._named("tasks")
    return replace(named, template=item.template) if item.template.needs_plan else named


def name_in_shards(one: FoundPicture | None) -> str:
    """What decides the shard of a picture: its path below its folder, the same on every machine."""
    return "" if one is None else one.relative.as_posix()


def _told_apart(items: list[Item]) -> list[Item]:
    """The items; those that would share an output are named by their inputs' suffix too: a.jpg.png and a.png.png.
    Where such a name is that of another item, once more."""
    while (named := _named_by_suffix(items)) != items:
        items = named
    return items


def _named_by_suffix(items: list[Item]) -> list[Item]:
    sharing: dict[Path | None, list[Item]] = {}
    for item in items:
        sharing.setdefault(item.target, []).append(item)

    def named(item: Item) -> Item:
        if item.source is None or item.target is None:
            return item
        return replace(item, target=item.target.with_suffix(item.source.suffix + item.target.suffix))

    def is_clash(item: Item) -> bool:
        group = sharing[item.target]
        return len(group) > 1 and len({named(one).target for one in group}) == len(group)

    return [named(item) if is_clash(item) else item for item in items]


def _relative(item: FoundPicture, root: Path | None) -> Path:
    """Where a picture lies below the root, or below the folder that gave it if it does not lie there."""
    if root is None or root not in item.path.parents:
        return item.relative
    below = item.path.relative_to(root)
    return item.relative if ".." in below.parts else below


def _with_sheets(item: Item, side: bool, trajectory: bool) -> Item:
    """The item with names for the further pictures that are wanted, beside its output."""

    def beside(mark: str) -> Path:
        assert item.target is not None
        return item.target.with_name(item.target.stem + mark + ".jpg")

    return replace(item, side=beside(SIDE) if side else None, trajectory=beside(STEPS) if trajectory else None)


def _with_sheets_of(item: Item, like: Item) -> Item:
    """The item with names for the further pictures that another one has."""
    return _with_sheets(item, like.side is not None, like.trajectory is not None)


def names_in(folder: Path) -> list[str]:
    """The names in a folder, in order; none where it cannot be listed."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def _output_folder(inputs: Sequence[str], output: str | None) -> Path | None:
    """The folder that `output` names, if it names one."""
    if output is None or output == STDIO:
        return None
    path = Path(output)
    many = len(inputs) > 1 or has_folder(inputs)
    if many and path.exists() and not path.is_dir():
        raise UsageError(f"`output` {output} is a file, and there is more than one input.", "Name a folder.")
    if not (many or path.is_dir() or output.endswith(("/", os.sep))):
        return None
    for item in inputs:
        if item != STDIO and Path(item).is_dir() and path.exists() and path.samefile(item):
            hint = "Name another folder; without `output`, results go beside the inputs as NAME.restored.EXT."
            raise UsageError(f"`output` {output} is the input folder.", hint)
    return path


def _format_of(source: Path | None) -> str:
    """The format a result is written in when none is named: by content, since names lie; else by name; else PNG."""
    if source is None:
        return "PNG"
    try:
        # A pipe can be read once only, and that is for the decoder.
        kind = None
        if source.is_file():
            with source.open("rb") as file:
                kind = sniff(file.read(4096))
    except OSError:
        kind = None
    try:
        found = format_named(kind) if kind else format_for(source)
    except UsageError:
        return "PNG"
    return found.name if found.writable else "PNG"


def check_targets(items: Sequence[Item], others: Sequence[Path] = ()) -> None:
    """No output is an input, under whatever name, or one of the other files; no two inputs share an output."""
    inputs: dict[tuple[int, int], str] = {}
    for path, name in [*((item.source, item.name) for item in items), *((path, str(path)) for path in others)]:
        identity = _identity(path)
        if identity is not None:
            inputs[identity] = name
    targets: dict[Path, str] = {_key(path): str(path) for path in others}
    for item in items:
        for target in item.outputs:
            identity = _identity(target)
            if identity is not None and identity in inputs:
                hint = "Choose another name or folder with `output`."
                message = f"The output {target} is the input {inputs[identity]}, which is never written to."
                raise UsageError(message, hint)
            key = _key(target)
            if key in targets:
                hint = "Run them apart, or rename one of them."
                raise UsageError(f"{targets[key]} and {item.name} would both be written to {target}.", hint)
            targets[key] = item.name


def _key(path: Path) -> Path:
    """A path that is the same for all that would be one file."""
    folder = resolved(path.parent)
    return folder / (path.name.casefold() if _folds_case(folder) else path.name)


@cache
def _folds_case(folder: Path) -> bool:
    """Whether names that differ by case alone are of one file in a folder, or in that which it is to be made in."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    swapped = folder.with_name(folder.name.swapcase())
    return swapped != folder and same_file(swapped, folder)


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Device and number of a file, the same for all its names; of stdin for None."""
    try:
        status = os.fstat(sys.stdin.fileno()) if path is None else path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def resolve_existing(items: Sequence[Item], policy: str) -> tuple[list[Item], list[Item]]:
    """Apply a policy to outputs that are there already.

    Args:
        items: as made.
        policy: "skip", "overwrite", "rename" or "error".

    Returns:
        The items to do, and those skipped.

    Raises:
        UsageError: there are some, and the policy is "error"; or it is "rename", and names are not known yet.
    """
    listing = cache(names_in)
    existing = {item.source: item.existing(listing) for item in items}
    existing_items = [item for item in items if existing[item.source]]
    if not existing_items or policy == "overwrite":
        return list(items), []
    if policy == "error":
        more = f" (and {len(existing_items) - 1} more)" if len(existing_items) > 1 else ""
        raise UsageError(
            f"{existing[existing_items[0].source][0]} exists already{more}.",
            "Choose with `existing` overwrite, skip or rename.",
        )
    if policy == "skip":
        # One that lacks some of its outputs, as a killed run leaves it, is done for those.
        whole = [i for i in existing_items if sum(map(is_done, existing[i.source])) == len(i.outputs)]
        return [item for item in items if item not in whole], whole
    if any(item.template is not None for item in items):
        raise UsageError(
            "`existing` rename needs names that are known before a picture is looked at.",
            "Leave {tasks} out of `name`.",
        )
    targets = {path for item in items for path in item.outputs}
    return [_renamed(item, targets) if existing[item.source] else item for item in items], []


def is_done(path: Path) -> bool:
    """Whether an output is there and no empty file, as a power cut leaves it where a program does not flush."""
    return _is_there(path) and not _is_empty(path)


def may_replace(path: Path, policy: str) -> bool:
    """Whether a policy (see `resolve_existing`) lets an output replace what is there at the moment of writing."""
    return policy == "overwrite" or (policy == "skip" and _is_empty(path))


def _is_empty(path: Path) -> bool:
    return isinstance(path, Path) and is_regular(path) and not path.stat().st_size


def _is_there(path: Path) -> bool:
    """Whether there is a file, or a link to none; an address (`irtool.remote`) was listed before."""
    return os.path.lexists(path) if isinstance(path, Path) else path.exists()


def _renamed(item: Item, targets: set[Path]) -> Item:
    """The item with the first free name NAME-2, NAME-3, ... for all its outputs."""
    assert item.target is not None
    number = 2
    while True:
        target = item.target.with_name(f"{item.target.stem}-{number}{item.target.suffix}")
        renamed = _with_sheets_of(replace(item, target=target), item)
        if not any(path in targets or os.path.lexists(path) for path in renamed.outputs):
            targets.update(renamed.outputs)
            return renamed
        number += 1


def make_folders(items: Iterable[Item]) -> None:
    """Create the folders that the outputs of items go to; raises as `make_folder`."""
    for folder in dict.fromkeys(item.target.parent for item in items if isinstance(item.target, Path)):
        make_folder(folder)


def make_folder(path: Path) -> None:
    """Create a folder for outputs.

    Raises:
        PictureError: it cannot be created or written to.
    """
    hint = "Check its permissions, or choose another with `output`."
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise PictureError(f"The folder {path} cannot be created ({reason(error)}).", hint) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise PictureError(f"The folder {path} cannot be written to.", hint)
