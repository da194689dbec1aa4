"""Sentences to learn from, composed of word lists (`words/*.toml`), with what every part of them means.

A word list holds, per language, how people speak of each degradation (nouns, adjectives, verbs, whole sentences),
frames that say what is to become of it (undo, keep, ask), words for strengths and orders, and much that lies outside.
"""

from __future__ import annotations

import random
import re
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ..degradation import IDS
from .labels import OUTSIDE
from .tokens import normalise

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LANGUAGES = ("en", "zh", "es", "de", "fr", "ja")
SHARES = (0.4, 0.12, 0.12, 0.12, 0.12, 0.12)
WIDE = ("zh", "ja")
COMMON = 1.7
"""How much more often the first words of a list are drawn than the last; 1 is not at all."""
_WORDS = Path(__file__).parent / "words"
_SLOT = re.compile(r"\{([^{}]*)\}")
_CHOICE = re.compile(r"\[([^\[\]]*/[^\[\]]*)\]")
BESIDE = ("who", "did", "town", "time", "gear")
"""Lists of people, what they did, places, times and cameras, of which nothing is to be done."""
_KEYS = dict(zip("qwertyuiopasdfghjklzxcvbnm", "wqerytuoipsadfghjlkxzcvbmn", strict=True))

# How words are misheard, and what they are written instead.
_ALIKE = (
    ("f", "ph"), ("ite", "ight"), ("i", "igh"), ("ei", "ie"), ("ie", "ei"), ("ee", "ea"), ("ea", "ee"), ("k", "ck"),
    ("k", "c"), ("i", "y"), ("y", "ie"), ("sion", "tion"), ("u", "ou"), ("", "e$"), ("er", "or"), ("or", "er"),
    ("a", "ai"), ("ai", "ay"), ("o", "ow"), ("z", "s"), ("s", "z"), ("ll", "l"), ("rr", "r"), ("e", "a"), ("i", "e"),
    ("", "h"),
)  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """What a piece of a sentence speaks of (see `labels`)."""

    kind: str
    act: str = "undo"
    level: str = "full"


Piece = tuple[str, "Mark | None"]


@dataclass(frozen=True)
class Composed:
    """A sentence in pieces, and the order it gives."""

    pieces: tuple[Piece, ...]
    order: str = ""


@cache
def words(language: str) -> dict[str, Any]:
    """The word list of a language, its entries split."""
    with (_WORDS / f"{language}.toml").open("rb") as file:
        table = tomllib.load(file)

    def split(text: str) -> list[str]:
        return [" ".join(entry.split()) for entry in text.replace("\n", " ").split(" | ")]

    return {k: split(v) if isinstance(v, str) else {n: split(t) for n, t in v.items()} for k, v in table.items()}


def _settled(entry: str, rng: random.Random) -> str:
    """An entry, its [alternatives/in/brackets] settled."""
    return _CHOICE.sub(lambda m: rng.choice(m[1].split("/")), entry)


def settlings(entry: str) -> list[str]:
    """All that an entry's [alternatives/in/brackets] can be settled to."""
    match = _CHOICE.search(entry)
    if match is None:
        return [entry]
    return [s for one in match[1].split("/") for s in settlings(entry[: match.start()] + one + entry[match.end() :])]


