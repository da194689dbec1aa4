"""Peers against plain re-statements over the same tensors, and published files on real pictures."""

from __future__ import annotations

from pathlib import Path

import plain_peers
import pytest
import torch
from test_peers import build

from irtool.models import loading

# Name, size that needs no padding.
CASES = (
    ("a2net", (24, 32)), ("dmphn", (16, 24)), ("jorder", (13, 17)), ("griddehazenet", (16, 24)),
    ("deepdeblur", (16, 24)), ("deblurgan", (16, 24)), ("enlightengan", (32, 48)), ("lkdnet", (44, 52)),
    ("dehazeformer", (36, 44)), ("mirnet-v2", (16, 24)), ("flol", (32, 40)), ("span", (13, 17)),
)  # fmt: skip


@pytest.mark.parametrize(("name", "size"), CASES, ids=[name for name, _ in CASES])
def test_a_network_differs_from_its_plain_restatement(name: str, size: tuple[int, int]) -> None:
    net = build(name)
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        plain = getattr(plain_peers, name.replace("-", "_"))(net.state_dict(), image)
        ours = net(image)
    assert ours.std() > 1e-3
    assert (ours - plain).abs().max() < 2e-5 * max(1.0, float(plain.abs().max()))


def test_every_new_family_is_recognized_by_its_own_tensors_alone(tmp_path: Path) -> None:
    shapes = {name: {k: tuple(v.shape) for k, v in build(name).state_dict().items()} for name, _ in CASES}
    for name, own in shapes.items():
        found = loading.recognize(own)
        assert found is not None and found[0] == name
