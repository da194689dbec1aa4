"""What somebody wants done to a picture, and the plan it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..degradation import IDS, RESTORE_ORDER
from ..errors import UsageError
from ..plan import MOST, Plan, Step, look_again, passes, scored
from ..weights.registry import DEFAULT_RESTORER

if TYPE_CHECKING:
    from ..detect import Diagnosis

ANSWERS = {
    "outscale": "irtool has no model that enlarges pictures",
    "outperson": "irtool does not alter people",
    "outedit": "irtool neither adds, removes nor replaces things in a picture",
    "outtone": "irtool does not grade colours, darken or restyle pictures",
    "outshape": "irtool does not crop, turn, resize or convert pictures by instruction",
    "outchat": "that asks for nothing irtool could do to a picture",
}
ABLE = (
    "It undoes blur, haze, JPEG artefacts, low light, noise, raindrops, rain, shadow, snow and missing regions; "
    'try "remove the noise" or "make it better".'
)


@dataclass(frozen=True)
class Own:
    """A task of somebody's own, a file of weight offsets, that goes by a word of their choosing.

    Attributes:
        offsets: path of the file (`irtool.models.modulation`).
        like: id of the degradation that the task begins as.
    """

    offsets: str
    like: str


@dataclass(frozen=True)
class Heard:
    """Words of a sentence and what they were taken for.

    Attributes:
        words: as normalised.
        kind: a degradation id, the word of an own task, "auto", "rest" or one of `labels.OUTSIDE`.
        act: "undo", "keep" or "ask".
        strength: in [0, 1].
    """

    words: str
    kind: str
    act: str
    strength: float = 1.0


@dataclass(frozen=True)
class Wish:
    """A sentence, understood.

    Attributes:
        undo: degradation id, or word of an own task, -> strength in [0, 1], in the order in which they are to be undone
            if `ordered`, else as said.
        keep: ids, or words, to be left alone.
        auto: strength at which whatever is found is undone too; None where nothing general is asked for.
        asked: ids asked about; empty in a question means everything.
        question: the sentence asks and wants nothing changed.
        ordered: it says what comes first.
        outside: kinds of requests that irtool has nothing for.
        heard: what the rest rests on.
        text: the sentence.
    """

    undo: Mapping[str, float] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    auto: float | None = None
    asked: tuple[str, ...] = ()
    question: bool = False
    ordered: bool = False
    outside: tuple[str, ...] = ()
    heard: tuple[Heard, ...] = ()
    text: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "text": self.text,
            "undo": dict(self.undo),
            "keep": list(self.keep),
            "auto": self.auto,
            "question": self.question,
            "asked": list(self.asked),
            "ordered": self.ordered,
            "heard": [vars(h) for h in self.heard],
        }


def check(wishes: Sequence[Wish]) -> None:
    """Turn away what irtool cannot do, before any picture is touched.

    Raises:
        UsageError: a sentence asks for something outside, for nothing that was understood, or whether there is what an
            own task undoes.
    """
    for wish in wishes:
        if wish.outside:
            told = " ".join(h.words for h in wish.heard if h.kind == wish.outside[0])
            hint = ABLE
            if wish.undo:
                hint = f"Leave that out, and {', '.join(wish.undo)} can be undone."
            raise UsageError(f"'{told or wish.text}': {ANSWERS[wish.outside[0]]}.", hint)
        if own := [word for word in wish.asked if word not in IDS]:
            raise UsageError(
                f"'{wish.text}': no detector has learned to find {own[0]}.", f'"remove the {own[0]}" undoes it unseen.'
            )
        if not (wish.undo or wish.keep or wish.question or wish.auto is not None or wish.heard):
            raise UsageError(f"'{wish.text}' was not understood.", ABLE)


def answer(wishes: Sequence[Wish], diagnosis: Diagnosis) -> str:
    """The answer to questions, in words: of what was asked, whether it is there and how sure that is."""
    asked = [i for i in IDS if any(i in wish.asked for wish in wishes)]
    if asked:
        return ", ".join(f"{i}: {'yes' if i in diagnosis.present else 'no'} {diagnosis.scores[i]:.2f}" for i in asked)
    if diagnosis.is_clean:
        return "clean"
    return ", ".join(scored(diagnosis, diagnosis.present))


def looks(wishes: Sequence[Wish]) -> bool:
    """Whether the picture must be diagnosed before a plan can be made."""
    return any(wish.question or wish.auto is not None for wish in wishes)


def plan_wishes(
    wishes: Sequence[Wish],
    diagnosis: Diagnosis | None = None,
    *,
    strength: float = 1.0,
    model: str = DEFAULT_RESTORER,
    own: Mapping[str, Own] | None = None,
    **more: Any,
) -> Plan:
    """The plan of several sentences: their steps one after the other; what one of them keeps, all keep. Questions are
    answered in its reason.

    Within a sentence, what has the same strength is undone in as few passes as do no harm (`irtool.plan.passes`), and
    the steps follow in `RESTORE_ORDER`, unless the sentence gives an order: then it is one step each, in that order.
    A task of somebody's own is always a step of its own.

    Args:
        wishes: as understood.
        diagnosis: of the picture; needed where `looks` says so.
        strength: multiplies all strengths.
        model: that restores.
        own: tasks of somebody's own by the words that the wishes have for them.
        more: further attributes of the steps.
    """
    own = own or {}
    kept = {word for wish in wishes for word in wish.keep}
    steps: list[Step] = []
    questions = [wish for wish in wishes if wish.question]
    reasons: list[str] = [answer(questions, diagnosis)] if questions and diagnosis is not None else []
    for wish in wishes:
        wanted = {i: s for i, s in wish.undo.items() if i not in kept and s > 0}
        if wish.auto is not None:
            assert diagnosis is not None
            found = [i for i in diagnosis.present if i not in kept and i not in wanted]
            taken = found[: max(0, MOST - len(wanted))]
            wanted |= dict.fromkeys(taken, wish.auto)
            told = ", ".join(scored(diagnosis, diagnosis.present))
            reasons.append(f"found {told}" if told else "the picture is clean")
        groups = [((i,), s) for i, s in wanted.items()] if wish.ordered else _groups(wanted, own, model)
        for ids, s in groups:
            if (task := own.get(ids[0])) is not None:
                steps.append(Step({task.like: 1.0}, model, s * strength, offsets=task.offsets, **more))
            else:
                steps.append(Step(dict.fromkeys(ids, 1.0), model, s * strength, **more))
        if wish.undo:
            reasons.append("as asked")
        if len(groups) > 1:
            reasons.append("in the order said" if wish.ordered else "in the order that works best")
        elif groups and len(groups[0][0]) > 1:
            reasons.append("all at once")
    if not steps and not reasons:
        reasons.append("to be left as it is")
    general = [wish.auto for wish in wishes if wish.auto is not None]
    again = look_again(steps, kept, model, general[-1] * strength, **more) if general else None
    return Plan(tuple(steps), "; ".join(dict.fromkeys(reasons)), tuple(i for i in IDS if i in kept), again)


def _groups(wanted: Mapping[str, float], own: Mapping[str, Own], model: str) -> list[tuple[tuple[str, ...], float]]:
    """What goes into a step together, with its strength, in the order of the steps."""
    groups: list[tuple[tuple[str, ...], float]] = [((word,), s) for word, s in wanted.items() if word in own]
    for level in dict.fromkeys(wanted.values()):
        alike = [i for i, s in wanted.items() if i not in own and s == level]
        groups += [(group, level) for group in passes(alike, model)]
    return sorted(groups, key=lambda g: min(RESTORE_ORDER.index(own[i].like if i in own else i) for i in g[0]))
