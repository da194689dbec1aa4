"""What is gained on old photographs, and what sound pictures lose.

    python benchmarks/old_photos.py KODAK CLEAN [--limit N] [--out benchmarks/old_photos.md]

KODAK holds clean photographs, to be scratched and faded here, all seeded; CLEAN holds
photographs in which no scratch should be found, none of them trained on. Pictures are cut to their middle, 384 x 256.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import irtool
from irtool.inputs import to_tensor
from irtool.picture import SUFFIXES, read
from irtool.repairs.mend import scratches_in
from irtool.repairs.scratches import AREA
from irtool.synth import parse, random_chain

CPU = torch.device("cpu")
MARKS = ("scratches(1)", "scratches(2, width=1)", "scratches(0.6, width=4)")
FADES = 4  # draws for each picture


def pictures(folder: Path, limit: int | None) -> Iterator[Tensor]:
    """(3, H, W) of every picture of a folder, in order of their names."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    for path in files if limit is None else files[:: max(1, len(files) // limit)][:limit]:
        yield to_tensor(read(path))


def middle(image: Tensor, height: int = 256, width: int = 384) -> Tensor:
    """The middle of a picture, with even sides."""
    h, w = min(height, image.shape[1] // 2 * 2), min(width, image.shape[2] // 2 * 2)
    top, left = (image.shape[1] - h) // 2, (image.shape[2] - w) // 2
    return image[:, top : top + h, left : left + w].contiguous()


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * (a - b).square().mean().clamp(min=1e-10).log10())


def mean(values: list[float]) -> float:
    return float(np.mean(values))


def scratched(clean: list[Tensor]) -> list[str]:
    lines = [
        "| marks | picture | marked | mended | marks found and filled by hand (mask) | found | of it marks |",
        "|---" * 7 + "|",
    ]
    for text in MARKS:
        for gray in (True, False):
            rows = []
            for seed, colors in enumerate(clean):
                image = colors.mean(0, keepdim=True).expand(3, -1, -1).contiguous() if gray else colors
                marked = parse(text).apply(image[None], torch.Generator().manual_seed(seed))[0]
                marked = (marked * 255).round() / 255
                true = ((marked - image).abs().amax(0, keepdim=True) > 0.03).float()
                seen = ((marked - image).abs().amax(0, keepdim=True) > 0.07).float()
                found = scratches_in(marked, CPU)
                mended = irtool.restore(marked, tasks="scratches").tensor
                by_hand = irtool.restore(marked, mask=true).tensor if true.any() else image
                hit = float((found * seen).sum() / seen.sum().clamp(min=1))
                right = float((found * true).sum() / found.sum()) if found.any() else 1.0
                rows.append([psnr(marked, image), psnr(mended, image), psnr(by_hand, image), hit, right])
            m = [mean(column) for column in zip(*rows, strict=True)]
            kind = "gray" if gray else "color"
            lines.append(f"| `{text}` | {kind} | {m[0]:.2f} | {m[1]:.2f} | {m[2]:.2f} | {m[3]:.0%} | {m[4]:.0%} |")
    return lines


def sound(images: Iterator[Tensor]) -> list[str]:
    shares: dict[bool, list[float]] = {True: [], False: []}
    losses = []
    for image in images:
        if image.shape[1] * image.shape[2] > AREA:
            continue
        for gray in (False, True):
            seen = image.mean(0, keepdim=True).expand(3, -1, -1).contiguous() if gray else image
            shares[gray].append(float(scratches_in(seen, CPU).mean()))
        losses.append(psnr(irtool.restore(middle(image), tasks="fade").tensor, middle(image)))
    lines = ["| sound pictures | looked at | called scratched | mean share filled of those | most |", "|---" * 5 + "|"]
    for gray, found in shares.items():
        some = [share for share in found if share]
        lines.append(
            f"| {'turned gray' if gray else 'as they are'} | {len(found)} | {len(some)} |"
            f" {mean(some or [0]):.2%} | {max(found):.2%} |"
        )
    kept = sum(loss > 40 for loss in losses)
    lines += ["", f"`--task fade` on the same {len(losses)}, as they are: {kept} change by less than 40 dB; median "
              f"{np.median(losses):.1f} dB, worst {min(losses):.1f} dB."]  # fmt: skip
    return lines


def faded(clean: list[Tensor]) -> list[str]:
    before, after = [], []
    for number, image in enumerate(clean):
        for draw in range(FADES):
            generator = torch.Generator().manual_seed(100 * number + draw)
            old = random_chain("fade", generator).apply(image[None], generator)[0]
            old = (old * 255).round() / 255
            before.append(psnr(old, image))
            after.append(psnr(irtool.restore(old, tasks="fade").tensor, image))
    worse = sum(a < b for a, b in zip(after, before, strict=True))
    return [
        "| faded pictures | before | after | made worse |", "|---" * 4 + "|",
        f"| {len(before)} | {mean(before):.2f} | {mean(after):.2f} | {worse} |",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kodak", type=Path)
    parser.add_argument("clean", type=Path)
    parser.add_argument("--limit", type=int, help="pictures of CLEAN, spread over them")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=("scratches", "sound", "fade"), action="append")
    given = parser.parse_args()
    clean = [middle(image) for image in pictures(given.kodak, None)]
    parts = {
        "scratches": ("Scratches drawn over Kodak, PSNR in dB", lambda: scratched(clean)),
        "sound": ("Sound photographs", lambda: sound(pictures(given.clean, given.limit))),
        "fade": ("Fading drawn over Kodak, PSNR in dB", lambda: faded(clean)),
    }
    text = "# Old photographs\n\nMade by `benchmarks/old_photos.py`.\n"
    for name, (title, make) in parts.items():
        if not given.only or name in given.only:
            table = "\n".join(make())
            print(f"## {title}\n\n{table}\n", flush=True)
            text += f"\n## {title}\n\n{table}\n"
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
