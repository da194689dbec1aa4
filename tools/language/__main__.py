"""python -m tools.language train TARGET.safetensors | join TARGET.safetensors FILE... | score FILE.tsv | vocabulary

See -h behind each."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from irtool.language import DEFAULT_TEXT_MODEL, load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    train = verbs.add_parser("train", help="train a text model on composed sentences")
    train.add_argument("target", type=Path)
    train.add_argument("--sentences", type=int, default=1_000_000)
    train.add_argument("--seconds", type=float, default=math.inf, help="train no longer than that")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--rate", type=float, default=4e-3, help="peak of the learning rate")
    train.add_argument("--start", type=Path, help="a text model to start from")
    join = verbs.add_parser("join", help="make an ensemble of text models")
    join.add_argument("target", type=Path)
    join.add_argument("parts", type=Path, nargs="+")
    score = verbs.add_parser("score", help="score a text model on sentences written by hand")
    score.add_argument("file", type=Path)
    score.add_argument("--model", default=DEFAULT_TEXT_MODEL)
    score.add_argument(
        "--wrong", metavar="SPLIT", action="append", default=[], help="also list the mistakes in a split"
    )
    verbs.add_parser("vocabulary", help="build irtool/language/vocabulary.json.gz from the word lists")
    given = parser.parse_args()
    if given.verb == "vocabulary":
        from .vocabulary import write

        write()
    elif given.verb == "train":
        from .training import train as run

        options = {name: getattr(given, name) for name in ("sentences", "seed", "rate", "seconds", "start")}
        run(given.target, report=print, **options)
    elif given.verb == "join":
        from .training import join as run_join

        run_join(given.target, given.parts)
    else:
        from .score import mistakes, read_cases, table

        cases = read_cases(given.file)
        wrong = mistakes(load(given.model), cases)
        print(table(cases, wrong))
        for case, got in wrong:
            if case.split in given.wrong:
                print(f"{case.language} {case.kind}: '{case.text}' is {case.plan}, taken for {got}")


if __name__ == "__main__":
    main()
