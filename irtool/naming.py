"""Names of outputs by a template, such as ``{stem}-{tasks}{ext}``."""

from __future__ import annotations

import re
import string
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from .degradation import IDS, REPAIRS
from .errors import UsageError, closest

if TYPE_CHECKING:
    from .plan import Plan

FIELDS = ("stem", "tasks", "ext")
UNTOUCHED = "untouched"
"""What {tasks} stands for where nothing was removed."""
_KINDS = "|".join((*(d.id for d in REPAIRS), *IDS))
_TASKS = rf"(?:{UNTOUCHED}|x[234]|(?:{_KINDS})(?:\+(?:{_KINDS}))*(?:\+x[234])?)"
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')  # separators, and what Windows takes in no name


def tasks_of(plan: Plan) -> str:
    """What {tasks} stands for: what was removed, in order, and the enlargement: ``rain+noise+x2``."""
    words = [*plan.kinds, *([] if plan.upscale is None else [f"x{plan.upscale.scale}"])]
    return "+".join(words) or UNTOUCHED


@dataclass(frozen=True)
class Template:
    """A template of file names.

    Attributes:
        text: literal text and the fields {stem} (of the input's name), {tasks} (see `tasks_of`) and {ext} (the suffix
            of the output's format, with its dot), which it ends with. It names a file, no folder.

    Raises:
        UsageError: it is no such template.
    """

    text: str
    _parts: tuple[tuple[str, str | None], ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        hint = "Use {stem}, {tasks} and {ext}, such as '{stem}-{tasks}{ext}'."
        try:
            parsed = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise UsageError(f"`name` {self.text!r} is no template: {error}.", hint) from error
        for literal, name, spec, conversion in parsed:
            if name is not None and (name not in FIELDS or spec or conversion):
                raise UsageError(f"`name` has no field {{{name}}}.", closest(name, FIELDS) if not spec else hint)
            if wrong := _FORBIDDEN.search(literal):
                raise UsageError(f"`name` {self.text!r} holds {wrong[0]!r}, which no file name should.", hint)
        if self.text.startswith("."):
            raise UsageError(f"`name` {self.text!r} would hide the outputs.", "Begin with a letter or {stem}.")
        if not parsed or parsed[-1][1] != "ext" or [name for _, name, _, _ in parsed].count("ext") > 1:
            raise UsageError(f"`name` {self.text!r} does not end with {{ext}}.", hint + " `format` sets the suffix.")
        object.__setattr__(self, "_parts", tuple((literal, name) for literal, name, _, _ in parsed))

    @property
    def needs_plan(self) -> bool:
        """Whether names are known only once it is known what is removed."""
        return any(name == "tasks" for _, name in self._parts)

    def fill(self, stem: str, tasks: str, ext: str) -> str:
        """The name of an output."""
        values = {"stem": stem, "tasks": tasks, "ext": ext}
        return "".join(literal + ("" if name is None else values[name]) for literal, name in self._parts)

    def matching(self, stem: str, ext: str, names: Sequence[str]) -> list[str]:
        """Those of some sorted names that an output of this stem and suffix could have, whatever was removed."""
        pattern = self._pattern(re.escape(stem), re.escape(ext))
        known = takewhile(lambda part: part[1] != "tasks", self._parts)
        head = "".join(literal + {"stem": stem, "ext": ext, None: ""}[name] for literal, name in known)
        near = takewhile(lambda name: name.startswith(head), islice(names, bisect_left(names, head), None))
        return [name for name in near if pattern.fullmatch(name)]

    def stem_of(self, name: str) -> str | None:
        """The stem of the input whose output a file of this name could be; None where it could be none's."""
        found = self._pattern("(?P<stem>.+)", r"\.[^.]+").fullmatch(name)
        return found["stem"] if found is not None and "stem" in found.groupdict() else None

    def _pattern(self, stem: str, ext: str) -> re.Pattern[str]:
        values, pieces = {"stem": stem, "tasks": _TASKS, "ext": ext}, []
        for literal, name in self._parts:
            pieces.append(re.escape(literal) + ("" if name is None else values[name]))
            if name == "stem" and stem.startswith("(?P"):
                values["stem"] = "(?P=stem)"
        return re.compile("".join(pieces))
