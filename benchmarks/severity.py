"""The ladder that strengths are read off: how severe a degradation looks, and how much of the result is best.

    python benchmarks/severity.py --data DATA [--out benchmarks/severity.md]

Six Kodak photographs under haze and low light of rising strength, restored with the task named. Protocol of quality.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from publish import publish
from quality import Bench, arguments, degrade, eight, load, rounded

from irtool import metrics
from irtool.engine import pick_device
from irtool.plan import strength_for

LADDERS = {
    "haze": [f"haze(beta={beta}, airlight=0.9)" for beta in (0.1, 0.2, 0.4, 0.7, 1.1, 1.6, 2.2)],
    "lowlight": [f"lowlight(ev={ev}, gamma=1, noise=1)" for ev in (0.3, 0.6, 1.0, 1.6, 2.4, 3.5, 5.0)],
}
SHARES = (0.25, 0.5, 0.75, 1.0)


def report(bench: Bench, data: Path) -> Iterator[str]:
    assert bench.detector is not None
    files = sorted((data / "test" / "clean_kodak").iterdir())[::2]
    kodak = {path.name: load(path) for path in files}
    for kind, ladder in LADDERS.items():
        yield from ("", f"## {kind}", "")
        yield (
            "| damage | found | severity | input | "
            + " | ".join(f"{s:g}" for s in SHARES)
            + " | planned strength | then |"
        )
        yield "|---" * (6 + len(SHARES)) + "|"
        for chain in ladder:
            rows, found = [], 0
            for name, clean in kodak.items():
                degraded = degrade(clean, chain, name)
                diagnosis = bench.detector.diagnose(degraded)
                found += kind in diagnosis.present
                restored = bench.restore(degraded, (kind,))
                strength = strength_for(diagnosis, (kind,))
                shown = [rounded(torch.lerp(degraded, restored, s)) for s in (*SHARES, strength)]
                figures = [metrics.psnr(eight(clean), eight(x)) for x in (degraded, *shown)]
                rows.append([diagnosis.severity[kind], *figures, strength])
            severity, before, *shares, then, planned = np.mean(rows, axis=0)
            told = " | ".join(f"{x:.2f}" for x in shares)
            yield (
                f"| `{chain}` | {found} of {len(kodak)} | {severity:.2f} | {before:.2f} | {told} | {planned:.2f} "
                f"| {then:.2f} |"
            )


def main() -> None:
    parser = arguments(__doc__)
    given = parser.parse_args()
    bench = Bench(given.model, given.detector, pick_device("cpu"), "fp32", False)
    head = [
        "# Severity and strength",
        "",
        "Printed by `python benchmarks/severity.py --data DATA --out benchmarks/severity.md`. PSNR in dB, mean of six",
        "photographs: of the input, of the result at four strengths, and at the strength that `--auto` plans.",
    ]
    publish([*head, *report(bench, given.data)], given.out)


if __name__ == "__main__":
    main()
