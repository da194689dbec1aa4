"""How InstructIR (Conde et al., ECCV 2024) understands a sentence: a head over a sentence encoder from the hub.

It knows one task per sentence, and neither strengths nor negation; it serves for comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import weights
from ..errors import UnavailableError, UsageError
from ..language.intent import Intent, Span
from . import loading
from .instructir import CLASSES, LanguageHead

ENCODER = "TaylorAI/bge-micro-v2"
HEAD = "instructir-lm.7d"
KNOWN = "Text models are irtool's own and InstructIR's language head."


class SentenceEncoder:
    """A sentence encoder.

    Args:
        name: id on the hub, or a folder, of a BERT-like model and its tokenizer.

    Raises:
        UnavailableError: the package transformers or the encoder's files are missing.
    """

    def __init__(self, name: str = ENCODER) -> None:
        try:
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging
        except ImportError as error:
            raise UnavailableError("A sentence encoder needs transformers.", "pip install 'irtool[text]'") from error
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        here = {"local_files_only": weights.offline()}
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(name, **here)
            model: Any = AutoModel.from_pretrained(name, use_safetensors=True, **here)
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            hint = "Give a folder that holds it, or run it once with a connection to the hub."
            raise UnavailableError(f"The sentence encoder {name} is not here: {reason}", hint) from error
        self.model = model.eval().requires_grad_(False)
        self.name, self.size = name, int(self.model.config.hidden_size)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (N, size): the mean over the tokens of the last layer, as such encoders are trained."""
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        states = self.model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][:, :, None].to(states.dtype)
        mean = (states * mask).sum(1) / mask.sum(1).clamp_min(1e-9)
        return torch.nn.functional.normalize(mean, dim=-1)


class InstructIRWords:
    """InstructIR's head over its sentence encoder, as a text model (`irtool.language.parser.TextModel`).

    Raises:
        UnavailableError: the head was made for an encoder of another size.
    """

    def __init__(self, head: LanguageHead, encoder: SentenceEncoder) -> None:
        if head.fc1.in_features != encoder.size:
            raise UnavailableError(
                f"InstructIR's head takes {head.fc1.in_features} numbers, {encoder.name} gives {encoder.size}.",
                f"It was trained with {ENCODER}.",
            )
        self.head, self.encoder = head, encoder

    @torch.inference_mode()
    def steer(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The embeddings that condition the network, (N, 256), and the logits of `CLASSES`, (N, 7), of sentences."""
        embedding, logits = self.head(self.encoder(texts))
        return embedding, logits

    def parse(self, text: str, own: Sequence[str] = ()) -> Intent:
        """The intent to undo what the sentence is about in full.

        Raises:
            UsageError: there are custom tasks, whose words it cannot know.
        """
        if own:
            raise UsageError("This text model knows no custom tasks.", "Leave out the text model or the offsets.")
        if not text.strip():
            return Intent(text=text)
        return Intent.of(text, [Span(text, CLASSES[int(self.steer([text])[1].argmax())], "undo")])


@lru_cache(maxsize=2)
def load(encoder: str = ENCODER) -> InstructIRWords:
    """The published head over its own encoder, or over another of its size.

    Args:
        encoder: id on the hub, or a folder.

    Raises:
        UnavailableError: a file or package is not here, or they do not belong together.
    """
    return head(weights.locate(HEAD), encoder)


def head(path: Path, encoder: str = ENCODER) -> InstructIRWords:
    """A head in a file, such as the published lm_instructir-7d.pt once it was converted, over a sentence encoder.

    Raises:
        UnavailableError: as `load`; or the file holds something else.
    """
    net = None
    with suppress(UnavailableError):
        net = loading.read(path)[0]
    if not isinstance(net, LanguageHead):
        raise UnavailableError(f"{path} holds no text model.", KNOWN)
    return InstructIRWords(net, SentenceEncoder(encoder))
