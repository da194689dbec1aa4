from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irtool.degradation import IDS, RESTORE_ORDER
from irtool.errors import UsageError
from irtool.plan import (
    LEAST_STRENGTH,
    MAX_TASKS,
    Plan,
    Rejected,
    Step,
    passes,
    plan_auto,
    plan_second_look,
    plan_tasks,
    without,
)


class Found:
    """Stands for a Diagnosis, which would need torch."""

    def __init__(self, uncertain: tuple[str, ...] = (), **scores: float) -> None:
        self.scores = dict.fromkeys(IDS, 0.0) | scores | dict.fromkeys(uncertain, 0.6)
        self.uncertain = uncertain
        self.present = tuple(sorted(scores, key=lambda i: -scores[i]))
        self.is_clean = not scores
        self.severity = dict.fromkeys(IDS, 1.0)


def test_a_clean_picture_gets_no_steps():
    plan = plan_auto(Found())
    assert plan.steps == () and "clean" in plan.reason and str(plan).startswith("leave it")


def test_everything_found_is_undone_in_one_step():
    plan = plan_auto(Found(rain=0.9, noise=0.8), strength=0.5, model="m")
    assert len(plan.steps) == 1
    step = plan.steps[0]
    assert dict(step.task_weights) == {"noise": 1.0, "rain": 1.0} and step.strength == 0.5 and step.model == "m"
    assert "rain 0.90" in plan.reason and "noise 0.80" in plan.reason


def test_of_many_the_strongest_are_undone():
    plan = plan_auto(Found(rain=0.9, noise=0.6, jpeg=0.8, haze=0.7, blur=0.5))
    assert [tuple(step.task_weights) for step in plan.steps] == [("jpeg", "rain"), ("haze",)] and MAX_TASKS == 3
    assert "blur" in plan.reason


def test_what_is_not_sure_is_left_and_told():
    plan = plan_auto(Found(("shadow", "snow"), rain=0.9))
    assert [tuple(step.task_weights) for step in plan.steps] == [("rain",)]
    assert "shadow 0.60 and snow 0.60 may belong to the picture" in plan.reason and "--task shadow" in plan.reason
    plan = plan_auto(Found(("raindrop",)))
    assert not plan.steps and plan.reason.startswith("the picture is clean; raindrop 0.60")


def test_haze_and_blur_that_come_to_light_afterwards_are_undone_too():
    plan = plan_auto(Found(noise=0.9), strength=0.5)
    assert plan.again == Step({"haze": 1.0, "blur": 1.0}, strength=0.5) and str(plan).count("look again for blur, haze")
    done = plan_second_look(plan, Found(blur=0.8, shadow=0.9, noise=0.7))
    assert [(tuple(s.task_weights), s.strength) for s in done.steps] == [(("noise",), 0.5), (("blur",), 0.5)]
    # What was done is a plan like any other: carried out again, it gives the same.
    assert done.again is None and done.reason == "found noise 0.90; found afterwards blur 0.80"
    nothing = plan_second_look(plan, Found(noise=0.9, snow=0.9))
    assert nothing.steps == plan.steps and nothing.reason == plan.reason and nothing.again is None
    assert tuple(plan_auto(Found(noise=0.9, haze=0.8)).again.task_weights) == ("blur",)
    assert plan_auto(Found(blur=0.9, haze=0.8)).again is None and plan_auto(Found()).again is None
    assert plan_second_look(done, Found(haze=0.9)) is done


@pytest.mark.parametrize(
    "words", [["denoise", "rain"], ["derain,noise"], [" Grain ", "rainy"], ["denoise", "denoise,derain", ""]]
)
def test_tasks_are_named_by_any_of_their_words(words):
    assert dict(plan_tasks(words).steps[0].task_weights) == {"noise": 1.0, "rain": 1.0}


def test_unknown_tasks_get_the_closest_match():
    with pytest.raises(UsageError) as raised:
        plan_tasks(["denois"])
    assert "denoise" in raised.value.hint
    for nothing in ([], [""], [" , "]):
        with pytest.raises(UsageError):
            plan_tasks(nothing)


