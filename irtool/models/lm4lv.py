"""LM4LV: a frozen language model that restores pictures, feature by feature.

Zheng et al., "LM4LV: A Frozen Large Language Model for Low-level Vision Tasks", arXiv 2405.15734. A frozen image
autoencoder turns a picture into features; a linear adapter turns features into embeddings of a frozen causal language
model, a linear de-adapter turns its hidden states back, and learned task tokens say what is asked for. The clean
picture's features are predicted one after the other, each from the hidden state one position before it.

Names of tensors are the published ones: ``adapter``, ``deadapter``, ``learnable_task_token``, ``llama_model``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UnavailableError
from .base import SinglePassModel, describe
from .mae import Autoencoder, transformers

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
        cache = transformers().DynamicCache()
        embedded, features = self.embed(context, [degraded]), []
        for _ in range(self.num_vision_tokens):
            hidden, cache = self.hidden(embedded, cache)
            features.append(self.deadapter(hidden[:, -1].to(degraded.dtype)))
            embedded = self.adapter(features[-1])[:, None].to(hidden.dtype)
        return torch.stack(features, dim=1)


RANDOM = "random"
"""Instead of a language model: a frozen transformer of the same kind with random weights, the control."""
BYTES = 256


def language_model(reference: str) -> tuple[Any, Any, int | None]:
    """A causal language model, how it cuts text into tokens, and the token that begins one.

    Args:
        reference: a folder or a repository on the Hugging Face hub; or `RANDOM`, optionally with the width and the
            number of layers, as "random:192x4", for the control. The control's weights follow from that alone.

    Raises:
        UnavailableError: it cannot be had.
    """
    package = transformers()
    if reference.partition(":")[0] == RANDOM:
        width, layers = map(int, (reference.partition(":")[2] or "192x4").split("x"))
        config = package.LlamaConfig(
            vocab_size=BYTES + 1, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
            num_attention_heads=max(1, width // 48), max_position_embeddings=2048,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return package.LlamaForCausalLM(config).eval(), lambda text: list(text.encode()), BYTES
    try:
        tokenizer = package.AutoTokenizer.from_pretrained(reference)
        net = package.AutoModelForCausalLM.from_pretrained(reference)
    except (OSError, ValueError) as error:
        raise UnavailableError(
            f"{reference} cannot be loaded as a language model: {str(error).splitlines()[0]}"
        ) from error
    bos = tokenizer.bos_token_id
    return net.eval(), lambda text: tokenizer(text, add_special_tokens=False)["input_ids"], bos


class Adapters(nn.Module):
    """What LM4LV learns, and the autoencoder it was learned with.

    Args:
        width: of the language model's embeddings.
        num_task_tokens: learned tokens.
        vision: keyword arguments of `Autoencoder`'s configuration.
        language_model: reference of the language model, see `language_model`.
    """

    def __init__(self, width: int, num_task_tokens: int, vision: Mapping[str, Any], language_model: str) -> None:
        super().__init__()
        self.language_model = language_model
        self.autoencoder = Autoencoder(vision)
        self.adapter = nn.Linear(self.autoencoder.dim, width)
        self.deadapter = nn.Linear(width, self.autoencoder.dim)
        self.learnable_task_token = nn.Parameter(torch.zeros(1, num_task_tokens, width))

    def restorer_of(self, net: Any, tokenize: Any, bos: int | None) -> Restoring:
        """With the language model it belongs to."""
        tokens, dim = self.autoencoder.tokens, self.autoencoder.dim
        model = LM4LV(net, dim, tokens, self.learnable_task_token.shape[1])
        model.load_state_dict(
            {k: v for k, v in self.state_dict().items() if not k.startswith("autoencoder.")}, strict=False
        )
        return Restoring(self.autoencoder, model, prompt(tokenize, tokens, self.learnable_task_token.shape[1], bos))


class Restoring(nn.Module):
    """Pictures through autoencoder and language model."""

    def __init__(self, autoencoder: Autoencoder, model: LM4LV, prompt: Prompt) -> None:
        super().__init__()
        self.autoencoder, self.model, self.prompt = autoencoder, model, prompt

    def forward(self, degraded: Tensor) -> Tensor:
        """(N, 3, size, size) in [0, 1] -> the same shape, about [0, 1]."""
        features = self.autoencoder.encode(degraded)
        context = self.prompt.context.to(degraded.device).expand(len(degraded), -1)
        return self.autoencoder.decode(self.model.generate(context, features))


class LM4LVModel(SinglePassModel):
    """LM4LV as a restorer. It works at the autoencoder's size: pictures are reduced to it and enlarged again."""

    def forward(self, tile: Tensor, context: Tensor) -> Tensor:
        size, shape = self.net.autoencoder.size, tile.shape[-2:]
        small = F.interpolate(tile, (size, size), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
        return F.interpolate(self.net(small), shape, mode="bicubic", align_corners=False)


def restorer(net: nn.Module, header: Mapping[str, str], *companions: nn.Module) -> LM4LVModel:
    """The model of loaded adapters; fetches the language model they belong to.

    Raises:
        UnavailableError: it cannot be had, or is of another width.
    """
    assert isinstance(net, Adapters)
    found, tokenize, bos = language_model(net.language_model)
    if found.config.hidden_size != net.adapter.out_features:
        raise UnavailableError(
            f"The adapters belong to a language model of width {net.adapter.out_features}; "
            f"{net.language_model} has {found.config.hidden_size}."
        )
    whole = net.restorer_of(found, tokenize, bos).eval()
    info = describe(whole, header, "lm4lv", overlap=0, bytes_per_pixel=4 * 64, gmacs=0.0, task_agnostic=True,
                    tiling="blended")  # fmt: skip
    return LM4LVModel(whole, info)
