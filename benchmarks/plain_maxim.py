"""MAXIM written down plainly, for comparing results and time with irtool.models.peers.maxim.

    python benchmarks/plain_maxim.py WEIGHTS [--size 256 256]

WEIGHTS is a safetensors file with the official flax names. Every operation stands as it is in the paper's equations, on
whole feature maps (N, H, W, C); no two are merged. Prints the largest difference and processor seconds of
both (the system's included), measured in turn on one thread, and their ratio.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

Params = dict[str, Tensor]


def gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def norm(p: Params, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p[f"{name}/scale"], p[f"{name}/bias"], 1e-6)


def dense(p: Params, name: str, x: Tensor) -> Tensor:
    return x @ p[f"{name}/kernel"] + p[f"{name}/bias"]


def conv(p: Params, name: str, x: Tensor, stride: int = 1) -> Tensor:
    kernel = p[f"{name}/kernel"].permute(3, 2, 0, 1)
    padding = (kernel.shape[-1] - stride + 1) // 2
    return F.conv2d(x.permute(0, 3, 1, 2), kernel, p[f"{name}/bias"], stride, padding).permute(0, 2, 3, 1)


def up(p: Params, name: str, x: Tensor) -> Tensor:
    kernel = p[f"{name}/kernel"].flip(0, 1).permute(2, 3, 0, 1)
    return F.conv_transpose2d(x.permute(0, 3, 1, 2), kernel, p[f"{name}/bias"], 2).permute(0, 2, 3, 1)


def blocks(x: Tensor, fh: int, fw: int) -> Tensor:
    """(N, H, W, C) -> (N, windows, pixels of a window, C)."""
    n, h, w, c = x.shape
    return x.reshape(n, h // fh, fh, w // fw, fw, c).transpose(2, 3).reshape(n, -1, fh * fw, c)


def unblock(x: Tensor, h: int, w: int, fh: int, fw: int) -> Tensor:
    n, _, _, c = x.shape
    return x.reshape(n, h // fh, w // fw, fh, fw, c).transpose(2, 3).reshape(n, h, w, c)


def along(x: Tensor, axis: int, p: Params, name: str) -> Tensor:
    return dense(p, name, x.transpose(axis, -1)).transpose(axis, -1)


def gmlp(p: Params, name: str, kind: str, x: Tensor, size: tuple[int, int]) -> Tensor:
    _, h, w, _ = x.shape
    fh, fw = (h // size[0], w // size[1]) if kind == "Grid" else size
    y = blocks(x, fh, fw)
    u, v = gelu(dense(p, f"{name}/in_project", norm(p, f"{name}/LayerNorm", y))).chunk(2, -1)
    gate = f"{name}/{kind}GatingUnit"
    v = along(norm(p, f"{gate}/intermediate_layernorm", v), 1 if kind == "Grid" else 2, p, f"{gate}/Dense_0")
    return unblock(y + dense(p, f"{name}/out_project", u * (v + 1)), h, w, fh, fw)


def multi_axis(p: Params, name: str, x: Tensor, size: tuple[int, int]) -> Tensor:
    u, v = gelu(dense(p, f"{name}/in_project", norm(p, f"{name}/LayerNorm_in", x))).chunk(2, -1)
    u = gmlp(p, f"{name}/GridGmlpLayer", "Grid", u, size)
    v = gmlp(p, f"{name}/BlockGmlpLayer", "Block", v, size)
    return x + dense(p, f"{name}/out_project", torch.cat([u, v], -1))


def attention(p: Params, name: str, x: Tensor) -> Tensor:
    y = conv(p, f"{name}/Conv_0", x.mean(dim=(1, 2), keepdim=True))
    return x * torch.sigmoid(conv(p, f"{name}/Conv_1", torch.relu(y)))


def group(p: Params, name: str, x: Tensor, size: tuple[int, int], bottom: bool = False) -> Tensor:
    """Two blocks of a size, and the residual connection around them."""
    y, i = x, 0
    while f"{name}/SplitHeadMultiAxisGmlpLayer_{i}/in_project/kernel" in p:
        y = multi_axis(p, f"{name}/SplitHeadMultiAxisGmlpLayer_{i}", y, size)
        part = f"{name}/channel_attention_block_1{'_' if bottom else ''}{i}"
        z = norm(p, f"{part}/LayerNorm", y)
        if bottom:
            z = dense(p, f"{part}/channel_mixing/Dense_1", gelu(dense(p, f"{part}/channel_mixing/Dense_0", z)))
        else:
            z = conv(p, f"{part}/conv2", F.leaky_relu(conv(p, f"{part}/conv1", z), 0.2))
        y, i = y + attention(p, f"{part}/channel_attention", z), i + 1
    return x + y


def weights(p: Params, name: str, x: Tensor, size: tuple[int, int]) -> Tensor:
    _, h, w, _ = x.shape
    u, v = gelu(dense(p, f"{name}/in_project", norm(p, f"{name}/LayerNorm_in", x))).chunk(2, -1)
    fh, fw = h // size[0], w // size[1]
    u = unblock(along(blocks(u, fh, fw), 1, p, f"{name}/Dense_0"), h, w, fh, fw)
    v = unblock(along(blocks(v, *size), 2, p, f"{name}/Dense_1"), h, w, *size)
    return dense(p, f"{name}/out_project", torch.cat([u, v], -1))


def cross_gating(p: Params, name: str, x: Tensor, y: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    if f"{name}/ConvTranspose_0/kernel" in p:
        y = up(p, f"{name}/ConvTranspose_0", y)
    x, y = conv(p, f"{name}/Conv_0", x), conv(p, f"{name}/Conv_1", y)
    u = gelu(dense(p, f"{name}/in_project_x", norm(p, f"{name}/LayerNorm_x", x)))
    v = gelu(dense(p, f"{name}/in_project_y", norm(p, f"{name}/LayerNorm_y", y)))
    gate_x = weights(p, f"{name}/SplitHeadMultiAxisGating_x", u, size)
    gate_y = weights(p, f"{name}/SplitHeadMultiAxisGating_y", v, size)
    y = y + dense(p, f"{name}/out_project_y", v * gate_x)
    return x + y + dense(p, f"{name}/out_project_x", u * gate_y), y


def ratio(p: Params, number: int, x: Tensor, target: Tensor) -> Tensor:
    size = target.shape[1:3]
    if size != x.shape[1:3]:
        x = x.permute(0, 3, 1, 2)
        x = F.interpolate(x, size=size, mode="bilinear", antialias=size[0] < x.shape[-2]).permute(0, 2, 3, 1)
    return conv(p, f"UpSampleRatio_{number}/Conv_0", x)


def maxim(p: Params, image: Tensor) -> list[list[Tensor]]:
    """(N, 3, H, W), sides multiples that the windows ask for -> pictures [stage][size], the smallest first."""
    images = [x.permute(0, 2, 3, 1) for x in (image, image[..., 1::2, 1::2], image[..., 2::4, 2::4])]
    side = math.isqrt(p["stage_0_cross_gating_block_0/SplitHeadMultiAxisGating_x/Dense_0/bias"].numel())
    low = math.isqrt(p["stage_0_cross_gating_block_2/SplitHeadMultiAxisGating_x/Dense_0/bias"].numel())
    sizes = [(side, side), (side, side), (low, low)]
    found, enc, dec, sam, k = [], [], [], [], 0
    while f"stage_{k}_input_conv_0/kernel" in p:
        s = f"stage_{k}_"
        f = [conv(p, f"{s}input_conv_{i}", images[i]) for i in range(3)]
        if k:
            f = [cross_gating(p, f"{s}input_fuse_sam_{i}", f[i], sam[i], sizes[i])[0] for i in range(3)]
        x, new = f[0], []
        for i in range(3):
            name = f"{s}encoder_block_{i}"
            x = group(p, name, conv(p, f"{name}/Conv_0", torch.cat([x, f[i]], -1)), sizes[i])
            if k:
                x = cross_gating(p, f"{name}/cross_gating_block", x, enc[i] + dec[i], sizes[i])[0]
            new.append(x)
            x = conv(p, f"{name}/Conv_1", x, 2)
        j = 0
        while f"{s}global_block_{j}/input_proj/kernel" in p:
            x = group(p, f"{s}global_block_{j}", conv(p, f"{s}global_block_{j}/input_proj", x), sizes[2], True)
            j += 1
        enc, g, skips, number = new, x, {}, 18 * k
        for i in (2, 1, 0):
            signal = torch.cat([ratio(p, number + j, enc[j], images[i]) for j in range(3)], -1)
            skips[i], g = cross_gating(p, f"{s}cross_gating_block_{i}", signal, g, sizes[i])
            number += 3
        dec, sam, pictures = [x] * 3, [x] * 3, []
        for i in (2, 1, 0):
            signal = torch.cat([ratio(p, number + j, skips[2 - j], images[i]) for j in range(3)], -1)
            number += 3
            name = f"{s}decoder_block_{i}"
            x = torch.cat([up(p, f"{name}/ConvTranspose_0", x), signal], -1)
            name += "/UNetEncoderBlock_0"
            dec[i] = x = group(p, name, conv(p, f"{name}/Conv_0", x), sizes[i])
            part = f"{s}supervised_attention_module_{i}"
            if f"{part}/Conv_0/kernel" in p:
                picture = conv(p, f"{part}/Conv_1", x) + images[i]
                sam[i] = conv(p, f"{part}/Conv_0", x) * torch.sigmoid(conv(p, f"{part}/Conv_2", picture)) + x
                pictures.append(picture)
            elif f"{s}output_conv_{i}/kernel" in p:
                pictures.append(conv(p, f"{s}output_conv_{i}", x) + images[i])
        found.append([picture.permute(0, 3, 1, 2) for picture in pictures])
        k += 1
    return found


def main() -> None:
    from safetensors.torch import load_file

    from irtool.models import loading

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256))
    given = parser.parse_args()
    torch.set_num_threads(1)
    params, (net, _) = load_file(given.weights), loading.read(given.weights)
    image, seconds, made = torch.rand(1, 3, *given.size), {}, {}
    for _ in range(3):
        for name, call in (("plain", lambda: maxim(params, image)[-1][-1]), ("irtool", lambda: net(image))):
            begun = time.process_time()
            with torch.inference_mode():
                made[name] = call()
            seconds.setdefault(name, []).append((time.process_time() - begun) / image[0, 0].numel() * 1e6)
    print(f"largest difference {(made['plain'] - made['irtool']).abs().max():.1e}")
    told = ", ".join(f"{name} {min(times):.1f}" for name, times in seconds.items())
    ratio = min(seconds["plain"]) / min(seconds["irtool"])
    print(f"processor seconds a megapixel, least of three: {told}; ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