def test_mixtures_are_listed_in_the_order_of_restoration():
    step = Step(dict.fromkeys(IDS, 1.0))
    assert tuple(step.task_weights) == RESTORE_ORDER
    # What the order must say, whatever else it says.
    place = RESTORE_ORDER.index
    assert place("lowlight") < place("rain") < place("haze") and place("jpeg") < place("blur") and not place("missing")


def test_holes_light_blur_drops_and_haze_have_passes_of_their_own():
    assert passes(IDS) == [
        ("missing",), ("lowlight",), ("jpeg", "noise", "snow", "rain", "shadow"), ("blur",), ("raindrop",), ("haze",)
    ]  # fmt: skip
    assert passes(["noise", "lowlight"]) == [("lowlight",), ("noise",)] and passes(["noise"]) == [("noise",)]
    # Whatever the size, and with or without its tag.
    sizes = ("small", "nano", "base")
    assert all(passes(IDS, f"irtool-{size}{tag}") == passes(IDS) for size in sizes for tag in ("", ".v1"))
    assert passes([]) == [] and passes(["rain", "noise"]) == [("noise", "rain")]
    # Nothing is known of other models, and a blind one would only do its work twice.
    assert passes(["haze", "noise"], "promptir.5d") == [("noise", "haze")]
    plan = plan_tasks(["haze", "denoise", "brighten"], 0.5)
    assert [(tuple(s.task_weights), s.strength) for s in plan.steps] == [
        (("lowlight",), 0.5),
        (("noise",), 0.5),
        (("haze",), 0.5),
    ]
    assert len(plan_tasks(["haze", "denoise"], model="local:a.safetensors").steps) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"task_weights": {}},
        {"task_weights": {"rain": 0.0}},
        {"task_weights": {"rain": 1.5}},
        {"task_weights": {"rain": float("nan")}},
        {"task_weights": {"nothing": 1.0}},
        {"task_weights": {"rain": 1.0}, "strength": 1.01},
        {"task_weights": {"rain": 1.0}, "strength": float("nan")},
    ],
)
def test_steps_that_make_no_sense_are_turned_away(wrong):
    with pytest.raises(UsageError):
        Step(**wrong)
    with pytest.raises(UsageError):
        Plan.from_dict({"steps": [wrong]})


@pytest.mark.parametrize("data", [{}, {"steps": 3}, {"steps": [3]}, {"steps": [{"mixtur": {"rain": 1}}]}, []])
def test_what_is_no_plan_is_turned_away(data):
    with pytest.raises(UsageError):
        Plan.from_dict(data)


steps = st.builds(
    Step,
    st.dictionaries(st.sampled_from(IDS), st.floats(0.01, 1), min_size=1),
    st.text(max_size=8),
    st.floats(0, 1),
)


keeps = st.lists(st.sampled_from(IDS), max_size=2).map(tuple)


@given(st.builds(Plan, st.lists(steps, max_size=3).map(tuple), st.text(max_size=20), keeps, st.none() | steps))
def test_a_plan_survives_json(plan):
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan and str(again) == str(plan)


def test_a_mild_degradation_is_removed_in_part():
    dense, thin = Found(haze=0.9), Found(haze=0.9)
    thin.severity["haze"] = 0.0
    assert plan_auto(dense).steps[0].strength == 1
    assert plan_auto(thin).steps[0].strength == LEAST_STRENGTH
    assert plan_auto(thin, strength=0.5).steps[0].strength == LEAST_STRENGTH / 2
    grainy = Found(noise=0.9)
    grainy.severity["noise"] = 0.01
    assert plan_auto(grainy).steps[0].strength == 1  # the network sees by itself how strong noise is


def test_a_step_that_was_rejected_is_left_out_or_weakened():
    plan = plan_auto(Found(rain=0.9, haze=0.8))
    left = without(plan, 0, Rejected(("rain",), "details would be lost", 0.0, {"structure": 0.1}))
    assert [tuple(step.task_weights) for step in left.steps] == [("haze",)]
    assert "rain left: details would be lost" in str(left)
    weaker = without(plan, 1, Rejected(("haze",), "details would be lost", 0.5, {}))
    assert weaker.steps[1].strength == 0.5 * plan.steps[1].strength
    assert left.to_dict()["rejected"][0]["measured"] == {"structure": 0.1}
