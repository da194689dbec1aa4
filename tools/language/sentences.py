"""Labeled training sentences, composed of the clauses of `grammar`: several tasks, strengths, exceptions, denials,
orders, questions, requests that irtool has no model for, circumstances, other languages; some with typing errors."""

from __future__ import annotations

import random
import re
from dataclasses import replace

from irtool.degradation import TASK_IDS
from irtool.language.labels import FOREIGN
from irtool.language.tokens import normalize

from .grammar import Composed, Composer, Mark, Piece, expand
from .lists import LANGUAGES, UNSPACED, words

SHARES = (0.4, 0.11, 0.11, 0.11, 0.11, 0.11, 0.05)
"""Of the sentences in each of `LANGUAGES` and in those that irtool does not claim."""
TOGETHER = (("scratches", "missing"), ("scratches", "fade"))
"""What old prints mostly suffer from at once."""
_BARE = re.compile(
    r"(without|except|while|with |apart|aside|minus|save for|sparing|leaving|preserving|keeping|barring|short of|not "
    r"|ohne|außer|sin |salvo|excepto|menos|sans |sauf|excepté)"
)
"""How clauses begin that follow another without a word between them."""
_KEYS = dict(zip("qwertyuiopasdfghjklzxcvbnm", "wqerytuoipsadfghjlkxzcvbmn", strict=True))
# How words are misheard, and what they are written instead.
_ALIKE = (
    ("f", "ph"), ("ite", "ight"), ("i", "igh"), ("ei", "ie"), ("ie", "ei"), ("ee", "ea"), ("ea", "ee"), ("k", "ck"),
    ("k", "c"), ("i", "y"), ("y", "ie"), ("sion", "tion"), ("u", "ou"), ("", "e$"), ("er", "or"), ("or", "er"),
    ("a", "ai"), ("ai", "ay"), ("o", "ow"), ("z", "s"), ("s", "z"), ("ll", "l"), ("rr", "r"), ("e", "a"), ("i", "e"),
    ("", "h"),
)  # fmt: skip


def _wanted(c: Composer, kind: str) -> list[Piece]:
    """A clause that undoes something, sometimes with a strength."""
    return c.strong(kind) if c.rng.random() < 0.4 else c.clause(Mark(kind))


def _single(c: Composer) -> Composed:
    pieces = c.clause(Mark(c.task()))
    if c.rng.random() < 0.2:
        generic = c.auto(Mark("auto"))
        pieces = c.join([pieces, generic] if c.rng.random() < 0.5 else [generic, pieces])
    return Composed(tuple(pieces))


def _told(c: Composer) -> Composed:
    """What went wrong, told at length: a story, a complaint, and what is to be done about it."""
    kind = c.task()
    mark = Mark(kind)
    parts: list[list[Piece]] = [[(c.aside(), None)]] if c.rng.random() < 0.5 else []
    parts.append(c.clause(mark, "s" if c.rng.random() < 0.6 else None))
    way = c.rng.random()
    if way < 0.35:
        parts.append([(c.one(c.words["pronoun"]["undo"]), None)])
    elif way < 0.65:
        parts.append(c.clause(mark, "n"))
    elif way < 0.75:
        parts.append(c.strong(kind))
    elif way < 0.85:
        parts.append([(c.aside(), None)])
    elif way < 0.92:
        parts.append(c.auto(Mark("auto")))
    pauses = (". ", ", ", "; ", ": ", "! ", "... ", " - ", " ") if c.space else ("。", "、", ",", " ")
    told: list[Piece] = [piece for part in parts for piece in [(c.rng.choice(pauses), None), *part]]
    return Composed(tuple(told[1:]))


def _plain(c: Composer) -> Composed:
    """A single noun in a frame, all equally often, without anything beside it: what is said most must not fail."""
    mark = Mark(c.task(), "keep" if c.rng.random() < 0.15 else "undo")
    the = c.rng.choice(("", *(t for t in c.words["the"][:4] if t)))
    glue = c.space if the and not the.endswith("'") else ""
    noun = [
        (the + glue, None),
        *c.fill(expand(c.rng.choice(c.words[mark.kind]["n"]), c.rng), {}, mark),
    ]
    frame = expand(c.rng.choice(c.words[mark.act]["n"]), c.rng)
    return Composed(tuple(c.fill(frame, {"n": noun})))


