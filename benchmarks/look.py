"""Before | after of pictures through `--auto` (or a task), on one sheet with what was found under each.

python benchmarks/look.py -o sheet.jpg PICTURE_OR_FOLDER... [--task rain] [--columns 2] [--cell 480]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import irtool
from irtool import picture, weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--task", action="append")
    parser.add_argument("--columns", type=int, default=2, help="pairs side by side")
    parser.add_argument("--cell", type=int, default=480, help="largest side of a picture, in pixels")
    parser.add_argument("--model", default=weights.DEFAULT_RESTORER)
    parser.add_argument("--detector", default=weights.DEFAULT_DETECTOR)
    args = parser.parse_args()
    cells, captions = [], []
    for found in picture.find(args.inputs, recursive=True):
        before = picture.read(found.path)
        result = irtool.restore(before, tasks=args.task, model=args.model, detector=args.detector)
        done = ", then ".join("+".join(step.task_weights) for step in result.plan.steps) or "clean, untouched"
        print(f"{found.path}: {done}, {result.seconds:.2f} s")
        cells += [before.pixels, result.picture.pixels]
        captions += [found.path.stem[:24], done]
    width = 2 * args.columns
    page = picture.sheet(
        [cells[i : i + width] for i in range(0, len(cells), width)],
        captions=[captions[i : i + width] for i in range(0, len(cells), width)],
        cell=(args.cell, args.cell),
    )
    from PIL import Image

    Image.fromarray(page).save(args.output, quality=88)


if __name__ == "__main__":
    main()
