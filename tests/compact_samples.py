"""A tiny compact network with random weights, for the tests of what uses one."""

from __future__ import annotations

import torch

from irtool.models.compact import CompactNet

CONFIG = {"width": 16, "encoder": [1, 1], "middle": 1, "decoder": [1, 1], "rank": 2, "hidden": 16}


def random_net(seed: int = 0) -> CompactNet:
    """A tiny net whose every weight matters (fresh offsets and heads are zero)."""
    torch.manual_seed(seed)
    net = CompactNet(**CONFIG)
    for name, p in net.named_parameters():
        if name.startswith("head") or "up" in name.split("."):
            torch.nn.init.normal_(p, std=0.05)
    return net.eval().requires_grad_(False)
