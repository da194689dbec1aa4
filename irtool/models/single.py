"""Restorers that ask their network once per picture, for networks that know no tasks of their own."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..degradation import IDS
from ..errors import UnavailableError
from .base import Capability, Sweep, require_known
from .daclip import DaCLIP, look
from .macs import gmacs_per_megapixel
from .nafnet import localise


class Single:
    """A network, its capability and its copy on a device; what both kinds below share.

    Attributes:
        source: the network as it was loaded, on the CPU in float32.
        net: the one that computes, in `dtype` on `device`.
    """

    def __init__(self, net: Any, capability: Capability) -> None:
        self.source, self.net, self.capability = net, net, capability
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def specialise(self, mixture: Mapping[str, float]) -> Any:
        if not self.capability.blind:
            require_known(mixture, self.capability.tasks)
        return self

    def to(self, device: torch.device, dtype: torch.dtype) -> Any:
        if (device, dtype) != (self.device, self.dtype):
            self.device, self.dtype = device, dtype
            self.net = copy.deepcopy(self.source).to(device, dtype)
            for weight in self.net.parameters():
                if weight.dim() == 4:  # those of convolutions; Module.to would ask it of those with five, and fail
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        return self

    def context(self, pixels: Tensor) -> Tensor:
        """Nothing: (1, 0)."""
        return torch.zeros(1, 0)


class Local(Single):
    """A network that looks a bounded way, so that tiles agree with the whole (`Restorer` and `Expert`)."""

    def prepare(self, pixels: Tensor) -> Tensor:
        """The picture as it is."""
        return pixels

    def __call__(self, tile: Tensor, context: Tensor) -> Tensor:
        with torch.inference_mode():
            out: Tensor = self.net(tile.to(self.dtype)).float()
            return out


class Whole(Single):
    """A network that looks at all it is given (`Restorer` and `WholeExpert`): cut only where memory asks for it."""

    def restore(self, pixels: Tensor, context: Tensor, sweep: Sweep, on_progress: Callable[[int, int], None]) -> Tensor:
        """As `WholeExpert.restore`, in one pass."""
        on_progress(0, 1)
        told = context.to(self.device, self.dtype)
        with torch.inference_mode():
            out: Tensor = sweep(lambda x: self.apply(x.to(self.dtype), told).float(), pixels)
        on_progress(1, 1)
        return out

    def apply(self, x: Tensor, context: Tensor) -> Tensor:
        """What the network makes of tiles (N, 3, h, w) in [0, 1], and of what `context` gave (1, K)."""
        made: Tensor = self.net(x)
        return made


class SteeredRestorer(Whole):
    """A `ContextNAFNet` with its controller (`Restorer` and `WholeExpert`).

    Its transformers see all that they are given, so a picture is cut only where memory asks for it.
    """

    def __init__(self, net: Any, capability: Capability, controller: DaCLIP) -> None:
        super().__init__(net, capability)
        self.controller = controller.blind()

    def context(self, pixels: Tensor) -> Tensor:
        """Degradation and content embeddings side by side (1, 2 K)."""
        content, degradation = look(self.controller.to(self.device), pixels)
        return torch.cat([degradation, content], dim=1)

    def apply(self, x: Tensor, context: Tensor) -> Tensor:
        made: Tensor = self.net(x, *context.chunk(2, dim=1))
        return made


def _capability(net: Any, header: Mapping[str, str], name: str, margin: int, live: int, blind: bool) -> Capability:
    return Capability(
        name=name,
        tasks=tuple(json.loads(header.get("tasks", "[]"))) or IDS,
        multiple=net.multiple,
        margin=margin,
        parameters=sum(p.numel() for p in net.parameters()),
        gmacs_per_megapixel=gmacs_per_megapixel(net),
        bytes_per_pixel=4 * live * net.intro.out_channels,
        blind=blind,
    )


def nafnet(net: nn.Module, header: Mapping[str, str]) -> Local:
    """The restorer of a loaded `NAFNet`, pooling locally; "settings" may name its "train_size", else 256."""
    side = int(json.loads(header.get("settings", "{}")).get("train_size", 256))
    # A window reaches three quarters of the crop to each side; the convolutions reach further by some pixels.
    return Local(localise(net, side), _capability(net, header, "nafnet", side * 3 // 4 + 32, 9, blind=True))


def nafnet_daclip(net: nn.Module, header: Mapping[str, str], *companions: nn.Module) -> SteeredRestorer:
    """The restorer of a loaded `ContextNAFNet`.

    Raises:
        UnavailableError: the controller is missing.
    """
    if not companions or not isinstance(companions[0], DaCLIP):
        raise UnavailableError("nafnet-daclip needs a DA-CLIP controller.", "Name one with --controller.")
    return SteeredRestorer(net, _capability(net, header, "nafnet-daclip", 32, 10, blind=True), companions[0])
