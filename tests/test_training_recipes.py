"""Recipes: checked all at once, extended, copied, listed, planned, and open to further kinds of training."""

from __future__ import annotations

import json
import sys
import time
import types
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from training_samples import CPU, TINY, tiny

from irtool.cli import main
from irtool.errors import UsageError
from irtool.models import loading
from irtool.models.compact import CompactNet
from irtool.training import estimate, log, loop, recipe
from irtool.training.tasks import TASKS, Preview, Shard, TrainingData, training_task
from irtool.weights.registry import get


@pytest.fixture(autouse=True)
def cache(decoded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ASSETS_CACHE", str(decoded))


def test_built_in_recipes_are_sound_and_say_what_they_are():
    names = recipe.built_in()
    assert {"base", "default", "detector", "nano", "pretrain", "small"} <= set(names)
    for name in names:
        recipe.load(recipe.find(name))
        said = recipe.comment(recipe.find(name))
        assert f"irtool train --recipe {name} " in said, name


def test_recipes_of_the_lab_notes_still_load_by_path():
    folder = Path(__file__).parents[1] / "docs" / "lab" / "recipes"
    paths = sorted(folder.glob("*.toml"))
    assert paths
    for path in paths:
        recipe.load(path)
        assert f"irtool train --recipe docs/lab/recipes/{path.name} " in recipe.comment(path), path.name


@pytest.mark.parametrize(
    ("name", "model"), [("docs/lab/recipes/shadow-adapter.toml", "irtool-small.v3"), ("nano", "irtool-nano.v1")]
)
def test_a_shipped_file_ended_with_the_recipe_that_says_so(name, model):
    header = loading.describe(get(model).path)[2]
    assert header["recipe_sha256"] == recipe.load(recipe.find(name)).sha256


def test_three_sizes_of_one_recipe():
    nano, default, base = (recipe.load(recipe.find(name)) for name in ("nano", "small", "base"))
    for made in (nano, base):
        assert made.data == default.data and made.kind == default.kind and made.settings == default.settings
        assert made.weights.keys() == default.weights.keys() and made.model != default.model
    macs = [CompactNet(**made.model).macs_per_pixel() for made in (nano, default, base)]
    assert macs[0] < macs[1] / 2 and macs[1] < macs[2] / 1.7
    begun = CompactNet(**base.model).grow_from(CompactNet(**default.model).state_dict())  # as its comment says
    CompactNet(**base.model).load_state_dict(begun)


def test_a_recipe_extends_another(tmp_path):
    (tmp_path / "mine.toml").write_text(
        'extends = "pretrain"\nrate = 0.5\n[model]\nwidth = 16\n[weights]\nnoise = 9.0\n'
    )
    (tmp_path / "child.toml").write_text('extends = "mine.toml"\nseed = 3\n')
    base, made = recipe.load(recipe.find("pretrain")), recipe.load(tmp_path / "child.toml")
    assert (made.rate, made.seed, made.minutes) == (0.5, 3, base.minutes)
    assert made.model == {**base.model, "width": 16}
    assert made.weights == {**base.weights, "noise": 9.0}
    (tmp_path / "a.toml").write_text('extends = "b.toml"\n')
    (tmp_path / "b.toml").write_text('extends = "a.toml"\n')
    with pytest.raises(UsageError, match="extends itself"):
        recipe.load(tmp_path / "a.toml")
    (tmp_path / "c.toml").write_text('extends = "defalt"\n')
    with pytest.raises(UsageError, match="no recipe 'defalt'") as caught:
        recipe.load(tmp_path / "c.toml")
    assert "'default'" in caught.value.hint


WRONG = {
    "rote": 0.1,
    "seed": "one",
    "precision": "fp8",
    "weights": {"nose": 1.0, "jpeg": "much", "rain": -1},
    "phases": [{"until": 0.5, "crop": 20, "batch": 8}, {"untl": 0.5, "crop": 32, "batch": 5}],
    "pairs": [{"task": "hase", "degraded": "a"}],
    "model": {"widht": 3},
    "ema": 1.0,
}
TOLD = (
    "'rote', did you mean 'rate'?",
    "seed: expected int, found str",
    "fp8",
    "'nose', did you mean 'noise'?",
    "weights.jpeg: expected float, found str",
    "none may be below 0",
    "crop 20 must be a multiple of 16",
    "phases: entry 2: unknown key 'untl', did you mean 'until'?",
    "phases: entry 2: 'until' is missing",
    "end at 1.0",
    "'hase', did you mean 'haze'?",
    "either 'manifest' or both",
    "model: unknown key 'widht', did you mean 'width'?",
    "ema: 0 or more and below 1, not 1.0",
)


def test_every_mistake_of_a_recipe_is_named_at_once():
    with pytest.raises(UsageError) as caught:
        recipe.build(WRONG, "my.toml")
    for said in ("my.toml", *TOLD):
        assert said in caught.value.message, said
    for wrong, said in (
        ({"kind": "restore"}, "did you mean 'restorer'"),
        ({"model": {"width": "wide"}}, "CompactNet cannot be built"),
        ({"settings": {"x": 1}}, "settings: unknown key 'x'"),
        ({"settings": {"loss": "l3"}}, "settings: loss is one of l1, psnr, both, not 'l3'"),
        ({"pool": 60}, "batch 8 must be at least 1 and divide pool, 60"),
        ({"group": 5}, "multiple of group"),
        ({"region": 16}, "crop 32 must not exceed region, 16"),
        ({"minutes": True}, "minutes: expected float, found bool"),
        ({"data": 3}, "data: expected list of str"),
        ({"phases": [1], "region": 160}, "phases: expected tables"),
        ({"model": []}, "model: expected table"),
    ):
        _, problems = recipe.check({**TINY, **wrong})
        assert len(problems) == 1 and said in problems[0], problems


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"weights": {"noise": float("nan")}}, "weights.noise: a finite number"),
        ({"weights": {"noise": float("inf")}}, "weights.noise: a finite number"),
        ({"weights": {"noise": 1e300}}, "none may be below 0 or above"),
        ({"decay": float("nan")}, "decay: a finite number"),
        ({"minutes": float("nan")}, "minutes: a finite number"),
        ({"minutes": 1e300}, "minutes: 0 or more and at most"),
        ({"steps": 10**400}, "steps: at most"),
        ({"pool": 10**12}, "pool: 1 or more and at most 65536"),
        ({"model": {"encoder": [10**9]}}, "cannot be built (it would have more than"),
        ({"model": {"width": 10**400}}, "model.width: a finite number"),
        ({"model": {"width": {"a": {"b": {"c": {"d": {}}}}}}}, "model.width.a.b.c.d: nested more than"),
        ({"phases": [{"until": 1.0, "crop": 2**40, "batch": 8}]}, "phases: entry 1: crop: 16 or more and at most"),
        ({"pairs": [{"task": "haze", "degraded": "a", "clean": "b", "weight": float("inf")}]}, "weight: a finite"),
    ],
)
def test_numbers_without_bound_are_refused_at_once(wrong, said):
    begun = time.process_time()  # other programs may keep this one waiting
    _, problems = recipe.check({**TINY, **wrong})
    assert any(said in problem for problem in problems), problems
    assert time.process_time() - begun < 20  # the network of a billion blocks is never made


