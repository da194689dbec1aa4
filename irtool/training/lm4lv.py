"""The training of LM4LV ("lm4lv"): adapters and task tokens about a frozen language model, and before that, where no
published one is named, the autoencoder.

Zheng et al., arXiv 2405.15734. One model learns one task, as published: what it is, the recipe's samples say. Beside
irtool's degradations two spatial tasks can be set: "rotate" and "flip".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..degradation import IDS
from ..errors import UsageError
from ..models import loading, mae
from ..models.lm4lv import LM4LV, Adapters, Prompt, language_model, prompt
from .data import Sample, cut, training_data
from .recipe import Recipe, unknown
from .restorer import psnr
from .tasks import Preview, Shard, TrainingData

MODEL: Mapping[str, Any] = {"language_model": "", "vision": "", "num_task_tokens": 10, "autoencoder": {}}
SETTINGS = ("stage", "spatial")
SPATIAL = ("", "rotate", "flip")
VISION = (
    "image_size", "patch_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "decoder_hidden_size", "decoder_num_hidden_layers", "decoder_num_attention_heads", "decoder_intermediate_size",
    "layer_norm_eps", "hidden_act", "qkv_bias", "num_channels",
)  # fmt: skip
"""What of a ViT-MAE's configuration its layout depends on."""


class Learned(nn.Module):
    """What the stage "adapters" learns, under the published names. The job keeps what is frozen."""

    def __init__(self, model: LM4LV) -> None:
        super().__init__()
        self.adapter, self.deadapter = model.adapter, model.deadapter
        self.learnable_task_token = model.learnable_task_token


