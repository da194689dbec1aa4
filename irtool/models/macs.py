"""What a network costs, counted on shapes without computing."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

SIDE = 256


def gmacs_per_megapixel(net: Any) -> float:
    """Multiply-accumulates of one evaluation on a 256x256 picture, in 1e9 per 1e6 pixels."""
    shell = copy.deepcopy(net).to("meta")
    first = shell.init_conv if hasattr(shell, "init_conv") else shell.intro
    noisy = hasattr(shell, "time_mlp")
    channels = first.in_channels // (2 if noisy and getattr(shell, "conditional", True) else 1)
    x = torch.empty(1, channels, SIDE, SIDE, device="meta")
    arguments = [x, x, torch.empty(1, device="meta")] if noisy else [x]
    if hasattr(shell, "context_dim"):
        arguments += [torch.empty(1, shell.context_dim, device="meta")] * 2
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shell(*arguments)
    return counter.get_total_flops() / 2 / SIDE**2 / 1e3
