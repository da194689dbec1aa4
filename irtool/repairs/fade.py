"""Faded and yellowed pictures: black, white and middle of each channel, put back by a small network.

What a histogram alone says is ambiguous: a green cast may be a lawn, and a stretch of every channel to its ends makes
good pictures worse. The network has seen what photographs look like before and after, and leaves those alone that look
as they should.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = (0.003, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98, 0.997)
"""Quantiles of each channel that the network is told."""
ENDS = 0.02
"""Share of the darkest, and of the brightest pixels whose mean color it is told."""
SAMPLES = 128 * 128
"""Pixels of a picture that are looked at, on a regular grid."""
ONE_HUE = 0.02
"""Spread of the color differences at one brightness, up to which a picture has one hue: gray, sepia, toned."""
_FEATURES = 3 * len(LEVELS) + 6 + 3


def tones(pixels: Tensor) -> Tensor:
    """What is told of pictures (N, 3, H, W): (N, 36) quantiles, mean colors of both ends, and how channels differ."""
    flat = pixels.flatten(2).float()
    quantiles = torch.quantile(flat, torch.tensor(LEVELS, device=flat.device), dim=2).permute(1, 2, 0).flatten(1)
    order = flat.mean(1).argsort(dim=1)[:, None].expand_as(flat)
    count = max(1, round(ENDS * flat.shape[2]))
    ends = [flat.gather(2, part).mean(2) for part in (order[..., :count], order[..., -count:])]
    spread = torch.stack([(flat[:, a] - flat[:, b]).abs().mean(1) for a, b in ((0, 1), (1, 2), (0, 2))], dim=1)
    return torch.cat([quantiles, *ends, spread], dim=1)


class FadeNet(nn.Module):
    """From the tones of a picture to a curve for each channel.

    Args:
        width: of the two hidden layers.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.first = nn.Linear(_FEATURES, width)
        self.second = nn.Linear(width, width)
        self.out = nn.Linear(width, 9)
        nn.init.zeros_(self.out.weight)  # it begins by leaving everything as it is
        nn.init.zeros_(self.out.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in [0, 1] -> (N, 3, 3): black, white and exponent of each channel; see `apply`."""
        hidden = torch.relu(self.second(torch.relu(self.first(tones(pixels) - 0.5))))
        black, white, bend = self.out(hidden).view(-1, 3, 3).unbind(1)
        return torch.stack([black.clamp(-0.1, 0.6), 1 + white.clamp(-0.6, 0.1), bend.clamp(-1, 1).exp()], dim=1)


def apply(pixels: Tensor, curves: Tensor) -> Tensor:
    """``((x - black) / (white - black)) ** exponent``: pictures (N, 3, H, W), curves (N, 3, 3)."""
    black, white, exponent = (t[..., None, None] for t in curves.unbind(1))
    return ((pixels - black) / (white - black).clamp(min=0.1)).clamp(1e-4, 1) ** exponent


def sampled(pixels: Tensor) -> Tensor:
    """About `SAMPLES` pixels of a picture (1, 3, H, W), on a grid."""
    height, width = pixels.shape[-2:]
    step = max(1, round((height * width / SAMPLES) ** 0.5))
    return pixels[..., step // 2 % height :: step, step // 2 % width :: step]


def has_one_hue(pixels: Tensor) -> bool:
    """Whether all colors of a picture (1, 3, H, W) follow from brightness, as in gray, sepia and toned prints."""
    red, green, blue = sampled(pixels).flatten(2)[0].float()
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    order = luma.argsort()
    spreads = []
    for part in order.chunk(16):
        for difference in (red - luma, blue - luma):
            values = difference[part]
            spreads.append((values - values.median()).abs().mean())
    return float(torch.stack(spreads).mean()) <= ONE_HUE


@torch.inference_mode()
def correct(net: FadeNet, pixels: Tensor) -> Tensor:
    """A picture (3, H, W) in [0, 1] as it may have been before it faded.

    A tint that is the same all over stays, since sepia is mostly meant: of a picture of one hue the brightness alone
    is corrected.
    """
    picture = pixels[None].float()
    if not has_one_hue(picture):
        return apply(picture, net(sampled(picture)))[0].to(pixels.dtype)
    luma = picture.mean(1, keepdim=True)
    bright = apply(luma, net(sampled(luma).expand(-1, 3, -1, -1)).mean(2, keepdim=True))
    return (picture * (bright / luma.clamp(min=1e-3))).clamp(0, 1)[0].to(pixels.dtype)
