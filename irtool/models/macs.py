"""What a network costs, counted on shapes without computing."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

SIDE = 256


def gmacs_per_megapixel(net: Any) -> float:
    """Multiply-accumulates of one evaluation on a 256x256 picture, in 1e9 per 1e6 pixels."""
    first = net.init_conv if hasattr(net, "init_conv") else net.intro
    noisy = hasattr(net, "time_mlp")
    channels = first.in_channels // (2 if noisy and getattr(net, "conditional", True) else 1)
    x = torch.empty(1, channels, SIDE, SIDE, device="meta")
    arguments = [x, x, torch.empty(1, device="meta")] if noisy else [x]
    if hasattr(net, "context_dim"):
        arguments += [torch.empty(1, net.context_dim, device="meta")] * 2
    return counted(net, *arguments)


def counted(net: Any, *inputs: Tensor) -> float:
    """Multiply-accumulates of one evaluation, in 1e9 per 1e6 pixels of the first input (1, C, H, W); all on "meta"."""
    shell = copy.deepcopy(net).to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shell(*inputs)
    return counter.get_total_flops() / 2 / inputs[0][0, 0].numel() / 1e3