def test_a_recipe_nested_thousands_deep_is_no_toml(tmp_path):
    for text in ("a = " + "[" * 3000 + "]" * 3000, "a = " + "{b = " * 3000 + "1" + "}" * 3000, "a = " + "9" * 5000):
        (tmp_path / "deep.toml").write_text(text)
        with pytest.raises(UsageError, match=r"not valid TOML|unknown key"):
            recipe.load(tmp_path / "deep.toml")


def test_unknown_recipes_and_bad_toml(tmp_path):
    with pytest.raises(UsageError) as caught:
        recipe.find("defalt")
    assert "default" in caught.value.hint
    bad = tmp_path / "bad.toml"
    bad.write_text("steps = = 3")
    with pytest.raises(UsageError, match="not valid TOML"):
        recipe.load(recipe.find(str(bad)))


def test_changes():
    said = recipe.change({"model": {"width": 8}}, ["minutes=5", "model.width=32", "precision=fp32", "data=['a']"])
    assert said == {"model": {"width": 32}, "minutes": 5, "precision": "fp32", "data": ["a"]}
    for wrong in ("minutes", "=3", "rate.x=1"):
        with pytest.raises(UsageError):
            recipe.change({"rate": 1.0}, [wrong])


def test_the_verbs_through_the_command_line(tmp_path, monkeypatch, capsys, photos):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "recipes"]) == 0
    listed = capsys.readouterr().out
    assert "\ndefault\n    Ten tasks in one compact network" in listed
    assert main(["train", "recipes", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {r["name"]: r["kind"] for r in records}["detector"] == "detector"

    assert main(["train", "cp", "nano", "mine.toml"]) == 0
    assert recipe.load(tmp_path / "mine.toml") == recipe.load(recipe.find("nano"))
    assert main(["train", "cp", "nano", "mine.toml"]) == 2
    assert "left as it is" in capsys.readouterr().err
    assert main(["train", "cp", "nano"]) == 0 and (tmp_path / "nano.toml").is_file()

    assert main(["train", "validate", "mine.toml"]) == 0
    text = (tmp_path / "mine.toml").read_text()
    (tmp_path / "mine.toml").write_text(text.replace("[model]\n", "[model]\nwidht = 3\nblocks = 2\n"))
    capsys.readouterr()
    assert main(["train", "validate", "mine.toml", "rote=1", "--data", str(photos)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(line.startswith("mine.toml: ") for line in lines)
    assert "did you mean 'rate'" in lines[0] and "'width'" in lines[1] and "'blocks'" in lines[2]
    assert lines[3] == f"mine.toml: data: {photos / 'train_clean'} is not there"


def test_the_plan_is_measured(photos, tmp_path):
    made = tiny(minutes=2.0, pairs=[{"task": "noise", "degraded": "clean", "clean": "clean"}])
    plan = estimate.estimate_run(made, photos, tmp_path / "run", CPU)
    net = CompactNet(**made.model)
    assert plan["parameters"] == sum(p.numel() for p in net.parameters())
    assert (plan["pictures"], plan["held_out"], len(plan["skipped"])) == (9, 1, 4)
    assert plan["pairs"] == {"clean": 10}
    assert plan["samples_per_epoch"] == (9 + 10) * 90 * 60 // 48**2
    for phase in plan["phases"]:
        # The offsets of the tasks and the context come on top of the convolutions: much, for crops as small as these.
        convolutions = net.macs_per_pixel() * phase["crop"] ** 2 / 1e9
        assert convolutions < phase["gmacs_per_sample"] < 2 * convolutions
        assert 0 < phase["seconds_per_step"] < 5 and phase["peak_bytes"] > 1e8
    seconds = [phase["seconds_per_step"] for phase in plan["phases"]]
    assert plan["steps"] == pytest.approx(60 / seconds[0] + 60 / seconds[1], rel=0.01)
    assert plan["minutes"] == pytest.approx(2.0)
    assert not (tmp_path / "run").exists()
    told = "\n".join(estimate.lines(plan))
    assert f"{plan['parameters']:,}" in told and "9 pictures" in told and f"{tmp_path / 'run' / 'best.pt'}" in told
    train = loop.train(tiny(steps=1, save_every=1), photos, tmp_path / "run", device=CPU)
    assert plan["checkpoint_bytes"] == pytest.approx(train.stat().st_size, rel=0.5)


class Numbers:
    """Samples that are no pictures: y = 3 x, to be found by a line."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device) -> Numbers:
        return Numbers(self.x.to(device), self.y.to(device))

    def names(self) -> list[str]:
        return ["positive" if x > 0 else "negative" for x in self.x.tolist()]


class Line:
    figure_of_merit = "fit"

    def problems(self, made: recipe.Recipe) -> list[str]:
        return [f"settings: unknown key '{k}'" for k in made.settings if k != "slope"]

    def build(self, made: recipe.Recipe) -> nn.Module:
        return nn.Linear(1, 1)

    def dataset(self, made: recipe.Recipe, root: Path, share: Shard) -> TrainingData[Numbers]:
        class Pools(torch.utils.data.Dataset):
            def __getitem__(self, index: int) -> Numbers:
                x = torch.randn(made.pool, generator=torch.Generator().manual_seed(index))
                return Numbers(x, made.settings["slope"] * x)

        return TrainingData(Pools(), held_out=Pools()[10**6], samples=100, description={"digest": "none"})

    def batch(self, pool: Numbers, row: int, rows: int, crop: int, generator: torch.Generator) -> Numbers:
        return Numbers(pool.x[row::rows], pool.y[row::rows])

    def loss(self, net, batch, made, generator, step):
        error = (net(batch.x[:, None])[:, 0] - batch.y).abs()
        return error.mean(), {"fit": -error, "step": torch.tensor(float(step))}

    def preview(self, net: nn.Module, held: Numbers, made: recipe.Recipe) -> Preview:
        return Preview({"fit": -float((net(held.x[:, None])[:, 0] - held.y).abs().mean())})

    def export(self, net, made, target, notes):
        raise NotImplementedError


def test_a_kind_of_training_that_knows_no_pictures(tmp_path, monkeypatch):
    module = types.ModuleType("irtool.a_line")
    module.Line = Line
    monkeypatch.setitem(sys.modules, "irtool.a_line", module)
    monkeypatch.setitem(TASKS, "line", "a_line:Line")
    assert isinstance(training_task("line"), Line)
    with pytest.raises(UsageError, match="unknown key 'slop'"):
        recipe.build({"kind": "line", "settings": {"slop": 2}}, "x")
    made = tiny(
        kind="line", model={}, settings={"slope": 3.0}, steps=300, rate=0.05, report_every=100, preview_every=150
    )
    last = loop.train(made, tmp_path, tmp_path / "run", device=CPU)
    held = torch.load(last, weights_only=True)
    assert held["net"]["weight"].item() == pytest.approx(3, abs=0.1)
    lines = log.read(tmp_path / "run" / "log.jsonl")
    assert lines[-1]["held_out/fit"] > lines[0]["fit"] and lines[0]["step"] == 100
    assert {"fit/positive", "fit/negative"} <= set(lines[0])
    plan = estimate.estimate_run(made, tmp_path, None, CPU)
    assert plan["samples_per_epoch"] == 100 and plan["parameters"] == 2
