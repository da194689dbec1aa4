"""The repairs of a plan carried out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..degradation import lookup_task
from ..engine import pick_device
from ..errors import UnavailableError
from ..inputs import to_tensor
from ..models import loading
from ..models.base import Bound, Condition, Model
from ..weights import locate
from ..weights.registry import DEFAULT_REPAIR
from .fade import FadeNet, correct, has_one_hue
from .scratches import ScratchNet, find_scratches

if TYPE_CHECKING:
    from ..detection import Diagnosis
    from ..engine import EngineResult
    from ..picture import Picture
    from ..plan import Plan

N = TypeVar("N", bound=nn.Module)
FADED = 2 / 255
"""Mean change of a picture up to which it was not faded."""
MAP_SIDE = 512
"""Cells of the longer side of the map of scratches, at most about twice as many."""


def mend(
    plan: Plan,
    pixels: Tensor,
    device: torch.device,
    model_of: Callable[[str, str], Model],
    run: Callable[[Bound, Tensor], EngineResult],
) -> tuple[Tensor, Plan]:
    """Carry out the repairs of a plan, in order.

    Args:
        plan: its repairs count here.
        pixels: (3, H, W) sRGB in [0, 1] on the CPU.
        device: where to compute.
        model_of: (reference, controller) -> model, for what fills scratches.
        run: carries out a bound model on a picture.

    Returns:
        The pixels, and the plan without those repairs that found nothing to do, which its reason tells.

    Raises:
        UnavailableError: a network is not here.
    """
    done, reason = [], [plan.reason]
    for repair in plan.repairs:
        if repair.kind == "scratches":
            damaged = scratches_in(pixels, device)
            better = pixels
            if damaged.any():
                fill = model_of(repair.fill, "").bind(Condition({"missing": 1.0}, mask=damaged))
                better = torch.where(damaged > 0, run(fill, pixels).pixels, pixels)
        else:
            better = correct(cached_network(DEFAULT_REPAIR["fade"], FadeNet), pixels)
            if float((better - pixels).abs().mean()) < FADED:
                better = pixels
        if better is pixels:
            reason.append(f"no {lookup_task(repair.kind).name} found")
            continue
        pixels = better if repair.strength == 1 else torch.lerp(pixels, better, repair.strength)
        done.append(repair)
    return pixels, replace(plan, repairs=tuple(done), reason="; ".join(filter(None, reason)))


def scratches_in(pixels: Tensor, device: torch.device) -> Tensor:
    """`find_scratches` by the network that ships: (3, H, W) -> (1, H, W).

    Raises:
        UnavailableError: the network is not here.
    """
    return find_scratches(cached_network(DEFAULT_REPAIR["scratches"], ScratchNet).to(device), pixels)


def with_scratches(diagnosis: Diagnosis, picture: Picture, device: str = "auto", *, always: bool = False) -> Diagnosis:
    """A diagnosis that also says how much of the picture is scratched, with a map of it.

    Args:
        diagnosis: of the picture.
        picture: what was looked at.
        device: "auto", "cpu", "cuda" or "cuda:N".
        always: look in every picture; otherwise in those of one hue alone, as old prints mostly are: it takes longer
            than the diagnosis itself.
    """
    pixels = to_tensor(picture)
    if not always and not has_one_hue(pixels[None]):
        return diagnosis
    damaged = scratches_in(pixels, pick_device(device))
    share = float(damaged.mean())
    if not share:
        return replace(diagnosis, scratched=0.0)
    cell = max(1, max(damaged.shape) // MAP_SIDE)
    reduced = F.max_pool2d(damaged[None], cell, ceil_mode=True)[0, 0]
    return replace(diagnosis, scratched=share, maps={**diagnosis.maps, "scratches": reduced})


@lru_cache(maxsize=2)
def cached_network(reference: str, kind: type[N]) -> N:
    """The network of a file, on the CPU unless it was moved since; kept until `irtool.clear_cache`.

    Raises:
        UnavailableError: it is not here, or of another kind.
    """
    path = locate(reference)
    net, header = loading.read(path)
    if not isinstance(net, kind):
        raise UnavailableError(f"{path} holds a {header['architecture']}, not a {kind.__name__}.")
    return net
