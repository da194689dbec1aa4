"""The architectures irtool can load, told apart by the names and shapes of their tensors. No torch here.

`ARCHITECTURES` is the table of those that ship, written as places so that nothing is imported to know them. A file in
`irtool/models` that is not in it and defines ``ARCHITECTURE = Architecture(...)`` is found too, under its own name
with hyphens: a new network is that one file, and a table in weights.toml (docs/models.md).
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import closest

Shapes = Mapping[str, tuple[int, ...]]
Place = str | Callable[..., Any]
"""A function or class, or where it is: "module:name" under irtool, imported when first used."""


@dataclass(frozen=True)
class Architecture:
    """A family of networks.

    Attributes:
        network: the class, or a function that makes one; its keyword arguments are the hyperparameters, its state_dict
            has the published names. Empty for the text model, which runs in NumPy (`irtool.language.tagger`).
        keys: tensors that every published file of the architecture has; they are named to the user where none fits.
            Empty for an architecture whose files always describe themselves.
        recognize: ``(shapes) -> hyperparameters``, or None where these are not this architecture's tensors. It is only
            called when all of `keys` are there.
        restorer: ``(net, header, *companions) -> Model``; empty for what restores nothing by itself, such as a
            detector. The companions are the networks of the records that weights.toml names in `needs`.
        untold: hyperparameters that tensors do not tell. They are taken from the caller or from "settings" of the
            header; where neither has them, the value that `recognize` gives is assumed, and said. Where that is None
            the caller is asked.
        steered: a DA-CLIP controller steers it.
    """

    network: Place
    keys: tuple[str, ...] = ()
    recognize: Place = ""
    restorer: Place = ""
    untold: tuple[str, ...] = ()
    steered: bool = False


def _peer(place: str, *keys: str) -> Architecture:
    """The family of a network "module:name" under `irtool.models.peers`."""
    module = place.partition(":")[0]
    return Architecture(
        f"models.peers.{place}", keys, f"models.peers.{module}:recognize", f"models.peers.{module}:restorer"
    )


DIFFUSION = "models.diffusion:restorer"
UNET_KEYS = ("init_conv.weight", "time_mlp.1.weight", "mid_attn.fn.norm.g", "final_conv.weight")
REFUSION_KEYS = ("intro.weight", "time_mlp.1.weight", "middle_blks.0.mlp.1.weight", "middle_blks.0.norm1.g")
DACLIP_KEYS = ("logit_scale", "clip.visual.conv1.weight", "visual_control.transformer.zero_modules.0.weight")

# Where two families share names, the one that asks for more comes first: the first that recognizes a file has it.
ARCHITECTURES: dict[str, Architecture] = {
    "compact": Architecture("models.compact:CompactNet", restorer="models.compact:restorer"),
    "detector": Architecture("detection.network:DetectorNet"),
    # Repairs of old prints.
    "fade": Architecture("repairs.fade:FadeNet"),
    "scratches": Architecture("repairs.scratches:ScratchNet"),
    "tagger": Architecture(""),
    "daclip": Architecture("models.daclip:DaCLIP", DACLIP_KEYS, "models.daclip:recognize"),
    "wild-unet": Architecture(
        "models.irsde_unet:ContextUNet", UNET_KEYS, "models.irsde_unet:recognize_wild", DIFFUSION, steered=True
    ),
    "universal-unet": Architecture(
        "models.irsde_unet:ContextUNet",
        UNET_KEYS,
        "models.irsde_unet:recognize_universal",
        DIFFUSION,
        steered=True,
    ),
    "irsde-unet": Architecture(
        "models.irsde_unet:ConditionalUNet", UNET_KEYS, "models.irsde_unet:recognize", DIFFUSION
    ),
    "denoising-unet": Architecture(
        "models.irsde_unet:ConditionalUNet", UNET_KEYS, "models.irsde_unet:recognize_denoising", DIFFUSION
    ),
    "nafnet-daclip": Architecture(
        "models.nafnet_daclip:ContextNAFNet",
        ("intro.weight", "prompt", "text_mlp.0.weight", "middle_blks.0.mlp.1.weight"),
        "models.nafnet_daclip:recognize",
        "models.nafnet_daclip:restorer",
        steered=True,
    ),
    "refusion-nafnet": Architecture(
        "models.refusion_nafnet:ConditionalNAFNet", REFUSION_KEYS, "models.refusion_nafnet:recognize_pixel", DIFFUSION
    ),
    "latent-nafnet": Architecture(
        "models.refusion_nafnet:ConditionalNAFNet",
        REFUSION_KEYS,
        "models.refusion_nafnet:recognize_latent",
        DIFFUSION,
        ("skip",),
    ),
    "latent-unet": Architecture(
        "models.latent_unet:LatentUNet",
        ("init_conv.weight", "encoder.0.0.block1.proj.weight", "latent_conv.weight", "post_latent_conv.weight"),
        "models.latent_unet:recognize",
    ),
    "adm-unet": Architecture(
        "models.adm_unet:ADMUNet",
        ("time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.1.qkv.weight", "out.2.weight"),
        "models.adm_unet:recognize",
        "models.prior:restorer",
        ("num_head_channels",),
    ),
    "rl-i2it-style": Architecture(
        "models.rl_i2it:StyleAgent",
        ("actor.conv1.conv2d.weight", "decoder.deconv3.conv2d.weight"),
        "models.rl_i2it:recognize",
        "models.rl_i2it:restorer",
    ),
    "rl-i2it": Architecture("models.rl_i2it:StepwiseNet", restorer="models.rl_i2it:restorer"),
    "mae": Architecture("models.mae:Autoencoder"),
    "lm4lv": Architecture("models.lm4lv:Adapters", restorer="models.lm4lv:restorer"),
    "instructir": Architecture(
        "models.instructir:InstructIR",
        ("intro.weight", "enc_cond.0.fc.weight", "dec_cond.0.fc.weight", "middle_blks.0.conv1.weight"),
        "models.instructir:recognize",
        "models.instructir:restorer",
    ),
    "instructir-lm": Architecture(
        "models.instructir:LanguageHead", ("fc1.weight", "fc2.weight"), "models.instructir:recognize_head"
    ),
    "ipt": Architecture(
        "models.ipt:IPT",
        ("head.0.0.weight", "body.linear_encoding.weight", "body.query_embed.weight", "tail.0.1.weight"),
        "models.ipt:recognize",
        "models.ipt:restorer",
        ("num_heads",),
    ),
    "instruct-ipt": Architecture("models.instruct_ipt:InstructIPT", restorer="models.instruct_ipt:restorer"),
    "nafnet": Architecture(
        "models.nafnet:NAFNet",
        ("intro.weight", "middle_blks.0.conv1.weight", "middle_blks.0.sca.1.weight", "middle_blks.0.norm1.weight"),
        "models.nafnet:recognize",
        "models.nafnet:restorer",
    ),
    # Enlargement.
    "etds-int8": Architecture(
        "models.etds_int8:QuantizedETDS",
        ("conv_first.weight", "conv_last.weight", "conv_clip.weight", "ranges"),
        "models.etds_int8:recognize_quantized",
        "models.etds_int8:restorer",
    ),
    "etds": Architecture(
        "models.etds:ETDS",
        ("conv_first.weight", "backbone_convs.0.weight", "conv_last.weight", "conv_clip.weight"),
        "models.etds:recognize",
        "models.etds:restorer",
    ),
    "etds-dual-stream": Architecture(
        "models.etds:DualStreamETDS",
        ("conv_first.weight", "conv_residual_first.weight", "add_residual_convs.0.weight", "conv_residual_last.weight"),
        "models.etds:recognize_streams",
        "models.etds:restorer",
    ),
    "span": _peer("span:SPAN", "conv_1.eval_conv.weight", "block_6.c3_r.eval_conv.weight", "upsampler.0.weight"),
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
    "maxim": Architecture(
        "models.peers.maxim:MAXIM",
        ("stage_0_input_conv_0/kernel", "UpSampleRatio_0/Conv_0/kernel"),
        "models.peers.maxim:recognize",
        "models.peers.maxim:restorer",
        untold=("block", "grid", "block_low"),
    ),
    "lkdnet": _peer("lkdnet:LKDNet", "patch_embed.proj.weight", "layer1.blocks.0.DWDConv.weight"),
    "dehazeformer": _peer(
        "dehazeformer:DehazeFormer",
        "patch_embed.proj.weight",
        "layer1.blocks.0.mlp.mlp.0.weight",
        "fusion2.mlp.0.weight",
    ),
    "flol": _peer("flol:FLOL", "AmpNet.0.conv_init.weight", "conv_first_1.weight", "HRconv.weight"),
    "a2net": _peer("a2net:A2Net", "inc.0.weight", "outc_UV.0.weight", "up_UV3.conv2.0.weight"),
    "dmphn": _peer("dmphn:DMPHN", "encoder_lv1.layer1.weight", "decoder_lv1.layer24.weight"),
    "jorder": _peer("jorder:JORDER", "Convolution1.weight", "Convolution2.weight"),
    "griddehazenet": _peer("griddehazenet:GridDehazeNet", "coefficient", "rdb_module.0_0.conv_1x1.weight"),
    "deepdeblur": _peer("deepdeblur:DeepDeblur", "body_models.0.body.0.weight"),
    "deblurgan": _peer("deblurgan:DeblurGAN", "model.1.weight", "model.10.conv_block.1.weight"),
    "deblurgan-v2": _peer("deblurgan_v2:DeblurGANv2", "fpn.features.0.0.weight", "head1.block0.weight"),
    "enlightengan": _peer("enlightengan:EnlightenGAN", "conv1_1.weight", "bn1_1.weight", "deconv5.weight"),
    "mirnet": _peer("mirnet:MIRNet", "body.0.body.0.blocks.0.0.conv1x1.weight", "conv_in.weight"),
    "mirnet-v2": Architecture(
        "models.peers.mirnet_v2:MIRNetV2",
        ("body.0.body.0.dau_top.body.0.weight", "conv_in.weight"),
        "models.peers.mirnet_v2:recognize",
        "models.peers.mirnet_v2:restorer",
        untold=("defocus",),
    ),
    # What metrics look through.
    "alexnet": Architecture(
        "metrics.networks:alexnet", ("features.0.weight", "classifier.6.weight"), "metrics.networks:recognize_alexnet"
    ),
    "vgg16": Architecture(
        "metrics.networks:vgg16", ("features.28.weight", "classifier.6.weight"), "metrics.networks:recognize_vgg16"
    ),
    "inception-fid": Architecture(
        "metrics.networks:inception",
        ("Mixed_7c.branch_pool.conv.weight", "fc.weight"),
        "metrics.networks:recognize_inception",
    ),
}


@cache
def _found() -> dict[str, str]:
    """Name -> module of the files in `irtool.models` that define an ``ARCHITECTURE`` and are not in the table."""
    import irtool.models

    found = {}
    for module in pkgutil.iter_modules(irtool.models.__path__):
        name = module.name.replace("_", "-")
        path = Path(getattr(module.module_finder, "path", "")) / f"{module.name}.py"
        if name in ARCHITECTURES or not path.is_file():
            continue
        if re.search(r"^ARCHITECTURE\b.*=", path.read_text(encoding="utf-8"), re.MULTILINE):
            found[name] = module.name
    return found


def names() -> Iterator[str]:
    """The names of all architectures, those of the table first."""
    yield from ARCHITECTURES
    yield from _found()


def get(name: str) -> Architecture:
    """The architecture called `name`.

    Raises:
        KeyError: there is none; the message has the closest names.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if name in _found():
        architecture: Architecture = import_module(f"irtool.models.{_found()[name]}").ARCHITECTURE
        return architecture
    raise KeyError(f"no architecture '{name}'. {closest(name, names())}")


def resolve(place: Place) -> Callable[..., Any]:
    """What a place stands for."""
    if not isinstance(place, str):
        return place
    module, _, name = place.partition(":")
    found: Callable[..., Any] = getattr(import_module(f"irtool.{module}"), name)
    return found
