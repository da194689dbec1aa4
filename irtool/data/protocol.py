"""Evaluation protocols: all that must be said for a PSNR to mean one thing.

A protocol fixes how pictures are cropped before they are restored, how noise is made, how the result is brought to
numbers, which channel is scored, and which SSIM and LPIPS are taken. Figures are means over pictures. Where irtool
departs from the code a protocol comes from, `differs` says so.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UsageError, closest


@dataclass(frozen=True)
class Protocol:
    """One way to score.

    Attributes:
        id: its name.
        summary: one line.
        source: the code or paper it follows.
        channel: "rgb"; "y", the BT.601 luma of MATLAB's rgb2ycbcr, not rounded; or "y-swapped", the same with the
            weights of red and blue exchanged.
        levels: how results become numbers: "round" or "floor" to 8 bit after clipping, or "float", clipped alone.
        multiple: pictures are cropped around their centre to multiples of this, before they are restored.
        border: pixels left out of the scores on each side.
        ssim: "gaussian", the original window of 11, sigma 1.5; or "uniform", scikit-image's default window of 7.
        noise: where `--degrade` draws from: "names", a seed for each picture from its name; "stream", numpy's legacy
            generator seeded 0, running on from picture to picture; "restart", the same begun anew for each; or
            "none": the degraded pictures must be given.
        noisy: how a picture degraded by `--degrade` is kept: "round" or "floor" to 8 bit, or "float", where noise is
            not clipped either.
        scale: degraded pictures are smaller by this and are enlarged bicubically first.
        lpips: network of LPIPS.
        differs: what irtool does otherwise than the source.
    """

    id: str
    summary: str
    source: str
    channel: str = "rgb"
    levels: str = "round"
    multiple: int = 1
    border: int = 0
    ssim: str = "gaussian"
    noise: str = "names"
    noisy: str = "round"
    scale: int = 1
    lpips: str = "alex"
    differs: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


PROTOCOLS: dict[str, Protocol] = {
    p.id: p
    for p in (
        Protocol("canonical", "8-bit RGB, rounded, no crop", "irtool's own; NAFNet, Restormer and most since"),
        Protocol(
            "canonical-floor",
            "8-bit RGB, cut off, no crop",
            "test code of URetinex-Net, RUAS, SCI, PairLIE",
            levels="floor",
        ),
        Protocol(
            "daclip",
            "8-bit RGB, rounded, 4 pixels left out on each side",
            "Algolzw/daclip-uir c2cc141: the option crop_border is absent and falls back to 4",
            border=4,
            noisy="floor",
            differs="noise is seeded (there it is not); LPIPS sees the clipped result (there the unclipped one).",
        ),
        Protocol(
            "promptir",
            "float RGB, cropped to multiples of 16, uniform SSIM",
            "va1shn9v/PromptIR 106159a, after AirNet",
            levels="float",
            multiple=16,
            ssim="uniform",
            noise="stream",
            noisy="floor",
            differs="noise runs over the sorted names and begins anew for each level (there in the folder's order, "
            "and on through the levels).",
        ),
        Protocol(
            "rain-y",
            "BT.601 luma of the rounded 8-bit result, no crop",
            "MPRNet, Restormer and most since: MATLAB on saved files",
            channel="y",
        ),
        Protocol(
            "rain-y-floor",
            "BT.601 luma of the cut-off 8-bit result, no crop",
            "csdwren/PReNet 6d908d1",
            channel="y",
            levels="floor",
        ),
        Protocol(
            "instructir",
            "float RGB, cropped to multiples of 16",
            "mv-lab/InstructIR 3c0299f",
            levels="float",
            multiple=16,
            noise="none",
            differs="the result is clipped to [0, 1] (there it is not).",
        ),
        Protocol(
            "instructir-rain",
            "luma of the cut-off 8-bit result with red and blue exchanged, cropped to multiples of 16",
            "mv-lab/InstructIR 3c0299f: its luma takes the weights for BGR on RGB pictures",
            channel="y-swapped",
            levels="floor",
            multiple=16,
            noise="none",
        ),
        Protocol(
            "awgn",
            "8-bit RGB, rounded, no crop; Gaussian noise neither clipped nor rounded",
            "cszn/KAIR and the tables of DnCNN and FFDNet",
            noise="restart",
            noisy="float",
        ),
        Protocol(
            "sr-x3",
            "BT.601 luma of the rounded 8-bit result, 3 pixels left out; input enlarged bicubically",
            "EDSR and most since",
            channel="y",
            border=3,
            scale=3,
            differs="irtool's networks keep the size, so they see the enlarged picture.",
        ),
    )
}


def get_protocol(id: str) -> Protocol:
    """The protocol called `id`.

    Raises:
        UsageError: there is none; the hint names the closest one.
    """
    if id not in PROTOCOLS:
        raise UsageError(f"There is no protocol '{id}'.", closest(id, PROTOCOLS))
    return PROTOCOLS[id]
