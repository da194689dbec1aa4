"""Instruct-IPT: what it does untrained, per sample and merged; and from its recipe to a restored picture."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import torch
from training_samples import CPU, tiny

import irtool
from irtool import engine
from irtool.errors import UsageError
from irtool.models import loading, lora
from irtool.models.base import Condition
from irtool.models.instruct_ipt import TASKS, InstructIPT
from irtool.models.ipt import IPT
from irtool.training import log, loop, recipe, state
from irtool.training.export import export

SMALL = {"patch_size": 16, "patch_dim": 4, "num_layers": 1, "n_feats": 4, "num_heads": 2, "rank": 2}
TWO = {**SMALL, "tasks": ["noise", "haze"]}
RUN = {
    "kind": "instruct-ipt",
    "model": TWO,
    "weights": {"noise": 1.0, "haze": 1.0},
    "phases": [{"until": 1.0, "crop": 16, "batch": 8}],
    "region": 32,
    "pool": 16,
    "group": 1,
    "rate": 3e-3,
}


def net_with_offsets() -> InstructIPT:
    torch.manual_seed(0)
    net = InstructIPT(**TWO)
    for p in net.parameters():
        p.data += 0.02 * torch.randn(p.shape)
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize("size", [(16, 16), (16, 40), (37, 29)])
def test_untrained_it_gives_back_what_it_is_given(size):
    torch.manual_seed(0)
    net = InstructIPT(**SMALL)
    x = torch.rand(3, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(net(x, torch.eye(len(TASKS))[:3]), x, atol=2e-3, rtol=0)


def test_offsets_lie_on_linear_layers_and_where_asked_for_on_convolutions():
    layers = lora.layers(InstructIPT(**SMALL, convolutions=False).ipt)
    assert layers and all(isinstance(m.layer, torch.nn.Linear) and n.startswith("body.") for n, m in layers.items())
    assert any(n.endswith("self_attn.project") for n in layers)
    names = set(lora.layers(InstructIPT(**SMALL).ipt))
    assert names > set(layers) and {n.split(".")[0] for n in names} == {"head", "body", "tail"}


def test_every_sample_has_its_own_task_in_one_batch_and_large_pictures_too():
    net = net_with_offsets()
    x = torch.rand(3, 3, 24, 40)
    mixtures = torch.tensor([[1.0, 0], [0, 1], [0.5, 0.5]])
    together = net(x, mixtures)
    assert all((together[i] - net(x[i : i + 1], mixtures[:1])).abs().max() > 1e-3 for i in (1, 2))
    for i in range(3):
        torch.testing.assert_close(together[i], net(x[i : i + 1], mixtures[i : i + 1])[0], rtol=1e-4, atol=1e-4)


def test_a_file_is_restored_from_tile_by_tile_under_its_tasks(tmp_path):
    net = net_with_offsets()
    loading.save(net, tmp_path / "a.safetensors", architecture="instruct-ipt", config=TWO)
    restorer = loading.load(tmp_path / "a.safetensors")
    assert restorer.info.tasks == ("noise", "haze")
    pixels = torch.rand(3, 50, 70)
    net.load_state_dict(loading.read(tmp_path / "a.safetensors")[0].state_dict())  # rounded to float16 as the file is
    results = {}
    for mixture in ({"noise": 1.0}, {"haze": 1.0}, {"noise": 0.5, "haze": 1.0}):
        expert = restorer.bind(Condition(mixture))
        whole = engine.run(expert, pixels, device=CPU, dtype="fp32", tile="off").pixels
        outcome = engine.run(expert, pixels, device=CPU, dtype="fp32", tile="24")
        assert outcome.tiles > 1 and (outcome.pixels - whole).abs().max() < 1 / 255
        # Merged as in a batch; away from the edges, where the engine continues the picture to a multiple.
        batch = net(pixels[None, :, :48, :64], net.vector(mixture)[None]).clamp(0, 1)[0]
        torch.testing.assert_close(whole[:, :32, :48], batch[:, :32, :48], rtol=1e-3, atol=1e-3)
        results[tuple(mixture)] = whole
    first, second, both = results.values()
    assert (first - second).abs().max() > 1e-3 < (second - both).abs().max()
    with pytest.raises(UsageError, match="no task 'rain'"):
        restorer.bind(Condition({"rain": 1.0}))


@pytest.fixture
def data(photos, decoded, monkeypatch):
    monkeypatch.setenv("HF_ASSETS_CACHE", str(decoded))
    return photos


def test_from_its_recipe_to_a_restored_picture(data, photo, cli, using, tmp_path):
    made = tiny(**RUN, steps=30, save_every=30, ema=0.9)
    checkpoint = loop.train(made, data, tmp_path / "run", device=CPU)
    target = export(checkpoint, tmp_path / "mine.safetensors")
    tensors = loading.read(target)[0].state_dict()
    learned = {k: v for k, v in tensors.items() if k.endswith(".up")}
    assert all(v[t].abs().sum() > 0 for v in learned.values() for t in range(2))  # both tasks, synchronously
    source = photo(tmp_path / "a.png")
    told = ("--model", f"local:{target}", "-o", tmp_path / "b.png", "--tile", "24")
    done = cli("restore", source, *told, "--task", "dehaze", env=using("clean"))
    assert done.returncode == 0 and "undid haze" in done.stdout, done.stderr
    other = irtool.restore(source, tasks="noise", model=f"local:{target}").picture.pixels
    assert np.abs(irtool.restore(source, tasks="haze", model=f"local:{target}").picture.pixels - other).max() > 1 / 255
    assert cli("restore", source, *told, "--task", "derain").returncode == 2


class Interrupt(log.Callback):
    """Stops a run, as Ctrl-C would, once it has come to a step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, step: int, progress: float) -> None:
        if step == self.at:
            signal.raise_signal(signal.SIGINT)


