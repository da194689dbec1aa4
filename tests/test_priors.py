"""Diffusion priors, the stepwise agent, IR-SDE and LM4LV as they are trained, exported and used."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import irtool
from irtool.diffusion import guidance, observation
from irtool.diffusion.sampling import Sampling
from irtool.errors import UsageError
from irtool.models import loading
from irtool.models.adm_unet import ADMUNet
from irtool.models.base import Condition
from irtool.models.prior import PriorModel, fuse, patched
from irtool.models.rl_i2it import StepwiseNet, StyleAgent
from irtool.picture import read
from irtool.training import loop, recipe
from irtool.training.export import export

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "image_size": 16, "num_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 1], "attention_resolutions": [8],
    "num_head_channels": 16, "learn_sigma": False,
}  # fmt: skip
RUN: dict[str, Any] = {
    "minutes": 0.0, "steps": 2, "pool": 8, "group": 4, "hold": 4, "region": 32, "precision": "fp32", "save_every": 1000,
    "report_every": 1, "preview_every": 1000, "phases": [{"until": 1.0, "crop": 32, "batch": 4}], "data": ["clean"],
}  # fmt: skip
ENCODER = {
    "image_size": 16, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 32, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2, "decoder_intermediate_size": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prior that has learned nothing: it takes every state for noise, so the clean picture it predicts is small."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("prior") / "prior.safetensors"
    net = ADMUNet(**SMALL)
    torch.nn.init.normal_(net.out[2].weight, std=0.01)
    loading.save(net, path, architecture="adm-unet", config=SMALL)
    return path


@pytest.fixture
def picture(tmp_path: Path, photo: Callable[..., Path]) -> Path:
    return photo(tmp_path / "in" / "a.png", (20, 36))


def trained(base: str, changes: dict[str, Any], photos: Path, decoded: Path, tmp_path: Path, monkeypatch: Any) -> Path:
    """Two steps of a built-in recipe on tiny pictures, exported."""
    monkeypatch.setenv("IRTOOL_CACHE", str(decoded))
    said = recipe.table(recipe.find(base))
    for key, value in {**RUN, **changes}.items():
        both = isinstance(value, dict) and isinstance(said.get(key), dict)
        said[key] = {**said[key], **value} if both else value
    made = recipe.build(said, base)
    checkpoint = loop.train(made, photos, tmp_path / "run", device=CPU)
    return export(checkpoint, tmp_path / f"{base}.safetensors")


def test_a_prior_is_trained_exported_and_restores(
    photos: Path, decoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Path
) -> None:
    path = trained(
        "diffusion-prior", {"model": SMALL, "settings": {"downscale": 2}}, photos, decoded, tmp_path, monkeypatch
    )
    sampling = Sampling(steps=2, guidance="ddnm", operator="gray")
    result = irtool.restore(picture, model=f"local:{path}", sampling=sampling)
    gray = irtool.restore(picture, model=f"local:{path}", sampling=sampling).picture.pixels
    assert result.picture.pixels.shape == (20, 36, 3)
    np.testing.assert_array_equal(result.picture.pixels, gray)  # the seed decides all


@pytest.mark.parametrize(
    ("name", "operator"),
    [
        ("ddrm", "mask"), ("ddnm", "mask|noise(5)"), ("dps", "blur(sigma=1)|jpeg(30)"),
        ("diffpir", "motion(5, angle=20)"), ("repaint", "mask"), ("twisted", "downsample(2)|noise(20)"),
        ("joint", "gray|noise(20)"), ("gdp", "downsample(4)"), ("gdp", "light"), ("gdp", "affine-blur(5)"),
        ("gdp", "mask"),
    ],
)  # fmt: skip
def test_every_guidance_restores_and_leaves_what_is_seen(prior: Path, picture: Path, name: str, operator: str) -> None:
    hole = np.zeros((20, 36, 3), np.float32)
    hole[4:9, 10:20] = 1
    before = read(picture)
    mask = replace(before, pixels=hole) if "mask" in operator else None
    sampling = Sampling(steps=3, guidance=name, operator=operator)
    after = irtool.restore(before, model=f"local:{prior}", sampling=sampling, mask=mask).picture.pixels
    assert after.shape == (20, 36, 3) and np.isfinite(after).all() and (before.pixels != after).any()
    if operator == "mask":  # with noise, what is seen is denoised
        np.testing.assert_array_equal(before.pixels[hole == 0], after[hole == 0])


def test_guidance_from_the_command_line(cli: Callable[..., Any], prior: Path, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    arguments = ("restore", picture, "--model", f"local:{prior}", "--guidance", "ddrm", "--steps", 2, "-o", out)
    done = cli(*arguments, "--operator", "blur(1)|noise(5)", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout.splitlines()[0])["plan"]["steps"][0]
    assert plan["sampling"]["operator"] == "blur(1)|noise(5)" and set(plan["mixture"]) == {"blur", "noise"}
    assert np.asarray(Image.open(out)).shape == (20, 36, 3)
    wrong = cli(*arguments, "--operator", "blurr(1)")
    assert wrong.returncode == 2 and "Unknown operator 'blurr'" in wrong.stderr and "blur" in wrong.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("noise(3)|gray", "Noise comes last"),
        ("blur(sigma=900)", "must lie in"),
        ("light|noise(3)", "Give it alone"),
        ("blur(2, 3)", "cannot take"),
        ("gray(", "is no operator"),
    ],
)
def test_a_mistake_in_an_operator_is_named(text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        observation.parse(text)
    assert said in f"{error.value} {error.value.hint}"


def test_sampling_turns_away_what_it_cannot_mean() -> None:
    with pytest.raises(UsageError, match="Unknown guidance 'ddrn'"):
        Sampling(guidance="ddrn")
    with pytest.raises(UsageError, match="above 0"):
        Sampling(strength=-1.0)


def test_a_prior_is_not_asked_for_what_it_cannot(prior: Path) -> None:
    model = loading.load(prior)
    for sampling, said in (
        (None, "must be told how"),
        (Sampling(guidance="ddrm", operator="light"), "learns no operator"),
    ):
        with pytest.raises(UsageError, match=said):
            model.bind(Condition(sampling=sampling))
    parts = observation.parse("blur(2)|gray")
    with pytest.raises(UsageError, match="singular values"):
        _ = observation.observe(parts, torch.rand(1, 3, 32, 32)).linear
    with pytest.raises(UsageError, match="needs a mask"):
        observation.observe(observation.parse("mask"), torch.rand(1, 3, 32, 32))


def test_exposures_are_fused(prior: Path) -> None:
    model = loading.load(prior)
    assert isinstance(model, PriorModel)
    scene = torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    fused = fuse(model, [0.3 * scene, 0.6 * scene, scene], steps=4)
    assert fused.shape == scene.shape and bool(fused.isfinite().all())
    # Pulled to the scene through its factors: unrelated noise would not be correlated with it.
    assert float(torch.corrcoef(torch.stack([fused.flatten(), scene.flatten()]))[0, 1]) > 0.3
    with pytest.raises(UsageError, match="one size"):
        fuse(model, [scene, scene[..., :20]])


def test_exposures_are_fused_from_the_command_line(
    cli: Callable[..., Any], prior: Path, photo: Callable[..., Path], tmp_path: Path
) -> None:
    first = photo(tmp_path / "a.png", (20, 36))
    pixels = np.asarray(Image.open(first))
    second, odd, out = tmp_path / "b.png", tmp_path / "c.png", tmp_path / "out.png"
    Image.fromarray(pixels // 3).save(second)
    Image.fromarray(pixels[:, :20]).save(odd)
    command = ("--task", "hdr", "--model", f"local:{prior}", "--steps", 2, "-o", out)
    done = cli("restore", first, second, *command, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout.splitlines()[0])
    assert record["status"] == "restored" and record["exposures"] == [str(first), str(second)]
    assert np.asarray(Image.open(out)).shape == (20, 36, 3)
    np.testing.assert_array_equal(np.asarray(Image.open(first)), pixels)
    for inputs, flags, said in (
        ((first,), (), "2 or 3 exposures"),
        ((first, odd), (), "has 20x20 pixels"),
        ((first, second), ("--task", "denoise"), "nothing else"),
        ((first, second), ("--mask", odd), "--mask has no meaning"),
        ((first, second), ("--operator", "light"), "only --steps and --seed"),
    ):
        wrong = cli("restore", *inputs, *command, *flags, "--existing", "overwrite")
        assert wrong.returncode == 2 and said in wrong.stderr, (said, wrong.stderr)


def test_patches_are_put_together_without_seams() -> None:
    x = torch.rand(2, 3, 21, 40, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(patched(lambda patch: 2 * patch, x, 16, 3), 2 * x)


def test_a_continued_picture_joins_its_own_start() -> None:
    x = torch.linspace(0, 1, 20).expand(1, 3, 8, 20)
    longer = observation.extension(x, 8, 32)
    torch.testing.assert_close(longer[..., :20], x)
    around = torch.cat([longer, longer[..., :1]], dim=-1).diff(dim=-1)[..., 19:]
    assert float(around.abs().max()) < 0.2 < float((x[..., -1] - x[..., 0]).abs().max())


def test_the_pull_of_guidance_does_not_depend_on_steps_or_size() -> None:
    """What is left of an error after all steps is the same for any number of them."""
    left = []
    for numel, steps in ((3 * 256**2, 1000), (3 * 64**2, 50), (3 * 300**2, 250)):
        share = guidance.steady_scale(4000, numel, steps) / (2 * numel)
        left.append((1 - share) ** steps)
    np.testing.assert_allclose(left, left[0], rtol=1e-6)


def test_the_agent_is_trained_and_stops_where_nothing_is_to_be_gained(
    photos: Path, decoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Path
) -> None:
    changes = {"model": {"width": 8, "levels": 2, "plan": 2, "max_steps": 3}, "weights": {"noise": 1.0, "blur": 0.0}}
    path = trained("rl-i2it", changes, photos, decoded, tmp_path, monkeypatch)
    seen: list[int] = []
    result = irtool.restore(picture, tasks="noise", model=f"local:{path}", callback=lambda t, x: seen.append(t))
    assert result.picture.pixels.shape == (20, 36, 3) and seen[0] == 2
    net, _ = loading.read(path)
    assert isinstance(net, StepwiseNet)
    x = torch.rand(1, 3, 16, 16)
    torch.nn.init.normal_(net.actor.out.weight, std=0.1)  # it starts from 0, and two steps of training hardly move it
    with torch.inference_mode():
        torch.testing.assert_close(net(x, least_gain=1e9), x)
        assert not torch.equal(net(x, steps=2), x)


def test_the_critics_learn_what_is_to_be_gained() -> None:
    """No gradient of the planner's loss reaches the critics, and the slow ones follow the quick ones."""
    from irtool.training.rl_i2it import Agent

    agent = Agent(StepwiseNet(8, 2, 2, 3))
    state = torch.rand(2, 6, 16, 16)
    plan = torch.rand(2, 2, 4, 4, requires_grad=True)
    torch.minimum(*agent.net.value(state, plan, frozen=True)).sum().backward()
    assert plan.grad is not None and all(p.grad is None for p in agent.net.critics.parameters())
    quick, slow = next(agent.net.critics.parameters()), next(agent.targets.parameters())
    with torch.no_grad():
        quick += 1
    agent.follow(0.25)
    torch.testing.assert_close(slow, quick - 0.75)


