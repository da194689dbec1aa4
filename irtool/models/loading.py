"""From a safetensors file to a network.

A file of irtool's own describes itself: its header names the architecture and its configuration. A published file has
tensors only; the family it belongs to and its sizes are then read off the names and shapes of those tensors. Nothing
in either kind of file is executed.

`ARCHITECTURES` is the one table of what irtool can load; a new family is one line in it (docs/models.md).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from ..errors import UnavailableError
from .base import Restorer

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Architecture:
    """A family of networks. The places are written "module:name", under irtool, and imported when first used.

    Attributes:
        network: the class, or a function that makes one; its keyword arguments are the configuration, its state_dict
            has the published names.
        keys: tensors that every published file of the family has; they are named to the user where no family fits.
            Empty for a family whose files always describe themselves.
        recognise: ``(shapes) -> configuration``, or None where these are not this family's tensors. It is only called
            when all of `keys` are there.
        restorer: ``(net, header, *companions) -> Restorer``; empty for what restores nothing by itself, such as a
            detector. The companions are the networks of the records that weights.toml names in `needs`.
    """

    network: str
    keys: tuple[str, ...] = ()
    recognise: str = ""
    restorer: str = ""


def _peer(place: str, *keys: str) -> Architecture:
    """The family of a network "module:name" under `irtool.models.peers`."""
    module = place.partition(":")[0]
    return Architecture(
        f"models.peers.{place}", keys, f"models.peers.{module}:recognise", f"models.peers.{module}:restorer"
    )


DIFFUSION = "models.diffusion:restorer"
UNET_KEYS = ("init_conv.weight", "time_mlp.1.weight", "mid_attn.fn.norm.g", "final_conv.weight")
REFUSION_KEYS = ("intro.weight", "time_mlp.1.weight", "middle_blks.0.mlp.1.weight", "middle_blks.0.norm1.g")
DACLIP_KEYS = ("logit_scale", "clip.visual.conv1.weight", "visual_control.transformer.zero_modules.0.weight")

# Where two families share names, the one that asks for more comes first: the first that recognises a file has it.
ARCHITECTURES: dict[str, Architecture] = {
    "compact": Architecture("models.compact:CompactNet", restorer="models.compact:restorer"),
    "detector": Architecture("detect.network:DetectorNet"),
    "tagger": Architecture("language.training:TaggerNet"),
    "daclip": Architecture("models.daclip:DaCLIP", DACLIP_KEYS, "models.daclip:recognise"),
    "wild-unet": Architecture(
        "models.irsde_unet:ContextUNet", UNET_KEYS, "models.irsde_unet:recognise_wild", DIFFUSION
    ),
    "universal-unet": Architecture(
        "models.irsde_unet:ContextUNet", UNET_KEYS, "models.irsde_unet:recognise_universal", DIFFUSION
    ),
    "irsde-unet": Architecture(
        "models.irsde_unet:ConditionalUNet", UNET_KEYS, "models.irsde_unet:recognise", DIFFUSION
    ),
    "denoising-unet": Architecture(
        "models.irsde_unet:ConditionalUNet", UNET_KEYS, "models.irsde_unet:recognise_denoising", DIFFUSION
    ),
    "nafnet-daclip": Architecture(
        "models.nafnet_daclip:ContextNAFNet",
        ("intro.weight", "prompt", "text_mlp.0.weight", "middle_blks.0.mlp.1.weight"),
        "models.nafnet_daclip:recognise",
        "models.single:nafnet_daclip",
    ),
    "refusion-nafnet": Architecture(
        "models.refusion_nafnet:ConditionalNAFNet", REFUSION_KEYS, "models.refusion_nafnet:recognise_pixel", DIFFUSION
    ),
    "latent-nafnet": Architecture(
        "models.refusion_nafnet:ConditionalNAFNet", REFUSION_KEYS, "models.refusion_nafnet:recognise_latent", DIFFUSION
    ),
    "latent-unet": Architecture(
        "models.latent_unet:LatentUNet",
        ("init_conv.weight", "encoder.0.0.block1.proj.weight", "latent_conv.weight", "post_latent_conv.weight"),
        "models.latent_unet:recognise",
    ),
    "instructir": Architecture(
        "models.instructir:InstructIR",
        ("intro.weight", "enc_cond.0.fc.weight", "dec_cond.0.fc.weight", "middle_blks.0.conv1.weight"),
        "models.instructir:recognise",
        "models.instructir:restorer",
    ),
    "instructir-lm": Architecture(
        "models.instructir:LanguageHead", ("fc1.weight", "fc2.weight"), "models.instructir:recognise_head"
    ),
    "ipt": Architecture(
        "models.ipt:IPT",
        ("head.0.0.weight", "body.linear_encoding.weight", "body.query_embed.weight", "tail.0.1.weight"),
        "models.ipt:recognise",
        "models.ipt:restorer",
    ),
    "instruct-ipt": Architecture("models.instruct_ipt:InstructIPT", restorer="models.instruct_ipt:restorer"),
    "nafnet": Architecture(
        "models.nafnet:NAFNet",
        ("intro.weight", "middle_blks.0.conv1.weight", "middle_blks.0.sca.1.weight", "middle_blks.0.norm1.weight"),
        "models.nafnet:recognise",
        "models.single:nafnet",
    ),
    # Peers. What aodnet asks for, zerodce's files have too; which of the two it is, their shapes tell.
    "prenet": _peer("prenet:PReNet", "conv0.0.weight", "res_conv1.0.weight", "conv.0.weight"),
    "gcanet": _peer("gcanet:GCANet", "conv1.weight", "res1.pre_conv1.weight", "gate.weight", "deconv1.weight"),
    "aodnet": _peer("aodnet:AODNet", "e_conv1.weight", "e_conv5.weight"),
    "uretinex": _peer(
        "uretinex:URetinexNet",
        "decom_low.decom.0.weight",
        "decom_high.decom.0.weight",
        "R.conv8.weight",
        "L.conv5.weight",
        "A.conv1.weight",
    ),
    "zerodce": _peer("zerodce:ZeroDCE", "e_conv1.weight", "e_conv7.weight"),
    "iat": _peer(
        "iat:IAT",
        "local_net.conv1.weight",
        "local_net.mul_blocks.0.mlp.fc1.weight",
        "global_net.generator.attn.q",
        "global_net.gamma_linear.weight",
    ),
    "ruas": _peer("ruas:RUAS", "enhance_net.iems.0.cell.c5.weight", "denoise_net.stem.weight"),
    "sci": _peer("sci:SCI", "enhance.in_conv.0.weight", "enhance.out_conv.0.weight", "calibrate.in_conv.0.weight"),
    "pairlie": _peer(
        "pairlie:PairLIE",
        "L_net.L_net.1.weight",
        "L_net.L_net.13.weight",
        "R_net.R_net.1.weight",
        "N_net.N_net.13.weight",
    ),
    "dncnn": _peer("dncnn:DnCNN", "conv0.weight", "conv1.weight", "conv1.bias"),
    "airnet": _peer(
        "airnet:AirNet", "E.E.encoder_q.E_pre.backbone.0.weight", "E.E.queue", "R.head.0.weight", "R.tail.0.weight"
    ),
    "promptir": _peer(
        "promptir:PromptIR",
        "patch_embed.proj.weight",
        "prompt1.prompt_param",
        "reduce_noise_level3.weight",
        "chnl_reduce3.weight",
    ),
    "transweather": _peer(
        "transweather:TransWeather",
        "Tenc.patch_embed1.proj.weight",
        "Tdec.block1.0.attn.task_query",
        "clean.conv2d.weight",
    ),
    "maxim": _peer("maxim:MAXIM", "stage_0_input_conv_0/kernel", "UpSampleRatio_0/Conv_0/kernel"),
    # What metrics look through.
    "alexnet": Architecture(
        "metrics.networks:alexnet", ("features.0.weight", "classifier.6.weight"), "metrics.networks:recognise_alexnet"
    ),
    "vgg16": Architecture(
        "metrics.networks:vgg16", ("features.28.weight", "classifier.6.weight"), "metrics.networks:recognise_vgg16"
    ),
    "inception-fid": Architecture(
        "metrics.networks:inception",
        ("Mixed_7c.branch_pool.conv.weight", "fc.weight"),
        "metrics.networks:recognise_inception",
    ),
}


def save(
    net: nn.Module, path: Path, *, architecture: str, config: Mapping[str, Any], notes: Mapping[str, str] | None = None
) -> None:
    """Write a network as float16 safetensors with its architecture and configuration in the header.

    Args:
        net: its floating-point weights must fit float16.
        path: target, replaced atomically.
        architecture: a key of `ARCHITECTURES`.
        config: keyword arguments that build the network again.
        notes: further header entries, such as a licence.
    """
    weights: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[int, torch.Size], str] = {}
    for name, value in net.state_dict().items():
        same = first.setdefault((value.data_ptr(), value.shape), name)
        if same != name and value.numel():  # a module that is registered twice is written once
            aliases[name] = same
        else:
            weights[name] = value.detach().cpu().half().contiguous() if value.is_floating_point() else value.cpu()
    partial = path.with_suffix(".partial")
    header = {"architecture": architecture, "config": json.dumps(config, default=list), **(notes or {})}
    if aliases:
        header["aliases"] = json.dumps(aliases)
    partial.write_bytes(serialise(weights, metadata=header))
    partial.replace(path)


def describe(path: Path) -> tuple[str, dict[str, Any], dict[str, str]]:
    """What network a file holds, from its header and the shapes of its tensors alone.

    Returns:
        The architecture (a key of `ARCHITECTURES`), its configuration, and the header.

    Raises:
        UnavailableError: the file is absent, no safetensors, or holds no network that irtool knows.
    """
    header, shapes = _look(path)
    named = header.get("architecture", "")
    about = header.get("source", path)  # what it was converted from
    if named and named not in ARCHITECTURES:
        raise UnavailableError(
            f"{about} holds no network that irtool knows: its header names '{named}'.",
            f"Known architectures: {', '.join(ARCHITECTURES)}.",
        )
    if "config" in header and named:
        try:
            return named, dict(json.loads(header["config"])), header
        except (TypeError, ValueError) as error:
            raise UnavailableError(f"{path} has a damaged header: {error}.") from error
    found = recognise(shapes, [named] if named else ARCHITECTURES)
    if found is None:
        raise UnavailableError(f"{about} holds no network that irtool knows.", _sought(shapes, named))
    return *found, header


def recognise(
    shapes: Shapes, among: Sequence[str] | Mapping[str, Any] = ARCHITECTURES
) -> tuple[str, dict[str, Any]] | None:
    """The architecture and configuration that tensors of these names and shapes belong to; None where none fits."""
    for name in among:
        family = ARCHITECTURES[name]
        if family.recognise and all(key in shapes for key in family.keys):
            config = _resolve(family.recognise)(shapes)
            if config is not None:
                return name, config
    return None


def read(path: Path) -> tuple[nn.Module, dict[str, str]]:
    """Build the network a file holds, load its weights strictly, and return it with the header.

    The network is on the CPU, in float32, in evaluation mode. Its header has at least "architecture" and "config"
    (JSON), also where the file had none.

    Raises:
        UnavailableError: the file is absent, no safetensors, of an unknown architecture, or its weights do not fit.
    """
    architecture, config, header = describe(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            weights: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        weights = {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
        # One module under two names is stored once.
        weights |= {alias: weights[key] for alias, key in json.loads(header.get("aliases", "{}")).items()}
        with torch.device("meta"):
            net: nn.Module = _resolve(ARCHITECTURES[architecture].network)(**config)
        net.load_state_dict(weights, strict=True, assign=True)
    except (TypeError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UnavailableError(f"{path} does not fit its own description ({architecture}): {error}.") from error
    header |= {"architecture": architecture, "config": json.dumps(config, default=list)}
    return net.eval().requires_grad_(False), header


def load(path: Path, companions: Sequence[Path] = ()) -> Restorer:
    """Load a restorer on the CPU in float32.

    Args:
        path: its file.
        companions: files of the networks it needs beside it, in the order of its record (`irtool.weights.needs`).

    Raises:
        UnavailableError: see `read`; or the file holds something that restores nothing, such as a detector. What no
            family fits, the package spandrel is asked about, where it is installed.
    """
    try:
        net, header = read(path)
    except UnavailableError as error:
        if not path.is_file() or _look(path)[0].get("architecture"):
            raise
        from . import spandrel

        return spandrel.load(path, error)
    wrap = ARCHITECTURES[header["architecture"]].restorer
    if not wrap:
        raise UnavailableError(f"{path} holds a {header['architecture']}, not a restorer.")
    restorer: Restorer = _resolve(wrap)(net, header, *(read(companion)[0] for companion in companions))
    return restorer


def _look(path: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """Header and shapes of a file, the aliases among its tensors included."""
    try:
        with safe_open(str(path), framework="pt") as file:
            header = dict(file.metadata() or {})
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise UnavailableError(f"{path} does not exist.", "Give the path of a .safetensors file.") from error
    except (SafetensorError, OSError) as error:
        mend = "irtool download NAME mends a file that irtool has fetched."
        raise UnavailableError(f"{path} is not a readable safetensors file: {error}.", mend) from error
    try:
        shapes |= {alias: shapes[key] for alias, key in json.loads(header.get("aliases", "{}")).items()}
    except (ValueError, KeyError, AttributeError) as error:
        raise UnavailableError(f"{path} has a damaged header: {error}.") from error
    return header, shapes


def _sought(shapes: Shapes, named: str) -> str:
    """For a person: the tensors each family would have had, and some that are there."""
    families: dict[tuple[str, ...], list[str]] = {}
    for name, family in ARCHITECTURES.items():
        if family.keys and named in ("", name):
            families.setdefault(family.keys, []).append(name)
    looked = "; ".join(f"{', '.join(names)}: {', '.join(keys)}" for keys, names in families.items())
    there = ", ".join(list(shapes)[:4]) or "no tensors"
    return f"irtool looked for 'architecture' in the header, or for tensors ({looked}). It found {there}."


def _resolve(place: str) -> Callable[..., Any]:
    """What "module:name", under irtool, stands for."""
    module, _, name = place.partition(":")
    found: Callable[..., Any] = getattr(import_module(f"irtool.{module}"), name)
    return found
