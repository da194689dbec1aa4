"""InstructIR's understanding of words: a sentence encoder from the hub and the published head.

The head tells one of seven tasks for a sentence, so of several only the strongest is heard, and neither strengths nor
negations are. It is here to compare with, and because its embedding is what steers the InstructIR network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import weights
from ..errors import UnavailableError
from ..models import loading
from ..models.instructir import CLASSES, LanguageHead
from .labels import OUTSIDE
from .wish import Heard, Wish

ENCODER = "TaylorAI/bge-micro-v2"
HEAD = "instructir-lm.7d"


class InstructIRWords:
    """Sentence encoder and head.

    Args:
        head: a loaded `LanguageHead`.
        encoder: id on the hub, or a folder, of a BERT-like model and its tokeniser.

    Raises:
        UnavailableError: the package transformers or the encoder's files are not here.
    """

    def __init__(self, head: LanguageHead, encoder: str = ENCODER) -> None:
        try:
            from transformers import AutoModel, AutoTokenizer
        except ImportError as error:
            raise UnavailableError(
                "A sentence encoder needs the package transformers.", "pip install 'irtool[text]'"
            ) from error
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(encoder)
            self.model: Any = AutoModel.from_pretrained(encoder, use_safetensors=True).eval().requires_grad_(False)
        except (OSError, ValueError) as error:
            told = str(error).split("\n")[0]
            raise UnavailableError(
                f"The sentence encoder {encoder} is not here: {told}", "Run it once with a connection to the hub."
            ) from error
        self.head = head

    @torch.inference_mode()
    def encode(self, texts: list[str]) -> Tensor:
        """Unit vectors (N, 384): the mean over the tokens of the last layer, as the encoder was trained."""
        tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        states = self.model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][:, :, None].to(states.dtype)
        mean = (states * mask).sum(1) / mask.sum(1).clamp_min(1e-9)
        return torch.nn.functional.normalize(mean, dim=-1)

    @torch.inference_mode()
    def steer(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """What steers the network, (N, 256), and the scores of `CLASSES`, (N, 7), of sentences."""
        embedding, logits = self.head(self.encode(texts))
        return embedding, logits

    def wish(self, text: str) -> Wish:
        """The one task that the head hears."""
        if not text.strip():
            return Wish(text=text)
        kind = CLASSES[int(self.steer([text])[1].argmax())]
        heard = (Heard(text, kind, "undo"),)
        if kind in OUTSIDE:
            return Wish(outside=(kind,), heard=heard, text=text)
        if kind == "auto":
            return Wish(auto=1.0, heard=heard, text=text)
        return Wish(undo={kind: 1.0}, heard=heard, text=text)


def load(encoder: str = ENCODER, head: Path | None = None) -> InstructIRWords:
    """The published head over a sentence encoder.

    Raises:
        UnavailableError: a file or package is not here.
    """
    net, header = loading.read(head or weights.locate(HEAD))
    if not isinstance(net, LanguageHead):
        raise UnavailableError(f"That file holds a {header['architecture']}, not a language head.")
    return InstructIRWords(net, encoder)
