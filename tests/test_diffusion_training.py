"""Training DA-CLIP's controller and the networks it steers: short runs on photographs, and runs of a few steps."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

import irtool
from irtool.degradation import IDS
from irtool.detection import load as load_detector
from irtool.errors import UsageError
from irtool.models import loading
from irtool.training import loop, recipe
from irtool.training.controller import ControllerTask, caption_of, captions, contrastive
from irtool.training.export import export
from irtool.training.log import Callback
from irtool.training.tasks import training_task

CPU = torch.device("cpu")
CLIP: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}
COMMON: dict[str, Any] = {
    "precision": "fp32", "minutes": 0.0, "save_every": 1000, "report_every": 1000, "preview_every": 1000,
    "hold": 4, "clip": 1.0, "pool": 32, "ema": 0.95, "rate": 2e-3,
}  # fmt: skip


class InterruptedRunError(Exception):
    pass


class Seen(Callback):
    def __init__(self, fail_at: int = -1) -> None:
        self.last: dict[str, Any] = {}
        self.fail_at = fail_at

    def step(self, step: int, progress: float) -> None:
        if step == self.fail_at:
            raise InterruptedRunError

    def line(self, line: Any) -> None:
        self.last = dict(line)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP whose ten words lie apart, in a file as CLIPs are published."""
    import open_clip

    torch.manual_seed(0)
    clip = open_clip.CLIP(
        CLIP["embed_dim"], open_clip.CLIPVisionCfg(**CLIP["vision_cfg"]), open_clip.CLIPTextCfg(**CLIP["text_cfg"])
    )
    # As drawn, the tower looks at little but the place and the mark of the end; a trained one reads words.
    clip.positional_embedding.data.zero_()
    clip.token_embedding.weight.data[49406:] = 0
    path = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small DA-CLIP; what it says is arbitrary but depends on the picture."""
    from irtool.models.daclip import DaCLIP

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("controller") / "controller.safetensors"
    loading.save(DaCLIP(**CLIP), path, architecture="daclip", config=CLIP)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A data folder with twelve pictures whose names say what they show."""
    rng = np.random.default_rng(0)
    (tmp_path / "data" / "clean").mkdir(parents=True)
    for i in range(12):
        coarse = Image.fromarray(rng.integers(60, 200, (8, 8, 3), dtype=np.uint8)).resize((96, 96))
        coarse.save(tmp_path / "data" / "clean" / f"red_door_{'abcdefghijkl'[i]}.png")
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ASSETS_CACHE", str(tmp_path_factory.getbasetemp() / "decoded"))


def tables(kind: str, base: Path, controller: Path) -> dict[str, Any]:
    """A small recipe of a kind."""
    steered = {"controller": f"local:{controller}"}
    own: dict[str, dict[str, Any]] = {
        "daclip-controller": {
            "model": CLIP, "settings": {"base": f"local:{base}"}, "region": 64, "ema": 0.9,
            "phases": [{"until": 1.0, "crop": 64, "batch": 16}],
        },
        "universal-ir": {
            "model": {"nf": 32, "ch_mult": [1], "context_dim": 32}, "region": 32,
            "settings": {**steered, "preview_steps": 4, "max_sigma": 25, "steps": 20, "eps": 0.2},
            "phases": [{"until": 1.0, "crop": 16, "batch": 8}],
        },
        "nafnet-daclip": {
            "model": {"width": 16, "middle_blk_num": 1, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1],
                      "context_dim": 32},
            "settings": steered, "region": 32, "phases": [{"until": 1.0, "crop": 16, "batch": 8}],
        },
    }  # fmt: skip
    return {**COMMON, "kind": kind, **own[kind]}


def run(table: dict[str, Any], data: Path, out: Path, watcher: Seen | None = None) -> Path:
    torch.set_num_threads(1)
    return loop.train(recipe.build(table, "test"), data, out, device=CPU, callback=watcher)


KINDS = ("daclip-controller", "universal-ir", "nafnet-daclip")
FOLDERS = ["train_clean/gb82", "train_clean/pop_os"]


# ---- they learn: photographs of the shared folder, held-out ones for the figures


def test_a_controller_learns_to_tell_degradations(shared: Path, base: Path, controller: Path, tmp_path: Path) -> None:
    """On held-out photographs, where guessing is right once in three."""
    seen = Seen()
    table = tables("daclip-controller", base, controller) | {
        "data": FOLDERS, "steps": 120, "warmup": 20, "weights": {"lowlight": 1.0, "haze": 1.0, "missing": 1.0},
    }  # fmt: skip
    run(table, shared / "data", tmp_path / "run", seen)
    assert seen.last["accuracy"] > 0.6 and seen.last["held_out/accuracy"] > 0.6


