"""Ten instructions, before and after, on Kodak photographs (unrestricted use) with seeded damage:

    python benchmarks/instruct_sheet.py --data DATA --out docs/pictures/instruct.jpg

Prints what was understood, as a table. With --real it takes real photographs of the test folder instead, to be looked
at only: most of them state no licence.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

import irtool
from irtool import picture, synth
from irtool.weights.registry import DEFAULT_RESTORER

SHOWN = (
    ("1", "noise(30)", "too grainy"),
    ("3", "rain|lowlight(ev=2)", "remove the rain, it is also a bit dark, but keep the noise"),
    ("5", "haze(1.5)", "去雾"),
    ("7", "lowlight(ev=4)", "No se ve nada, aclárala"),
    ("9", "snow", "nimm die Schneeflocken raus"),
    ("11", "jpeg(q=8)", "l'image est pleine de carrés de compression"),
    ("13", "missing", "穴を埋めてください"),
    ("15", "noise(40)", "remove half of the noise"),
    ("17", "rain|noise(25)", "fix this but keep the grain"),
    ("19", "blur", "my hand shook, make it sharper"),
)
REAL = (
    ("real_noise/noise_Audrey_Hepburn.jpg", "", "too grainy"),
    ("real_rain/rain_1.jpg", "", "remove the rain"),
    ("real_haze/haze_canyon.webp", "", "clear the haze"),
    ("real_lowlight/lowlight_01.jpg", "", "too dark, I can't see anything"),
    ("real_snow/snow_64.webp", "", "take the snowflakes away"),
    ("real_jpeg/jpeg_1.jpg", "", "it is all blocky"),
    ("real_raindrop/raindrop_case1.jpg", "", "there is water on the lens"),
    ("real_shadow/shadow_lssd1.jpg", "", "remove the shadow"),
    ("real_blur/blur_flower.jpg", "", "sharpen it"),
    ("real_haze/haze_test2.jpg", "", "make it look better, gently"),
)
WIDE, HIGH = 288, 192


def crop(pixels: np.ndarray) -> np.ndarray:
    """The middle, at half size where there is room."""
    if min(pixels.shape[0] // 2 - HIGH, pixels.shape[1] // 2 - WIDE) >= 0:
        h, w = (s // 2 * 2 for s in pixels.shape[:2])
        pixels = pixels[:h, :w].reshape(h // 2, 2, w // 2, 2, 3).mean(axis=(1, 3))
    top, left = ((s - t) // 2 for s, t in zip(pixels.shape[:2], (HIGH, WIDE), strict=True))
    return np.ascontiguousarray(pixels[max(0, top) :][:HIGH, max(0, left) :][:, :WIDE])


def damage(pixels: np.ndarray, spec: str, seed: int) -> np.ndarray:
    if not spec:
        return pixels
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    return synth.parse(spec).apply(image, torch.Generator().manual_seed(seed))[0].permute(1, 2, 0).clamp(0, 1).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--real", action="store_true")
    args = parser.parse_args()
    rows = REAL if args.real else SHOWN
    line, per = 22, 2
    sheet = Image.new("RGB", (per * (2 * WIDE + 12), -(-len(rows) // per) * (HIGH + line + 6)), "white")
    pen = ImageDraw.Draw(sheet)
    print("| | damage | said | plan |\n|---|---|---|---|")
    for i, (name, spec, instruction) in enumerate(rows):
        folder = args.data / "test"
        path = folder / name if args.real else folder / "clean_kodak" / f"{name}.webp"
        before = damage(crop(picture.read(path).pixels), spec, i).astype(np.float32)
        result = irtool.instruct(picture.Picture(before), instruction)
        x, y = i % per * (2 * WIDE + 12), i // per * (HIGH + line + 6)
        for k, pixels in enumerate((before, result.picture.pixels)):
            shown = Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))
            sheet.paste(shown, (x + k * WIDE, y + line))
        pen.text((x + 2, y + 5), f"{i + 1}", fill="black")
        damaged = spec.replace("|", "\\|") or name
        plan = str(result.plan).replace(f" with {DEFAULT_RESTORER}", "")
        print(f"| {i + 1} | `{damaged}` | {instruction} | {plan} |", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.out, quality=88)


if __name__ == "__main__":
    main()
