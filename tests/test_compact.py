"""The compact network: offsets, merging, files that describe themselves."""

from __future__ import annotations

import json

import pytest
import torch
from compact_samples import CONFIG, random_net
from safetensors.torch import save_file

from irtool import models, ops
from irtool.degradation import IDS
from irtool.errors import UnavailableError, UsageError
from irtool.models import compact, loading
from irtool.models.base import Condition
from irtool.models.compact import CompactModel, CompactNet
from irtool.models.global_stats import CONTEXT_SIZE, global_stats


@pytest.mark.parametrize("mixture", [{}, {"noise": 1.0}, {"rain": 1.0, "haze": 0.5, "missing": 1.0}])
@pytest.mark.parametrize("size", [(16, 16), (64, 48), (128, 136)])
def test_merged_weights_give_what_the_mixture_gives(mixture: dict[str, float], size: tuple[int, int]) -> None:
    net = random_net()
    x, context = torch.rand(2, 3, *size), torch.rand(2, CONTEXT_SIZE)
    unmerged = net(x, context, net.vector(mixture).expand(2, -1))
    net.merge(mixture)
    torch.testing.assert_close(net(x, context), unmerged, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net(x[:1], context[:1]), unmerged[:1], rtol=1e-4, atol=1e-4)


def test_samples_of_a_batch_do_not_touch_each_other() -> None:
    net = random_net()
    x, context, mixture = torch.rand(3, 3, 32, 32), torch.rand(3, CONTEXT_SIZE), torch.eye(10)[:3]
    together = net(x, context, mixture)
    for i in range(3):
        torch.testing.assert_close(
            net(x[i : i + 1], context[i : i + 1], mixture[i : i + 1])[0], together[i], rtol=1e-4, atol=1e-4
        )


def test_tasks_differ_and_a_fresh_net_changes_nothing() -> None:
    net = random_net()
    x, context = torch.rand(1, 3, 32, 32), torch.rand(1, CONTEXT_SIZE)
    assert not torch.allclose(net(x, context, torch.eye(10)[:1]), net(x, context, torch.eye(10)[1:2]), atol=1e-3)
    torch.testing.assert_close(CompactNet(**CONFIG)(x, context, torch.eye(10)[:1]), x)


