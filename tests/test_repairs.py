"""What age does to prints: plans, the map of scratches, the curves of fading, and the commands that use them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import irtool
from irtool import degradation, naming, provenance
from irtool.detection.overlay import overlay
from irtool.errors import UsageError
from irtool.plan import Plan, Repair, plan_tasks
from irtool.repairs import fade, mend, scratches
from irtool.synth import parse
from irtool.weights.registry import DEFAULT_REPAIR, DEFAULT_RESTORER


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(height: int = 192, width: int = 256, gray: bool = False) -> Tensor:
    """(1, 3, H, W): smooth light from black to white, colors, and a few edges."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    light = 0.5 + 0.5 * torch.sin(5 * x + 3 * y)
    colors = torch.stack([light, light * (0.7 + 0.3 * x), light * (1 - 0.3 * y)])
    colors[:, height // 3 : height // 2, width // 4 : width // 2] *= 0.4
    picture = colors.clamp(0, 1)[None]
    return picture.mean(1, keepdim=True).expand(-1, 3, -1, -1).contiguous() if gray else picture


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * (a - b).square().mean().log10())


def test_repairs_are_named_by_many_words_and_go_first():
    plan = plan_tasks(["dust,denoise", "yellowing", "scratches"], 0.5)
    assert [repair.kind for repair in plan.repairs] == ["scratches", "fade"]
    assert plan.kinds == ("scratches", "fade", "noise") and naming.tasks_of(plan) == "scratches+fade+noise"
    assert all(part.strength == 0.5 for part in plan.removals) and not plan.empty
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert str(plan).startswith(f"undo scratches at strength 0.5 with {DEFAULT_REPAIR['scratches']} and")
    alone = plan_tasks(["unfade"])
    assert alone.repairs == (Repair("fade"),) and alone.steps == () and not alone.empty
    assert Plan(repairs=()).empty and "repairs" not in Plan().to_dict()


def test_repairs_are_no_degradations_of_the_ten():
    assert not {d.id for d in degradation.REPAIRS} & set(degradation.IDS)
    assert degradation.lookup_repair("noise") is None
    with pytest.raises(UsageError, match="scratches"):
        degradation.lookup("scratches")
    with pytest.raises(UsageError) as caught:
        plan_tasks(["scratchs"])
    assert "scratches" in caught.value.hint or "scratched" in caught.value.hint
    with pytest.raises(UsageError, match="no repair"):
        Repair("rain")
    with pytest.raises(UsageError, match="strength"):
        Repair("fade", 1.5)


def test_the_record_of_a_repair_names_all_its_models():
    record = provenance.of(plan_tasks(["scratches", "fade"]))
    assert set(record.models) == {*DEFAULT_REPAIR.values(), DEFAULT_RESTORER} and all(record.models.values())
    assert [one["kind"] for one in record.plan["repairs"]] == ["scratches", "fade"]


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (33, 50)])
def test_the_map_has_the_size_of_the_picture(size):
    net = scratches.ScratchNet((4, 6)).eval()
    assert net(torch.rand(2, 3, *size)).shape == (2, 1, *size)
    assert scratches.find_scratches(net, torch.rand(3, *size)).shape == (1, *size)


def test_pieces_and_reduction_give_what_the_whole_gives(monkeypatch):
    torch.manual_seed(0)
    net = scratches.ScratchNet((4, 6)).eval()
    for stage in (*net.encode, *net.decode):
        torch.nn.init.normal_(stage.second.weight, std=0.1)
    picture = torch.rand(1, 3, 200, 232)
    with torch.inference_mode():
        whole = net(picture).sigmoid()
        monkeypatch.setattr(scratches, "_TILE", 64)
        assert torch.allclose(scratches._probabilities(net, picture), whole, atol=1e-5)
    torch.nn.init.constant_(net.out.bias, 9.0)
    monkeypatch.setattr(scratches, "AREA", 10_000)
    found = scratches.find_scratches(net, picture[0])
    assert found.shape == (1, 200, 232) and found.min() == 1


def test_scratches_are_filled_and_sound_pictures_come_back_as_they_were():
    clean = scene(gray=True)
    marked = parse("scratches(1.2, width=2)").apply(clean, seeded(4))
    result = irtool.restore(marked, tasks="scratches")
    assert psnr(result.tensor[None], clean) > psnr(marked, clean) + 2
    assert result.plan.kinds == ("scratches",) and "removed scratches" in repr(result)
    sound = irtool.restore(clean, tasks=["scratches"])
    assert sound.untouched and "no scratches found" in sound.plan.reason
    assert torch.equal(sound.tensor, clean[0])
    half = irtool.restore(marked, tasks="scratches", strength=0.5).tensor
    assert torch.allclose(half, (marked[0] + result.tensor) / 2, atol=1e-5)