class Composer:
    """Composes sentences of one language.

    Args:
        language: one of `LANGUAGES`.
        rng: draws everything.
    """

    def __init__(self, language: str, rng: random.Random) -> None:
        self.language, self.rng, self.words = language, rng, words(language)
        self.space = "" if language in WIDE else " "

    def one(self, entries: list[str]) -> str:
        """One entry. Lists begin with what people say most."""
        return _settled(entries[int(len(entries) * self.rng.random() ** COMMON)], self.rng)

    def fill(self, template: str, slots: dict[str, list[Piece]], mark: Mark | None = None) -> list[Piece]:
        """The pieces of a template; its own words get `mark`, {p} and {k} are drawn."""
        pieces: list[Piece] = []
        at = 0
        for match in _SLOT.finditer(template):
            pieces.append((template[at : match.start()], mark))
            at = match.end()
            name = match[1]
            if name in slots:
                pieces += slots[name]
            elif name == "p":
                pieces.append((self.one(self.words["picture"]), None))
            elif name == "k":
                pieces.append((self.one(self.words["neutral"]), None))
            elif name == "%":
                pieces.append((self.percent(), None))
            elif name == "x" or name in BESIDE:
                pieces.append((self.beside(name), None))
            else:
                raise KeyError(f"{self.language}: nothing for {{{name}}} in '{template}'")
        pieces.append((template[at:], mark))
        return [piece for piece in pieces if piece[0]]

    def percent(self) -> str:
        """A share, written in one of the ways people do."""
        value = self.rng.choice((5, 10, 15, 20, 25, 30, 33, 35, 40, 45, 50, 60, 65, 70, 75, 80, 85, 90, 95, 100))
        forms = [f"{value}%", f"{value}%", f"{value} %", f"{value} percent", str(value), f"{value / 100:g}"]
        if self.language == "ja":
            forms = [f"{value}%", f"{value}パーセント", f"{value // 10 or 1}割"]
        elif self.language == "zh":
            forms = [f"{value}%", f"{value}%", f"百分之{value}", f"{value // 10 or 1}成"]
        elif self.language == "de":
            forms[3] = f"{value} Prozent"
        elif self.language == "es":
            forms[3] = f"{value} por ciento"
        elif self.language == "fr":
            forms[3] = f"{value} pour cent"
        return self.rng.choice(forms)

    def task(self) -> str:
        """The id of one degradation."""
        return self.rng.choice(IDS)

    def noun(self, mark: Mark) -> list[Piece]:
        """What is wrong, with an article, sometimes with where."""
        the = self.one(self.words["the"])
        glue = "" if not the or the.endswith("'") else self.space
        named: list[Piece] = [(the + glue, None), *self.fill(self.one(self.words[mark.kind]["n"]), {}, mark)]
        if self.rng.random() > 0.15:
            return named
        place = self.something("place", "place")  # a shadow that noise is in
        return self.fill(self.one(self.words["where"]), {"n": named, "x": [(place, None)]})

    def nouns(self, marks: list[Mark]) -> list[Piece]:
        """Two nouns as one."""
        return self.fill(self.one(self.words["both"]), {"x": self.noun(marks[0]), "y": self.noun(marks[1])})

    def slot(self, name: str, mark: Mark) -> list[Piece]:
        """What fills a slot of a frame for a task."""
        return self.noun(mark) if name == "n" else self.fill(self.one(self.words[mark.kind][name]), {}, mark)

    def shared(self, act: str, kind: str) -> list[str]:
        """The slots that both the frames of an act and the words of a kind have."""
        odds = {"n": 5, "a": 3, "v": 3, "c": 4, "i": 2, "o": 1, "g": 2, "s": 6, "k": 2}
        if act == "keep":
            odds = {"n": 8, "a": 1, "v": 4, "c": 4, "i": 3, "o": 2, "g": 1, "k": 4}
        if act == "ask":
            del odds["s"]  # whole questions, about the picture at large
        return [s for s, n in odds.items() if s in self.words[act] and s in self.words[kind] for _ in range(n)]

    def clause(self, mark: Mark, slot: str | None = None) -> list[Piece]:
        """A clause about one task."""
        name = slot or self.rng.choice(self.shared(mark.act, mark.kind))
        return self.fill(self.one(self.words[mark.act][name]), {name: self.slot(name, mark)})

    def auto(self, mark: Mark) -> list[Piece]:
        """A general wish."""
        table = self.words["auto"]
        name = self.rng.choice([s for s in ("v", "c", "i", "g") if s in table] + ["s", "s"])
        if name == "s":
            return self.fill(self.one(table["s"]), {}, mark)
        return self.fill(self.one(self.words["undo"][name]), {name: self.fill(self.one(table[name]), {}, mark)})

    def strong(self, kind: str) -> list[Piece]:
        """A clause with a word for its strength."""
        how = self.words["strength"]
        level = self.rng.choice(("little", "little", "little", "hint", "moderate", "full", "full", "number", "number"))
        mark = Mark(kind, "undo", level)
        if kind == "auto":
            amount = self.amount(level, "w")
            return self.fill(self.one(how["all"]), {"x": self.auto(mark), "w": amount})
        table = self.words[kind]
        if f"{level}_o" in how and self.rng.random() < 0.25:
            slots = {name: self.fill(self.one(table[name]), {}, mark) for name in ("o", "n") if name in table}
            slots.setdefault("o", slots["n"])
            return self.fill(self.one(how[f"{level}_o"]), slots)
        name = self.rng.choice([s for s in ("n", "n", "v", "c", "i", "o", "g", "g") if s in how and s in table])
        if name == "g":
            body = self.slot("g", mark)
            if level == "number":
                return self.fill(self.one(how["gnumber"]), {"g": body, "%": [(self.percent(), None)]})
            if f"{level}_g" not in how:
                mark = replace(mark, level="little")
                body, level = self.slot("g", mark), "little"
            return self.fill(self.one(how["g"]), {"g": body, "x": [(self.one(how[f"{level}_g"]), None)]})
        slots = {name: self.slot(name, mark)} | {s: self.amount(level, s) for s in "wqm"}
        return self.fill(self.one(how[name]), slots)

    def amount(self, level: str, place: str) -> list[Piece]:
        """Words for a strength, for one of the places w, q, m."""
        how = self.words["strength"]
        if level == "number":
            return self.fill(self.one(how.get(f"number_{place}", how["number"])), {})
        return [(self.one(how.get(f"{level}_{place}") or how[f"{level}_w"]), None)]

    def outside(self) -> list[Piece]:
        """Something irtool has nothing for."""
        kind = self.rng.choice(OUTSIDE)
        mark = Mark(kind)
        table = self.words[kind]
        if kind == "outedit":
            way = self.rng.random()
            if way < 0.3:
                task = self.rng.choice([i for i in IDS if i not in ("lowlight", "missing", "jpeg")])
                return self.fill(self.one(table["add"]), {"n": [(self.about(self.words[task]["n"]), mark)]}, mark)
            if way < 0.7:
                the = self.one(self.words["the"])
                glue = "" if not the or the.endswith("'") else self.space
                named = self.one(table["object"]) if self.rng.random() < 0.85 else self.gibberish(1)
                return self.fill(self.one(table["thing"]), {"x": [(the + glue + named, mark)]}, mark)
        if kind == "outchat" and self.rng.random() < 0.25:
            return [(self.gibberish(self.rng.randint(1, 4)), mark)]
        return [(self.about(table["s"]), mark)]

    def gibberish(self, count: int) -> str:
        """Words that there are not, or characters at random."""
        if self.language in WIDE:
            return "".join(chr(self.rng.randint(0x4E00, 0x8FFF)) for _ in range(2 * count))
        mashed = ("asdfghjkl", "qwertyuiop", "zxcvbnmasdfg")
        letters = self.rng.choice(("abcdefghijklmnopqrstuvwxyzaeiouaeiourstnl", *mashed))
        made = ["".join(self.rng.choice(letters) for _ in range(self.rng.randint(3, 9))) for _ in range(count)]
        return " ".join(made)

    def aside(self) -> str:
        """What is beside the point, with things and words in it that may never come up again."""
        way = self.rng.random()
        if way < 0.25:
            return self.one(self.words["aside"])
        return self.about(self.words["story" if way < 0.55 else "tale"])

    def something(self, *further: str) -> str:
        """A thing that pictures show, which asks for nothing, or a word that may never come up again.

        Args:
            further: names of lists to take it from as well.
        """
        if self.rng.random() < 0.15:
            return self.gibberish(1)
        lists = (self.words["thing"], self.words["outedit"]["object"], *(self.words[name] for name in further))
        return self.rng.choice(self.rng.choice(lists))

    def about(self, frames: list[str]) -> str:
        """One of some frames, its slots filled with what is beside the point."""
        return _SLOT.sub(lambda match: self.beside(match[1]), self.one(frames))

    def beside(self, name: str) -> str:
        """What fills a slot that is beside the point: a thing (x), or an entry of one of the lists `BESIDE`."""
        if name == "x":
            return self.something()
        return _SLOT.sub(lambda match: self.beside(match[1]), _settled(self.rng.choice(self.words[name]), self.rng))

    def join(self, parts: list[list[Piece]], by: str = "and") -> list[Piece]:
        """Clauses with a word of the list `by` between them."""
        pieces = list(parts[0])
        for part in parts[1:]:
            word = self.rng.choice(self.words[by])
            if self.space:  # marks of punctuation stand close to what is before them
                word = (word if word[0] in ",.;" else f" {word}") + " "
            pieces.append((word, None))
            pieces += part
        return pieces

    def tasks(self, count: int) -> list[str]:
        """The ids of several."""
        return self.rng.sample(IDS, count)

    def _wanted(self, kind: str) -> list[Piece]:
        """A clause that undoes something, sometimes with a strength."""
        return self.strong(kind) if self.rng.random() < 0.4 else self.clause(Mark(kind))

    def _single(self) -> Composed:
        pieces = self.clause(Mark(self.task()))
        if self.rng.random() < 0.2:
            generic = self.auto(Mark("auto"))
            pieces = self.join([pieces, generic] if self.rng.random() < 0.5 else [generic, pieces])
        return Composed(tuple(pieces))

    def _told(self) -> Composed:
        """What went wrong, told at length: a story, a complaint, and what is to be done about it."""
        kind = self.task()
        mark = Mark(kind)
        parts: list[list[Piece]] = [[(self.aside(), None)]] if self.rng.random() < 0.5 else []
        parts.append(self.clause(mark, "s" if self.rng.random() < 0.6 else None))
        way = self.rng.random()
        if way < 0.35:
            parts.append([(self.one(self.words["pronoun"]["undo"]), None)])
        elif way < 0.65:
            parts.append(self.clause(mark, "n"))
        elif way < 0.75:
            parts.append(self.strong(kind))
        elif way < 0.85:
            parts.append([(self.aside(), None)])
        elif way < 0.92:
            parts.append(self.auto(Mark("auto")))
        pauses = (". ", ", ", "; ", ": ", "! ", "... ", " - ", " ") if self.space else ("。", "、", ",", " ")
        told: list[Piece] = [piece for part in parts for piece in [(self.rng.choice(pauses), None), *part]]
        return Composed(tuple(told[1:]))

    def _plain(self) -> Composed:
        """A single noun in a frame, all equally often, without anything beside it: what is said most must not fail."""
        mark = Mark(self.task(), "keep" if self.rng.random() < 0.15 else "undo")
        the = self.rng.choice(("", *(t for t in self.words["the"][:4] if t)))
        glue = self.space if the and not the.endswith("'") else ""
        noun = [
            (the + glue, None),
            *self.fill(_settled(self.rng.choice(self.words[mark.kind]["n"]), self.rng), {}, mark),
        ]
        frame = _settled(self.rng.choice(self.words[mark.act]["n"]), self.rng)
        return Composed(tuple(self.fill(frame, {"n": noun})))

    def _strength(self) -> Composed:
        return Composed(tuple(self.strong("auto" if self.rng.random() < 0.12 else self.task())))

    def _multi(self) -> Composed:
        kinds = self.tasks(self.rng.choice((2, 2, 2, 3)))
        way = self.rng.random()
        if way < 0.3:
            frame = self.one(self.words["undo"]["n"])
            pieces = self.fill(frame, {"n": self.nouns([Mark(k) for k in kinds])})
            parts = [pieces, *(self._wanted(k) for k in kinds[2:])]
        elif way < 0.38:
            level = self.rng.choice(("little", "full", "number", "hint"))
            marks = [Mark(k, "undo", level) for k in kinds]
            body = self.join([self.clause(m) for m in marks])
            # Without a pause before it, a strength would belong to the last clause alone.
            frames = [t for t in self.words["strength"]["all"] if any(c in t for c in ",.、。") and len(t) > 9]
            filled = self.fill(self.one(frames), {"x": body, "w": self.amount(level, "w")})
            return Composed(tuple(filled))
        elif way < 0.6:
            slots = [s for s in ("n", "a", "g", "o") if all(s in self.words[k] for k in kinds)]
            name = self.rng.choice(slots)
            body = self.join([self.fill(self.one(self.words[k][name]), {}, Mark(k)) for k in kinds])
            if name in self.words["undo"] and self.rng.random() < 0.7:
                body = self.fill(self.one(self.words["undo"][name]), {name: body})
            parts = [body]
        elif way < 0.8:
            # One of them with a strength, the others without: the strength is that clause's alone.
            strong = self.rng.choice(kinds)
            parts = [self.strong(k) if k == strong else self.clause(Mark(k)) for k in kinds]
        else:
            parts = [self._wanted(k) for k in kinds]
        if self.rng.random() < 0.15:
            parts.append([(self.one(self.words["pronoun"]["both"]), None)])
        return Composed(tuple(self.join(parts)))

    def _keep(self) -> Composed:
        kinds = self.tasks(self.rng.choice((2, 2, 2, 3)))
        kept = kinds[1:] if self.rng.random() < 0.35 else kinds[1:2]
        wanted = [k for k in kinds if k not in kept]
        marks = [Mark(k, "keep") for k in kept]
        if self.rng.random() < 0.12:
            table, whole = self.words["except"], Mark("auto")
            named = self.nouns(marks) if len(marks) == 2 else self.noun(marks[0])
            slots: dict[str, list[Piece]] = {"x": [(self.one(table["all"]), whole)], "y": named}
            return Composed(tuple(self.fill(self.one(table["frames"]), slots)))
        way = self.rng.random()
        if len(marks) == 2 and way < 0.3:
            both = {"x": self.noun(marks[0]), "y": self.noun(marks[1])}
            keeping = self.fill(self.one(self.words["neither"]["frames"]), both)
        elif len(marks) == 2 and way < 0.6:
            keeping = self.fill(self.one(self.words["keep"]["n"]), {"n": self.nouns(marks)})
        else:
            keeping = self.join([self.clause(m) for m in marks])
        if self.rng.random() < 0.4:
            asked = self.strong("auto") if self.rng.random() < 0.1 else self.auto(Mark("auto"))
        else:
            asked = self.join([self._wanted(k) for k in wanted])
        first = self.rng.random() < 0.8
        return Composed(tuple(self.join([asked, keeping] if first else [keeping, asked], "but")))

    def _only(self) -> Composed:
        kept = self.fill(self.one(self.words["neutralkeep"]["s"]), {})
        wanted = self.auto(Mark("auto")) if self.rng.random() < 0.25 else self._wanted(self.task())
        return Composed(tuple(self.join([wanted, kept], "but")))

    def _auto(self) -> Composed:
        if self.rng.random() < 0.15:
            pieces = self._wanted(self.task())
            return Composed((*pieces, (self.space, None), (self.one(self.words["rest"]["s"]), Mark("rest"))))
        return Composed(tuple(self.auto(Mark("auto"))))

    def _left(self) -> Composed:
        if self.rng.random() < 0.4:
            return Composed(tuple(self.clause(Mark(self.task(), "keep"))))
        mark = Mark("auto", "keep")
        return Composed(tuple(self.fill(self.one(self.words["nothing"]["s"]), {}, mark)))

    def _ask(self) -> Composed:
        way = self.rng.random()
        if way < 0.35:
            return Composed(tuple(self.fill(self.one(self.words["ask"]["s"]), {}, Mark("auto", "ask"))))
        if way < 0.5:
            marks = [Mark(k, "ask") for k in self.tasks(2)]
            if self.rng.random() < 0.5:
                return Composed(tuple(self.fill(self.one(self.words["ask"]["n"]), {"n": self.nouns(marks)})))
            both = self.one(self.words["both"])
            body = self.fill(both, {s: self.fill(self.one(self.words[m.kind]["a"]), {}, m)
                                    for s, m in zip("xy", marks, strict=True)})  # fmt: skip
            return Composed(tuple(self.fill(self.one(self.words["ask"]["a"]), {"a": body})))
        asked = self.clause(Mark(self.task(), "ask"))
        if way < 0.6:  # "Is it dark? Fix it."
            pause = self.rng.choice((". ", " ", ", ", "; ") if self.space else ("。", ",", ""))
            return Composed((*asked, (pause, None), (self.one(self.words["then"]["s"]), Mark("auto"))))
        return Composed(tuple(asked))

    def _sequence(self) -> Composed:
        table = self.words["sequence"]
        names = [n for n in table if self.rng.random() < (0.35 if n == "three" else 1)]
        name = self.rng.choice(names)
        kinds = self.tasks(3 if name == "three" else 2)
        short = name.endswith("_o") or self.language in WIDE or self.rng.random() < 0.5
        slots = {}
        for number, kind in enumerate(kinds, 1):
            mark = Mark(kind)
            slot = self.rng.choice([s for s in ("o", "v", "c", "i", "n") if s in self.words[kind]])
            if name.endswith("_o"):
                slot = "o" if self.rng.random() < 0.7 else "n"
            if name.endswith("_n"):
                slots[str(number)] = self.noun(mark)
                continue
            bare = short and slot != "n" and "{p}" not in "".join(self.words[kind][slot])
            slots[str(number)] = self.slot(slot, mark) if bare or name.endswith("_o") else self.clause(mark, slot)
        return Composed(tuple(self.fill(self.one(table[name]), slots)), "backward" if "back" in name else "forward")

    def _outside(self) -> Composed:
        pieces = self.outside()
        if self.rng.random() < 0.15:
            wanted = self.clause(Mark(self.task()))
            pieces = self.join([wanted, pieces] if self.rng.random() < 0.5 else [pieces, wanted])
        return Composed(tuple(pieces))

    def _word(self) -> Composed:
        """A single expression, bare: so that every entry is met often enough."""
        kind = self.task()
        name = self.rng.choice([s for s in self.words[kind] if s != "k"])
        return Composed(tuple(self.fill(self.one(self.words[kind][name]), {}, Mark(kind))))

    def sentence(self) -> Composed:
        """One sentence, politely wrapped now and then."""
        makers = (
            (self._single, 27), (self._told, 18), (self._plain, 18), (self._strength, 14), (self._multi, 26),
            (self._keep, 22), (self._only, 5), (self._auto, 7), (self._left, 3), (self._ask, 8), (self._sequence, 6),
            (self._outside, 14), (self._word, 6),
        )  # fmt: skip
        made = self.rng.choices([m for m, _ in makers], [n for _, n in makers])[0]()
        pieces = list(made.pieces)
        if "when" in self.words and self.rng.random() < 0.15:
            pieces.append((" " + self.about(self.words["when"]), None))
        asks = any(mark is not None and mark.act == "ask" for _, mark in pieces)
        if self.rng.random() < 0.3 and not asks:
            please = self.one(self.words["please"])
            pieces.insert(0, (please + self.space, None))
            asking = re.search("can|could|would|possible|pued|podr|peu|pour|kann|könn|能|可", please)
            if self.rng.random() < (0.6 if asking else 0.1):
                pieces.append(("?", None))
        if self.rng.random() < 0.28:
            said = self.aside()
            if self.rng.random() < 0.7:
                pieces.insert(0, (said + self.rng.choice((". ", ", ", "! ", " - ", " ")), None))
            else:
                pieces.append((self.rng.choice((". ", ", ", " - ")) + said, None))
        if self.rng.random() < 0.12:
            pieces.append((self.rng.choice((" ", ", ", ". ")) + self.one(self.words["thanks"]), None))
        elif self.rng.random() < 0.3:
            pieces.append((self.rng.choice((".", "!", ".", "!!", "...")), None))
        return Composed(tuple((normalise(text), mark) for text, mark in pieces), made.order)