@pytest.mark.parametrize(("kind", "gain"), [("universal-ir", 0.2), ("nafnet-daclip", 3.0)])
def test_a_steered_network_beats_its_input(
    shared: Path, base: Path, controller: Path, tmp_path: Path, kind: str, gain: float
) -> None:
    seen = Seen()
    table = tables(kind, base, controller) | {
        "data": FOLDERS[:1],
        "steps": 120,
        "warmup": 20,
        "weights": {"lowlight": 1.0},
    }
    run(table, shared / "data", tmp_path / "run", seen)
    assert seen.last["held_out/psnr_gain"] > gain


# ---- they go on, and what they leave can be used


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_equals_one_that_was_not(
    photos: Path, base: Path, controller: Path, tmp_path: Path, kind: str
) -> None:
    table = tables(kind, base, controller) | {
        "data": ["clean"],
        "steps": 4,
        "save_every": 2,
        "weights": {"noise": 1.0, "lowlight": 1.0},
    }
    whole = run(table, photos, tmp_path / "a")
    with pytest.raises(InterruptedRunError):
        run(table, photos, tmp_path / "b", Seen(fail_at=3))
    again = run(table, photos, tmp_path / "b")
    first, second = (torch.load(p, weights_only=True) for p in (whole, again))
    for part in ("net", "ema"):
        assert all(torch.equal(v, second[part][k]) for k, v in first[part].items())
    start = torch.load(tmp_path / "a" / "step-00000002.pt", weights_only=True)["net"]
    assert any(not torch.equal(v, start[k]) for k, v in first["net"].items())  # it did something


@pytest.mark.parametrize("kind", KINDS)
def test_exports_are_used(
    photos: Path, base: Path, controller: Path, tmp_path: Path, kind: str, photo: Callable[..., Path]
) -> None:
    table = tables(kind, base, controller) | {"data": ["clean"], "steps": 1, "weights": {"noise": 1.0}}
    made = export(run(table, photos, tmp_path / "run"), tmp_path / "made.safetensors")
    source = photo(tmp_path / "in.png", (40, 56))
    if kind == "daclip-controller":
        header = loading.describe(made)[2]
        assert "visual.conv1.weight" in json.loads(header["aliases"])  # the frozen tower is written once
        found = load_detector(made, CPU).diagnose(torch.rand(3, 70, 90))
        assert set(found.scores) == set(IDS) and sum(found.scores.values()) == pytest.approx(1)
        return
    # The file names its controller, so nothing but the model has to be said.
    result = irtool.restore(source, tasks="denoise", model=f"local:{made}", dtype="fp32")
    assert result.picture.pixels.shape == (40, 56, 3) and np.isfinite(result.picture.pixels).all()


def test_the_frozen_stays_and_the_controller_moves(photos: Path, base: Path, controller: Path, tmp_path: Path) -> None:
    table = tables("daclip-controller", base, controller) | {"data": ["clean"], "steps": 2, "weights": {"noise": 1.0}}
    trained = torch.load(run(table, photos, tmp_path / "run"), weights_only=True)["net"]
    start = ControllerTask().build(recipe.build(table, "test")).state_dict()
    for name, value in trained.items():
        frozen = name.startswith(("clip.", "visual."))
        assert torch.equal(value, start[name]) or not frozen, name
    zero = "visual_control.transformer.zero_modules.0.weight"
    assert not torch.equal(trained[zero], start[zero])


# ---- the losses, the captions, the recipes


def test_the_published_loss_has_a_floor_and_the_other_has_none() -> None:
    """Twelve samples of three words, told apart as well as can be."""
    word = torch.arange(12) % 3
    perfect = F.one_hot(word, 8).float()
    scale = torch.tensor(100.0)
    published = contrastive(perfect, perfect, scale, torch.eye(12, dtype=torch.bool))
    assert float(published) == pytest.approx(math.log(12 / 3), abs=1e-3)
    assert float(contrastive(perfect, perfect, scale, word[:, None] == word)) == pytest.approx(0, abs=1e-3)


def test_the_published_loss_is_that_of_clip() -> None:
    from open_clip.loss import ClipLoss

    g = torch.Generator().manual_seed(0)
    a, b = (F.normalize(torch.randn(6, 16, generator=g), dim=-1) for _ in range(2))
    wanted = ClipLoss()(a, b, torch.tensor(14.0))
    assert torch.allclose(contrastive(a, b, torch.tensor(14.0), torch.eye(6, dtype=torch.bool)), wanted)