def test_the_published_style_layout_is_recognized() -> None:
    shapes = {k: tuple(v.shape) for k, v in StyleAgent().state_dict().items()}
    assert loading.recognize(shapes) == ("rl-i2it-style", {})


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "relative", "levels": 4},
        {"loss": "hellinger-smooth", "levels": 4},
        {"entropy": 0.1, "entropy_steps": 2},
    ],
)
def test_ir_sde_is_trained_with_every_loss(
    photos: Path,
    decoded: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    picture: Path,
    settings: dict[str, Any],
) -> None:
    path = trained(
        "ir-sde", {"model": {"nf": 8, "depth": 2}, "settings": settings}, photos, decoded, tmp_path, monkeypatch
    )
    result = irtool.restore(picture, tasks="lowlight", model=f"local:{path}", sampling=Sampling(steps=2))
    assert np.isfinite(result.picture.pixels).all()
    guided = Sampling(steps=2, guidance="ddnm", operator="noise(10)")
    held = irtool.restore(picture, tasks="lowlight", model=f"local:{path}", sampling=guided)
    assert not np.array_equal(held.picture.pixels, result.picture.pixels)


def test_lm4lv_is_trained_in_two_stages_and_restores(
    photos: Path, decoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Path
) -> None:
    pytest.importorskip("transformers", reason="needs the extra 'text'")
    model = {"autoencoder": ENCODER, "language_model": "random:48x1", "num_task_tokens": 2}
    first = trained("lm4lv-small", {"model": model, "settings": {"stage": "autoencoder"}}, photos, decoded,
                    tmp_path / "first", monkeypatch)  # fmt: skip
    path = trained("lm4lv-small", {"model": {**model, "vision": str(first)}, "settings": {"spatial": "flip"}}, photos,
                   decoded, tmp_path / "second", monkeypatch)  # fmt: skip
    assert path.stat().st_size < 200_000  # what is frozen and can be had again is not in the file
    result = irtool.restore(picture, tasks="noise", model=f"local:{path}")
    assert result.picture.pixels.shape == (20, 36, 3) and np.isfinite(result.picture.pixels).all()
