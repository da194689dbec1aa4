"""A DA-CLIP controller as a detector: which of ten words its degradation embedding is closest to."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..degradation import DEGRADATIONS, IDS
from ..models.daclip import embed_whole_image, tokens
from .detector import Diagnosis

SCALE = 100.0
"""What the published code multiplies cosines by, whatever the logit scale of the checkpoint."""


class DaclipDetector:
    """A loaded `DaCLIP`. It tells ten degradations apart and knows no clean picture: one of them always wins.

    Args:
        net: `irtool.models.daclip.DaCLIP`.
        device: where to compute.
    """

    def __init__(self, net: Any, device: torch.device) -> None:
        self.net = net.to(device)
        # The bare published words, without a sentence around them.
        ids = tokens([d.prompt for d in DEGRADATIONS], net.clip.context_length).to(device)
        with torch.inference_mode():
            self.words = net.encode_text(ids, normalize=True).float()

    def diagnose(self, pixels: Tensor) -> Diagnosis:
        """Diagnose a picture: (3, H, W) sRGB in [0, 1], any size; of a wide or tall one the centre square is seen."""
        degradation = F.normalize(embed_whole_image(self.net, pixels)[1], dim=-1)
        shares = (SCALE * degradation @ self.words.T)[0].softmax(-1).tolist()
        scores = dict(zip(IDS, shares, strict=True))
        return Diagnosis(scores, (max(scores, key=lambda i: scores[i]),), exclusive=True)
