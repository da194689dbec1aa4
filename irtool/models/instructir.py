"""InstructIR (Conde, Geigle, Timofte, ECCV 2024): a NAFNet steered by the embedding of a sentence.

After every level an instruction block scales the features by a gate read off the text embedding. The embedding comes
from a frozen sentence encoder (BGE-micro-v2, 384 values) through the language head below, whose second layer tells
which of seven tasks is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UnavailableError
from ..ops import pad_to_multiple
from .base import Condition, ModelInfo, Placed, SinglePassModel, check, describe
from .macs import SIDE, counted
from .nafnet import Block, LocalPool, layout

Shapes = Mapping[str, tuple[int, ...]]
CLASSES = ("noise", "blur", "rain", "haze", "lowlight", "outscale", "auto")
"""What the seven outputs of the language head stand for: five degradations, enlargement, general enhancement."""
SENTENCES = {
    "noise": "Remove the noise from this photo.",
    "blur": "Sharpen this photo, it is blurry from motion.",
    "rain": "Remove the rain from this photo.",
    "haze": "Remove the haze from this photo.",
    "lowlight": "This photo is too dark, make it brighter.",
}
"""What is said to the network for each task; a mixture is said in several sentences."""


class InstructionBlock(nn.Module):
    """x + Block((x gamma + beta) * sigmoid(fc(text)))."""

    def __init__(self, channels: int, text: int) -> None:
        super().__init__()
        self.fc = nn.Linear(text, channels)
        self.block = Block(channels, LocalPool())
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """x (N, C, H, W), text (N, T) -> (N, C, H, W)."""
        gate = self.fc(text).sigmoid()[:, :, None, None]
        y: Tensor = self.block((x * self.gamma + self.beta) * gate)
        return x + y


class InstructIR(nn.Module):
    """The picture network.

    Args:
        input_channels: of pictures in and out.
        width: channels of the first level; they double per level.
        enc_blks, middle_blk_num, dec_blks: blocks at each level and in the middle.
        txtdim: size of the text embedding.
    """

    def __init__(
        self,
        input_channels: int = 3,
        width: int = 32,
        enc_blks: Sequence[int] = (2, 2, 4, 8),
        middle_blk_num: int = 4,
        dec_blks: Sequence[int] = (2, 2, 2, 2),
        txtdim: int = 256,
    ) -> None:
        super().__init__()
        levels, pool = len(enc_blks), LocalPool()
        self.multiple, self.txtdim = 2**levels, txtdim
        self.intro = nn.Conv2d(input_channels, width, 3, 1, 1)
        self.ending = nn.Conv2d(width, input_channels, 3, 1, 1)
        self.encoders, self.enc_cond, self.downs = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.decoders, self.dec_cond, self.ups = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, count in enumerate(enc_blks):
            c = width << level
            self.encoders.append(nn.Sequential(*(Block(c, pool) for _ in range(count))))
            self.enc_cond.append(InstructionBlock(c, txtdim))
            self.downs.append(nn.Conv2d(c, 2 * c, 2, 2))
        c = width << levels
        self.middle_blks = nn.Sequential(*(Block(c, pool) for _ in range(middle_blk_num)))
        for level, count in zip(reversed(range(levels)), dec_blks, strict=True):
            c = width << level
            self.ups.append(nn.Sequential(nn.Conv2d(2 * c, 4 * c, 1, bias=False), nn.PixelShuffle(2)))
            self.decoders.append(nn.Sequential(*(Block(c, pool) for _ in range(count))))
            self.dec_cond.append(InstructionBlock(c, txtdim))

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """Restore a batch.

        Args:
            x: (N, 3, H, W) in [0, 1], any size.
            text: (N, txtdim) embeddings from `LanguageHead`.

        Returns:
            (N, 3, H, W), not clamped.
        """
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple, "zeros")
        y, skips = self.intro(x), []
        for encoder, modulation, down in zip(self.encoders, self.enc_cond, self.downs, strict=True):
            skips.append(modulation(encoder(y), text))
            y = down(skips[-1])
        y = self.middle_blks(y)
        for decoder, modulation, up in zip(self.decoders, self.dec_cond, self.ups, strict=True):
            y = modulation(decoder(up(y) + skips.pop()), text)
        return (self.ending(y) + x)[..., :height, :width]


def recognize(shapes: Shapes) -> dict[str, Any] | None:
    """The configuration of `InstructIR`, read off the shapes of its tensors; None where they are not its."""
    if "enc_cond.0.fc.weight" not in shapes:
        return None
    found = layout(shapes)
    return {
        "input_channels": found["img_channel"],
        "width": found["width"],
        "enc_blks": found["enc_blk_nums"],
        "middle_blk_num": found["middle_blk_num"],
        "dec_blks": found["dec_blk_nums"],
        "txtdim": shapes["enc_cond.0.fc.weight"][1],
    }


class LanguageHead(nn.Module):
    """From a sentence embedding to what steers the network, and to the task.

    Args:
        embedding_dim: of the sentence encoder.
        hidden_dim: of the steering embedding.
        num_classes: of tasks, see `CLASSES`.
    """

    def __init__(self, embedding_dim: int = 384, hidden_dim: int = 256, num_classes: int = 7) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(embedding_dim, hidden_dim), nn.Linear(hidden_dim, num_classes)

    def forward(self, sentence: Tensor) -> tuple[Tensor, Tensor]:
        """(N, embedding_dim) -> unit embeddings (N, hidden_dim) and logits (N, num_classes)."""
        embedding = F.normalize(self.fc1(sentence), dim=-1)
        return embedding, self.fc2(embedding)


def recognize_head(shapes: Shapes) -> dict[str, Any] | None:
    """The configuration of `LanguageHead`; None where the tensors are not its."""
    if set(shapes) != {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}:
        return None
    hidden, embedding = shapes["fc1.weight"]
    return {"embedding_dim": embedding, "hidden_dim": hidden, "num_classes": shapes["fc2.weight"][0]}


TextEncoder = Callable[[list[str]], tuple[Tensor, Tensor]]
"""Sentences -> what steers the network (N, 256), and the scores of `CLASSES` (N, 7)."""


class InstructIRModel:
    """An `InstructIR` with its language head (the `Model` protocol).

    Attributes:
        head: the loaded head.
        steer: how sentences become embeddings; None for the sentence encoder of the extra "text".
    """

    def __init__(self, net: InstructIR, info: ModelInfo, head: LanguageHead) -> None:
        self.info, self.head, self.placed = info, head, Placed(net)
        self.steer: TextEncoder | None = None

    @property
    def net(self) -> Any:
        """The network that computes."""
        return self.placed.net

    def bind(self, condition: Condition) -> InstructIRBound:
        """Say the tasks to the network; their weights cannot be said.

        Raises:
            UsageError: it was not trained on one of them.
            UnavailableError: nothing turns sentences into embeddings.
        """
        check(condition, self.info)
        if self.steer is None:
            from .instructir_text import InstructIRWords, SentenceEncoder

            self.steer = InstructIRWords(self.head, SentenceEncoder()).steer
        embedding, _ = self.steer([" ".join(SENTENCES[task] for task in condition.tasks)])
        bound = InstructIRBound(self.placed, self.info, embedding)
        return bound if condition.adapter is None else bound.adapted(condition.adapter)


class InstructIRBound(SinglePassModel):
    """An `InstructIR` that was told what to do: its channel attention pools over all that it sees."""

    def __init__(self, placed: Placed, info: ModelInfo, embedding: Tensor) -> None:
        self.placed, self.info, self.embedding = placed, info, embedding

    def prepare(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The image, and the embedding of the sentence, (1, 256)."""
        return image, self.embedding

    def forward(self, tile: Tensor, context: Tensor) -> Tensor:
        restored: Tensor = self.net(tile, context.to(tile.dtype).expand(len(tile), -1))
        return restored


def restorer(net: InstructIR, header: Mapping[str, str], *companions: nn.Module) -> InstructIRModel:
    """The model of a loaded network.

    Raises:
        UnavailableError: its language head is missing.
    """
    if not companions or not isinstance(companions[0], LanguageHead):
        raise UnavailableError("InstructIR needs its language head.", "irtool download instructir-lm.7d")
    inputs = torch.empty(1, 3, SIDE, SIDE, device="meta"), torch.empty(1, net.txtdim, device="meta")
    info = describe(
        net, header, "instructir", tasks=tuple(SENTENCES), multiple=net.multiple, overlap=128,
        bytes_per_pixel=4 * 9 * net.intro.out_channels, gmacs=counted(net, *inputs), tiling="blended",
    )  # fmt: skip
    tasks = tuple(task for task in info.tasks if task in SENTENCES) or tuple(SENTENCES)
    return InstructIRModel(net, replace(info, tasks=tasks), companions[0])