def _strength(c: Composer) -> Composed:
    return Composed(tuple(c.strong("auto" if c.rng.random() < 0.12 else c.task())))


def _multi(c: Composer) -> Composed:
    kinds = c.tasks(c.rng.choice((2, 2, 2, 3)))
    if c.rng.random() < 0.08:
        kinds = c.rng.sample(c.rng.choice(TOGETHER), 2)
    way = c.rng.random()
    if way < 0.3:
        frame = c.one(c.words["undo"]["n"])
        pieces = c.fill(frame, {"n": c.nouns([Mark(k) for k in kinds])})
        parts = [pieces, *(_wanted(c, k) for k in kinds[2:])]
    elif way < 0.38:
        level = c.rng.choice(("little", "full", "number", "hint"))
        marks = [Mark(k, "undo", level) for k in kinds]
        body = c.join([c.clause(m) for m in marks])
        # Without a pause before it, a strength would belong to the last clause alone.
        frames = [t for t in c.words["strength"]["all"] if any(pause in t for pause in ",.、。") and len(t) > 9]
        filled = c.fill(c.one(frames), {"x": body, "w": c.amount(level, "w")})
        return Composed(tuple(filled))
    elif way < 0.55:
        slots = [s for s in ("n", "a", "g", "o") if all(s in c.words[k] for k in kinds)]
        name = c.rng.choice(slots)
        body = c.join([c.fill(c.one(c.words[k][name]), {}, Mark(k)) for k in kinds])
        if name in c.words["undo"] and c.rng.random() < 0.7:
            body = c.fill(c.one(c.words["undo"][name]), {name: body})
        parts = [body]
    elif way < 0.85:
        # A strength belongs to its own clause alone.
        strong = c.rng.sample(kinds, c.rng.choice((1, 1, 2)))
        parts = [c.strong(k) if k in strong else c.clause(Mark(k)) for k in kinds]
    else:
        parts = [_wanted(c, k) for k in kinds]
    if c.rng.random() < 0.15:
        parts.append([(c.one(c.words["pronoun"]["both"]), None)])
    return Composed(tuple(c.join(parts)))


def _keep(c: Composer) -> Composed:
    kinds = c.tasks(c.rng.choice((2, 2, 2, 3)))
    kept = kinds[1:] if c.rng.random() < 0.35 else kinds[1:2]
    wanted = [k for k in kinds if k not in kept]
    marks = [Mark(k, "keep") for k in kept]
    if c.rng.random() < 0.12:
        table, whole = c.words["except"], Mark("auto")
        named = c.nouns(marks) if len(marks) == 2 else c.noun(marks[0])
        slots: dict[str, list[Piece]] = {"x": [(c.one(table["all"]), whole)], "y": named}
        return Composed(tuple(c.fill(c.one(table["frames"]), slots)))
    if c.rng.random() < 0.12:
        asked = c.clause(Mark(wanted[0]), "n")
        kept_noun = c.fill(c.one(c.words["not"]["n"]), {"n": c.noun(marks[0])})
        return Composed((*asked, ("" if kept_noun[0][0].startswith(",") else c.space, None), *kept_noun))
    way = c.rng.random()
    if len(marks) == 2 and way < 0.3:
        both = {"x": c.noun(marks[0]), "y": c.noun(marks[1])}
        keeping = c.fill(c.one(c.words["neither"]["frames"]), both)
    elif len(marks) == 2 and way < 0.6:
        keeping = c.fill(c.one(c.words["keep"]["n"]), {"n": c.nouns(marks)})
    else:
        keeping = c.join([c.clause(m) for m in marks])
    keeping += c.tail()
    if c.rng.random() < 0.4:
        asked = c.strong("auto") if c.rng.random() < 0.1 else c.auto(Mark("auto"))
    else:
        asked = c.join([_wanted(c, k) for k in wanted])
    if c.space and _BARE.match(keeping[0][0]) and c.rng.random() < 0.6:  # "sharpen without denoising"
        return Composed((*asked, (c.space, None), *keeping))
    first = c.rng.random() < 0.8
    return Composed(tuple(c.join([asked, keeping] if first else [keeping, asked], "but")))


