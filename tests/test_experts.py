"""--model best: the best model that is here, the reason for it, and what is taken where it is not."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from irtool import experts
from irtool.errors import IrtoolError
from irtool.plan import plan_tasks
from irtool.weights import files
from irtool.weights.registry import DEFAULT_RESTORER, File, Record, Score, parse, records


def record(id: str, task: str, gain: float, license: str = "MIT", eligible: bool = True) -> Record:
    score = Score(task, "TEST (3)", 20 + gain, 20.0, 5.0, eligible)
    return Record(id, "maxim", (File(f"manual:{id}", 1000),), license, "made up", (task,), "page", scores=(score,))


TABLE = (
    record("rain-good.a", "rain", 3.0),
    record("rain-best.a", "rain", 6.0, license="NOASSERTION"),
    record("rain-worse.a", "rain", -1.0),
    record("haze-rooms.a", "haze", 15.0, eligible=False),
    record("haze-good.a", "haze", 5.0),
)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The made-up table; ids put into this set are on the disk."""
    present: set[str] = set()
    monkeypatch.setattr(experts, "records", lambda: TABLE)
    monkeypatch.setattr(files, "state", lambda record: "here" if record.id in present else "by hand")
    monkeypatch.setattr(experts, "_free_bytes", lambda: 8 << 30)
    return present


def test_the_largest_gain_that_is_here_is_taken_and_the_better_one_named(here: set[str]) -> None:
    here.update({"rain-good.a", "rain-worse.a"})
    choice = experts.choose("rain")
    assert choice.model == "rain-good.a"
    assert "+3.0 dB on TEST (3)" in choice.reason
    assert "irtool download rain-best.a" in choice.reason
    here.add("rain-best.a")
    assert experts.choose("rain").model == "rain-best.a"


def test_best_permissive_takes_no_other_license(here: set[str]) -> None:
    here.update({"rain-good.a", "rain-best.a"})
    assert experts.choose("rain", experts.PERMISSIVE_BEST).model == "rain-good.a"


def test_without_an_expert_the_default_is_taken_and_it_is_said_why(here: set[str]) -> None:
    choice = experts.choose("rain")
    assert choice.model == DEFAULT_RESTORER
    assert "irtool download rain-best.a" in choice.reason
    here.add("rain-worse.a")
    assert experts.choose("rain").model == DEFAULT_RESTORER
    assert experts.choose("noise").model == DEFAULT_RESTORER


def test_a_model_for_a_set_unlike_photographs_is_not_taken(here: set[str]) -> None:
    here.update({"haze-rooms.a", "haze-good.a"})
    assert experts.choose("haze").model == "haze-good.a"


def test_a_model_larger_than_the_free_memory_is_passed_over(here: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    here.update({"rain-good.a", "rain-best.a"})
    monkeypatch.setattr(experts, "_free_bytes", lambda: 100 << 20)
    choice = experts.choose("rain")
    assert choice.model == DEFAULT_RESTORER
    assert "does not fit the free memory" in choice.reason


def test_a_mixture_is_handed_from_expert_to_expert_in_order(here: set[str]) -> None:
    here.update({"rain-best.a", "haze-good.a"})
    plan = plan_tasks(["rain", "haze", "noise", "jpeg"], model="best")
    told = [(tuple(step.task_weights), step.model) for step in plan.steps]
    assert (("rain",), "rain-best.a") in told
    assert (("haze",), "haze-good.a") in told
    assert {"noise", "jpeg"} == {i for step in plan.steps if step.model == DEFAULT_RESTORER for i in step.task_weights}
    assert "rain: rain-best.a +6.0 dB" in plan.reason
    assert all(not experts.is_best(step.model) for step in plan.steps)


def test_the_experts_of_named_tasks_are_those_to_download(here: set[str]) -> None:
    assert [r.id for r in experts.wanted(["rain"])] == ["rain-best.a"]
    assert [r.id for r in experts.wanted(["rain"], permissive=True)] == ["rain-good.a"]
    assert {r.id for r in experts.wanted()} == {"rain-best.a", "haze-good.a"}


@pytest.mark.parametrize(
    ("score", "told"),
    [
        ('{ task = "rain", set = "x", psnr = 1 }', "'default' is missing"),
        ('{ task = "drizzle", set = "x", psnr = 1, default = 1, seconds = 1 }', "a score's task"),
        ('{ task = "rain", set = "x", psnr = "1", default = 1, seconds = 1 }', "psnr"),
        ('{ task = "rain", set = "x", psnr = 1, default = 1, seconds = 1, eligible = 1 }', "eligible"),
    ],
)
def test_a_wrong_score_is_named(score: str, told: str) -> None:
    text = f"""[[weights]]
    id = "a.b"
    family = "maxim"
    file = "manual:x"
    page = "y"
    licence = "MIT"
    origin = "z"
    tasks = ["rain"]
    scores = [{score}]
    """
    with pytest.raises(IrtoolError, match=told):
        parse(text, "weights.toml")


def test_every_expert_of_the_table_can_be_fetched_and_gains() -> None:
    for task in {score.task for record in records() for score in record.scores}:
        for record, score in experts.ranked(task):
            assert task in record.tasks
            assert record.kind in ("npm", "https", "hf-hub")
            assert score.psnr > score.default


def test_restore_with_the_best_falls_back_with_a_sentence(
    cli: Callable[..., subprocess.CompletedProcess[str]], photo: Callable[..., Path], tmp_path: Path
) -> None:
    image, env = photo(tmp_path / "a.png"), {"HF_HOME": str(tmp_path / "empty")}
    planned = cli("restore", image, "--task", "derain", "--model", "best", "--dry-run", env=env)
    assert "irtool download maxim-rain13k" in planned.stdout + planned.stderr
    done = cli("restore", image, "--task", "derain", "--model", "best", env=env)
    assert done.returncode == 0, done.stderr


def test_experts_are_listed_with_what_they_weigh(
    cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    env = {"HF_HOME": str(tmp_path)}
    done = cli("download", "experts", "--task", "derain", "--permissive", "--dry-run", env=env)
    assert done.returncode == 0, done.stderr
    assert "maxim-rain13k" in done.stdout
    assert cli("download", "maxim-rain13k", "--task", "derain", env=env).returncode == 2
