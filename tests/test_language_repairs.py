"""Scratches and fading in words: what asks for them, what only sounds like it, and the plans they make."""

from __future__ import annotations

import pytest

from irtool.errors import UsageError
from irtool.language import Intent, check, parse, plan_intents
from irtool.page.session import heard
from irtool.plan import Plan, Repair
from tools.language.score import notation, same


class Found:
    """Stands for a Diagnosis in which some degradations are present."""

    def __init__(self, *present: str) -> None:
        self.present, self.scores, self.is_clean = present, dict.fromkeys(present, 0.9), not present


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("remove the scratches", "scratches"), ("this old print is faded and yellowed", "fade"),
        ("quita los arañazos", "scratches"), ("la foto está amarillenta", "fade"),
        ("die Kratzer entfernen", "scratches"),
        ("die Farben sind verblasst", "fade"), ("enlève les rayures", "scratches"), ("les couleurs ont passé", "fade"),
        ("去掉划痕", "scratches"), ("老照片泛黄了", "fade"), ("傷を消して", "scratches"), ("色褪せた", "fade"),
        ("dust and creases, clean them up", "scratches"), ("fix the scrathes", "scratches"),
        ("undo the fading a little", "fade@.5"), ("remove the scratches but keep the grain", "scratches -noise"),
        ("denoise it, but leave the scratches", "noise -scratches"), ("it is not scratched, it is faded", "fade"),
        ("everything is fine except the scratches", "scratches"),
        ("first the scratches, then the noise", "scratches > noise"),
        ("are there scratches?", "?scratches"),
        ("remove the scratches and the fading", "scratches fade"),
    ],
)  # fmt: skip
def test_what_age_does_to_prints_is_asked_for_in_words(text, plan):
    assert same(notation(parse(text)[0]), plan)


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("scratch that, just denoise", "noise"), ("make it sepia", "oos"), ("fade to black", "oos"),
        ("everything looks faded because of the mist", "haze"), ("there is dust in the air", "haze"),
        ("a corner of the print is torn off", "missing"),
        ("the colors are dull, more saturation", "oos"), ("the picture is flat and milky", "haze"),
    ],
)  # fmt: skip
def test_what_only_sounds_like_scratches_or_fading_is_something_else(text, plan):
    assert same(notation(parse(text)[0]), plan)


def test_repairs_come_before_all_steps_and_the_plan_says_where_that_was_not_the_order_said():
    plan = plan_intents([Intent(tasks={"noise": 1.0, "fade": 0.5, "scratches": 1.0})], strength=0.5)
    assert plan.repairs == (Repair("scratches", 0.5), Repair("fade", 0.25)) and plan.kinds[-1] == "noise"
    assert "works best" in plan.reason and Plan.from_dict(plan.to_dict()) == plan
    said = Intent(tasks={"fade": 1.0, "scratches": 1.0, "blur": 1.0, "noise": 1.0}, ordered=True)
    plan = plan_intents([said])
    assert plan.kinds == ("fade", "scratches", "blur", "noise") and "order said" in plan.reason
    late = Intent(tasks={"noise": 1.0, "scratches": 1.0}, ordered=True)
    for intents in ([late], [Intent(tasks={"noise": 1.0}), Intent(tasks={"scratches": 1.0})]):
        plan = plan_intents(intents)
        assert plan.kinds == ("scratches", "noise")
        assert "undone first" in plan.reason and "order said" not in plan.reason


def test_repairs_are_kept_and_leave_room_for_what_is_detected():
    plan = plan_intents([Intent(tasks={"fade": 1.0}, keep=("scratches",)), Intent(tasks={"scratches": 1.0})])
    assert plan.kinds == ("fade",) and plan.keep == ("scratches",) and Plan.from_dict(plan.to_dict()) == plan
    plan = plan_intents([Intent(tasks={"fade": 1.0}, auto=1.0)], Found("rain", "snow", "noise"))
    assert set(plan.kinds) == {"fade", "rain", "snow", "noise"}


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [("scratches", "scratches", "do not look for scratches"), ("fade", "fading", "learned to find fading")],
)
def test_a_question_that_the_diagnosis_does_not_answer_is_refused_with_what_does(kind, name, message):
    with pytest.raises(UsageError, match=message) as raised:
        check([Intent(question=True, asked=("rain", kind), text="is it?")])
    assert f"remove the {name}" in raised.value.hint
    assert ("irtool detect --scratches" in raised.value.hint) == (kind == "scratches")


def test_the_page_switches_on_what_was_said():
    said = heard("remove the scratches and the noise, keep the rain", Found(), "irtool-small.v3")
    assert said["tasks"] == [("scratches", 1.0), ("noise", 1.0)] and said["keep"] == ["rain"]