def _only(c: Composer) -> Composed:
    kept = c.fill(c.one(c.words["neutralkeep"]["s"]), {})
    wanted = c.auto(Mark("auto")) if c.rng.random() < 0.25 else _wanted(c, c.task())
    return Composed(tuple(c.join([wanted, kept], "but")))


def _auto(c: Composer) -> Composed:
    if c.rng.random() < 0.15:
        pieces = _wanted(c, c.task())
        return Composed((*pieces, (c.space, None), (c.one(c.words["rest"]["s"]), Mark("rest"))))
    return Composed(tuple(c.auto(Mark("auto"))))


def _left(c: Composer) -> Composed:
    if c.rng.random() < 0.4:
        return Composed((*c.clause(Mark(c.task(), "keep")), *c.tail()))
    mark = Mark("auto", "keep")
    return Composed(tuple(c.fill(c.one(c.words["nothing"]["s"]), {}, mark)))


def _ask(c: Composer) -> Composed:
    way = c.rng.random()
    if way < 0.35:
        return Composed(tuple(c.fill(c.one(c.words["ask"]["s"]), {}, Mark("auto", "ask"))))
    if way < 0.5:
        marks = [Mark(k, "ask") for k in c.tasks(2)]
        if c.rng.random() < 0.5:
            return Composed(tuple(c.fill(c.one(c.words["ask"]["n"]), {"n": c.nouns(marks)})))
        both = c.one(c.words["both"])
        body = c.fill(both, {s: c.fill(c.one(c.words[m.kind]["a"]), {}, m)
                                for s, m in zip("xy", marks, strict=True)})  # fmt: skip
        return Composed(tuple(c.fill(c.one(c.words["ask"]["a"]), {"a": body})))
    asked = c.clause(Mark(c.task(), "ask"))
    if way < 0.6:  # "Is it dark? Fix it."
        pause = c.rng.choice((". ", " ", ", ", "; ") if c.space else ("。", ",", ""))
        return Composed((*asked, (pause, None), (c.one(c.words["then"]["s"]), Mark("auto"))))
    return Composed(tuple(asked))


def _sequence(c: Composer) -> Composed:
    table = c.words["sequence"]
    names = [n for n in table if c.rng.random() < (0.35 if n == "three" else 1)]
    name = c.rng.choice(names)
    kinds = c.tasks(3 if name == "three" else 2)
    short = name.endswith("_o") or c.language in UNSPACED or c.rng.random() < 0.5
    slots = {}
    for number, kind in enumerate(kinds, 1):
        mark = Mark(kind)
        slot = c.rng.choice([s for s in ("o", "v", "c", "i", "n") if s in c.words[kind]])
        if name.endswith("_o"):
            slot = "o" if c.rng.random() < 0.7 else "n"
        if name.endswith("_n"):
            slots[str(number)] = c.noun(mark)
            continue
        bare = short and slot != "n" and "{p}" not in "".join(c.words[kind][slot])
        slots[str(number)] = c.slot(slot, mark) if bare or name.endswith("_o") else c.clause(mark, slot)
    return Composed(tuple(c.fill(c.one(table[name]), slots)), "backward" if "back" in name else "forward")


def _outside(c: Composer) -> Composed:
    pieces = c.outside()
    if c.rng.random() < 0.15:
        wanted = c.clause(Mark(c.task()))
        pieces = c.join([wanted, pieces] if c.rng.random() < 0.5 else [pieces, wanted])
    return Composed(tuple(pieces))