def test_an_interrupted_run_ends_with_the_same_weights(data, tmp_path):
    made = tiny(**RUN, steps=6)
    whole = loop.train(made, data, tmp_path / "a", device=CPU)
    with pytest.raises(KeyboardInterrupt):
        loop.train(made, data, tmp_path / "b", device=CPU, callback=Interrupt(3))
    assert 2 < state.read(tmp_path / "b" / "checkpoint.pt")["step"] < 6
    resumed = loop.train(made, data, tmp_path / "b", device=CPU)
    for part in ("net", "ema"):
        one, other = state.read(whole)[part], state.read(resumed)[part]
        assert all(torch.equal(v, other[k]) for k, v in one.items())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": {**TWO, "n_feat": 8}}, "did you mean 'n_feats'"),
        ({"model": {**TWO, "tasks": ["noise", "hase"]}}, "did you mean 'haze'"),
        ({"weights": {"noise": 1.0, "rain": 1.0}}, "'rain' is none of the tasks"),
        ({"phases": [{"until": 1.0, "crop": 32, "batch": 8}]}, "crop 32 is not the patch, 16"),
        ({"settings": {"bse": "x"}}, "bse"),
    ],
)
def test_wrong_recipes_are_named(changes, told):
    with pytest.raises(UsageError, match=told):
        tiny(**{**RUN, **changes})


def test_the_built_in_recipe_is_sound():
    made = recipe.load(recipe.find("instruct-ipt"))
    assert tuple(made.model["tasks"]) == TASKS and made.precision == "fp32"


def test_published_weights_can_be_the_common_ones(tmp_path):
    torch.manual_seed(1)
    plain = IPT((2, 1, 1), 16, 4, 1, 4, 2, num_queries=3).eval()
    torch.save(plain.state_dict(), tmp_path / "ipt.pt")
    settings = {"base": f"local:{tmp_path / 'ipt.pt'}", "place": 2}
    from irtool.training.tasks import training_task

    net = training_task("instruct-ipt").build(tiny(**RUN, settings=settings))
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        # Offsets begin at zero.
        torch.testing.assert_close(net(x, torch.eye(2)), plain(255 * x, 2) / 255, rtol=1e-4, atol=1e-4)
    wrong = tiny(**{**RUN, "model": {**TWO, "n_feats": 8}}, settings=settings)
    with pytest.raises(UsageError, match=r"not \(8, 3, 3, 3\)"):
        training_task("instruct-ipt").build(wrong)
    with pytest.raises(UsageError, match="has no head") as caught:
        training_task("instruct-ipt").build(tiny(**RUN, settings={**settings, "place": 3}))
    assert "3 heads" in caught.value.hint