def test_curves_undo_what_they_describe_and_begin_as_nothing():
    picture = scene(40, 50)
    curves = fade.FadeNet()(picture)
    assert curves.shape == (1, 3, 3) and torch.allclose(fade.apply(picture, curves), picture, atol=2e-4)
    black, white, exponent = torch.tensor([0.2, 0.15, 0.1]), torch.tensor([0.95, 0.9, 0.7]), torch.tensor([1.2, 1, 0.8])
    faded = black[:, None, None] + (white - black)[:, None, None] * picture ** (1 / exponent[:, None, None])
    undone = fade.apply(faded, torch.stack([black, white, exponent])[None])
    assert torch.allclose(undone, picture, atol=2e-3)


@pytest.mark.parametrize("chain", ["fade(0.7, yellow=0.7, cast=0.2)", "fade(0.9, yellow=0.1, cast=0)"])
def test_faded_pictures_get_their_tones_back(chain):
    faded = parse(chain).apply(scene(), seeded(1))
    result = irtool.restore(faded, tasks="fade")
    assert psnr(result.tensor[None], scene()) > psnr(faded, scene()) + 3


def test_of_a_picture_of_one_hue_the_tint_stays():
    gray = scene(gray=True)
    tint = torch.tensor([1.0, 0.88, 0.7]).view(1, 3, 1, 1)
    assert fade.has_one_hue(gray) and fade.has_one_hue(gray * tint) and not fade.has_one_hue(scene())
    faded = (0.3 + 0.5 * gray) * tint
    better = irtool.restore(faded, tasks="fade").tensor[None]
    assert (better.amax() - better.amin()) > (faded.amax() - faded.amin()) + 0.1
    bright = better.mean(1) > 0.2
    for channel in (1, 2):
        assert torch.allclose((better[:, channel] / better[:, 0])[bright], tint[0, channel], atol=0.04)


def test_what_has_not_faded_is_left():
    result = irtool.restore(scene(), tasks="fade")
    if not result.untouched:
        assert psnr(result.tensor[None], scene()) > 30
    assert irtool.restore(torch.full((3, 40, 40), 0.5), tasks="fade").tensor.isfinite().all()


def save(picture: Tensor, path: Path) -> Path:
    Image.fromarray((picture[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)).save(path)
    return path


def test_detect_says_scratches_in_prints_and_elsewhere_when_asked(tmp_path, capsys):
    from irtool.cli import main

    clean, gray = scene(), scene(gray=True)
    files = {
        "gray.png": parse("scratches(1.2, width=2)").apply(gray, seeded(4)),
        "sound.png": gray,
        "colors.png": parse("scratches(1.2, width=2)").apply(clean, seeded(4)),
    }
    paths = [str(save(picture, tmp_path / name)) for name, picture in files.items()]

    def found(*flags: str) -> dict[str, dict]:
        assert main(["detect", *paths, "--json", *flags]) == 0
        records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return {Path(r["input"]).name: r for r in records if r["type"] == "image"}

    plain = found()
    assert plain["gray.png"]["diagnosis"]["scratched"] > 0.002 and plain["gray.png"]["status"] == "degraded"
    assert plain["sound.png"]["diagnosis"]["scratched"] == 0
    assert "scratched" not in plain["colors.png"]["diagnosis"]
    assert found("--scratches")["colors.png"]["diagnosis"]["scratched"] > 0.002
    assert main(["detect", paths[0], "--where", str(tmp_path / "where")]) == 0
    assert "scratches" in capsys.readouterr().out and (tmp_path / "where" / "gray.png.where.jpg").is_file()


def test_scratches_are_drawn_where_they_are():
    marked = parse("scratches(1.2, width=2)").apply(scene(gray=True), seeded(4))
    picture = irtool.inputs.to_picture(marked[0])
    diagnosis = mend.with_scratches(irtool.detect(picture), picture)
    found = mend.scratches_in(marked[0], torch.device("cpu"))[0].bool().numpy()
    drawn = overlay(picture.pixels, diagnosis).astype(int)
    tinted = np.abs(drawn - (picture.pixels * 255).round().astype(int)).sum(2) > 30
    assert diagnosis.scratched and found.any() and tinted[found].mean() > 0.5
    assert tinted[~found].mean() < 0.1


def test_the_networks_are_let_go_of_with_the_others():
    mend.scratches_in(torch.rand(3, 16, 16), torch.device("cpu"))
    assert mend.cached_network.cache_info().currsize
    irtool.clear_cache()
    assert not mend.cached_network.cache_info().currsize


def test_the_preset_for_old_photographs_asks_for_both():
    from irtool import settings

    plan = plan_tasks(settings.load("old-photo").to_dict()["task"])
    assert plan.kinds == ("scratches", "fade", "jpeg", "noise")
