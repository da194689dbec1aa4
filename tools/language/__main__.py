"""python -m irtool.language train TARGET.safetensors | join TARGET.safetensors FILE... | score FILE.tsv | index

See -h behind each."""

from __future__ import annotations

import argparse
from pathlib import Path

from .score import cases, table
from .understand import DEFAULT_TEXT_MODEL, load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    train = verbs.add_parser("train")
    train.add_argument("target", type=Path)
    train.add_argument("--sentences", type=int, default=240_000)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--rate", type=float, default=4e-3, help="peak of the learning rate")
    train.add_argument("--start", type=Path, help="a text model to go on from")
    join = verbs.add_parser("join")
    join.add_argument("target", type=Path)
    join.add_argument("parts", type=Path, nargs="+", help="text models that shall speak with one voice")
    score = verbs.add_parser("score")
    score.add_argument("file", type=Path)
    score.add_argument("--model", default=DEFAULT_TEXT_MODEL)
    score.add_argument("--wrong", metavar="SPLIT", help="also list what went wrong in this split")
    verbs.add_parser("index", help="look through the word lists again after they have changed")
    given = parser.parse_args()
    if given.verb == "index":
        from .index import write

        write()
        return
    if given.verb == "train":
        from .training import train as run

        more = {"rate": given.rate, "start": given.start}
        run(given.target, sentences=given.sentences, seed=given.seed, report=print, **more)
        return
    if given.verb == "join":
        from .training import join as run_join

        run_join(given.target, given.parts)
        return
    shown, wrong = table(load(given.model), cases(given.file))
    print(shown)
    for case, got in wrong:
        if case.split == given.wrong:
            print(f"{case.language} {case.kind}: '{case.text}' is {case.plan}, taken for {got}")


if __name__ == "__main__":
    main()
