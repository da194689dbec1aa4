"""The networks of irtool.models.peers written down plainly over their published tensors, to compare them with.

Each function takes the state dict and an image (N, 3, H, W) in [0, 1], of sides that need no padding.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def conv(s: State, name: str, x: Tensor, stride: int = 1, padding: int | None = None, groups: int = 1) -> Tensor:
    weight = s[f"{name}.weight"]
    padding = weight.shape[-1] // 2 if padding is None else padding
    return F.conv2d(x, weight, s.get(f"{name}.bias"), stride, padding, groups=groups)


def mirrored(s: State, name: str, x: Tensor, dilation: int = 1) -> Tensor:
    weight = s[f"{name}.weight"]
    reach = dilation * (weight.shape[-1] // 2)
    x = F.pad(x, (reach,) * 4, mode="reflect")
    return F.conv2d(x, weight, s.get(f"{name}.bias"), dilation=dilation, groups=x.shape[1] // weight.shape[1])


def up(s: State, name: str, x: Tensor, stride: int = 2, padding: int = 0, extra: int = 0) -> Tensor:
    return F.conv_transpose2d(x, s[f"{name}.weight"], s.get(f"{name}.bias"), stride, padding, extra)


def batch_norm(s: State, name: str, x: Tensor) -> Tensor:
    scale = s[f"{name}.weight"] / torch.sqrt(s[f"{name}.running_var"] + 1e-5)
    return (x - s[f"{name}.running_mean"][:, None, None]) * scale[:, None, None] + s[f"{name}.bias"][:, None, None]


def mean(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, 1)


def a2net(s: State, image: Tensor) -> Tensor:
    r, g, b = image[:, 0], image[:, 1], image[:, 2]
    y = 0.299 * r + 0.587 * g + 0.114 * b
    yuv = torch.stack([y, 0.492 * (b - y) + 0.5, 0.877 * (r - y) + 0.5], 1)

    def relu(name: str, x: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
        return torch.relu(conv(s, f"{name}.0", x, stride, padding))

    x, kept = relu("inc", yuv), []
    for i in (1, 2, 3):
        keep = relu(f"down{i}.conv1", x)
        kept.append(keep)
        x = relu(f"down{i}.conv2", torch.cat([relu(f"down{i}.down1", x, 2), relu(f"down{i}.down2", keep, 2)], 1))
    made = []
    for stem, out in (("up", "outc_Y"), ("up_UV", "outc_UV")):
        z = x
        for i in (1, 2, 3):
            a = torch.relu(up(s, f"{stem}{i}.up1.0", relu(f"{stem}{i}.conv1", z)))
            z = relu(f"{stem}{i}.conv2", torch.cat([a, torch.relu(up(s, f"{stem}{i}.up2.0", z)), kept[3 - i]], 1))
        made.append(torch.tanh(conv(s, f"{out}.0", z)))
    y2, u2, v2 = (yuv + torch.cat(made, 1)).unbind(1)
    red, blue = y2 + (v2 - 0.5) / 0.877, y2 + (u2 - 0.5) / 0.492
    return torch.stack([red, (y2 - 0.299 * red - 0.114 * blue) / 0.587, blue], 1)


def dmphn(s: State, image: Tensor) -> Tensor:
    def run(part: str, x: Tensor) -> Tensor:
        for n in (1, 2, 3, 5, 6, 7, 9, 10, 11) if part.startswith("enc") else (13, 14, 16, 17, 18, 20, 21, 22, 24):
            name = f"{part}.layer{n}"
            if f"{name}.0.weight" in s:
                x = x + conv(s, f"{name}.2", torch.relu(conv(s, f"{name}.0", x)))
            else:
                x = up(s, name, x, 2, 1) if n in (16, 20) else conv(s, name, x, 2 if n in (5, 9) else 1)
        return x

    x = image - 0.5
    h, w = x.shape[2] // 2, x.shape[3] // 2
    top, bottom = x[:, :, :h], x[:, :, h:]
    third = [
        torch.cat([run("encoder_lv3", half[..., :w]), run("encoder_lv3", half[..., w:])], 3) for half in (top, bottom)
    ]
    second = [run("encoder_lv2", half + run("decoder_lv3", f)) for half, f in zip((top, bottom), third, strict=True)]
    features = torch.cat(second, 2) + torch.cat(third, 2)
    features = run("encoder_lv1", x + run("decoder_lv2", features)) + features
    return run("decoder_lv1", features) + 0.5


def jorder(s: State, image: Tensor) -> Tensor:
    y = (16 + 65.481 * image[:, :1] + 128.553 * image[:, 1:2] + 24.966 * image[:, 2:]) / 255
    t = y.transpose(2, 3)
    count = len(s) // 2
    first = e = torch.relu(conv(s, "Convolution1", t))
    for i in range(2, count - 1, 2):
        e = torch.relu(0.5 * e + 0.5 * conv(s, f"Convolution{i + 1}", torch.relu(conv(s, f"Convolution{i}", e))))
    out = (t + conv(s, f"Convolution{count}", 0.5 * first + 0.5 * e)).transpose(2, 3).clamp(0, 1)
    return image + (out - y) * 255 / 219


def griddehazenet(s: State, image: Tensor) -> Tensor:  # noqa: C901 (the whole network, written out)
    def dense(name: str, x: Tensor) -> Tensor:
        y, i = x, 0
        while f"{name}.residual_dense_layers.{i}.conv.weight" in s:
            y = torch.cat([y, torch.relu(conv(s, f"{name}.residual_dense_layers.{i}.conv", y))], 1)
            i += 1
        return conv(s, f"{name}.conv_1x1", y) + x

    def weight(i: int, j: int, k: int, x: Tensor) -> Tensor:
        return s["coefficient"][i, j, k, : x.shape[1]].view(1, -1, 1, 1) * x

    def down(name: str, x: Tensor) -> Tensor:
        return torch.relu(conv(s, f"{name}.conv2", torch.relu(conv(s, f"{name}.conv1", x, 2))))

    def raised(name: str, x: Tensor) -> Tensor:
        return torch.relu(conv(s, f"{name}.conv", torch.relu(up(s, f"{name}.deconv", x, 2, 1, 1))))

    grid: dict[tuple[int, int], Tensor] = {(0, 0): dense("rdb_in", conv(s, "conv_in", image * 2 - 1))}
    for i in (1, 2):
        grid[i, 0] = down(f"downsample_module.{i - 1}_0", grid[i - 1, 0])
    for j in (1, 2):
        grid[0, j] = dense(f"rdb_module.0_{j - 1}", grid[0, j - 1])
        for i in (1, 2):
            along, across = dense(f"rdb_module.{i}_{j - 1}", grid[i, j - 1]), grid[i - 1, j]
            grid[i, j] = weight(i, j, 0, along) + weight(i, j, 1, down(f"downsample_module.{i - 1}_{j}", across))
    for j in (3, 4, 5):
        grid[2, j] = dense(f"rdb_module.2_{j - 1}", grid[2, j - 1])
        for i in (1, 0):
            along, across = dense(f"rdb_module.{i}_{j - 1}", grid[i, j - 1]), grid[i + 1, j]
            grid[i, j] = weight(i, j, 0, along) + weight(i, j, 1, raised(f"upsample_module.{i}_{j}", across))
    return torch.relu(conv(s, "conv_out", dense("rdb_out", grid[0, 5])))


def deepdeblur(s: State, image: Tensor) -> Tensor:
    from scipy.ndimage import gaussian_filter

    pyramid = [image]
    for _ in range(2):
        smooth = gaussian_filter(pyramid[-1].double().numpy(), (0, 0, 2 / 3, 2 / 3), mode="reflect")
        pyramid.append(F.interpolate(torch.from_numpy(smooth), scale_factor=0.5, mode="bilinear").to(image.dtype))
    x = pyramid[2] * 255 - 127.5
    for scale in (2, 1, 0):
        name, i = f"body_models.{scale}.body", 1
        y = conv(s, f"{name}.0", x)
        while f"{name}.{i}.body.0.weight" in s:
            y = y + conv(s, f"{name}.{i}.body.2", torch.relu(conv(s, f"{name}.{i}.body.0", y)))
            i += 1
        y = conv(s, f"{name}.{i}", y)
        if scale:
            larger = F.pixel_shuffle(conv(s, f"conv_end_models.{scale}.uppath.0", y), 2)
            x = torch.cat([pyramid[scale - 1] * 255 - 127.5, larger], 1)
    return (y + 127.5) / 255


def deblurgan(s: State, image: Tensor) -> Tensor:
    def normed(x: Tensor) -> Tensor:
        return (x - x.mean((2, 3), keepdim=True)) / torch.sqrt(x.var((2, 3), correction=0, keepdim=True) + 1e-5)

    x = image * 2 - 1
    y = torch.relu(normed(mirrored(s, "model.1", x)))
    for i in (4, 7):
        y = torch.relu(normed(conv(s, f"model.{i}", y, 2)))
    i = 10
    while f"model.{i}.conv_block.1.weight" in s:
        z = torch.relu(normed(mirrored(s, f"model.{i}.conv_block.1", y)))
        y, i = y + normed(mirrored(s, f"model.{i}.conv_block.6", z)), i + 1
    for j in (i, i + 3):
        y = torch.relu(normed(up(s, f"model.{j}", y, 2, 1, 1)))
    return (x + torch.tanh(mirrored(s, f"model.{i + 7}", y))).clamp(-1, 1) / 2 + 0.5


def enlightengan(s: State, image: Tensor) -> Tensor:
    x = image * 2 - 1
    gray = [1 - (0.299 * (x[:, :1] + 1) + 0.587 * (x[:, 1:2] + 1) + 0.114 * (x[:, 2:] + 1)) / 2]
    for _ in range(4):
        gray.append(F.max_pool2d(gray[-1], 2))

    def step(name: str, y: Tensor) -> Tensor:
        y = F.leaky_relu(conv(s, f"conv{name}", y), 0.2)
        return batch_norm(s, f"bn{name}", y) if f"bn{name}.weight" in s else y

    kept, y = [], torch.cat([x, gray[0]], 1)
    for i in (1, 2, 3, 4):
        kept.append(step(f"{i}_2", step(f"{i}_1", y)))
        y = F.max_pool2d(kept[-1], 2)
    y = step("5_2", step("5_1", y) * gray[4])
    for i in (6, 7, 8, 9):
        y = conv(s, f"deconv{i - 1}", F.interpolate(y, scale_factor=2, mode="bilinear"))
        y = step(f"{i}_2", step(f"{i}_1", torch.cat([y, kept[9 - i] * gray[9 - i]], 1)))
    return (conv(s, "conv10", y) * gray[0] + x) / 2 + 0.5


def whole_norm(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    center = x.mean((1, 2, 3), keepdim=True)
    deviation = torch.sqrt(((x - center) ** 2).mean((1, 2, 3), keepdim=True) + 1e-5)
    return (x - center) / deviation, center, deviation


def _dehaze(s: State, image: Tensor, block: object) -> Tensor:
    def row(number: int, x: Tensor) -> Tensor:
        i = 0
        while any(name.startswith(f"layer{number}.blocks.{i}.") for name in s):
            x, i = block(f"layer{number}.blocks.{i}", x, i), i + 1  # type: ignore[operator]
        return x

    def fusion(name: str, a: Tensor, b: Tensor) -> Tensor:
        z = conv(s, f"{name}.mlp.2", torch.relu(conv(s, f"{name}.mlp.0", mean(a + b))))
        share = torch.stack(z.chunk(2, 1)).softmax(0)
        return share[0] * a + share[1] * b

    x = image * 2 - 1
    first = row(1, mirrored(s, "patch_embed.proj", x))
    second = row(2, conv(s, "patch_merge1.proj", first, 2, 0))
    y = row(3, conv(s, "patch_merge2.proj", second, 2, 0))
    y = F.pixel_shuffle(conv(s, "patch_split1.proj.0", y), 2)
    y = row(4, fusion("fusion1", y, conv(s, "skip2", second)) + y)
    y = F.pixel_shuffle(conv(s, "patch_split2.proj.0", y), 2)
    y = row(5, fusion("fusion2", y, conv(s, "skip1", first)) + y)
    y = mirrored(s, "patch_unembed.proj.0", y)
    return (y[:, :1] * x - y[:, 1:] + x) / 2 + 0.5


def lkdnet(s: State, image: Tensor) -> Tensor:
    def block(name: str, x: Tensor, index: int) -> Tensor:
        y = conv(s, f"{name}.Linear1", batch_norm(s, f"{name}.norm1", x))
        y = mirrored(s, f"{name}.DWDConv", mirrored(s, f"{name}.DWConv", y), dilation=3)
        x = x + conv(s, f"{name}.Linear2", y)
        y = batch_norm(s, f"{name}.norm2", x)
        part = f"{name}.cemlp"
        gate = torch.sigmoid(conv(s, f"{part}.ca.3", torch.relu(conv(s, f"{part}.ca.1", mean(y)))))
        z = conv(s, f"{part}.mlp.mlp.0", y)
        z = torch.relu(conv(s, f"{part}.mlp.mlp.1", z, groups=z.shape[1]))
        z = whole_norm(conv(s, f"{part}.mlp.mlp.3", z))[0] * s[f"{part}.norm.weight"] + s[f"{part}.norm.bias"]
        return x + z * s[f"{part}.scaler"] * gate

    return _dehaze(s, image, block)


def dehazeformer(s: State, image: Tensor) -> Tensor:
    def attention(name: str, qkv: Tensor, shift: int) -> Tensor:
        positions = s[f"{name}.relative_positions"]
        side, heads = math.isqrt(positions.shape[0]), s[f"{name}.meta.2.weight"].shape[0]
        h, w = qkv.shape[2:]
        rest = [(side - shift + -size % side) % side for size in (h, w)]
        x = F.pad(qkv, (shift, rest[1], shift, rest[0]), mode="reflect")
        bias = torch.relu(positions @ s[f"{name}.meta.0.weight"].t() + s[f"{name}.meta.0.bias"])
        bias = bias @ s[f"{name}.meta.2.weight"].t() + s[f"{name}.meta.2.bias"]
        out = torch.zeros_like(x[:, : x.shape[1] // 3])
        for top in range(0, x.shape[2], side):
            for left in range(0, x.shape[3], side):
                window = x[0, :, top : top + side, left : left + side].flatten(1).t()
                q, k, v = window.chunk(3, 1)
                for n, (a, b, c) in enumerate(
                    zip(q.chunk(heads, 1), k.chunk(heads, 1), v.chunk(heads, 1), strict=True)
                ):
                    share = (a @ b.t() / math.sqrt(a.shape[1]) + bias[..., n]).softmax(1) @ c
                    columns = slice(n * c.shape[1], (n + 1) * c.shape[1])
                    out[0, columns, top : top + side, left : left + side] = share.t().view(-1, side, side)
        return out[..., shift : shift + h, shift : shift + w]

    def block(name: str, x: Tensor, index: int) -> Tensor:
        if f"{name}.attn.QK.weight" in s:
            normed, center, deviation = whole_norm(x)
            normed = normed * s[f"{name}.norm1.weight"] + s[f"{name}.norm1.bias"]
            values = conv(s, f"{name}.attn.V", normed)
            window = math.isqrt(s[f"{name}.attn.attn.relative_positions"].shape[0])
            qkv = torch.cat([conv(s, f"{name}.attn.QK", normed), values], 1)
            seen = attention(f"{name}.attn.attn", qkv, window // 2 if index % 2 else 0)
            y = conv(s, f"{name}.attn.proj", mirrored(s, f"{name}.attn.conv", values) + seen)
            scale, offset = conv(s, f"{name}.norm1.meta1", deviation), conv(s, f"{name}.norm1.meta2", center)
            x = x + y * scale + offset
        else:
            x = x + conv(s, f"{name}.attn.proj", mirrored(s, f"{name}.attn.conv", conv(s, f"{name}.attn.V", x)))
        return x + conv(s, f"{name}.mlp.mlp.2", torch.relu(conv(s, f"{name}.mlp.mlp.0", x)))

    return _dehaze(s, image, block)


def mirnet_v2(s: State, image: Tensor) -> Tensor:
    def leaky(x: Tensor) -> Tensor:
        return F.leaky_relu(x, 0.2)

    def context(name: str, x: Tensor) -> Tensor:
        groups = x.shape[1] // s[f"{name}.body.0.weight"].shape[1]
        y = conv(s, f"{name}.body.2", leaky(conv(s, f"{name}.body.0", x, groups=groups)), groups=groups)
        share = conv(s, f"{name}.gcnet.conv_mask", y).flatten(1).softmax(1).view_as(y[:, :1])
        part = f"{name}.gcnet.channel_add_conv"
        seen = (y * share).sum((2, 3), keepdim=True)
        return leaky(y + conv(s, f"{part}.2", leaky(conv(s, f"{part}.0", seen)))) + x

    def fusion(name: str, maps: list[Tensor]) -> Tensor:
        inner = leaky(conv(s, f"{name}.conv_du.0", mean(sum(maps))))  # type: ignore[arg-type]
        share = torch.stack([conv(s, f"{name}.fcs.{i}", inner) for i in range(len(maps))]).softmax(0)
        return (torch.stack(maps) * share).sum(0)

    def down(name: str, x: Tensor) -> Tensor:
        return conv(s, f"{name}.body.0.bot.1", F.avg_pool2d(x, 2))

    def raised(name: str, x: Tensor) -> Tensor:
        return F.interpolate(conv(s, f"{name}.body.0.bot.0", x), scale_factor=2, mode="bilinear")

    first = x = conv(s, "conv_in", image)
    i = 0
    while f"body.{i}.body.1.weight" in s:
        name = f"body.{i}.body.0"
        a, b = x, down(f"{name}.down2", x)
        c = down(f"{name}.down4.1", down(f"{name}.down4.0", x))
        for n in (1, 2):
            a, b, c = context(f"{name}.dau_top", a), context(f"{name}.dau_mid", b), context(f"{name}.dau_bot", c)
            b = fusion(f"{name}.skff_mid", [b, raised(f"{name}.up32_{n}", c)])
            a = fusion(f"{name}.skff_top", [a, raised(f"{name}.up21_{n}", b)])
        x, i = x + conv(s, f"body.{i}.body.1", conv(s, f"{name}.conv_out", a) + x), i + 1
    assert first.shape == x.shape
    return conv(s, "conv_out", x) + image


def flol(s: State, image: Tensor) -> Tensor:
    def leaky(x: Tensor) -> Tensor:
        return F.leaky_relu(x, 0.1)

    def frequency(name: str, x: Tensor) -> Tensor:
        spectrum = torch.fft.fft2(conv(s, f"{name}.fpre", x))
        a, p = spectrum.abs(), torch.angle(spectrum)
        a = conv(s, f"{name}.process1.2", leaky(conv(s, f"{name}.process1.0", a)))
        p = conv(s, f"{name}.process2.2", leaky(conv(s, f"{name}.process2.0", p)))
        half = torch.polar(torch.ones_like(p), p) * a
        return torch.fft.irfft2(half[..., : x.shape[-1] // 2 + 1], s=x.shape[-2:]) + x

    def norm(name: str, x: Tensor) -> Tensor:
        center, spread = x.mean(1, keepdim=True), x.var(1, correction=0, keepdim=True)
        y = (x - center) / torch.sqrt(spread + 1e-6)
        return y * s[f"{name}.weight"].view(1, -1, 1, 1) + s[f"{name}.bias"].view(1, -1, 1, 1)

    def light(name: str, x: Tensor) -> Tensor:
        y = conv(s, f"{name}.conv1", norm(f"{name}.norm1", x))
        a, b = conv(s, f"{name}.conv2", y, groups=y.shape[1]).chunk(2, 1)
        y = conv(s, f"{name}.sge.dwc", a, groups=a.shape[1]) * b
        y = conv(s, f"{name}.conv3", frequency(f"{name}.fatt", y))
        y = y * (1 + s[f"{name}.beta"])
        a, b = conv(s, f"{name}.conv4", norm(f"{name}.norm2", y)).chunk(2, 1)
        return y + conv(s, f"{name}.conv5", a * b) * s[f"{name}.gamma"]

    def residual(name: str, x: Tensor) -> Tensor:
        return x + conv(s, f"{name}.conv2", torch.relu(conv(s, f"{name}.conv1", x)))

    y = conv(s, "AmpNet.0.conv_init", F.avg_pool2d(image, 2))
    for i in (1, 2, 3):
        y = light(f"AmpNet.0.conv{i}", y)
    factor = torch.sigmoid(F.interpolate(conv(s, "AmpNet.0.conv_out", y), scale_factor=2, mode="bilinear"))
    spectrum = torch.fft.fft2(image)
    lit = torch.fft.ifft2(torch.polar(spectrum.abs() / (factor + 1e-8), spectrum.angle())).real
    one = leaky(conv(s, "conv_first_1", torch.cat([lit, image], 1)))
    two = leaky(conv(s, "conv_first_2", one, 2))
    three = leaky(conv(s, "conv_first_3", two, 2))
    at = torch.exp(-(torch.arange(-2.0, 3) ** 2) / 4.5)
    kernel = torch.outer(at, at) / at.sum() ** 2
    gray = (lit * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    blurred = F.conv2d(F.pad(gray, (2, 2, 2, 2), mode="reflect"), kernel[None, None])
    ratio = blurred / ((gray - blurred).abs() + 1e-4)
    clear = (ratio / (ratio.max() + 1e-4)).clamp(0, 1)[..., ::4, ::4]
    y = fast = residual("feature_extraction.0", three)
    slow = fast
    for i in range(4):
        name = f"transformer.block.{i}"
        slow = slow + conv(s, f"{name}.cat", frequency(f"{name}.frequency_process", slow))
    for i in range(6):
        fast = residual(f"recon_trunk_light.{i}", fast)
    y = residual("recon_trunk.0", (y + slow) * (1 - clear) + fast * clear)
    for name, skip in (("upconv1", three), ("upconv2", two)):
        y = leaky(F.pixel_shuffle(conv(s, name, torch.cat([y, skip], 1)), 2))
    return conv(s, "conv_last", leaky(conv(s, "HRconv", torch.cat([y, one], 1)))) + image


def span(s: State, image: Tensor) -> Tensor:
    shallow = y = conv(s, "conv_1.eval_conv", 255 * (image - torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)))
    kept = []
    for i in range(1, 7):
        x = y
        y = first = F.silu(conv(s, f"block_{i}.c1_r.eval_conv", y))
        y = F.silu(conv(s, f"block_{i}.c2_r.eval_conv", y))
        y = conv(s, f"block_{i}.c3_r.eval_conv", y)
        y = (y + x) * (torch.sigmoid(y) - 0.5)
        kept.append((y, first))
    y = conv(s, "conv_cat", torch.cat([shallow, conv(s, "conv_2.eval_conv", y), kept[0][0], kept[5][1]], 1), padding=0)
    y = conv(s, "upsampler.0", y)
    n, c, h, w = y.shape
    r = round((c / 3) ** 0.5)
    return y.view(n, 3, r, r, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, 3, h * r, w * r)
