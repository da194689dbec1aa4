"""What a sentence asks for (`Intent`), and the plan that several of them make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from ..degradation import IDS, REPAIRS, RESTORE_ORDER, TASK_IDS
from ..errors import UsageError
from ..plan import MAX_TASKS, SCALES, Plan, Repair, Step, Upscale, look_again, passes, scored
from ..weights.registry import DEFAULT_RESTORER
from .labels import FOREIGN, OUTSIDE

if TYPE_CHECKING:
    from ..detection import Diagnosis

ANSWERS = {
    "outscale": "irtool enlarges whole pictures 2, 3 or 4 times, and not to a size",
    "outperson": "irtool does not alter people",
    "outedit": "irtool neither adds, removes nor replaces things in a picture",
    "outtone": "irtool does not grade colours, darken or restyle pictures",
    "outshape": "irtool does not crop, turn, resize or convert pictures by instruction",
    "outchat": "that asks for nothing irtool could do to a picture",
    FOREIGN: "irtool understands English, Chinese, Spanish, German, French and Japanese",
}
"""Why a request is refused, by `labels.OUTSIDE` and `labels.FOREIGN`."""
ABLE = (
    "It undoes blur, haze, JPEG artefacts, low light, noise, raindrops, rain, shadow, snow, missing regions, scratches "
    'and fading; try "remove the noise", "make it better" or "make it twice as large".'
)
UPSCALE = "upscale"
"""Kind of a span that asks to enlarge the picture."""


@dataclass(frozen=True)
class CustomTask:
    """A task that a user trained, a file of weight offsets, named by a word of the user's choice.

    Attributes:
        offsets: path of the file (`irtool.models.lora`).
        like: id of the degradation that the task was initialized from.
    """

    offsets: str
    like: str


@dataclass(frozen=True)
class Span:
    """A labeled run of tokens.

    Attributes:
        words: the text, normalized.
        kind: one of `TASK_IDS`, the word of a custom task, "auto", "rest", `UPSCALE`, or one of `labels.OUTSIDE`.
        act: one of `labels.ACTS`.
        strength: share of the result in [0, 1].
    """

    words: str
    kind: str
    act: str
    strength: float = 1.0


@dataclass(frozen=True)
class Intent:
    """What a sentence asks for.

    Attributes:
        tasks: one of `TASK_IDS`, or word of a custom task -> strength in [0, 1]; in the order of execution if
            `ordered`, else as named.
        keep: ids, or words, that must not be undone.
        auto: strength at which whatever is detected is undone too; None where nothing general is asked for.
        asked: ids asked about; empty in a question means everything.
        question: the sentence only asks.
        ordered: the sentence gives an order.
        outside: requests that irtool has no model for, of `labels.OUTSIDE`; or `labels.FOREIGN`.
        scale: how many times the picture is to be enlarged after all else; or None.
        spans: the labeled spans that this was derived from.
        text: the sentence.
    """

    tasks: Mapping[str, float] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    auto: float | None = None
    asked: tuple[str, ...] = ()
    question: bool = False
    ordered: bool = False
    outside: tuple[str, ...] = ()
    scale: int | None = None
    spans: tuple[Span, ...] = ()
    text: str = ""

    @staticmethod
    def of(text: str, spans: Sequence[Span], order: str = "") -> Intent:
        """The intent of labeled spans.

        Args:
            text: the sentence.
            spans: in the order of the sentence.
            order: of `labels.ORDERS`.
        """
        wanted: dict[str, float] = {}
        keep: dict[str, None] = {}
        asked: dict[str, None] = {}
        for span in spans:
            if span.kind not in TASK_IDS:
                continue
            if span.act == "undo":
                keep.pop(span.kind, None)
                # Of several mentions the one with a strength counts: "It is dark. Brighten it a little."
                wanted[span.kind] = span.strength if span.strength < 1 else wanted.get(span.kind, 1.0)
            elif span.act == "keep":
                wanted.pop(span.kind, None)
                keep[span.kind] = None
            elif span.act == "ask":
                asked[span.kind] = None
        general = [span.strength for span in spans if span.kind == "auto" and span.act == "undo"]
        rest = any(span.kind == "rest" and span.act == "undo" for span in spans)
        if general and asked and not wanted:  # "Is it dark? Fix it.": "it" is what was asked about
            wanted = dict.fromkeys(asked, min(general))
        # "It is noisy, fix it": likewise, so nothing general is left.
        auto = min(general, default=1.0) if rest or (general and not wanted) else None
        question = not wanted and auto is None and any(span.act == "ask" for span in spans)
        forward = list(wanted.items())
        return Intent(
            tasks=dict(reversed(forward) if order == "backward" else forward),
            keep=tuple(i for i in TASK_IDS if i in keep),
            auto=auto,
            asked=tuple(i for i in TASK_IDS if i in asked) if question else (),
            question=question,
            ordered=bool(order) and len(wanted) > 1,
            outside=tuple(dict.fromkeys(s.kind for s in spans if s.kind in OUTSIDE and s.act == "undo")),
            spans=tuple(spans),
            text=text,
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "text": self.text,
            "undo": dict(self.tasks),
            "keep": list(self.keep),
            "auto": self.auto,
            "question": self.question,
            "asked": list(self.asked),
            "ordered": self.ordered,
            "scale": self.scale,
            "heard": [vars(span) for span in self.spans],
        }


def check(intents: Sequence[Intent]) -> None:
    """Refuse what irtool cannot do, before any picture is read.

    Raises:
        UsageError: a sentence asks for something that irtool has no model for, for nothing that was understood, or
            whether a custom task or one of `REPAIRS` is needed, which the diagnosis does not tell.
    """
    scale_of(intents)
    for intent in intents:
        if intent.outside:
            reason = intent.outside[0]
            words = " ".join(span.words for span in intent.spans if span.kind == reason) or intent.text
            hint = f"Leave that out, and {', '.join(intent.tasks)} can be undone." if intent.tasks else ABLE
            raise UsageError(f"'{words}': {ANSWERS[reason]}.", hint)
        if undetected := [word for word in intent.asked if word not in IDS]:
            if undetected[0] == "scratches":  # a network of its own finds them, too slow to be run with every diagnosis
                hint = 'irtool detect --scratches does; "remove the scratches" undoes what is found.'
                raise UsageError(f"'{intent.text}': questions do not look for scratches.", hint)
            name = next((d.name for d in REPAIRS if d.id == undetected[0]), undetected[0])
            raise UsageError(
                f"'{intent.text}': no detector has learned to find {name}.", f'"remove the {name}" undoes it unseen.'
            )
        if not (intent.tasks or intent.keep or intent.question or intent.auto is not None or intent.spans):
            raise UsageError(f"'{intent.text}' was not understood.", ABLE)


def answer(intents: Sequence[Intent], diagnosis: Diagnosis) -> str:
    """The answer to questions, in words: whether what was asked about is present, and its score."""
    asked = [i for i in IDS if any(i in intent.asked for intent in intents)]
    if asked:
        return ", ".join(f"{i}: {'yes' if i in diagnosis.present else 'no'} {diagnosis.scores[i]:.2f}" for i in asked)
    if diagnosis.is_clean:
        return "clean"
    return ", ".join(scored(diagnosis, diagnosis.present))


def needs_diagnosis(intents: Sequence[Intent]) -> bool:
    """Whether a plan needs the diagnosis of the picture."""
    return any(intent.question or intent.auto is not None for intent in intents)


def scale_of(intents: Sequence[Intent]) -> int | None:
    """How many times the picture is to be enlarged: what the sentences ask for, multiplied.

    Raises:
        UsageError: that is more than irtool enlarges at once.
    """
    scales = [intent.scale for intent in intents if intent.scale is not None]
    whole = prod(scales)
    if scales and whole not in SCALES:
        raise UsageError(f"Enlarged {' and '.join(map(str, scales))} times is {whole}; irtool enlarges up to 4 times.")
    return whole if scales else None


def plan_intents(
    intents: Sequence[Intent],
    diagnosis: Diagnosis | None = None,
    *,
    strength: float = 1.0,
    model: str = DEFAULT_RESTORER,
    own: Mapping[str, CustomTask] | None = None,
    upscaler: str = "",
    **more: Any,
) -> Plan:
    """The plan of several sentences: their steps one after the other; what one of them keeps, all keep. Its reason
    answers questions.

    Within a sentence, tasks of the same strength take as few passes as do no harm (`irtool.plan.passes`), in
    `RESTORE_ORDER`; if the sentence gives an order, one step each in that order. A custom task is a step of its own.
    Repairs come before all steps, also where the sentence says otherwise; the reason tells.

    Args:
        intents: of the sentences, in the order of execution.
        diagnosis: of the picture; required if `needs_diagnosis(intents)`.
        strength: multiplies all strengths.
        model: the restorer.
        own: custom tasks by the words that the intents have for them.
        upscaler: the model that enlarges; by default the one that ships.
        more: further attributes of the steps.
    """
    own = own or {}
    kept = {word for intent in intents for word in intent.keep}
    steps: list[Step] = []
    repairs: dict[str, float] = {}
    questions = [intent for intent in intents if intent.question]
    reasons: list[str] = [answer(questions, diagnosis)] if questions and diagnosis is not None else []
    for intent in intents:
        wanted = {i: s for i, s in intent.tasks.items() if i not in kept and s > 0}
        said = list(wanted)
        aged = {d.id: wanted.pop(d.id) for d in REPAIRS if d.id in wanted}
        repairs |= {i: aged[i] for i in said if i in aged} if intent.ordered else aged
        late = bool(aged) and (bool(steps) or (intent.ordered and not aged.keys() >= set(said[: len(aged)])))
        if intent.auto is not None:
            assert diagnosis is not None
            found = [i for i in diagnosis.present if i not in kept and i not in wanted]
            taken = found[: max(0, MAX_TASKS - len(wanted))]
            wanted |= dict.fromkeys(taken, intent.auto)
            scores = ", ".join(scored(diagnosis, diagnosis.present))
            reasons.append(f"found {scores}" if scores else "the picture is clean")
        groups = [((i,), s) for i, s in wanted.items()] if intent.ordered else _groups(wanted, own, model)
        for ids, s in groups:
            if (task := own.get(ids[0])) is not None:
                steps.append(Step({task.like: 1.0}, model, s * strength, adapter=task.offsets, **more))
            else:
                steps.append(Step(dict.fromkeys(ids, 1.0), model, s * strength, **more))
        if intent.tasks or intent.scale is not None:
            reasons.append("as asked")
        if late:
            reasons.append("scratches and fading are undone first")
        elif len(groups) + len(aged) > 1:
            reasons.append("in the order said" if intent.ordered else "in the order that works best")
        elif groups and len(groups[0][0]) > 1:
            reasons.append("all at once")
    if not steps and not repairs and not reasons:
        reasons.append("to be left as it is")
    general = [intent.auto for intent in intents if intent.auto is not None]
    again = look_again(steps, kept, model, general[-1] * strength, **more) if general else None
    scale = scale_of(intents)
    upscale = None if scale is None else Upscale(scale, upscaler)
    return Plan(
        tuple(steps),
        "; ".join(dict.fromkeys(reasons)),
        tuple(i for i in TASK_IDS if i in kept),
        again,
        upscale=upscale,
        repairs=tuple(Repair(i, s * strength) for i, s in repairs.items()),
    )


def _groups(
    wanted: Mapping[str, float], own: Mapping[str, CustomTask], model: str
) -> list[tuple[tuple[str, ...], float]]:
    """The tasks of each step with their strength, in the order of execution."""
    groups: list[tuple[tuple[str, ...], float]] = [((word,), s) for word, s in wanted.items() if word in own]
    for level in dict.fromkeys(wanted.values()):
        alike = [i for i, s in wanted.items() if i not in own and s == level]
        groups += [(group, level) for group in passes(alike, model)]
    return sorted(groups, key=lambda g: min(RESTORE_ORDER.index(own[i].like if i in own else i) for i in g[0]))
