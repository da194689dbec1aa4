"""The text model in torch, for training. `irtool.language.tagger` runs it in NumPy; a test compares the two."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irtool.language.labels import ORDERS
from irtool.language.packing import SCALE, unpack
from irtool.language.tagger import HEADS
from irtool.language.tokens import BUCKETS

DILATIONS = (1, 2, 4, 8)


class Block(nn.Module):
    """A dilated convolution over the tokens, then their maximum over the sentence."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.out = nn.Linear(width, width)
        self.share = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (N, T, C), mask (N, T, 1) -> (N, T, C), zero where masked."""
        y = self.norm(x) * mask
        x = x + self.out(F.relu(self.conv(y.transpose(1, 2)).transpose(1, 2)))
        top = x.masked_fill(mask == 0, -1e4).max(dim=1, keepdim=True).values
        return (x + self.share(top)) * mask


class Member(nn.Module):
    """One network of the ensemble.

    Args:
        size: channels of the embedding of a feature.
        width: channels of a token.
        dilations: of the blocks.
    """

    def __init__(self, size: int = 48, width: int = 80, dilations: Sequence[int] = DILATIONS) -> None:
        super().__init__()
        self.embed = nn.EmbeddingBag(BUCKETS, size, mode="sum")
        # Small, so that features never met in training do not outvote those that were.
        nn.init.normal_(self.embed.weight, std=0.05)
        self.enter = nn.Linear(size, width)
        self.blocks = nn.ModuleList(Block(width, d) for d in dilations)
        self.norm = nn.LayerNorm(width)
        for name, count in HEADS.items():
            setattr(self, name, nn.Linear(width, count))
        self.order = nn.Linear(width, len(ORDERS))
        self.drop = nn.Dropout(0.1)

    def forward(self, ids: Tensor, weights: Tensor, offsets: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Logits.

        Args:
            ids: features of all tokens of all sentences, one after the other; a padded token has one.
            weights: of the features in the sum.
            offsets: (N * T,), where the features of each token begin.
            mask: (N, T, 1), 1 where there is a token.

        Returns:
            kind, act, level (N, T, classes) and order (N, classes).
        """
        n, t, _ = mask.shape
        x = self.enter(self.drop(self.embed(ids, offsets, weights).view(n, t, -1))) * mask
        for block in self.blocks:
            x = block(x, mask)
        x = self.drop(self.norm(x))
        logits = {name: getattr(self, name)(x) for name in HEADS}
        logits["order"] = self.order(x.masked_fill(mask == 0, -1e4).max(dim=1).values)
        return logits


class TaggerNet(nn.Module):
    """An ensemble: the logarithm of the mean of the probabilities of its members.

    Args:
        members: how many networks.
        dilations: of their blocks.
    """

    def __init__(self, members: int = 1, dilations: Sequence[int] = DILATIONS) -> None:
        super().__init__()
        self.nets = nn.ModuleList(Member(dilations=dilations) for _ in range(members))
        self.register_load_state_dict_pre_hook(_unpack)

    def forward(self, *batch: Tensor) -> dict[str, Tensor]:
        """As `Member.forward`."""
        outputs = [net(*batch) for net in self.nets]
        logs = {name: torch.stack([one[name].log_softmax(-1) for one in outputs]) for name in outputs[0]}
        return {name: each.logsumexp(0) - math.log(len(outputs)) for name, each in logs.items()}


def _unpack(net: nn.Module, state: dict[str, Tensor], *_: object) -> None:
    """Tensors of a packed file as float32."""
    if any(name.endswith(SCALE) for name in state):
        tensors = unpack({name: value.numpy() for name, value in state.items()})
        state.clear()
        state.update({name: torch.from_numpy(value) for name, value in tensors.items()})
