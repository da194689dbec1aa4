"""Degradation strings: parsing, round trips, error messages, training draws."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from irtool.degradation import IDS, REPAIRS
from irtool.errors import UsageError
from irtool.synth import TABLE, TRAINING, Chain, Step, parse, random_chain


def _value(parameter):
    if parameter.choices:
        return st.sampled_from(parameter.choices)
    if parameter.whole:
        return st.integers(int(parameter.low), int(parameter.high))
    return st.floats(parameter.low, parameter.high, allow_nan=False)


@st.composite
def steps(draw):
    spec = TABLE[draw(st.sampled_from(sorted(TABLE)))]
    parameters = draw(st.lists(st.sampled_from(spec.parameters), unique_by=lambda p: p.name))
    return Step(spec.id, {p.name: draw(_value(p)) for p in parameters})


@given(st.lists(steps(), min_size=1, max_size=4))
@settings(deadline=None)
def test_a_chain_survives_its_own_string(items):
    chain = Chain(tuple(items))
    assert parse(str(chain)) == chain
    assert str(parse(str(chain))) == str(chain)


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_text_parses_or_is_a_usage_error(text):
    try:
        chain = parse(text)
    except UsageError:
        return
    assert parse(str(chain)) == chain


def test_the_table_covers_the_vocabulary_and_defaults_are_in_range():
    assert set(TABLE) == {*IDS, "real", *(d.id for d in REPAIRS)} == set(TRAINING)
    for spec in TABLE.values():
        assert spec.summary and spec.source
        for parameter in spec.parameters:
            assert parameter.meaning
            assert parameter.check(parameter.default, spec.id) == parameter.default


def test_first_parameter_may_go_without_its_name():
    assert parse("noise(50)") == parse(" Noise( sigma = 50 ) ")
    assert str(parse("noise(50, kind=camera)|jpeg")) == "noise(sigma=50, kind=camera)|jpeg"
    assert parse("jpeg").steps[0].parameters == {"q": 10, "subsampling": "420"}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("rian(0.5)", "rian", "'rain'"),
        ("fog", "fog", "'haze'"),
        ("rain(densty=0.5)", "densty", "'density'"),
        ("rain(density=1.5)", "0..1", ""),
        ("noise(nan)", "0..200", ""),
        ("noise(loud)", "0..200", ""),
        ("jpeg(q=20.5)", "whole", ""),
        ("noise(kind=gausian)", "gaussian|poisson|camera", "'gaussian'"),
        ("noise(sigma=5, sigma=6)", "twice", ""),
        ("noise(5, gaussian)", "no name", "first"),
        ("rain|", "not a degradation", "rain("),
        ("rain(0.5", "not a degradation", "rain("),
        ("", "not a degradation", "rain("),
    ],
)
def test_errors_name_the_fault_and_the_closest_word(text, message, hint):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("id", sorted(TRAINING))
def test_training_draws_are_valid_repeatable_and_varied(id):
    first = [str(random_chain(id, torch.Generator().manual_seed(seed))) for seed in range(30)]
    again = [str(random_chain(id, torch.Generator().manual_seed(seed))) for seed in range(30)]
    assert first == again
    assert len(set(first)) > 15
    for text in first:
        assert parse(text).steps[0].id == id


def test_training_draws_reject_unknown_names():
    with pytest.raises(UsageError, match="snw"):
        random_chain("snw", torch.Generator())


def test_the_documentation_lists_every_parameter_and_training_line():
    text = (Path(__file__).parent.parent / "docs" / "degradations.md").read_text()
    for spec in TABLE.values():
        section = text.split(f"### {spec.id}\n")[1].split("\n##")[0]
        for p in spec.parameters:
            assert f"| `{p.name}` | {p.default} | {p.range.replace('|', ', ')} | {p.meaning} |" in section
    for lines in TRAINING.values():
        for line in lines:
            assert f"`{line}`" in text
