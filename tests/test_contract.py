"""The contract of models: a network added as docs/models.md says, what bounds refuse, and what a result must be."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import irtool
from irtool import engine, models
from irtool.degradation import IDS
from irtool.diffusion import denoising
from irtool.diffusion.sampling import Sampling
from irtool.models import architectures, loading
from irtool.models.base import Condition, ModelInfo, SinglePassModel, describe
from irtool.models.irsde_unet import ContextUNet
from irtool.models.nafnet import NAFNet
from irtool.weights import registry

CPU = torch.device("cpu")
DOCS = Path(__file__).parents[1] / "docs"


def block(language: str) -> str:
    """The first fenced block of a language in docs/models.md."""
    found = re.search(rf"```{language}\n(.*?)```", (DOCS / "models.md").read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The network of docs/models.md, its file and its table where irtool looks for them."""
    (tmp_path / "toy.py").write_text(block("python"), encoding="utf-8")
    (tmp_path / "weights.toml").write_text(block("toml"), encoding="utf-8")
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "table_path", lambda: tmp_path / "weights.toml")
    for cache in (architectures._found, registry.records):
        cache.cache_clear()
    yield
    sys.modules.pop("irtool.models.toy", None)
    for cache in (architectures._found, registry.records):
        cache.cache_clear()


def test_a_network_is_added_by_one_file_and_one_table(toy: None, tmp_path: Path) -> None:
    code = [line for line in block("python").splitlines() if line.strip()]
    assert len(code) <= 20
    assert [r.id for r in registry.records()] == ["toy.denoise"]
    net = architectures.get("toy").network(5)  # type: ignore[operator]
    save_file(dict(net.state_dict()), tmp_path / "net.safetensors")
    model = loading.load(tmp_path / "net.safetensors")
    assert model.info.name == "toy" and model.info.parameters == 3 * 3 * 25 + 3
    pixels = torch.rand(3, 61, 90)
    whole = net(pixels[None])[0].clamp(0, 1)
    for tile in ("off", "32"):
        restored = engine.run(model.bind(Condition({"noise": 1.0})), pixels, device=CPU, dtype="fp32", tile=tile)
        assert restored.tiles == (1 if tile == "off" else 6)
        torch.testing.assert_close(restored.pixels, whole, atol=1e-6, rtol=0)


def test_what_a_model_cannot_do_is_turned_away_when_it_is_bound() -> None:
    info = ModelInfo("plain", ("noise",), 1, 8, 1, 1.0, 100)
    model = SinglePassModel(nn.Identity(), info)
    for condition, told in (
        (Condition({"rain": 1.0}), "no task 'rain'"),
        (Condition(mask=torch.ones(1, 4, 4)), "cannot be told where"),
        (Condition(callback=lambda t, x: None), "no steps to show"),
        (Condition(sampling=Sampling()), "no diffusion model"),
    ):
        with pytest.raises(irtool.UsageError, match=told):
            model.bind(condition)


class Overflowing(nn.Module):
    """Gives what it is given, and infinity where it computes in less than float32."""

    def __init__(self, always: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((1,), always))

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.gain if x.dtype == torch.float32 else torch.inf)


def test_a_result_that_is_not_finite_is_computed_again_and_then_an_error() -> None:
    pixels = torch.rand(3, 20, 30)
    for gain in (1.0, torch.nan):
        net = Overflowing(gain)
        bound = SinglePassModel(net, describe(net, {}, "overflowing", overlap=0, bytes_per_pixel=12)).bind(Condition())
        if gain == 1:
            outcome = engine.run(bound, pixels, device=CPU, dtype="bf16")
            torch.testing.assert_close(outcome.pixels, pixels)
            continue
        with pytest.raises(irtool.UnavailableError, match="not finite"):
            engine.run(bound, pixels, device=CPU, dtype="fp32")


def published_nafnet(path: Path, **settings: Any) -> Path:
    torch.manual_seed(0)
    net = NAFNet(width=8, middle_blk_num=1, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1])
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    header = {"settings": json.dumps(settings)} if settings else None
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, path, metadata=header)
    return path


def test_a_published_nafnet_is_padded_with_zeros_as_its_authors_do(tmp_path: Path) -> None:
    path = published_nafnet(tmp_path / "net.safetensors")
    pixels = torch.rand(3, 37, 51)
    bound = loading.load(path).bind(Condition())
    with torch.inference_mode():
        published = bound.net(pixels[None])[0].clamp(0, 1)  # type: ignore[attr-defined]
    ours = engine.run(bound, pixels, device=CPU, dtype="fp32").pixels
    torch.testing.assert_close(ours, published, atol=1e-6, rtol=0)
    mirrored = engine.run(bound, pixels, device=CPU, dtype="fp32", padding="reflect").pixels
    assert (mirrored - published).abs().max() > 1e-3
    own = loading.load(published_nafnet(tmp_path / "own.safetensors", padding="reflect")).bind(Condition())
    assert torch.equal(engine.run(own, pixels, device=CPU, dtype="fp32").pixels, mirrored)
    with pytest.raises(irtool.UsageError, match="padding"):
        engine.run(own, pixels, device=CPU, padding="circular")


