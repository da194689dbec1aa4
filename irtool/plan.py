"""What is to be done to a picture, as data: the same plan gives the same result.

A step removes weighted degradations in one pass of one network. What is found or asked for together is undone in
as few passes as do no harm (`passes`): the network that ships was trained on mixtures, but holes, darkness, drops and
haze keep it from seeing the rest. A plan with several steps, written by hand or by a program, is carried out in its
own order; `RESTORE_ORDER` of `irtool.degradation` says which order is sound, and task weights are listed in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from . import experts
from .degradation import REPAIRS, RESTORE_ORDER, lookup, lookup_repair, lookup_task
from .diffusion.sampling import Sampling
from .errors import UsageError
from .weights.registry import DEFAULT_REPAIR, DEFAULT_RESTORER, DEFAULT_UPSCALER, records

if TYPE_CHECKING:
    from .detection import Diagnosis

MAX_TASKS = 3
"""Degradations undone by `plan_auto`: the network saw mixtures of two and three in training."""
SEPARATE_PASSES = ("missing", "lowlight", "blur", "raindrop", "haze")
"""What the restorers that ship undo in a pass of its own: 0.3 to 8 dB better than at once with anything else,
while the others lose a quarter of a decibel at most by sharing a pass, and gain half the time
(docs/lab/experiments.md)."""
MASKED_BY_OTHERS = ("haze", "blur")
"""What noise, rain and snow hide from the detector. Other kinds that it finds in a picture just restored are mostly
not there (docs/lab/experiments.md)."""


STRENGTH_RAMP = {"haze": (-0.3, 0.9), "lowlight": (-0.2, 0.75)}
"""Severities at which the strength would be 0 and is 1, at least `LEAST_STRENGTH` (read off `benchmarks/severity.md`).
All other kinds are removed at full strength: the network itself sees how strong they are."""
LEAST_STRENGTH = 0.25


@dataclass(frozen=True)
class Step:
    """One pass of one network.

    Attributes:
        task_weights: degradation id -> weight in (0, 1], in `RESTORE_ORDER`.
        model: id of a record in weights.toml, or ``local:PATH``.
        strength: share of the result in the output; the rest is the input. In [0, 1].
        sampling: how a diffusion model is sampled; None for its own way, and for all other models.
        controller: reference of the DA-CLIP that steers the model; empty for the one that belongs to it.
        adapter: file of a task adapter (`irtool.models.lora`) to merge into the model; or empty.
    """

    task_weights: Mapping[str, float]
    model: str = DEFAULT_RESTORER
    strength: float = 1.0
    sampling: Sampling | None = None
    controller: str = ""
    adapter: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.sampling, Mapping):
            object.__setattr__(self, "sampling", Sampling(**self.sampling))
        if not self.task_weights:
            raise UsageError("A step needs at least one degradation to undo.")
        ids = {lookup(word).id: float(weight) for word, weight in self.task_weights.items()}
        wrong = [f"{i}={w:g}" for i, w in ids.items() if not 0 < w <= 1]
        if wrong:
            raise UsageError(f"Task weights lie above 0 and up to 1, not {', '.join(wrong)}.")
        if not 0 <= self.strength <= 1:
            raise UsageError(f"The strength lies from 0 to 1, not {self.strength:g}.")
        object.__setattr__(self, "task_weights", {i: ids[i] for i in RESTORE_ORDER if i in ids})

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Step:
        """The step that `to_dict` wrote; the JSON keys "mixture" and "offsets" are `task_weights` and `adapter`."""
        names = {"mixture": "task_weights", "offsets": "adapter"}
        return Step(**{names.get(key, key): value for key, value in data.items()})

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        record: dict[str, Any] = {"mixture": dict(self.task_weights), "model": self.model, "strength": self.strength}
        if self.sampling is not None:
            # Guidance is of few models: what is not said of it is not told.
            record["sampling"] = {
                k: v for k, v in asdict(self.sampling).items() if k in ("steps", "sampler", "seed") or v
            }
        return record | {k: v for k, v in (("controller", self.controller), ("offsets", self.adapter)) if v}

    def __str__(self) -> str:
        tasks = ", ".join(i if weight == 1 else f"{i} x {weight:g}" for i, weight in self.task_weights.items())
        if self.adapter:
            tasks += f" with {self.adapter}"
        return tasks if self.strength == 1 else f"{tasks} at strength {self.strength:g}"


@dataclass(frozen=True)
class Repair:
    """What age did to a print, undone before the steps of a plan.

    Attributes:
        kind: "scratches" or "fade", or a word for it.
        strength: share of the result in the output, in [0, 1].
        fill: of scratches, the model that fills what was found.
    """

    kind: str
    strength: float = 1.0
    fill: str = ""

    def __post_init__(self) -> None:
        found = lookup_repair(self.kind)
        if found is None:
            raise UsageError(f"'{self.kind}' is no repair.", f"Known: {', '.join(d.id for d in REPAIRS)}.")
        if not 0 <= self.strength <= 1:
            raise UsageError(f"The strength lies from 0 to 1, not {self.strength:g}.")
        object.__setattr__(self, "kind", found.id)
        if found.id == "scratches" and not self.fill:
            object.__setattr__(self, "fill", DEFAULT_RESTORER)

    @property
    def models(self) -> tuple[str, ...]:
        """The models that it needs: what finds it, and what fills."""
        return tuple(one for one in (DEFAULT_REPAIR[self.kind], self.fill) if one)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {key: value for key, value in asdict(self).items() if value != ""}

    def __str__(self) -> str:
        return self.kind if self.strength == 1 else f"{self.kind} at strength {self.strength:g}"


@dataclass(frozen=True)
class Rejected:
    """A step whose result was not kept, or only in part (`irtool.detection.gate`).

    Attributes:
        kinds: ids of the degradations it was to remove.
        reason: why, a phrase for people.
        strength: share of the result that was kept; 0 for none.
        measured: what was measured, by name.
    """

    kinds: tuple[str, ...]
    reason: str
    strength: float
    measured: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kinds": list(self.kinds),
            "reason": self.reason,
            "strength": self.strength,
            "measured": dict(self.measured),
        }

    def __str__(self) -> str:
        kinds = " and ".join(self.kinds)
        return f"{kinds} {'removed in part' if self.strength else 'left'}: {self.reason}"


SCALES = (2, 3, 4)


@dataclass(frozen=True)
class Upscale:
    """The enlargement that ends a plan.

    Attributes:
        scale: height and width become this many times what they were, one of `SCALES`.
        model: id of a record in weights.toml, or ``local:PATH``; by default the one that ships for the scale.
    """

    scale: int
    model: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.scale, bool) or self.scale not in SCALES:
            raise UsageError(
                f"`scale` is 2, 3 or 4, not {self.scale}.", "Other sizes: enlarge, then reduce the result."
            )
        if not self.model:
            object.__setattr__(self, "model", DEFAULT_UPSCALER.format(scale=self.scale))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"enlarge {self.scale} times with {self.model}"


@dataclass(frozen=True)
class Plan:
    """Steps in the order they are carried out; none means that the picture is left as it is.

    Attributes:
        steps: in order.
        reason: a sentence for people on where the plan comes from.
        keep: ids of degradations that are to stay; no step or repair undoes them.
        again: what to look for once the steps are done, and how to remove what of its tasks is found then; or None.
        rejected: steps whose result was checked and not kept as it was; only in a plan that has been carried out.
        upscale: how the picture is enlarged once all else is done; or None.
        repairs: what age did, undone before the steps.
    """

    steps: tuple[Step, ...] = ()
    reason: str = ""
    keep: tuple[str, ...] = ()
    again: Step | None = None
    rejected: tuple[Rejected, ...] = ()
    upscale: Upscale | None = None
    repairs: tuple[Repair, ...] = ()

    @property
    def empty(self) -> bool:
        """Nothing is to be done: no repair, no step and no enlargement."""
        return not self.removals and self.upscale is None

    @property
    def removals(self) -> tuple[Repair | Step, ...]:
        """All that is undone, in order."""
        return (*self.repairs, *self.steps)

    @property
    def models(self) -> tuple[str, ...]:
        """The models that undo it, in order."""
        return (*(model for repair in self.repairs for model in repair.models), *(step.model for step in self.steps))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The ids of what is undone, in order."""
        steps = [i for step in self.steps for i in step.task_weights]
        return tuple(dict.fromkeys([*(repair.kind for repair in self.repairs), *steps]))

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` gives an equal plan back."""
        record = {
            "steps": [step.to_dict() for step in self.steps],
            "reason": self.reason,
            "keep": list(self.keep),
            "again": None if self.again is None else self.again.to_dict(),
            "rejected": [one.to_dict() for one in self.rejected],
        }
        if self.repairs:
            record["repairs"] = [repair.to_dict() for repair in self.repairs]
        return record if self.upscale is None else record | {"upscale": self.upscale.to_dict()}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Plan:
        """The plan that `to_dict` wrote.

        Raises:
            UsageError: it is not such a plan.
        """
        try:
            steps = tuple(Step.from_dict(step) for step in data["steps"])
            keep = tuple(lookup_task(word).id for word in data.get("keep", ()))
            again = data.get("again")
            upscale = data.get("upscale")
            return Plan(
                steps,
                str(data.get("reason", "")),
                keep,
                None if again is None else Step.from_dict(again),
                upscale=None if upscale is None else Upscale(**upscale),
                repairs=tuple(Repair(**repair) for repair in data.get("repairs", ())),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UsageError(f"This is no plan: {error}.", "A plan is what restore --dry-run --json prints.") from error

    def __str__(self) -> str:
        parts = [f"undo {repair} with {' and '.join(repair.models)}" for repair in self.repairs]
        parts += [f"undo {step} with {step.model}" for step in self.steps]
        if self.steps and self.again is not None:
            parts.append(f"look again for {', '.join(self.again.task_weights)}")
        if self.upscale is not None:
            parts.append(str(self.upscale))
        text = ", then ".join(parts) or "leave it as it is"
        if self.keep:
            text += f", keeping {', '.join(self.keep)}"
        text += "".join(f"; {one}" for one in self.rejected)
        return text + (f" ({self.reason})" if self.reason else "")


def passes(ids: Iterable[str], model: str = DEFAULT_RESTORER) -> list[tuple[str, ...]]:
    """Degradations in groups that are each undone at once, in order.

    What is said of irtool's own restorers was measured on no others, so any other gets them all in one pass.
    """
    ids = sorted(ids, key=RESTORE_ORDER.index)
    if not ids or not any(record.is_named(model) for record in records() if record.family == "compact"):
        return [tuple(ids)] if ids else []
    shared = tuple(i for i in ids if i not in SEPARATE_PASSES)
    groups = [(i,) for i in ids if i in SEPARATE_PASSES] + ([shared] if shared else [])
    return sorted(groups, key=lambda group: RESTORE_ORDER.index(group[0]))


def plan_auto(diagnosis: Diagnosis, strength: float = 1.0, model: str = DEFAULT_RESTORER, **step_options: Any) -> Plan:
    """Undo what was found: everything present, the strongest `MAX_TASKS` where there is more; nothing in a clean
    picture.

    What is likely but not sure is left as it is, and the plan says so. `step_options` are further attributes of the
    step.
    """
    present, uncertain = diagnosis.present, diagnosis.uncertain
    reason = "the picture is clean" if diagnosis.is_clean else f"found {', '.join(scored(diagnosis, present))}"
    if len(present) > MAX_TASKS:
        reason += f"; the strongest {MAX_TASKS} are undone"
    if uncertain:
        scores = " and ".join(scored(diagnosis, uncertain))
        reason += f"; {scores} may belong to the picture and is left, --task {uncertain[0]} undoes it"
    steps, why = _steps(present[:MAX_TASKS], model, strength, **step_options)
    steps = tuple(replace(step, strength=strength * strength_for(diagnosis, step.task_weights)) for step in steps)
    return Plan(steps, "; ".join([reason, *why]), again=look_again(steps, (), model, strength, **step_options))


def enlarging(planner: Callable[[Diagnosis], Plan], upscale: Upscale | None, diagnosis: Diagnosis) -> Plan:
    """The plan that a planner makes of a diagnosis, with an enlargement at its end."""
    return replace(planner(diagnosis), upscale=upscale)


def only_enlarges(model: str) -> UsageError:
    """The error of a model that was to restore and enlarges."""
    return UsageError(
        f"{model} enlarges pictures and removes nothing.",
        "Name it as `upscaler`, with a `scale`, and leave `model` out.",
    )


def strength_for(diagnosis: Diagnosis, kinds: Iterable[str]) -> float:
    """The share of the result, in (0, 1], that suits how severe degradations are that are removed in one pass."""
    shares = []
    for kind in kinds:
        share = 1.0
        if kind in STRENGTH_RAMP and kind in diagnosis.severity:
            low, high = STRENGTH_RAMP[kind]
            share = max(LEAST_STRENGTH, min(1.0, (diagnosis.severity[kind] - low) / (high - low)))
        shares.append(share)
    return round(max(shares, default=1.0), 2)


def scored(diagnosis: Diagnosis, ids: Iterable[str]) -> list[str]:
    """Degradations with their scores, for people."""
    return [f"{i} {diagnosis.scores[i]:.2f}" for i in ids]


def look_again(
    steps: Iterable[Step], keep: Iterable[str], model: str, strength: float = 1.0, **step_options: Any
) -> Step | None:
    """The `again` of a plan with these steps; `step_options` are further attributes of the step."""
    done = {i for step in steps for i in step.task_weights}
    hidden = [i for i in MASKED_BY_OTHERS if i not in done and i not in keep]
    model = DEFAULT_RESTORER if experts.is_best(model) else model  # what comes to light later is removed by the default
    return Step(dict.fromkeys(hidden, 1.0), model, strength, **step_options) if done and hidden else None


def plan_second_look(plan: Plan, diagnosis: Diagnosis) -> Plan:
    """The plan whose steps have been carried out, with those added that undo what was found in their result."""
    if plan.again is None:
        return plan
    again = plan.again
    found = [i for i in diagnosis.present if i in again.task_weights]
    steps = tuple(replace(again, task_weights=dict.fromkeys(group, 1.0)) for group in passes(found, again.model))
    scores = ", ".join(scored(diagnosis, found))
    reason = "; ".join(part for part in (plan.reason, scores and f"found afterwards {scores}") if part)
    return replace(plan, steps=plan.steps + steps, reason=reason, again=None)


def without(plan: Plan, index: int, rejected: Rejected) -> Plan:
    """A plan whose step `index` was found to do harm: left out, or kept at a lower strength."""
    step = plan.steps[index]
    kept = (replace(step, strength=step.strength * rejected.strength),) if rejected.strength else ()
    steps = (*plan.steps[:index], *kept, *plan.steps[index + 1 :])
    return replace(plan, steps=steps, rejected=(*plan.rejected, rejected))


def plan_tasks(words: Iterable[str], strength: float = 1.0, model: str = DEFAULT_RESTORER, **step_options: Any) -> Plan:
    """Undo what is named.

    Args:
        words: ids, task verbs, names or synonyms ("denoise", "fog", "scratches"); each may be a comma-separated list.
        strength, model, step_options: attributes of the step.

    Raises:
        UsageError: a word is unknown, or there is none.
    """
    named = [part for word in words for part in word.split(",") if part.strip()]
    if not named:
        raise UsageError("No task is named.", "Name one, such as --task denoise; or use --auto.")
    found = {lookup_task(word) for word in named}
    # In the order of REPAIRS: what covers the picture goes before its tones are looked at.
    repairs = tuple(Repair(d.id, strength) for d in REPAIRS if d in found)
    ids = {d.id for d in found.difference(REPAIRS)}
    steps, why = _steps(ids, model, strength, **step_options) if ids else ((), [])
    return Plan(steps, "; ".join(["as asked", *why]), repairs=repairs)


def _steps(ids: Iterable[str], model: str, strength: float, **step_options: Any) -> tuple[tuple[Step, ...], list[str]]:
    """The steps that remove degradations, and why they have the models they have where that was left to irtool."""
    if not experts.is_best(model):
        return tuple(
            Step(dict.fromkeys(group, 1.0), model, strength, **step_options) for group in passes(ids, model)
        ), []
    choices = {i: experts.choose(i, model) for i in sorted(ids, key=RESTORE_ORDER.index)}
    by_default = [i for i, choice in choices.items() if choice.model == DEFAULT_RESTORER]
    groups = [(group, DEFAULT_RESTORER) for group in passes(by_default)]
    groups += [((i,), choice.model) for i, choice in choices.items() if choice.model != DEFAULT_RESTORER]
    groups.sort(key=lambda pair: RESTORE_ORDER.index(pair[0][0]))
    steps = tuple(Step(dict.fromkeys(group, 1.0), reference, strength, **step_options) for group, reference in groups)
    return steps, [choice.reason for choice in choices.values()]
