"""Custom tasks in instructions: words of a user's own, and what becomes of them in a plan."""

from __future__ import annotations

import pytest

from irtool.errors import UsageError
from irtool.language import CustomTask, Intent, check, parse, plan_intents

OWN = {"moire": CustomTask("moire.safetensors", "jpeg"), "stamp": CustomTask("stamp.safetensors", "missing")}


@pytest.mark.parametrize(
    ("text", "undo", "keep"),
    [
        ("remove the moire", {"moire": 1.0}, ()),
        ("remove the moire, but keep the grain", {"moire": 1.0}, ("noise",)),
        ("take out half of the moire", {"moire": 0.5}, ()),
        ("first denoise, then get rid of the moire", {"noise": 1.0, "moire": 1.0}, ()),
        ("remove the moire and the stamps", {"moire": 1.0, "stamp": 1.0}, ()),
        ("don't touch the stamp, remove the rain", {"rain": 1.0}, ("stamp",)),
        ("quita el moire", {"moire": 1.0}, ()),
        ("entferne das Moire", {"moire": 1.0}, ()),
        ("去掉moire", {"moire": 1.0}, ()),
        ("remove the rain", {"rain": 1.0}, ()),
    ],
)
def test_the_word_of_a_custom_task_works_like_any(text, undo, keep):
    (intent,) = parse(text, own=[*OWN])
    assert (list(intent.tasks.items()), intent.keep, intent.outside) == (list(undo.items()), keep, ())


def test_the_span_of_a_custom_task_has_its_word():
    (intent,) = parse("remove the moire", own=["moire"])
    assert [h.kind for h in intent.spans] == ["moire"] and intent.spans[0].words in ("moire", "remove the moire")


def test_spans_quote_the_sentence():
    (intent,) = parse("Upscale to 4k!")
    assert intent.outside == ("outscale",) and " ".join(h.words for h in intent.spans).startswith("upscale to 4k")
    (intent,) = parse("remvoe the 雨")
    assert [h.kind for h in intent.spans] == ["rain"] and intent.spans[0].words.endswith("雨")
    with pytest.raises(UsageError, match="no detector"):
        check(parse("is there any moire?", own=["moire"]))
    crowd = ["moire", "stamp", "dust", "glue", "mould", "tape"]
    with pytest.raises(UsageError, match="too many"):
        parse("remove " + ", ".join(crowd), own=crowd)


def test_a_custom_task_is_a_step_of_its_own():
    plan = plan_intents([Intent(tasks={"moire": 0.5, "rain": 1.0, "stamp": 1.0})], strength=0.5, model="m", own=OWN)
    assert [(dict(s.task_weights), s.strength, s.adapter) for s in plan.steps] == [
        ({"missing": 1.0}, 0.5, "stamp.safetensors"),
        ({"jpeg": 1.0}, 0.25, "moire.safetensors"),
        ({"rain": 1.0}, 0.5, ""),
    ]
    plan = plan_intents([Intent(tasks={"rain": 1.0, "moire": 1.0}, ordered=True)], own=OWN)
    assert [s.adapter for s in plan.steps] == ["", "moire.safetensors"]
    plan = plan_intents([Intent(tasks={"moire": 1.0}), Intent(keep=("moire",))], own=OWN)
    assert plan.steps == () and plan.keep == ()