class LM4LVTask:
    """The `TrainingTask` of the kind "lm4lv". The figure is PSNR in dB of held-out samples.

    Model: language_model, a reference (`irtool.models.lm4lv.language_model`); vision, a ViT-MAE on the hub, a folder,
    or a file that the stage "autoencoder" exported; num_task_tokens; autoencoder, the ViT-MAE to train.

    Settings: stage, "adapters" or "autoencoder" (L1 between pictures and their reconstructions; with `vision` only the
    decoder learns, as published); spatial, "rotate" (by 180 degrees) or "flip" the target.
    """

    figure_of_merit = "psnr"

    def __init__(self) -> None:
        self.autoencoder: mae.Autoencoder | None = None
        self.frame: LM4LV | None = None
        self.conversation: Prompt | None = None

    def problems(self, recipe: Recipe) -> list[str]:
        problems = [f"model: unknown key {unknown(key, MODEL)}" for key in recipe.model if key not in MODEL]
        problems += [f"settings: unknown key {unknown(k, SETTINGS)}" for k in recipe.settings if k not in SETTINGS]
        if recipe.settings.get("stage", "adapters") not in ("adapters", "autoencoder"):
            problems.append("settings: stage is 'adapters' or 'autoencoder'")
        if recipe.settings.get("spatial", "") not in SPATIAL:
            problems.append("settings: spatial is 'rotate', 'flip' or ''")
        if recipe.settings.get("stage", "adapters") == "adapters" and not recipe.model.get("language_model"):
            problems.append("model: 'language_model' must be named")
        return problems

    def build(self, recipe: Recipe) -> nn.Module:
        """What is trained; loads what is frozen too.

        Raises:
            UnavailableError: the autoencoder or the language model cannot be had.
        """
        autoencoder = self._autoencoder(recipe)
        if recipe.settings.get("stage") == "autoencoder":
            if recipe.model.get("vision"):
                autoencoder.net.vit.requires_grad_(False)
            return autoencoder
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        net, tokenize, bos = language_model(str(recipe.model["language_model"]))
        count = int(recipe.model.get("num_task_tokens", 10))
        self.frame = LM4LV(net, autoencoder.dim, autoencoder.tokens, count)
        self.conversation = prompt(tokenize, autoencoder.tokens, count, bos)
        return Learned(self.frame)

    def around(self, net: nn.Module, device: torch.device) -> tuple[mae.Autoencoder, LM4LV | None]:
        """The autoencoder, and the language model with what is learned about it; None in the first stage."""
        if isinstance(net, mae.Autoencoder):
            return net, None
        assert isinstance(net, Learned) and self.frame is not None and self.autoencoder is not None
        self.frame.llama_model.to(device)
        self.frame.adapter, self.frame.deadapter = net.adapter, net.deadapter
        self.frame.learnable_task_token = net.learnable_task_token
        return self.autoencoder.to(device), self.frame

    @staticmethod
    def _autoencoder(recipe: Recipe) -> mae.Autoencoder:
        vision = str(recipe.model.get("vision", ""))
        if not vision and recipe.settings.get("stage", "adapters") == "adapters":
            raise UsageError(
                "The adapters need an autoencoder that has been trained.",
                "Train one with settings.stage=autoencoder, export it, and name the file as model.vision.",
            )
        if not vision:
            return mae.Autoencoder(recipe.model.get("autoencoder", {}))
        if not vision.endswith(".safetensors"):
            return mae.load(vision)
        net, header = loading.read(Path(vision))
        if not isinstance(net, mae.Autoencoder):
            raise UsageError(f"{vision} holds a {header['architecture']}, not an autoencoder.")
        return net

    def dataset(self, recipe: Recipe, root: Path, shard: Shard) -> TrainingData[Sample]:
        return training_data(recipe, root, shard)

    def batch(self, pool: Sample, row: int, rows: int, crop: int, generator: torch.Generator) -> Sample:
        return cut(pool, row, rows, crop, generator)

    def pictures(self, size: int, sample: Sample, recipe: Recipe) -> tuple[Tensor, Tensor]:
        """Degraded and clean at the autoencoder's size."""
        degraded, clean = (
            picture if picture.shape[-1] == size else F.interpolate(picture, (size, size), mode="area")
            for picture in (sample.degraded, sample.clean)
        )
        dims = {"rotate": (-2, -1), "flip": (-1,)}.get(recipe.settings.get("spatial", ""), ())
        return degraded, clean.flip(dims) if dims else clean

    def loss(
        self, net: nn.Module, batch: Sample, recipe: Recipe, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        autoencoder, model = self.around(net, batch.clean.device)
        degraded, clean = self.pictures(autoencoder.size, batch, recipe)
        if model is None:
            restored = autoencoder.decode(autoencoder.encode(clean)).float()
            return (restored - clean).abs().mean(), {"psnr": psnr(restored, clean)}
        assert self.conversation is not None
        with torch.no_grad():
            images = [autoencoder.encode(picture) for picture in (degraded, clean)]
        ids, text, features = (
            t.to(clean.device).expand(len(clean), -1)
            for t in (self.conversation.ids, self.conversation.text, self.conversation.features)
        )
        losses = model.losses(ids, text, features, images)
        return losses["total"], {key: losses[key].detach() for key in ("text", "vision")}

    def preview(self, net: nn.Module, held_out: Sample, recipe: Recipe) -> Preview:
        autoencoder, model = self.around(net, held_out.clean.device)
        degraded, clean = self.pictures(autoencoder.size, held_out, recipe)
        # What LM4LV is to be compared with: the degraded picture through the autoencoder alone.
        through = autoencoder.decode(autoencoder.encode(degraded)).float().clamp(0, 1)
        best = autoencoder.decode(autoencoder.encode(clean)).float().clamp(0, 1)
        restored = best
        if model is not None:
            assert self.conversation is not None
            context = self.conversation.context.to(clean.device).expand(len(clean), -1)
            restored = autoencoder.decode(model.generate(context, autoencoder.encode(degraded))).float().clamp(0, 1)
        figures = {
            "psnr": float(psnr(restored, clean).mean()),
            "psnr/degraded_through_autoencoder": float(psnr(through, clean).mean()),
            "psnr/clean_through_autoencoder": float(psnr(best, clean).mean()),
        }
        shown = [p.permute(0, 2, 3, 1).float().cpu().numpy() for p in (degraded, through, restored, clean)]
        count = min(6, len(clean))
        return Preview(
            figures,
            rows=[[column[i] for column in shown] for i in range(count)],
            titles=("input", "through the autoencoder", "output", "target"),
            captions=[[""] * 4] * count,
        )

    def export(self, net: nn.Module, recipe: Recipe, target: Path, notes: Mapping[str, str]) -> None:
        # No language model is needed for this, and none is loaded.
        autoencoder = net if isinstance(net, mae.Autoencoder) else self._autoencoder(recipe)
        config = autoencoder.net.config.to_dict()
        vision = {k: v for k, v in config.items() if k in VISION}
        if isinstance(net, mae.Autoencoder):
            loading.save(net, target, architecture="mae", config={"config": vision}, notes=notes)
            return
        assert isinstance(net, Learned)
        made: dict[str, Any] = {"width": net.adapter.out_features, "num_task_tokens": net.learnable_task_token.shape[1],
                "vision": vision, "language_model": str(recipe.model["language_model"])}  # fmt: skip
        adapters = Adapters(**made)
        whole = {f"autoencoder.{k}": v for k, v in autoencoder.state_dict().items()}
        adapters.load_state_dict(whole | net.state_dict(), strict=True)
        header = {"tasks": json.dumps([i for i in IDS if recipe.weights.get(i, 0) > 0] or list(IDS))}
        loading.save(adapters, target, architecture="lm4lv", config=made, notes={**header, **notes})
