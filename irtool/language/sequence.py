"""The order in which a sentence wants things done, by the words that say so: "before", "once that is done", "start
with", "comes last"."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

FIRST, UNSAID, LATER, LAST = range(4)
_CUES: tuple[tuple[int, bool, tuple[str, ...]], ...] = (
    (FIRST, False, (
        r"^(?:and |but |please )?first(?:ly)?\b(?! of the)", r"(?<!at )(?<!the )\bfirst$", r"^erst\b(?! nach)",
        r"^先", r"^まず",
    )),
    (FIRST, True, (
        r"\b(?:start|begin|starting|beginning|kick|commence) (?:off )?(?:with|by)\b", r"\bkick off\b",
        r"\bto (?:begin|start) with\b", r"\bat the (?:very )?(?:start|beginning|outset)\b", r"\bbeforehand\b",
        r"\bpriority\b", r"\bstep (?:one|#1)\b", r"\bfirst of all\b", r"\bfirst things first\b", r"\bfor a start\b",
        r"\bbefore (?:that|anything else|everything else)$",
        r"\b(?:empieza|empezar|empezando|comienza|comenzar) (?:por|con)\b", r"^primero\b", r"\ben primer lugar\b",
        r"\b(?:fang|fange|beginn|beginne|starte) (?:bitte )?mit\b", r"\b(?:zuerst|zunachst|als erstes|zu beginn)\b",
        r"\b(?:commence|commencez|commencer|debute) par\b", r"^d abord\b", r"\b(?:pour commencer|en premier)\b",
        r"从.*开始", r"^首先", r"最初に", r"から始め",
    )),
    (LAST, True, (
        r"\blast$", r"^last (?:of all|comes|come|the)\b", r"\blastly\b", r"\blast thing\b", r"^(?:and )?finally\b",
        r"\bfinally$", r"\bto finish\b", r"\bwrap up\b", r"\b(?:final|last) step\b", r"\b(?:for|till|until) last\b",
        r"\b(?:finish|end|ending|finishing|conclude|wrap|round|close) (?:it |up |off )*(?:with|by)\b",
        r"\b(?:at|until|till|for|to) the (?:very )?end\b", r"\bin the end\b",
        r"\b(?:termina|terminar|acaba|acabar|finaliza) (?:con|por)\b", r"\b(?:por ultimo|al final|finalmente)\b",
        r"\b(?:zuletzt|zum schluss|ganz am ende|als letztes|schliesslich|abschliessend)\b", r"\bhor\w* .*\bauf$",
        r"\b(?:finis|finissez|finir|termine|terminez|terminer) par\b", r"\b(?:en dernier|a la fin|pour finir)\b",
        r"最后", r"最後に",
    )),
    (LATER, True, (
        r"^(?:and |but )?(?:second|secondly|third|thirdly|next|afterwards?|later|subsequently|thereafter)\b(?! to)",
        r"\b(?:second|secondly|third|afterwards?|later on|later|subsequently|thereafter|next)$",
        r"\bcomes? (?:after|later|next)$", r"\bafter that$", r"\bmove on\b", r"\bstep (?:two|three|#10)\b",
        r"\bsolo despues\b(?! de)", r"\b(?:despues|luego)$", r"\berst danach\b", r"\bseulement (?:ensuite|apres)$",
    )),
    (LATER, False, (
        r"^(?:and |but )?then\b", r"\bthen$", r"\bcontinue (?:with|by)\b", r"\bproceed to\b", r"\bluego\b",
        r"\bdespues\b(?! de)", r"\b(?:dann|danach|anschliessend)\b", r"\b(?:puis|ensuite)\b",
        r"然后|再|接着", r"次に|それから",
    )),
)  # fmt: skip
CUES = tuple((rank, sure, re.compile("|".join(cues))) for rank, sure, cues in _CUES)
"""Place in the order, whether the words alone are enough to say that there is one, and the words within a clause."""
PAUSES = frozenset((
    ",", ";", ".", ":", "!", "-", "&", "+", "。", "、", "and", "but", "then", "y", "und", "et", "puis", "luego", "dann",
))  # fmt: skip
LEADING = ("then", "puis", "luego", "dann")
"""Pauses that belong to the clause behind them."""
DONE = frozenset((
    "is", "are", "has", "have", "been", "gone", "done", "finished", "youve", "youre", "weve", "thats", "its", "theyre",
    "removing", "cleaning", "cleared", "removed",
))  # fmt: skip
WIDE = re.compile("(?<=[\u3040-\u9fff]) (?=[\u3040-\u9fff])")
ENDED = ("gone", "done", "finished", "removed", "cleared")
PRONOUNS, OVER = (
    ("that", "thats", "this", "it", "its", "theyre", "youre", "you"),
    ("done", "finished", "gone", "out", "over"),
)
ARROWS = frozenset((">", "→", "⇒", "➜"))


def sequence(said: Sequence[str], places: Sequence[int], heard: str) -> tuple[str, list[int]]:
    """The order that a sentence gives: of labels.ORDERS, and for every place its rank if they are to be sorted first.

    Args:
        said: the words.
        places: where the things begin that it speaks of, in their order.
        heard: what the text model says of the order, of labels.ORDERS.
    """
    if len(places) < 2:
        return heard, []
    order, sure = _compared(said, places)
    if order and (heard or sure):
        return order, []
    if any(word in ARROWS for word in said[places[0] : places[-1]]):
        return "forward", []
    ranks, sure = _ranked(said, places)
    if len(set(ranks)) > 1 and (heard or sure):
        return "forward", ranks
    return heard, []


def _compared(said: Sequence[str], places: Sequence[int]) -> tuple[str, bool]:
    """The order that "before", "after" and "once" give to what is named at some places, "" if they do not settle it;
    and whether they can mean nothing else."""
    for i, word in enumerate(said[: places[-1]]):
        was, following = said[i - 1] if i else "", said[i + 1]
        ahead = itertools.takewhile(lambda w: w not in (",", ".", ";"), said[i + 1 : i + 9])
        passed = any(w in DONE for w in ahead)
        if word == "before" or (word == "prior" and following == "to"):
            earlier, sure = True, word == "prior"
        elif word == "after" and was not in ("m", "am", "im", "re", "are", "was", "were", "look", "looking"):
            earlier, sure = False, passed or was == "only"  # not "the look I'm after"
        elif (
            (word == "once" and was != "at" and passed)
            or (word == "when" and any(w in ENDED for w in said[i + 2 : i + 6]))
            or (word == "soon" and was == "as" and passed)
            or (word == "having" and (not i or was in PAUSES) and i < places[0])
        ):
            earlier, sure = False, True
        else:
            continue
        # "before that" looks back at what was said, "before you sharpen" ahead.
        back = following in ("that", "this", "which") or was == "not"
        if word in ("once", "soon", "having", "when"):  # "once that is done" looks back, "once it is bright" ahead
            back = following in PRONOUNS and any(w in OVER for w in said[i + 2 : i + 4])
        if i < places[0]:
            return "" if back else "backward" if earlier else "forward", sure
        return "forward" if earlier != back else "backward", sure
    return "", False


def _ranked(said: Sequence[str], places: Sequence[int]) -> tuple[list[int], bool]:
    """The rank of what is named at some places, and whether there certainly is an order."""
    clauses: list[list[int]] = [[]]
    for i, word in enumerate(said):
        if word in PAUSES and clauses[-1]:
            clauses.append([])
        if word not in PAUSES or word in LEADING:
            clauses[-1].append(i)
    ranks, certain, waiting = [UNSAID] * len(places), False, UNSAID
    for clause in filter(None, clauses):
        text = WIDE.sub("", " ".join(said[i] for i in clause))
        rank = UNSAID
        for place, sure, cue in CUES:
            if cue.search(text):
                rank, certain = place, certain or sure
                break
        held = [k for k, at in enumerate(places) if at in clause]
        for k in held:
            ranks[k] = rank if rank != UNSAID else waiting
        if held:
            waiting = UNSAID
        elif rank != UNSAID:
            waiting = rank
    if waiting != UNSAID:
        ranks[-1] = waiting
    return ranks, certain