def _denied(c: Composer) -> Composed:
    """What is not the matter, mostly with what is: "it is not noisy, but hazy"."""
    table, rng = c.words["deny"], c.rng
    no, yes = c.tasks(2)
    denied, wanted = Mark(no, "deny"), Mark(yes)
    way = rng.random()
    if way < 0.3:
        name = "a" if rng.random() < 0.4 and c.space else "n"
        slots = {"x": c.slot(name, denied), "y": c.slot(name, wanted)}
        return Composed(tuple([*c.fill(c.one(table[f"swap_{name}"]), slots), *_then(c)]))
    if way < 0.36 and "like" in table:
        slots = {"x": [(piece, None) for piece, _ in c.noun(denied)], "y": c.noun(wanted)}
        return Composed(tuple([*c.fill(c.one(table["like"]), slots), *_then(c)]))
    if way < 0.42 and "two" in table:
        other = Mark(c.rng.choice([i for i in TASK_IDS if i != yes]), "deny")
        both = {"x": c.slot("a", denied), "y": c.slot("a", other)}
        denial = c.fill(c.one(table["two"]), both)
    elif way < 0.48 and f"g_{no}" in table and "good" in table:
        denial = c.fill(c.one(table["good"]), {"g": [(c.one(table[f"g_{no}"]), denied)]})
    elif way < 0.65 and f"no_{no}" in table:
        denial = [(c.one(table[f"no_{no}"]), denied)]
    elif way < 0.75 and "a" in table:
        denial = c.fill(c.one(table["a"]), {"a": c.slot("a", denied)})
    else:
        name = rng.choice([n for n in "na" if n in table])
        denial = c.fill(c.one(table[name]), {name: c.slot(name, denied)})
    way = rng.random()
    if way < 0.05:
        return Composed(tuple(denial))
    if way < 0.7:
        name = rng.choice("na")
        affirmed = c.fill(c.one(table[f"yes_{name}"]), {name: c.slot(name, wanted)})
    else:
        affirmed = c.clause(wanted) if way < 0.9 else _wanted(c, yes)
    if rng.random() < 0.15:
        return Composed(tuple(c.join([affirmed, denial])))
    return Composed(tuple([*c.join([denial, affirmed], table["joint"]), *_then(c)]))


def _then(c: Composer) -> list[Piece]:
    """ "Get rid of it" behind what was named, now and then."""
    if c.rng.random() > 0.2:
        return []
    return [(c.rng.choice((". ", ", ", ": ", "; ", " - ")), None), (c.one(c.words["pronoun"]["undo"]), None)]


def _excepted(c: Composer) -> Composed:
    """Praise with an exception, which is what is to be undone: "everything is fine except the noise"."""
    table = c.words["fine"]
    mark = Mark(c.task())
    name = "n" if c.rng.random() < 0.7 else "a"
    slots = {"x": c.fill(c.one(table["praise"]), {}), name: c.slot(name, mark)}
    return Composed(tuple([*c.fill(c.one(table[name]), slots), *_then(c)]))


def _circumstance(c: Composer) -> Composed:
    """How it came about, then what is wrong: "shot at night, so it is grainy"."""
    table, kind = c.words["came"], c.task()
    cause = c.rng.choice([i for i in ("lowlight", "rain", "snow", "haze", *TASK_IDS) if i in table and i != kind])
    way = c.rng.random()
    if way < 0.45:
        body = c.fill(c.one(table["said"]), {"a": c.slot("a", Mark(kind))})
    elif way < 0.8:
        body = c.fill(c.one(table["named"]), {"n": c.noun(Mark(kind))})
    else:
        body = c.clause(Mark(kind))
    came: list[Piece] = [(c.one(table[cause]), None)]
    if c.rng.random() < 0.2:
        came = c.join([came, [(c.aside(), None)]])
    slots = {"x": came, "y": body}
    return Composed(tuple([*c.fill(c.one(table["so"]), slots), *_then(c)]))