def test_captions(tmp_path: Path) -> None:
    assert caption_of(Path("a/IMG_2031-red_Door.jpg")) == "img red door"
    assert caption_of(Path("0001.png")) == "a photograph"
    table = tmp_path / "captions.tsv"
    table.write_text("filepath\ttitle\nx/a.png\ta dog: a portrait: rainy\nb.png\ta cat\n", encoding="utf-8")
    assert captions(table) == {"a.png": "a dog: a portrait", "b.png": "a cat"}
    table.write_text("file,title\n", encoding="utf-8")
    with pytest.raises(UsageError, match="no captions"):
        captions(table)


def test_samples_carry_the_caption_of_their_picture(photos: Path, base: Path, controller: Path, tmp_path: Path) -> None:
    from irtool.models.daclip import tokens
    from irtool.training.tasks import Shard

    said = [f"clean/{p.name}\tthe picture {p.stem[-1]}" for p in sorted((photos / "clean").iterdir())]
    (photos / "captions.tsv").write_text("filepath\ttitle\n" + "\n".join(said), encoding="utf-8")
    table = tables("daclip-controller", base, controller) | {"data": ["clean"], "weights": {"missing": 1.0}}
    table["settings"] = {**table["settings"], "captions": "captions.tsv"}
    made = recipe.build(table, "test")
    source = ControllerTask().dataset(made, photos, Shard(0, 1, CPU))
    pool = source.pools[0]
    known = {tuple(tokens([f"the picture {c}"])[0].tolist()): c for c in "abcdefghijkl"}
    letters = [known[tuple(row.tolist())] for row in pool.extras["caption"]]
    assert len(set(letters)) > 4
    # A sample's clean region may have been made softer; its colours are those of the picture it is said to be.
    from irtool import picture

    colors = {
        c: torch.from_numpy(picture.read(photos / "clean" / f"red_door_{c}.png").pixels.reshape(-1, 3)[::3])
        for c in "abcdefghijkl"
    }
    for letter, clean in zip(letters, pool.clean, strict=True):
        shown = clean.permute(1, 2, 0).reshape(-1, 3)[::16]
        distance = {c: float(torch.cdist(shown, its).amin(1).mean()) for c, its in colors.items()}
        assert min(distance, key=lambda c: distance[c]) == letter


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        ("daclip-controller", {"weights": {"mixed": 1.0}}, "no single word"),
        ("daclip-controller", {"settings": {"base": "random", "loss": "hinge"}}, "multi-positive, published"),
        ("daclip-controller", {"settings": {}}, "'base' must name"),
        ("universal-ir", {"settings": {}}, "'controller' must name"),
        ("universal-ir", {"settings": {"controller": "x", "schedule": "cubic"}}, "schedule is one of"),
        ("universal-ir", {"settings": {"controller": "x", "max_sigma": -1}}, "above 0"),
        ("nafnet-daclip", {"settings": {"controller": "x", "eps": 1}}, "unknown key 'eps'"),
    ],
)
def test_mistakes_are_named(base: Path, controller: Path, kind: str, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        recipe.build(tables(kind, base, controller) | changes, "test")


def test_a_controller_of_another_size_is_told(photos: Path, base: Path, controller: Path, tmp_path: Path) -> None:
    table = tables("universal-ir", base, controller) | {"data": ["clean"], "model": {"nf": 32, "ch_mult": [1]}}
    with pytest.raises(UsageError, match="the network takes 512"):
        run(table, photos, tmp_path / "run")


def test_the_published_optimizers_are_named() -> None:
    from irtool.training.loop import rate_of
    from irtool.training.state import TrainState

    published = {
        "daclip-controller": (2e-5, 0.9, 0.98, 1e-6, 0.05, 0.0, 0.0),
        "universal-ir": (2e-4, 0.9, 0.99, 1e-8, 0.0, 1e-6, 0.9995),
    }
    for name, (rate, beta1, beta2, eps, decay, last, ema) in published.items():
        made = recipe.build(recipe.table(recipe.find(name)), name)
        assert rate_of(made, made.warmup, 0.0) == pytest.approx(rate)
        assert rate_of(made, made.steps, 1.0) == pytest.approx(last) and made.ema == ema
        small = replace(made, kind="restorer", model={"width": 8, "rank": 2, "hidden": 8})
        group = TrainState(training_task("restorer"), small, CPU).optimizer.param_groups[0]
        assert (*group["betas"], group["eps"], group["weight_decay"]) == (beta1, beta2, eps, decay)