def test_a_wild_unet_at_full_scale_has_its_transformer_at_the_last_level() -> None:
    sizes: dict[str, Any] = {"nf": 32, "ch_mult": (1, 1, 1, 1, 2), "context_dim": 16}
    wild = ContextUNet(**sizes, use_degra_context=False, first_transformer=4)
    shapes = {k: tuple(v.shape) for k, v in wild.state_dict().items()}
    found = loading.recognize(shapes)
    assert found is not None and found[0] == "wild-unet"
    again = ContextUNet(**found[1])
    assert {k: tuple(v.shape) for k, v in again.state_dict().items()} == shapes
    universal = ContextUNet(**sizes)
    assert {k: tuple(v.shape) for k, v in universal.state_dict().items()} != shapes
    found = loading.recognize({k: tuple(v.shape) for k, v in universal.state_dict().items()})
    assert found is not None and found[0] == "universal-unet" and "first_transformer" not in found[1]


@pytest.mark.parametrize(("sigma", "share"), [(255, 1.0), (75, 75 / 255), (1, 1 / 255), (0.5, 0.5)])
def test_the_noise_level_of_the_denoising_process_is_divided_once(sigma: float, share: float) -> None:
    assert denoising.process_of(max_sigma=sigma).lam == pytest.approx(share)


def ipt_tensors(**sizes: int) -> dict[str, Tensor]:
    from irtool.models.ipt import IPT

    torch.manual_seed(0)
    return dict(IPT((1,), **sizes).state_dict())


def test_what_tensors_do_not_tell_is_asked_for(tmp_path: Path) -> None:
    tensors = ipt_tensors(patch_size=16, patch_dim=4, num_layers=1, n_feats=4, num_heads=2)
    path = tmp_path / "net.safetensors"
    save_file(tensors, path)
    with pytest.raises(irtool.UnavailableError, match="num_heads") as caught:
        loading.load(path)
    assert "num_heads=" in caught.value.hint
    given = loading.load(path, num_heads=2)
    save_file(tensors, path, metadata={"settings": '{"num_heads": 2}'})
    settled = loading.load(path)
    pixels = torch.rand(3, 24, 24)
    first, second = (
        engine.run(m.bind(Condition({"noise": 1.0})), pixels, device=CPU, dtype="fp32").pixels for m in (given, settled)
    )
    assert torch.equal(first, second) and given.info.assumed == settled.info.assumed == ()


def test_what_is_assumed_is_said(tmp_path: Path) -> None:
    from irtool.models.refusion_nafnet import ConditionalNAFNet

    net = ConditionalNAFNet(img_channel=8, width=8, enc_blk_nums=[1], dec_blk_nums=[1])
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, tmp_path / "a.safetensors")
    _, config, header = loading.describe(tmp_path / "a.safetensors")
    assert config["skip"] is True and json.loads(header["assumed"]) == ["skip=True"]
    _, config, header = loading.describe(tmp_path / "a.safetensors", skip=False)
    assert config["skip"] is False and "assumed" not in header


def test_tensors_in_memory_make_a_network_strictly() -> None:
    net = NAFNet(width=8, middle_blk_num=1, enc_blk_nums=[1], dec_blk_nums=[1])
    state = net.state_dict()
    made, header = loading.from_tensors(state)
    assert header["architecture"] == "nafnet"
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(made(x), net.eval()(x))
    with pytest.raises(irtool.UnavailableError, match=r"middle_blks\.0\.beta"):
        loading.from_tensors({k: v for k, v in state.items() if k != "middle_blks.0.beta"}, header)


@pytest.mark.parametrize("size", [(75, 101), (33, 16), (20, 500)])
def test_a_mask_works_on_sides_of_any_length(size: tuple[int, int]) -> None:
    from test_compact import random_net

    from irtool.models.compact import CompactModel

    pixels, mask = torch.rand(3, *size), torch.zeros(1, *size)
    mask[:, 5:15, 4:12] = 1
    model = CompactModel(random_net())
    results = [
        engine.run(model.bind(Condition({"missing": 1.0}, mask=mask)), x, device=CPU, dtype="fp32").pixels
        for x in (pixels, torch.where(mask > 0, 0.0, pixels))
    ]
    hole = (mask > 0).expand(3, -1, -1)
    # What lies under the mask is not looked at, but for the statistics of the whole image.
    assert (results[0] - results[1])[hole].abs().max() < (pixels * mask)[hole].abs().max() / 2
    assert all(r.shape == pixels.shape for r in results)
    assert set(model.info.tasks) == set(IDS)


def test_damaged_weights_end_in_an_error_and_no_picture(
    models_dir: Path, photo: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from irtool.cli.app import main

    net, header = loading.read(models_dir / "restorer.safetensors")
    with torch.no_grad():
        net.get_parameter("head.bias").fill_(torch.nan)
    loading.save(net, tmp_path / "broken.safetensors", architecture="compact", config=json.loads(header["config"]))
    photo(tmp_path / "a.png")
    model = f"local:{tmp_path / 'broken.safetensors'}"
    assert main(["restore", str(tmp_path / "a.png"), "--task", "denoise", "--model", model]) == 3
    assert "not finite" in capsys.readouterr().err and not (tmp_path / "a.restored.png").exists()


def test_a_network_that_is_asked_for_in_another_type_does_not_forget_its_own(models_dir: Path) -> None:
    model = loading.load(models_dir / "restorer.safetensors")
    pixels = torch.rand(3, 40, 56)
    first, rough, again = (
        engine.run(model.bind(Condition({"rain": 1.0})), pixels, device=CPU, dtype=dtype).pixels
        for dtype in ("fp32", "bf16", "fp32")
    )
    assert torch.equal(first, again) and not torch.equal(first, rough)
