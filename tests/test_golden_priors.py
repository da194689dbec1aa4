"""GDP, the spatial entropy loss and LM4LV against cases recorded from the published code (goldens/README.md)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from test_golden_diffusion import Case, read
from torch import Tensor

from irtool.diffusion import guidance
from irtool.diffusion.gaussian import GaussianDiffusion, gaussian_diffusion
from irtool.models import loading
from irtool.models.adm_unet import ADMUNet
from irtool.models.lm4lv import IGNORED, LM4LV
from irtool.training import spatial_entropy


def test_adm_unet_is_recognized_and_equal(shared: Path, tmp_path: Path) -> None:
    case = read(shared, "gdp_unet_a")
    found = loading.recognize({k: tuple(v.shape) for k, v in case.weights.items()})
    assert found is not None and found[0] == "adm-unet"
    published = ADMUNet(**case.settings)
    published.load_state_dict(case.weights, strict=True)
    path = tmp_path / "published.safetensors"
    save_file(case.weights, path)
    stored, header = loading.read(path)
    assert header["architecture"] == "adm-unet"
    for net in (published, stored):
        case.check("model_output", net(case.given["x"], case.given["t"]))


def process_of(case: Case) -> GaussianDiffusion:
    s = case.settings
    return gaussian_diffusion(s["noise_schedule"], s["diffusion_steps"], s["timestep_respacing"])


def block_mean(x: Tensor) -> Tensor:
    return F.interpolate(F.avg_pool2d(x, 4), scale_factor=4, mode="nearest")


@pytest.mark.parametrize("name", ["gdp_guidance_inpainting", "gdp_guidance_sr4"])
def test_gdp_with_a_known_operator(shared: Path, name: str) -> None:
    case = read(shared, name)
    p, given, scale = process_of(case), case.given, case.settings["img_guidance_scale"]
    operator = block_mean if "sr4" in name else lambda x: x * given["keep_mask"]
    fed: list[int] = []
    states, predictions = torch.zeros(2, p.steps, *given["x_start"].shape)

    def net(x: Tensor, t: int) -> Tensor:
        fed.append(t)
        return given["model_output_table"][p.times.index(t)]

    def seen(i: int, x: Tensor, x0: Tensor) -> None:
        states[i], predictions[i] = x, x0

    draw = given["step_noise"].__getitem__
    final = guidance.gdp(p, net, given["x_start"], given["observed"], operator, scale, draw, callback=seen)
    case.check("final", final)
    case.check("states", states)
    case.check("pred_x0", predictions)
    case.check("time_fed", torch.tensor(fed))
    case.check("betas", p.betas)
    case.check("alphas_cumprod", p.alpha_bar)
    case.check("posterior_log_variance_clipped", p.posterior_log_variance)
    case.check("gradient_probe", guidance.gradient(operator, 0.9 * given["clean"], given["observed"], scale))


@pytest.mark.parametrize("name", ["gdp_guidance_low_light", "gdp_guidance_low_light_one_patch"])
def test_gdp_learns_the_light_in_patches(shared: Path, name: str) -> None:
    case = read(shared, name)
    p, given, s = process_of(case), case.given, case.settings
    height, width, patch = s["height"], s["width"], s["patch_size"]
    grid = guidance.corners(height, width, patch, s["patch_stride"])
    assert [list(corner) for corner in grid] == s["corners"]
    calls = iter(grid * p.steps)
    out: dict[str, list[Tensor]] = {"states": [], "pred_x0": [], "light_factor": [], "light_mask": []}

    def net(x: Tensor, t: int) -> Tensor:
        row, column = next(calls)
        return given["model_output_table"][p.times.index(t)][..., row : row + patch, column : column + patch]

    def seen(i: int, x: Tensor, x0: Tensor, operators: list[guidance.Light]) -> None:
        for key, value in zip(out, (x, x0, operators[0].factor, operators[0].offset), strict=True):
            out[key].insert(0, value)

    start = guidance.Light(given["light_factor_start"], given["light_mask_start"])
    guidance.gdp_unknown(
        p, net, given["x_start"], [given["observed"]], [start], s["img_guidance_scale"],
        given["step_noise"].__getitem__, patch, s["patch_stride"], callback=seen,
    )  # fmt: skip
    for key, values in out.items():
        case.check(key, torch.stack(values))


@pytest.mark.parametrize("name", ["entropy_loss_a", "entropy_loss_b"])
def test_spatial_entropy_losses_and_gradients(shared: Path, name: str) -> None:
    case = read(shared, name)
    image, target, weight = (case.given[k] for k in ("image", "target", "neighbour_weight"))
    levels = case.settings["pixel_level"]

    def check(key: str, loss: Callable[[Tensor], Tensor]) -> None:
        leaf = image.clone().requires_grad_(True)
        value = loss(leaf)
        case.check(key, value)
        if f"{key}_grad" in case.want:
            case.check(f"{key}_grad", torch.autograd.grad(value, leaf)[0])

    check("relative", lambda x: spatial_entropy.relative_entropy(x, target, levels, weight))
    check("hellinger", lambda x: spatial_entropy.hellinger(x, target, levels, weight))
    check("relative_no_weight", lambda x: spatial_entropy.relative_entropy(x, target, levels))
    check("smooth", lambda x: spatial_entropy.smooth_l1(x, target))
    if "cross" in case.want:
        check("cross", lambda x: spatial_entropy.cross_entropy(x, target, levels))
    check("spatial_entropy_image", lambda x: spatial_entropy.spatial_entropy(x, levels, weight))
    u = image.clamp(0, 1) * (levels - 1)
    neighbors = spatial_entropy.neighborhood(u, weight)
    case.check("neighbour_image", neighbors)
    densities = spatial_entropy.density(u, neighbors, spatial_entropy.grid(levels, u))
    case.check("density_image_mean_over_bins_pixels", densities.mean(dim=(3, 4)))


def test_a_loss_in_portions_is_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few bins fit into memory, the loss and its gradient are the same."""
    image, target = torch.rand(2, 1, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    results = []
    for memory in (spatial_entropy.MEMORY, 3000):
        monkeypatch.setattr(spatial_entropy, "MEMORY", memory)
        leaf = image.clone().requires_grad_(True)
        loss = spatial_entropy.relative_entropy(leaf, target, 6)
        results.append((loss.detach(), torch.autograd.grad(loss, leaf)[0]))
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(whole, parts)


@pytest.mark.parametrize("kind", spatial_entropy.KINDS)
def test_entropy_losses_have_finite_gradients_where_the_published_ones_have_none(kind: str) -> None:
    """Flat pictures at both ends of the range, at the published number of bins."""
    image = torch.zeros(1, 3, 8, 8, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    loss = spatial_entropy.entropy_loss(image, torch.ones(1, 3, 8, 8), kind, generator)
    (gradient,) = torch.autograd.grad(loss, image)
    assert loss.isfinite() and gradient.isfinite().all()


def lm4lv_of(case: Case) -> LM4LV:
    transformers = pytest.importorskip("transformers", reason="needs the extra 'text'")
    s = case.settings
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "hidden_act")  # fmt: skip
    config = transformers.LlamaConfig(**{k: s[k] for k in names}, attn_implementation="eager")
    config.rope_parameters = {"rope_type": "default", "rope_theta": s["rope_theta"]}
    language_model = transformers.LlamaForCausalLM(config)
    net = LM4LV(language_model, s["vision_dim"], s["num_vision_tokens"], s["num_task_tokens"])
    net.load_state_dict(case.weights, strict=True)
    return net.train()


@pytest.mark.parametrize("name", ["lm4lv_a", "lm4lv_b"])
def test_lm4lv_loss_gradients_and_generation(shared: Path, name: str) -> None:
    case = read(shared, name)
    net, given = lm4lv_of(case), case.given
    images = [given["degraded_features"], given["clean_features"]]
    ids, positions = given["sequence_ids"], given["vision_target_mask"] != IGNORED
    embedded = net.embed(ids, images)
    case.check("inputs_embeds", embedded)
    hidden, _ = net.hidden(embedded)
    case.check("last_hidden", hidden)
    case.check("logits", net.llama_model.lm_head(hidden))
    losses = net.losses(ids, given["text_targets"], positions, images)
    case.check("predicted_features", losses["features"])
    for key in ("text", "vision", "total"):
        case.check(f"{key}_loss", losses[key])
    learned = {"adapter.weight": net.adapter.weight, "deadapter.weight": net.deadapter.weight,
               "learnable_task_token": net.learnable_task_token}  # fmt: skip
    for key, gradient in zip(learned, torch.autograd.grad(losses["total"], list(learned.values())), strict=True):
        case.check(f"grad.{key}", gradient)
    case.check("generated_features", net.generate(given["generation_ids"], images[0]))
    assert not any(p.requires_grad for p in net.llama_model.parameters())
