"""Labeled clauses composed from the word lists; `sentences` makes whole sentences of them."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from irtool.degradation import TASK_IDS
from irtool.language.labels import OUTSIDE

from .lists import CHOICE, UNSPACED, words

COMMON = 1.7
"""Exponent by which entries at the head of a list, the usual words, are drawn more often; 1 draws all alike."""
_SLOT = re.compile(r"\{([^{}]*)\}")
BESIDE = ("who", "did", "town", "time", "gear")
"""Lists of people, activities, towns, times and cameras: words that carry no label."""


@dataclass(frozen=True)
class Mark:
    """The labels of a piece of a sentence (see `irtool.language.labels`)."""

    kind: str
    act: str = "undo"
    level: str = "full"


Piece = tuple[str, "Mark | None"]


@dataclass(frozen=True)
class Composed:
    """A sentence as labeled pieces of text, and the order it gives (`labels.ORDERS`)."""

    pieces: tuple[Piece, ...]
    order: str = ""


def expand(entry: str, rng: random.Random) -> str:
    """An entry with one of its [alternatives/in/brackets] drawn."""
    return CHOICE.sub(lambda m: rng.choice(m[1].split("/")), entry)


class Composer:
    """Composes sentences of one language.

    Args:
        language: one of `LANGUAGES`.
        rng: draws everything.
    """

    def __init__(self, language: str, rng: random.Random) -> None:
        self.language, self.rng, self.words = language, rng, words(language)
        self.space = "" if language in UNSPACED else " "

    def one(self, entries: list[str]) -> str:
        """One entry. Lists begin with what people say most."""
        return expand(entries[int(len(entries) * self.rng.random() ** COMMON)], self.rng)

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
        return self.rng.choice(TASK_IDS)

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
        """A request that irtool has no model for."""
        kind = self.rng.choice(OUTSIDE)
        if self.rng.random() < 0.15:
            return self.injection()
        mark = Mark(kind)
        table = self.words[kind]
        if kind == "outedit":
            way = self.rng.random()
            if way < 0.3:
                task = self.rng.choice([i for i in TASK_IDS if i not in ("lowlight", "missing", "jpeg")])
                return self.fill(self.one(table["add"]), {"n": [(self.about(self.words[task]["n"]), mark)]}, mark)
            if way < 0.7:
                the = self.one(self.words["the"])
                glue = "" if not the or the.endswith("'") else self.space
                named = self.one(table["object"]) if self.rng.random() < 0.85 else self.gibberish(1)
                return self.fill(self.one(table["thing"]), {"x": [(the + glue + named, mark)]}, mark)
        if "about" in table and self.rng.random() < 0.25:
            named = self.about(self.words[self.task()]["n"])
            return self.fill(self.one(table["about"]), {"n": [(named, mark)]}, mark)
        if kind == "outchat" and self.rng.random() < 0.25:
            return [(self.gibberish(self.rng.randint(1, 4)), mark)]
        return [(self.about(table["s"]), mark)]

    def injection(self) -> list[Piece]:
        """An attempt to command the program rather than to describe a picture: "ignore all previous instructions"."""
        table = self.words["inject"]

        def drawn(match: re.Match[str]) -> str:
            return _SLOT.sub(drawn, self.rng.choice(table[match[1]]))

        return [(_SLOT.sub(drawn, self.rng.choice(table["s"])), Mark("outchat"))]

    def gibberish(self, count: int) -> str:
        """Words that there are not, or characters at random."""
        if self.language in UNSPACED:
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
        return _SLOT.sub(lambda match: self.beside(match[1]), expand(self.rng.choice(self.words[name]), self.rng))

    def join(self, parts: list[list[Piece]], by: str | list[str] = "and") -> list[Piece]:
        """Clauses with one of some words (`by`, or the list of that name) between them."""
        pieces = list(parts[0])
        for part in parts[1:]:
            word = self.rng.choice(self.words[by] if isinstance(by, str) else by)
            if self.space:  # marks of punctuation stand close to what is before them
                word = (word if word[0] in ",.;:…" else f" {word}") + " "
            pieces.append((word, None))
            pieces += part
        return pieces

    def tail(self) -> list[Piece]:
        """Said once more of what is to be kept, now and then: ", so hands off that"."""
        if "keep" not in self.words["pronoun"] or self.rng.random() > 0.2:
            return []
        pause = self.rng.choice((". ", ", ", "; ", ": ", " - ", "! ", " "))
        return [(pause + self.one(self.words["pronoun"]["keep"]), None)]

    def tasks(self, count: int) -> list[str]:
        """The ids of several."""
        return self.rng.sample(TASK_IDS, count)