def test_every_weight_gets_a_gradient() -> None:
    net = random_net().requires_grad_(True)
    net(torch.rand(10, 3, 32, 32), torch.rand(10, CONTEXT_SIZE), torch.eye(10)).square().mean().backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_macs_are_those_of_the_layers() -> None:
    net = random_net()
    net.merge({})
    counted = 0

    def count(module: torch.nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        nonlocal counted
        if isinstance(module, torch.nn.Conv2d):
            counted += out.numel() * module.weight[0].numel()
        elif isinstance(module, torch.nn.Linear):
            counted += out.numel() * module.in_features
        else:
            counted += out.numel() * module.weight.shape[1]

    from irtool.models.compact import Pointwise

    for name, module in net.named_modules():
        if (
            isinstance(module, (torch.nn.Conv2d, torch.nn.Linear, Pointwise))
            and not name.endswith(("attention", "tone"))
            and "embed" not in name
        ):
            module.register_forward_hook(count)
    net(torch.rand(1, 3, 64, 64), torch.rand(1, CONTEXT_SIZE))
    assert counted == pytest.approx(net.macs_per_pixel() * 64 * 64)


def test_a_saved_net_comes_back_and_describes_itself(tmp_path) -> None:
    net = random_net()
    path = tmp_path / "net.safetensors"
    models.save(net, path, architecture="compact", config=CONFIG, notes={"licence": "Apache-2.0"})
    back, header = loading.read(path)
    assert header["licence"] == "Apache-2.0"
    assert json.loads(header["config"]) == CONFIG
    assert not list(tmp_path.glob("*.partial"))
    x, context, mixture = torch.rand(1, 3, 32, 32), torch.rand(1, CONTEXT_SIZE), torch.eye(10)[:1]
    torch.testing.assert_close(back(x, context, mixture), net(x, context, mixture), rtol=2e-2, atol=2e-3)
    assert models.load(path).info.tasks == IDS


def test_what_cannot_be_loaded_is_said(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(UnavailableError, match="does not exist"):
        models.load(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(UnavailableError, match="not a readable safetensors"):
        models.load(path)
    save_file({"a": torch.zeros(1)}, str(path))
    with pytest.raises(UnavailableError, match="no network that irtool knows"):
        models.load(path)
    save_file({"a": torch.zeros(1)}, str(path), metadata={"architecture": "compact", "config": "{}"})
    with pytest.raises(UnavailableError, match="does not fit"):
        models.load(path)
    save_file({"a": torch.zeros(1)}, str(path), metadata={"architecture": "compact", "config": '{"wodth": 3}'})
    with pytest.raises(UnavailableError, match="does not fit"):
        models.load(path)


def test_unknown_task() -> None:
    with pytest.raises(UsageError, match="no task 'sepia'"):
        CompactModel(random_net()).bind(Condition({"sepia": 1.0}))


def test_specialising_leaves_the_restorer_as_it_was() -> None:
    restorer = CompactModel(random_net())
    before = {k: v.clone() for k, v in restorer.net.state_dict().items()}
    restorer.bind(Condition({"noise": 1.0}))
    assert all(torch.equal(v, before[k]) for k, v in restorer.net.state_dict().items())


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (33, 600), (1200, 40)])
def test_context_of_any_size_is_finite(size: tuple[int, int]) -> None:
    described = global_stats(torch.rand(2, 3, *size))
    assert described.shape == (2, CONTEXT_SIZE)
    assert described.isfinite().all()


def test_context_sees_light_and_noise() -> None:
    flat = torch.full((1, 3, 64, 64), 0.5)
    dark, noisy = global_stats(flat * 0.2), global_stats((flat + 0.1 * torch.randn(flat.shape)).clamp(0, 1))
    plain = global_stats(flat)
    assert (dark[:, :27] < plain[:, :27]).all()
    assert (noisy[:, 27:] > plain[:, 27:]).all()


def test_what_is_spread_over_pixels_has_no_grid():
    spread = compact._depth_to_space(torch.randn(1, 1, 1, 32).expand(1, 6, 5, 32))
    assert spread.std(dim=(1, 2)).max() > 0.1  # the grid is there
    even = compact._blur_checkerboard(spread)[:, 1:-1, 1:-1]
    assert even.std(dim=(1, 2)).max() < 1e-6
    assert torch.allclose(even[0, 0, 0], spread.mean(dim=(0, 1, 2)), atol=1e-6)


def test_a_larger_net_begins_as_the_smaller_one() -> None:
    small, large = random_net(), CompactNet(**{**CONFIG, "encoder": [2, 1], "decoder": [1, 3]}).eval()
    large.load_state_dict(large.grow_from(small.state_dict()))
    x, context, mixture = torch.rand(2, 4, 32, 48), torch.rand(2, CONTEXT_SIZE), torch.eye(10)[:2]
    torch.testing.assert_close(large(x, context, mixture), small(x, context, mixture), rtol=1e-5, atol=1e-5)
    large.zero_grad()
    large(x, context, mixture).square().mean().backward()
    grown = large.decoders[1].blocks[2]
    assert grown.project.weight.grad is not None and grown.project.weight.grad.any()


def test_a_net_of_another_width_is_not_adopted() -> None:
    wide = CompactNet(**{**CONFIG, "width": 32})
    with pytest.raises(RuntimeError, match="size mismatch"):
        wide.load_state_dict(wide.grow_from(random_net().state_dict()))


def test_strips_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    net = random_net()
    net.merge({"rain": 1.0})
    x, context = torch.rand(2, 4, 96, 80), torch.rand(2, CONTEXT_SIZE)
    whole = net(x, context)
    calls = 0
    real = compact.Block._spatial_mixing

    def counted(*arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return real(*arguments)

    monkeypatch.setattr(compact.Block, "_spatial_mixing", counted)
    monkeypatch.setattr(ops, "STRIP", 1)  # as narrow as strips get
    torch.testing.assert_close(net(x, context), whole)  # with gradients there are none
    blocks = len([m for m in net.modules() if isinstance(m, compact.Block)])
    assert calls == blocks
    given = x.clone()
    with torch.no_grad():
        torch.testing.assert_close(net(x, context), whole, rtol=1e-5, atol=1e-6)
    assert calls > 4 * blocks
    assert torch.equal(x, given)
