"""LM4LV: a frozen language model that restores pictures, feature by feature.

Zheng et al., "LM4LV: A Frozen Large Language Model for Low-level Vision Tasks", arXiv 2405.15734. A frozen image
autoencoder turns a picture into features; a linear adapter turns features into embeddings of a frozen causal language
model, a linear de-adapter turns its hidden states back, and learned task tokens say what is asked for. The clean
picture's features are predicted one after the other, each from the hidden state one position before it.

Names of tensors are the published ones: ``adapter``, ``deadapter``, ``learnable_task_token``, ``llama_model``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FILL, IMAGE, TASK = -1, -2, -4
"""Codes among the token ids: the rest of a run, the start of an image's features, the start of the task tokens."""
IGNORED = -100
"""Label of positions that carry no text loss, and of those that predict no feature."""


@dataclass(frozen=True)
class Prompt:
    """A conversation as token ids (L,) with the codes `IMAGE`, `TASK` and `FILL`, and what is learned from it.

    Attributes:
        ids: the whole conversation.
        text: (L,) labels of the answer's text, `IGNORED` elsewhere; not shifted.
        features: (L,) bool: positions whose hidden state predicts the next feature of the clean picture.
        context: the part of `ids` that generation starts from.
    """

    ids: Tensor
    text: Tensor
    features: Tensor
    context: Tensor


def prompt(tokenize: Any, vision_tokens: int, task_tokens: int, bos: int | None) -> Prompt:
    """The published conversation.

    Args:
        tokenize: text -> token ids, without special tokens.
        vision_tokens: features of a picture.
        task_tokens: learned tokens.
        bos: id of the token that begins a text; None where the model has none.
    """
    image = [IMAGE, *[FILL] * (vision_tokens - 1)]
    task = [TASK, *[FILL] * (task_tokens - 1)]
    human = [*([] if bos is None else [bos]), *tokenize("### Human: <Img>"), *image, *tokenize("</Img> "), *task]
    opening, closing = list(tokenize("\n### Assistant: <Img>")), list(tokenize("</Img>\n###"))
    before = len(human) + len(opening)
    ids = torch.tensor([*human, *opening, *image, *closing])
    text = torch.full_like(ids, IGNORED)
    text[len(human) : before] = torch.tensor(opening)
    text[before + vision_tokens :] = torch.tensor(closing)
    features = torch.zeros(len(ids), dtype=torch.bool)
    features[before - 1 : before - 1 + vision_tokens] = True
    return Prompt(ids, text, features, ids[:before])


class LM4LV(nn.Module):
    """The adapters and task tokens about a frozen language model.

    Args:
        language_model: a causal language model of the package transformers; it is frozen.
        vision_dim: numbers in a feature.
        num_vision_tokens: features of a picture.
        num_task_tokens: learned tokens.
    """

    def __init__(
        self, language_model: Any, vision_dim: int = 1024, num_vision_tokens: int = 197, num_task_tokens: int = 10
    ) -> None:
        super().__init__()
        self.num_vision_tokens = num_vision_tokens
        width = language_model.config.hidden_size
        self.adapter = nn.Linear(vision_dim, width)
        self.deadapter = nn.Linear(width, vision_dim)
        self.learnable_task_token = nn.Parameter(torch.zeros(1, num_task_tokens, width))
        self.llama_model = language_model.requires_grad_(False)

    def train(self, mode: bool = True) -> LM4LV:
        """As `nn.Module.train`; the language model stays in evaluation mode."""
        super().train(mode)
        self.llama_model.eval()
        return self

    def trainable(self) -> dict[str, Tensor]:
        """What is learned and saved."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("llama_model.")}

    def embed(self, ids: Tensor, images: Sequence[Tensor]) -> Tensor:
        """Embeddings of conversations.

        Args:
            ids: (N, L) with the codes of this module.
            images: features of the pictures in the order in which a conversation shows them, each (N, V, D).

        Returns:
            (N, L, width).
        """
        embedded: Tensor = self.llama_model.get_input_embeddings()(ids.clamp_min(0))
        embedded = embedded.clone()
        width = embedded.shape[-1]
        task = self.learnable_task_token.expand(len(ids), -1, -1).to(embedded.dtype)
        for row in range(len(ids)):
            for start in (ids[row] == TASK).nonzero().flatten().tolist():
                embedded[row, start : start + task.shape[1]] = task[row]
            starts = (ids[row] == IMAGE).nonzero().flatten().tolist()
            for start, image in zip(starts, images, strict=False):
                run = self.adapter(image[row]).to(embedded.dtype).view(-1, width)
                embedded[row, start : start + len(run)] = run
        return embedded

    def hidden(self, embedded: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        """Last hidden states after the final norm (N, L, width), and the key-value cache where one is kept."""
        out = self.llama_model.model(inputs_embeds=embedded, past_key_values=cache, use_cache=cache is not None)
        return out.last_hidden_state, out.past_key_values

    def losses(self, ids: Tensor, text: Tensor, positions: Tensor, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """The published loss: cross entropy of the answer's text plus the mean squared error of its features.

        Args:
            ids, text: (N, L), see `Prompt`.
            positions: (N, L) bool, `Prompt.features` of each conversation.
            images: features of the degraded and the clean picture, each (N, V, D).

        Returns:
            "text", "vision" and their sum "total", scalars; "features" predicted (N, V, D).
        """
        hidden, _ = self.hidden(self.embed(ids, images))
        logits = self.llama_model.get_output_embeddings()(hidden)
        of_text = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), text[:, 1:].flatten(), ignore_index=IGNORED)
        clean = images[-1]
        predicted = self.deadapter(hidden[positions].view(len(ids), -1, hidden.shape[-1]).to(clean.dtype))
        of_vision = F.mse_loss(predicted, clean)
        return {"text": of_text, "vision": of_vision, "total": of_text + of_vision, "features": predicted}

    @torch.inference_mode()
    def generate(self, context: Tensor, degraded: Tensor) -> Tensor:
        """Predict the clean picture's features one after the other.

        Args:
            context: (N, L), the conversation up to where the answer's picture begins.
            degraded: features of the degraded picture (N, V, D).

        Returns:
            (N, V, D).
        """
        from transformers import DynamicCache

        embedded, cache, features = self.embed(context, [degraded]), DynamicCache(), []
        for _ in range(self.num_vision_tokens):
            hidden, cache = self.hidden(embedded, cache)
            features.append(self.deadapter(hidden[:, -1].to(degraded.dtype)))
            embedded = self.adapter(features[-1])[:, None].to(hidden.dtype)
        return torch.stack(features, dim=1)