def misspell(pieces: tuple[Piece, ...], rng: random.Random, rate: float) -> tuple[Piece, ...]:
    """The same with typing errors in longer words: a letter left out, doubled, swapped with its neighbour, mistyped."""

    def word(match: re.Match[str]) -> str:
        text = match[0]
        if len(text) < 4 or rng.random() > rate:
            return text
        i = rng.randrange(len(text) - 1)
        way = rng.randrange(7)
        if way == 0:
            return text[:i] + text[i + 1 :]
        if way == 1:
            return text[: i + 1] + text[i:]
        if way == 2:
            return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
        if way == 3:
            return text[:i] + _KEYS.get(text[i], text[i]) + text[i + 1 :]
        fitting = [pair for pair in _ALIKE if re.search(pair[1], text)]
        if way < 6 and fitting:
            wrong, right = rng.choice(fitting)
            return re.sub(right, wrong, text, count=1)
        return re.sub(r"(.)\1", r"\1", text, count=1)

    return tuple((re.sub(r"[a-z]+", word, text), mark) for text, mark in pieces)


def compose(count: int, seed: int) -> list[Composed]:
    """`count` sentences in all languages, two fifths of those in letters with typing errors."""
    rng = random.Random(seed)
    composers = {language: Composer(language, rng) for language in LANGUAGES}
    made = []
    for _ in range(count):
        language = rng.choices(LANGUAGES, SHARES)[0]
        sentence = composers[language].sentence()
        if language not in WIDE and rng.random() < 0.4:
            rate = rng.choice((0.1, 0.2, 0.4))
            sentence = replace(sentence, pieces=misspell(sentence.pieces, rng, rate))
        if rng.random() < 0.1:
            bare = tuple((re.sub(r"[!?;:¿¡。、]|[.,](?!\d)", " ", text), mark) for text, mark in sentence.pieces)
            sentence = replace(sentence, pieces=bare)
        made.append(sentence)
    return made
