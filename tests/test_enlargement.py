"""Requests to enlarge, in words."""

from __future__ import annotations

import pytest

from irtool.errors import UsageError
from irtool.language import check, parse
from irtool.language.intent import plan_intents


@pytest.mark.parametrize(
    ("text", "scale", "tasks"),
    [
        ("make it twice as large", 2, []),
        ("Upscale 4x!", 4, []),
        ("make this photo three times bigger, please", 3, []),
        ("enlarge it to 300%", 3, []),
        ("denoise it and then upscale it to twice the size", 2, ["noise"]),
        ("remove the rain, double the resolution", 2, ["rain"]),
        ("make it bigger", 2, []),
        ("把它放大两倍", 2, []),
        ("去除噪点并放大3倍", 3, ["noise"]),
        ("hazla el doble de grande", 2, []),
        ("quita el ruido y amplíala cuatro veces", 4, ["noise"]),
        ("Mach es doppelt so groß", 2, []),
        ("Entferne das Rauschen und mach es dreimal so groß", 3, ["noise"]),
        ("rends-la deux fois plus grande", 2, []),
        ("enlève la pluie et triple la taille", 3, ["rain"]),
        ("2倍の大きさにして", 2, []),
        ("ノイズを取り除いて4倍に拡大して", 4, ["noise"]),
    ],
)
def test_a_request_to_enlarge_is_read_beside_what_is_to_be_removed(text: str, scale: int, tasks: list[str]) -> None:
    (intent,) = parse(text)
    assert (intent.scale, list(intent.tasks), intent.outside) == (scale, tasks, ())
    plan = plan_intents([intent])
    assert plan.upscale is not None and plan.upscale.scale == scale
    assert [list(step.task_weights) for step in plan.steps] == [[task] for task in tasks]


@pytest.mark.parametrize(
    "text",
    [
        "upscale to 4k", "make it 300 dpi", "zoom in on the face", "make his eyes twice as big",
        "make it half as large", "add twice as many large raindrops", "don't make it twice as large",
        "why is it twice as large?",
    ],
)  # fmt: skip
def test_a_size_a_part_a_denial_and_a_question_enlarge_nothing(text: str) -> None:
    assert parse(text)[0].scale is None


def test_what_is_twice_is_no_enlargement() -> None:
    (intent,) = parse("remove the rain twice as hard, it is a large picture")
    assert intent.scale is None and "rain" in intent.tasks


@pytest.mark.parametrize("text", ["upscale 8x", "make it ten times larger than 16 times"])
def test_other_factors_are_refused_or_not_understood(text: str) -> None:
    with pytest.raises(UsageError, match="2, 3 or 4 times"):
        check(parse(text))


def test_factors_of_several_sentences_multiply_up_to_four() -> None:
    assert plan_intents(parse(["make it twice as large", "double the size"])).upscale.scale == 4  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="up to 4"):
        check(parse(["make it three times as large", "double the size"]))
