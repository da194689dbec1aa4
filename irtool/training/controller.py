"""The training of a DA-CLIP controller (Luo et al., ICLR 2024): "daclip-controller".

For every degraded picture it learns to match the content embedding with the caption and the degradation embedding with
one of ten words. The text tower and the image tower are frozen.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .. import weights
from ..degradation import DEGRADATIONS, IDS
from ..errors import FileError, UsageError, reason
from ..fileio import read_text
from ..models import loading
from ..models.daclip import MEAN, STD, DaCLIP, tokens
from .checks import recipe_problems
from .data import Pools, Sample, cut, held_out, training_data
from .pictures import Decoded
from .recipe import Recipe
from .tasks import Preview, Shard, TrainingData

LOSSES = ("multi-positive", "published")
RANDOM = "random"


def contrastive(images: Tensor, texts: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """Symmetric InfoNCE in which a sample may have several positives.

    Args:
        images, texts: (N, K) of length 1.
        scale: what cosines are multiplied by.
        same: (N, N) bool, the positive pairs. With the identity it is the published loss (CLIP's own), in which samples
            of the same word are negatives of each other: with K words it cannot fall below ln(N / K). Otherwise the
            target is uniform over the positives, and the loss is the divergence from it, which can reach 0.
    """
    right = same.sum(1, keepdim=True)
    fraction, logits = same.float() / right, scale * images @ texts.T
    # The entropy of the target is constant, and 0 where there is one positive.
    return (F.cross_entropy(logits, fraction) + F.cross_entropy(logits.T, fraction)) / 2 - right.float().log().mean()


def caption_of(path: Path) -> str:
    """A caption from a file name: its words, without separators and numbers."""
    words = re.sub(r"[\W_\d]+", " ", path.stem).strip().lower()
    return words or "a photograph"


def captions(path: Path) -> dict[str, str]:
    """File name -> caption, from a table with tabs between the columns "filepath" and "title".

    The published tables end a title in ": " and the degradation; that is left out.

    Raises:
        UsageError: the file cannot be read or lacks the columns.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter="\t"))
    except (FileError, csv.Error) as error:
        raise UsageError(f"The captions {path} cannot be read: {reason(error)}.") from error
    if not rows or not {"filepath", "title"} <= set(rows[0]):
        raise UsageError(f"{path} holds no captions.", "Its first line is: filepath, a tab, title.")
    words = {d.prompt for d in DEGRADATIONS}
    by_path = {}
    for row in rows:
        # Captions may contain colons, so only a last part that is one of the ten words is removed.
        text, colon, last = (row["title"] or "").rpartition(": ")
        by_path[Path(row["filepath"]).name] = text if colon and last in words else row["title"] or ""
    return by_path


class Captioned(Pools):
    """Pools whose samples carry the tokens of their picture's caption.

    Args:
        texts: token ids (pictures, length), in the order of `pictures.clean`.
    """

    texts: Tensor

    def _region(self, g: torch.Generator, side: int, brightness: float = 0.0) -> Tensor:
        region = super()._region(g, side, brightness)
        self.seen.append(self.pictures.clean.last)  # type: ignore[attr-defined]
        return region

    def group(self, kind: str | int, g: torch.Generator, count: int | None = None) -> Sample:
        self.seen: list[int] = []
        sample = super().group(kind, g, count)
        return replace(sample, extras={"caption": self.texts[self.seen].to(sample.clean.device)})


class _PictureCache(Sequence[Decoded]):
    """Pictures, with the index of the one read last."""

    def __init__(self, pictures: Sequence[Decoded]) -> None:
        self.pictures, self.last = pictures, 0

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: Any) -> Any:
        self.last = index
        return self.pictures[index]


