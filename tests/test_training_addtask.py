"""A new task from a recipe to a restored picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from training_samples import CPU, tiny

import irtool
from irtool.errors import UsageError
from irtool.models import lora
from irtool.training import loop
from irtool.training.export import export


@pytest.fixture
def data(photo, tmp_path):
    for i in range(12):
        photo(tmp_path / "data" / "clean" / f"{i}.png", size=(64, 64), seed=i)
    return tmp_path / "data"


def settings(models_dir, **changes):
    return {
        "base": f"local:{models_dir / 'restorer.safetensors'}",
        "task": "moire",
        "like": "noise",
        "rank": 2,
    } | changes


def test_from_a_recipe_to_a_picture(models_dir, data, photo, cli, using, tmp_path):
    made = tiny(kind="add-task", model={}, settings=settings(models_dir), rate=0.02)
    checkpoint = loop.train(made, data, tmp_path / "run", device=CPU)
    target = tmp_path / "moire.safetensors"
    export(checkpoint, target)
    tensors, header = lora.read(target)
    assert header["like"] == "noise" and any(v.abs().sum() > 0 for k, v in tensors.items() if k.endswith(".up"))
    assert target.stat().st_size < 100_000
    source = photo(tmp_path / "a.png")
    done = cli("restore", source, "--offsets", target, "-o", tmp_path / "b.png", env=using("clean"))
    assert done.returncode == 0, done.stderr
    assert "moire.safetensors" in done.stdout
    plain = irtool.restore(source, tasks="noise", model=settings(models_dir)["base"]).picture.pixels
    other = np.asarray(Image.open(tmp_path / "b.png"), dtype=np.float32) / 255
    assert np.abs(other - plain).max() > 1 / 255
    torch.manual_seed(0)
    assert cli("restore", source, "--offsets", target, "--task", "noise").returncode == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"like": "nois"}, "did you mean 'noise'"),
        ({"rank": 0}, "rank"),
        ({"base": "irtool-detector.v5"}, "not a compact restorer"),
        ({"bse": "x"}, "bse"),
    ],
)
def test_wrong_settings_are_named(models_dir, changes, told):
    with pytest.raises(UsageError, match=told):
        tiny(kind="add-task", model={}, settings=settings(models_dir, **changes))
