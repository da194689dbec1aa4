"""Published networks to compare with: golden cases, recognition, sizes, tiles, and figures with real weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from irtool import engine, weights
from irtool.models import loading
from irtool.models.base import Condition
from irtool.ops import pad_to_multiple

# Golden file, module, what its weights do not tell.
GOLDENS = (
    ("prenet_real_rain100l", "prenet", {}),
    ("prenet_r_real_rain100l", "prenet", {}),
    ("prn_r_real_rain100h", "prenet", {}),
    ("prenet_random", "prenet", {"passes": 3}),
    ("airnet_a", "airnet", {}),
    ("airnet_b", "airnet", {}),
    ("promptir_a", "promptir", {}),
    ("transweather_a", "transweather", {}),
    ("transweather_b", "transweather", {}),
)
# Small configurations; those without arguments are small as published.
SMALL: dict[str, dict[str, Any]] = {
    "prenet": {"width": 6, "lstm": True, "blocks": 5},
    "gcanet": {"width": 6},
    "aodnet": {},
    "uretinex": {},
    "zerodce": {"width": 6, "curves": 8},
    "iat": {"width": 8, "depth": 2, "ratio": 2, "wide": 16, "hidden": 24},
    "ruas": {"stages": 2, "width": 4, "blocks": 2},
    "sci": {"width": 3, "layers": 1, "calibrate_width": 4, "calibrate_layers": 2},
    "pairlie": {"width": 6},
    "dncnn": {"depth": 5, "width": 6},
    "airnet": {"width": 8, "groups": 1, "blocks": 1, "widths": [8, 8, 8], "queue": 4},
    "promptir": {
        "dim": 8, "blocks": [1, 1, 1, 1], "refinement": 1, "heads": [1, 2, 4, 8], "expansion": 2.66, "bias": False,
        "norm_bias": True, "prompts": [4, 4, 4], "sizes": [4, 4, 4], "length": 3, "reduced": 4,
    },
    "transweather": {"widths": [8, 8, 8, 8], "queries": 6},
    "lkdnet": {"width": 8, "depths": [1, 1, 2, 1, 1], "ratio": 2},
    "dehazeformer": {
        "width": 8, "depths": [2, 2, 2, 1, 1], "attention": [0, 1, 2, 0, 0], "heads": [1, 2, 2, 1, 1],
        "ratios": [2, 4, 4, 2, 2], "window": 4, "deep": False,
    },
    "flol": {"width": 6, "light": 4},
    "span": {"scale": 2, "width": 8},
    "a2net": {"width": 6, "chroma": 4},
    "dmphn": {"levels": 3, "width": 4},
    "jorder": {"width": 4, "layers": 6},
    "griddehazenet": {"width": 4, "rows": 3, "columns": 6, "layers": 2, "growth": 4},
    "deepdeblur": {"width": 4, "blocks": 1, "scales": 3, "side": 5},
    "deblurgan": {"width": 4, "blocks": 2, "dropout": True},
    "deblurgan-v2": {"width": 4, "pyramid": 8},
    "enlightengan": {"width": 4},
    "mirnet": {"width": 8, "groups": 1, "blocks": 1, "columns": 2},
    "mirnet-v2": {"widths": [8, 12, 16], "groups": [1, 2], "blocks": 1, "defocus": False},
}  # fmt: skip


def build(name: str) -> nn.Module:
    torch.manual_seed(1)
    net: nn.Module = loading._resolve(loading.ARCHITECTURES[name].network)(**SMALL[name])
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter.normal_(0, 0.1)
    return net.eval()


@pytest.mark.parametrize(("case", "module", "more"), GOLDENS, ids=[case for case, _, _ in GOLDENS])
def test_golden_case(case: str, module: str, more: Mapping[str, Any], shared: Path) -> None:
    with safe_open(str(shared / "goldens" / f"{case}.safetensors"), framework="pt") as file:
        tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        tolerance = json.loads(file.metadata()["tolerance_per_output"])["restored"]["atol"]
    state = {key.removeprefix("weights/"): value for key, value in tensors.items() if key.startswith("weights/")}
    name, config = loading.recognize({key: tuple(value.shape) for key, value in state.items()}) or ("", {})
    assert name == module
    net = loading._resolve(loading.ARCHITECTURES[module].network)(**config, **more).eval()
    net.load_state_dict(state, strict=True)
    with torch.inference_mode():
        assert (net(tensors["in/image"]) - tensors["out/restored"]).abs().max() <= tolerance
        if hasattr(net, "stages"):
            assert (net.stages(tensors["in/image"])[0] - tensors["out/first_stage"]).abs().max() <= tolerance


@pytest.mark.parametrize("name", SMALL)
def test_a_file_is_recognized_and_restores_any_size(name: str, tmp_path: Path) -> None:
    net = build(name)
    path = tmp_path / "published.safetensors"
    save_file({key: value.clone() for key, value in net.state_dict().items()}, path)
    found, config, _ = loading.describe(path)
    assert (found, config) == (name, SMALL[name])
    restorer = loading.load(path)
    assert restorer.info.parameters == sum(p.numel() for p in net.parameters())
    assert restorer.info.gmacs_per_megapixel > 0
    scale = restorer.info.scale
    assert restorer.info.task_agnostic or scale > 1
    expert = restorer.bind(Condition(dict.fromkeys(restorer.info.tasks[:1], 1.0)))
    for height, width in ((37, 53), (16, 24)):
        pixels = torch.rand(3, height, width)
        got = engine.run(expert, pixels, device=torch.device("cpu"), dtype="fp32").pixels
        assert got.shape == (3, scale * height, scale * width)
        assert got.isfinite().all()
        # Networks whose tiling is not exact pad by themselves.
        multiple = restorer.info.multiple if restorer.info.tiling == "exact" else 1
        padded = pad_to_multiple(pixels[None], multiple, restorer.info.padding)
        with torch.inference_mode():
            whole = getattr(net, "restore", net)(padded)[0, :, : scale * height, : scale * width].clamp(0, 1)
        assert (got - whole).abs().max() < 1e-5


@pytest.mark.parametrize("name", SMALL)
def test_half_the_precision_gives_nearly_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / "published.safetensors"
    save_file({key: value.clone() for key, value in build(name).state_dict().items()}, path)
    restorer = loading.load(path)
    # Statistics over the whole image are stable only where the smallest maps have some pixels.
    pixels = torch.rand(3, *((96, 160) if restorer.info.tiling == "blended" else (24, 32)))
    full, half = (
        engine.run(restorer.bind(Condition()), pixels, device=torch.device("cpu"), dtype=dtype).pixels
        for dtype in ("fp32", "bf16")
    )
    assert half.dtype == torch.float32
    assert (full - half).abs().mean() < 0.03


@pytest.mark.parametrize("name", ["prenet", "aodnet", "zerodce", "ruas", "sci", "pairlie", "dncnn", "iat"])
def test_tiles_agree_with_the_whole(name: str, tmp_path: Path) -> None:
    path = tmp_path / "published.safetensors"
    save_file({key: value.clone() for key, value in build(name).state_dict().items()}, path)
    restorer = loading.load(path)
    # Long enough for several tiles with what they carry around them.
    size = (24, 2500) if name == "prenet" else (120, 136)
    expert, pixels = restorer.bind(Condition()), torch.rand(3, *size)
    device = torch.device("cpu")
    whole = engine.run(expert, pixels, device=device, dtype="fp32", tile="off")
    tiled = engine.run(expert, pixels, device=device, dtype="fp32", tile="40")
    assert tiled.tiles > 1
    assert (tiled.pixels - whole.pixels).abs().max() < 1 / 255


def test_files_of_other_families_are_not_taken_for_peers(tmp_path: Path) -> None:
    shapes = {name: {k: tuple(v.shape) for k, v in build(name).state_dict().items()} for name in SMALL}
    for name, own in shapes.items():
        found = loading.recognize(own)
        assert found is not None and found[0] == name
        less = dict(own)
        del less[loading.ARCHITECTURES[name].keys[0]]
        assert (loading.recognize(less) or ("",))[0] != name


@pytest.mark.parametrize(
    ("name", "settings", "attribute"),
    [
        ("pairlie", {"exponent": 0.14}, "exponent"),
        ("uretinex", {"ratio": 3}, "ratio"),
        ("gcanet", {"residual": False}, "residual"),
    ],
)
def test_settings_of_a_record_reach_the_network(
    name: str, settings: dict[str, float], attribute: str, tmp_path: Path
) -> None:
    path = tmp_path / f"{name}.safetensors"
    state = {key: value.clone() for key, value in build(name).state_dict().items()}
    save_file(state, path, metadata={"settings": json.dumps(settings)})
    assert getattr(loading.load(path).net, attribute) == settings[attribute]  # type: ignore[attr-defined]
    save_file(state, path)
    assert getattr(loading.load(path).net, attribute) != settings[attribute]  # type: ignore[attr-defined]


def test_a_ratio_may_be_taken_from_the_truth() -> None:
    net = build("uretinex")
    dark, truth = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        assert not torch.equal(net(dark), net(dark, truth))


# PSNR and SSIM of one picture, as printed by
# `irtool eval --dataset lol --root SHARED/data/test/lowlight_lol_eval15 --only 1 --model ID --protocol P --json`
# with networks whose published rows come out on all 15 (benchmarks/peers.md).
ONE_PICTURE = (
    ("iat.lol-v1", "iat/iat_lol_v1.pth", "canonical", 22.8683, 0.87837),
    ("zerodce.epoch99", "zero_dce/zero_dce_epoch99.pth", "canonical", 13.8059, 0.68523),
    ("ruas.lol", "ruas/ruas_lol.pt", "canonical-floor", 18.1165, 0.67353),
)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Converted weights go where nobody else looks for them."""
    for variable in ("HF_HUB_CACHE", "HF_ASSETS_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    return tmp_path


def evaluated(shared: Path, model: str, file: str, protocol: str, only: str = "") -> dict[str, Any]:
    from irtool.data import between, get_protocol
    from irtool.evaluation import EvalRequest, evaluate, summarize
    from irtool.plan import plan_tasks

    weights.obtain(weights.get(model), shared / "peers" / file)
    root = shared / "data/test/lowlight_lol_eval15"
    found = between(root / "low", [root / "high"])
    if only:
        found = replace(found, pairs=tuple(pair for pair in found.pairs if pair.name == only))
    plan = plan_tasks(["lowlight"], 1.0, model)
    request = EvalRequest(found, get_protocol(protocol), model, plan, device="cpu")
    return summarize(list(evaluate(request)))


def test_the_published_row_of_sci_comes_out(shared: Path, own_cache: Path) -> None:
    told = evaluated(shared, "sci.medium", "sci/sci_medium.pt", "canonical-floor")
    assert told["scored"] == 15
    assert told["output"]["psnr"]["mean"] == pytest.approx(14.784, abs=5e-4)  # published: 14.784 / 0.522
    assert told["output"]["ssim"]["mean"] == pytest.approx(0.522, abs=5e-4)


@pytest.mark.parametrize(("model", "file", "protocol", "psnr", "ssim"), ONE_PICTURE, ids=[c[0] for c in ONE_PICTURE])
def test_real_weights_give_their_figures(
    model: str, file: str, protocol: str, psnr: float, ssim: float, shared: Path, own_cache: Path
) -> None:
    output = evaluated(shared, model, file, protocol, only="1")["output"]
    assert output["psnr"]["mean"] == pytest.approx(psnr, abs=2e-3)
    assert output["ssim"]["mean"] == pytest.approx(ssim, abs=2e-4)


def test_every_peer_is_a_module_of_its_own() -> None:
    for name in SMALL:
        module = import_module(f"irtool.models.peers.{name.replace('-', '_')}")
        assert callable(module.recognize)
        assert callable(module.restorer)