def foreign(rng: random.Random) -> Composed:
    """A sentence in a language that irtool does not claim."""
    table = words(FOREIGN)[rng.choice(list(words(FOREIGN)))]
    way = rng.random()
    if way < 0.6:
        text = re.sub(r"\{(\w)\}", lambda m: rng.choice(table[m[1]]), rng.choice(table["f"]))
    elif way < 0.85:
        text = rng.choice(table["s"])
    else:
        text = " ".join(rng.choice(table[rng.choice("snavp")]) for _ in range(rng.randint(2, 4)))
    if rng.random() < 0.15:
        text += rng.choice((" ", ", ", ". ")) + rng.choice(table["s"])
    if rng.random() < 0.4:
        text += rng.choice((".", "!", "?", "!!", " ..."))
    return Composed(((normalize(text), Mark(FOREIGN)),))


def _word(c: Composer) -> Composed:
    """A single expression, bare: so that every entry is met often enough."""
    kind = c.task()
    name = c.rng.choice([s for s in c.words[kind] if s != "k"])
    return Composed(tuple(c.fill(c.one(c.words[kind][name]), {}, Mark(kind))))


def make(c: Composer) -> Composed:
    """One sentence, sometimes with polite words and circumstances around it."""
    makers = (
        (_single, 27), (_told, 18), (_plain, 18), (_strength, 14), (_multi, 26),
        (_keep, 30), (_only, 5), (_auto, 7), (_left, 6), (_ask, 8), (_sequence, 13),
        (_outside, 15), (_word, 9), (_denied, 18), (_excepted, 20), (_circumstance, 16),
    )  # fmt: skip
    made = c.rng.choices([m for m, _ in makers], [n for _, n in makers])[0](c)
    pieces = list(made.pieces)
    if "when" in c.words and c.rng.random() < 0.15:
        pieces.append((" " + c.about(c.words["when"]), None))
    if "hence" in c.words and c.rng.random() < 0.12 and made.pieces[-1][1] and made.pieces[-1][1].act == "undo":
        joint = c.rng.choice((", ", " and ", ", so ", " so ", ". ", "; ", ": ", ", and ", " - "))
        pieces.append((joint + c.about(c.words["hence"]), None))
    pieces = _colloquial(c, pieces)
    asks = any(mark is not None and mark.act == "ask" for _, mark in pieces)
    if c.rng.random() < 0.3 and not asks:
        please = c.one(c.words["please"])
        pieces.insert(0, (please + c.space, None))
        asking = re.search("can|could|would|possible|pued|podr|peu|pour|kann|könn|能|可", please)
        if c.rng.random() < (0.6 if asking else 0.1):
            pieces.append(("?", None))
    if c.rng.random() < 0.28:
        said = c.aside()
        if c.rng.random() < 0.7:
            pieces.insert(0, (said + c.rng.choice((". ", ", ", "! ", " - ", " ")), None))
        else:
            pieces.append((c.rng.choice((". ", ", ", " - ")) + said, None))
    if c.rng.random() < 0.12:
        pieces.append((c.rng.choice((" ", ", ", ". ")) + c.one(c.words["thanks"]), None))
    elif c.rng.random() < 0.3:
        pieces.append((c.rng.choice((".", "!", ".", "!!", "...")), None))
    return Composed(tuple((normalize(text), mark) for text, mark in pieces), made.order)


def _colloquial(c: Composer, pieces: list[Piece]) -> list[Piece]:
    """English as it is typed: "the photo's dark", "w/o"."""
    if c.language != "en" or c.rng.random() > 0.15:
        return pieces
    return [
        (re.sub(r"^ is (?=\w)|^ is $", "'s ", text).replace("without ", "w/o "), mark) if mark is None else (text, mark)
        for text, mark in pieces
    ]


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
        language = rng.choices((*LANGUAGES, FOREIGN), SHARES)[0]
        sentence = foreign(rng) if language == FOREIGN else make(composers[language])
        if language not in UNSPACED and rng.random() < 0.4:
            rate = rng.choice((0.1, 0.2, 0.4))
            sentence = replace(sentence, pieces=misspell(sentence.pieces, rng, rate))
        if rng.random() < 0.1:
            bare = tuple((re.sub(r"[!?;:¿¡。、]|[.,](?!\d)", " ", text), mark) for text, mark in sentence.pieces)
            sentence = replace(sentence, pieces=bare)
        made.append(sentence)
    return made
