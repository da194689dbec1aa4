"""Task adapters: per sample as merged, low rank as full, saved and merged at load, found by attribution."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from irtool.errors import UnavailableError, UsageError
from irtool.models import lora as m
from irtool.models.ipt import IPT

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import lora_study as study


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4),
        nn.Flatten(2),
        nn.Linear(16, 5, bias=False),
    )


def low_rank(tasks=3, rank=2):
    return lambda name, layer, mixture: m.LoRALayer(layer, mixture, tasks, rank)


def disturb(net: nn.Module) -> None:
    g = torch.Generator().manual_seed(1)
    for layer in m.layers(net).values():
        for name, p in layer.named_parameters():
            if not name.startswith("layer."):
                p.data += 0.3 * torch.randn(p.shape, generator=g)


x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
mixtures = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.5, 0, 0.25], [0, 0, 0]])


def sparse(name, layer, mixture):
    mask = (torch.rand(3, *layer.weight.shape[:2], generator=torch.Generator().manual_seed(len(name))) < 0.5).float()
    return study.SparseLayer(layer, mixture, mask)


@pytest.mark.parametrize("wrap", [low_rank(), lambda n, layer, mix: study.FullRankLayer(layer, mix, 3), sparse])
def test_each_sample_has_the_weights_of_its_own_mixture(wrap):
    plain = small()(x)
    net = small()
    mixture = m.add_adapters(net, wrap)
    with m.task_weights_as(mixture, mixtures):
        torch.testing.assert_close(net(x), plain)  # every task starts at the common weights
    disturb(net)
    with m.task_weights_as(mixture, mixtures):
        together = net(x)
    torch.testing.assert_close(together[3], plain[3])  # no task
    assert all((together[i] - plain[i]).abs().max() > 0.1 for i in range(3))
    for i in range(4):
        alone = small()
        again = m.add_adapters(alone, wrap)
        alone.load_state_dict(net.state_dict())
        assert again.value is None
        m.merge(alone, mixtures[i])
        assert not m.layers(alone) and alone.state_dict().keys() == small().state_dict().keys()
        torch.testing.assert_close(alone(x[i : i + 1])[0], together[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrap", [low_rank(), lambda n, layer, mix: study.FullRankLayer(layer, mix, 3)])
@pytest.mark.parametrize("shape", [(4, 16), (4, 7, 16), (4, 2, 3, 16)])
def test_a_linear_layer_takes_any_number_of_dimensions(wrap, shape):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 5))
    mixture = m.add_adapters(net, wrap)
    disturb(net)
    given = torch.randn(shape)
    with m.task_weights_as(mixture, mixtures):
        together = net(given)
    m.merge(net, mixtures[2])
    torch.testing.assert_close(together[2], net(given)[2], rtol=1e-4, atol=1e-5)


def test_common_weights_learn_from_all_and_an_offset_from_its_own_task():
    net = small()
    mixture = m.add_adapters(net, low_rank())
    disturb(net)
    with m.task_weights_as(mixture, mixtures[:2]):
        net(x[:2]).square().sum().backward()
    common, own = m.parameters(net)
    assert all(p.grad.abs().sum() > 0 for p in common)
    for p in own:
        assert p.grad[0].abs().sum() > 0 and p.grad[1].abs().sum() > 0 and p.grad[2].abs().sum() == 0


def test_a_mixture_is_the_weighted_sum():
    layer = nn.Linear(6, 4)
    made = m.LoRALayer(layer, m.TaskWeights(), 2, 3)
    nn.init.normal_(made.up)
    a, b, both = made.delta_weight(torch.tensor([[1.0, 0], [0, 1.0], [0.25, 0.5]]))
    torch.testing.assert_close(both, 0.25 * a + 0.5 * b)
    assert torch.linalg.matrix_rank(a) == 3


def test_offsets_are_a_file_that_is_merged_at_load(tmp_path):
    net = small()
    mixture = m.add_adapters(net, low_rank(tasks=2))
    disturb(net)
    path = tmp_path / "my.safetensors"
    m.save(net, path, tasks=["moire", "noise"], base="small")
    assert path.stat().st_size < 8000
    plain = m.apply(small(), path, {"noise": 0.5})
    with m.task_weights_as(mixture, torch.tensor([[0.0, 0.5]]).expand(4, -1)):
        torch.testing.assert_close(plain(x), net(x), rtol=2e-3, atol=2e-3)
    with pytest.raises(UsageError, match="several"):
        m.apply(small(), path)
    with pytest.raises(UsageError, match="rain"):
        m.apply(small(), path, {"rain": 1})
    with pytest.raises(UnavailableError, match="does not fit"):
        m.apply(nn.Sequential(nn.Linear(3, 3)), path, {"noise": 1})
    (tmp_path / "no.safetensors").write_bytes(b"no")
    with pytest.raises(UnavailableError):
        m.read(tmp_path / "no.safetensors")


def test_any_network_takes_offsets_also_a_transformer():
    torch.manual_seed(0)
    net = IPT(patch_size=12, num_layers=1, n_feats=4, num_heads=4)
    patch = 255 * torch.rand(2, 3, 12, 12)
    plain = net(patch)
    mixture = m.add_adapters(net, low_rank(tasks=2, rank=1), lambda name, layer: "body." in name)
    assert any(name.endswith("self_attn.project") for name in m.layers(net))
    disturb(net)
    now = torch.tensor([[1.0, 0], [0, 0]])
    with m.task_weights_as(mixture, now):
        together = net(patch)
    torch.testing.assert_close(together[1], plain[1], rtol=1e-4, atol=1e-2)
    assert (together[0] - plain[0]).abs().max() > 1
    m.merge(net, now[0])
    torch.testing.assert_close(net(patch)[0], together[0], rtol=1e-4, atol=2e-2)
    assert "body.encoder.layers.0.self_attn.in_proj_weight" in net.state_dict()


def test_a_new_task_is_learned_with_the_network_as_it_is(tmp_path):
    net = small()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    made = m.LoRAModel(net, ["0.weight", "2.weight", "4.weight"], rank=2)
    torch.testing.assert_close(made(x), small()(x))
    learn = [p for p in made.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learn, lr=0.02)
    losses = []
    for _ in range(30):
        loss = made(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items())
    m.save(made, tmp_path / "new.safetensors", tasks=["new"], base="small", notes={"like": "noise"})
    assert m.base_task(tmp_path / "new.safetensors") == "noise"
    torch.testing.assert_close(m.apply(small(), tmp_path / "new.safetensors")(x), made(x), rtol=5e-3, atol=5e-3)


def test_nothing_chosen_is_an_error():
    with pytest.raises(UsageError):
        m.add_adapters(small(), low_rank(), lambda name, layer: False)


def test_energy_of_a_matrix_of_known_rank():
    low = torch.randn(1, 10, 2) @ torch.randn(1, 2, 12)
    e = study.rank_energy(low.view(1, 10, 12, 1, 1))
    assert e.shape == (1, 10) and e[0, 0] < 1 and abs(float(e[0, 1]) - 1) < 1e-5 and (e[0].diff() >= -1e-6).all()


def test_attribution_finds_the_kernels_that_changed_what_matters():
    """F = |w a|^2 with a kernel that matters, one that changed and does not matter, and one that did not change."""
    torch.manual_seed(0)
    before = {"w": torch.zeros(3, 1, 3, 3), "b": torch.ones(3)}
    after = {"w": torch.zeros(3, 1, 3, 3), "b": torch.ones(3)}
    after["w"][0], after["w"][1] = 1.0, 1.0
    factor = torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1, 1)
    scores = study.faig(before, after, lambda at: {"w": 2 * at["w"] * factor, "b": torch.zeros(3)}, steps=100)
    assert set(scores) == {"w"} and scores["w"].shape == (3, 1)
    # The integral of the gradient is the difference of F: 9 weights of 1 each.
    torch.testing.assert_close(scores["w"], torch.tensor([[9.0], [0.0], [0.0]]), rtol=1e-3, atol=1e-3)
    masks = study.top_kernels({"w": [scores["w"], scores["w"].flip(0)]}, share=1 / 3)
    assert masks["w"].tolist() == [[[1], [0], [0]], [[0], [0], [1]]]
