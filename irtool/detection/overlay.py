"""Where the detector sees what: its maps drawn over the picture."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from ..degradation import DEGRADATIONS, INDEX
from .detector import Diagnosis

COLORS = {
    "raindrop": (255, 176, 0), "rain": (0, 114, 255), "shadow": (190, 60, 255), "snow": (255, 40, 120),
    "missing": (0, 200, 90), "scratches": (0, 190, 220),
}  # fmt: skip
"""sRGB tint of each of the local degradations and of scratches; told apart by people who do not see red and green
alike, too."""
LEAST = 0.2


def overlay(pixels: np.ndarray, diagnosis: Diagnosis) -> np.ndarray:
    """A picture with a tint where local degradations are, and a line of text that says which.

    Args:
        pixels: (H, W, 3) in [0, 1].
        diagnosis: of it. Those of its maps are drawn that are present or uncertain, and that of scratches.

    Returns:
        (H, W, 3) uint8.
    """
    h, w = pixels.shape[:2]
    drawn = torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32))
    shown = [i for i in (*diagnosis.present, *diagnosis.uncertain, "scratches") if i in diagnosis.maps]
    for kind in shown:
        cells = diagnosis.maps[kind].float()[None, None]
        hit = F.interpolate(cells, (h, w), mode="bilinear", align_corners=False)[0, 0, :, :, None]
        alpha = 0.6 * ((hit - LEAST) / (1 - LEAST)).clamp(0, 1)
        drawn = drawn + alpha * (torch.tensor(COLORS[kind]) / 255 - drawn)
    image = Image.fromarray((drawn.clamp(0, 1) * 255).round().byte().numpy())
    size = max(10, min(h, w) // 28)
    font, draw, left = ImageFont.load_default(size), ImageDraw.Draw(image), size // 2
    texts = {i: f"{DEGRADATIONS[INDEX[i]].name} {diagnosis.scores[i]:.2f}" for i in diagnosis.present}
    texts |= {i: f"perhaps {DEGRADATIONS[INDEX[i]].name} {diagnosis.scores[i]:.2f}" for i in diagnosis.uncertain}
    texts |= {"scratches": f"scratches {diagnosis.scratched:.1%}"} if diagnosis.scratched else {}
    for kind, text in texts.items():
        wide = font.getlength(text)
        draw.rectangle((left - 3, 2, left + wide + 3, size * 1.5), fill=COLORS.get(kind, (90, 90, 90)))
        draw.text((left, 2), text, fill=(255, 255, 255), font=font)
        left += round(wide) + size
    return np.array(image)