class ControllerTask:
    """The `TrainingTask` of the kind "daclip-controller". Its figure is the share of held-out samples whose
    word is found among those that the recipe teaches.

    Settings:
        base: a CLIP to start from: reference of a file with its weights (`irtool.weights.locate`), or "random".
        loss: "multi-positive" or "published", see `contrastive`.
        captions: a table below the data folder, see `captions`; without it files speak by their names.
    """

    figure_of_merit = "accuracy"

    def problems(self, recipe: Recipe) -> list[str]:
        problems = recipe_problems(DaCLIP, recipe, ("base", "loss", "captions"))
        if not recipe.settings.get("base"):
            problems.append(f"settings: 'base' must name the weights of a CLIP, or be '{RANDOM}'")
        if recipe.settings.get("loss", LOSSES[0]) not in LOSSES:
            problems.append(f"settings: loss is one of {', '.join(LOSSES)}, not '{recipe.settings['loss']}'")
        unknown_kinds = [k for k, w in recipe.weights.items() if w > 0 and k not in IDS]
        problems += [f"weights: '{kind}' has no single word; set it to 0" for kind in unknown_kinds]
        if recipe.pairs:
            problems.append("pairs: a controller learns from clean pictures that are degraded")
        return problems

    def build(self, recipe: Recipe) -> DaCLIP:
        """The network, its controller a copy of the frozen tower.

        Raises:
            UnavailableError: the base cannot be had.
            UsageError: it is no CLIP of this size.
        """
        net = DaCLIP(**recipe.model)
        base = str(recipe.settings["base"])
        if base != RANDOM:
            path = weights.locate(base)
            try:
                net.clip.load_state_dict(load_file(path), strict=True)
            except (RuntimeError, SafetensorError) as error:
                raise UsageError(f"{base} is no CLIP of the recipe's size: {error}.") from error
        net.init_controller()
        return net

    def dataset(self, recipe: Recipe, root: Path, shard: Shard) -> TrainingData[Sample]:
        found = training_data(recipe, root, shard)
        pools = found.pools
        assert isinstance(pools, Pools)
        name = recipe.settings.get("captions")
        caption_of_path = captions(root / str(name)) if name else {}
        length = recipe.model["text_cfg"]["context_length"]

        def captioned(pictures: Sequence[Decoded]) -> Captioned:
            texts = [caption_of_path.get(p.source.name) or caption_of(p.source) for p in pictures]
            kept = replace(pools.pictures, clean=_PictureCache(pictures), held_out=())
            with_captions = Captioned(kept, recipe, shard)
            with_captions.texts = tokens(texts, length)
            return with_captions

        held_samples = held_out(captioned(pools.pictures.held_out or pools.pictures.clean), each=4)
        return replace(found, pools=captioned(pools.pictures.clean), held_out=held_samples)

    def batch(self, pool: Sample, row: int, rows: int, crop: int, generator: torch.Generator) -> Sample:
        return cut(pool, row, rows, crop, generator)

    def loss(
        self, net: nn.Module, batch: Sample, recipe: Recipe, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(net, DaCLIP)
        word = batch.labels.argmax(1)
        words = _words(net).to(word.device)
        out = net(_shown(batch.degraded, net.size), torch.cat([batch.extras["caption"], words[word]], dim=1))
        out = {name: value.float() for name, value in out.items()}
        scale = out["logit_scale"].clamp(max=100)
        same_word = same_caption = torch.eye(len(batch), dtype=torch.bool, device=word.device)
        if recipe.settings.get("loss", LOSSES[0]) == LOSSES[0]:
            same_word = word[:, None] == word
            same_caption = (batch.extras["caption"][:, None] == batch.extras["caption"]).all(-1)
        content = contrastive(out["image_features"], out["text_features"], scale, same_caption)
        degradation = contrastive(out["image_degra_features"], out["text_degra_features"], scale, same_word)
        predicted = _classify(net, out["image_degra_features"], words, recipe)
        figures = {
            "content": content.detach(),
            "degradation": degradation.detach(),
            "accuracy": (predicted == word).float(),
        }
        return content + degradation, figures

    def preview(self, net: nn.Module, held_out: Sample, recipe: Recipe) -> Preview:
        assert isinstance(net, DaCLIP)
        words, word = _words(net).to(held_out.labels.device), held_out.labels.argmax(1)
        embeddings = [net.embed(_shown(held_out.degraded[i : i + 8], net.size))[1] for i in range(0, len(held_out), 8)]
        predicted = _classify(net, F.normalize(torch.cat(embeddings).float(), dim=-1), words, recipe)
        names, right = held_out.names(), (predicted == word).float()
        figures = {"accuracy": float(right.mean())}
        for name in dict.fromkeys(names):
            figures[f"accuracy/{name}"] = float(right[[i for i, n in enumerate(names) if n == name]].mean())
        shown = [i for i, name in enumerate(names) if name not in names[:i]]
        pictures = [t.permute(0, 2, 3, 1).cpu().numpy() for t in (held_out.degraded, held_out.clean)]
        return Preview(
            figures,
            rows=[[p[i] for p in pictures] for i in shown],
            titles=("input", "clean"),
            captions=[[f"found {IDS[int(predicted[i])]}", f"is {names[i]}"] for i in shown],
        )

    def export(self, net: nn.Module, recipe: Recipe, target: Path, notes: Mapping[str, str]) -> None:
        header = {"tasks": json.dumps([i for i in IDS if recipe.weights.get(i, 0) > 0])}
        loading.save(net, target, architecture="daclip", config=recipe.model, notes={**header, **notes})


def _words(net: DaCLIP) -> Tensor:
    """Tokens (10, length) of the published words."""
    return tokens([d.prompt for d in DEGRADATIONS], net.clip.context_length)


def _classify(net: DaCLIP, degradation: Tensor, words: Tensor, recipe: Recipe) -> Tensor:
    """Index of the word closest to each embedding (N, K), among the words that the recipe teaches."""
    taught = torch.tensor([recipe.weights.get(i, 0) > 0 for i in IDS], device=words.device)
    with torch.no_grad():
        near = degradation @ net.encode_text(words, normalize=True).float().T
        return near.masked_fill(~taught, -torch.inf).argmax(1)


def _shown(pictures: Tensor, size: int) -> Tensor:
    """Square pictures (N, 3, S, S) in [0, 1] as the towers take them, on their device."""
    if pictures.shape[-1] != size:
        pictures = F.interpolate(pictures, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(
            0, 1
        )
    mean, std = (torch.tensor(v, device=pictures.device)[:, None, None] for v in (MEAN, STD))
    return (pictures - mean) / std
