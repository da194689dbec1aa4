"""Write the tables of labelled photographs that the recipe `detector` learns from.

    python tools/detector_tables.py DATA [MORE] OUT [--extra TABLE]

DATA holds manifest.tsv, detect/, train_pairs/ and train_clean/; MORE holds what more.tsv lists, where it has been
assembled (larger versions of the same photographs, and more of them). OUT gets symbolic links to both and

    detector_train.tsv, detector_held.tsv    columns file, label, mask, source, license
    detector_content.tsv                     clean photographs to synthesise damage on, column file

TABLE is a table of more photographs, with the columns file (relative to its folder), label, source, license and held (1
of what is kept back). That of the detector that ships is tools/detector_extra.tsv: beside a copy of it, clone what its
column source names.
Pictures that tools/drawn_negatives.py drew into OUT/drawn are clean ones too. Photographs are split by source, never by
file: HELD names the sources that are kept back for thresholds and figures. The same picture can lie in several
collections: one that shows what is kept back or tested on is left out of what is learned from, and nothing that is
tested on is kept back.
Give OUT to `irtool train --recipe detector --data OUT`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from irtool.degradation import CLEAN, IDS

# Kept back, by kind and collection; of scattered sources (snow, drops, web pages) every fifth repository.
HELD = {
    "rain.ns/mwd_rain", "rain.ns/web_misc", "real_haze_famed", "haze.ns/dehaze_demo", "lowlight.ns/mef",
    "lowlight.ns/mef_b", "lowlight.ns/lime", "lowlight.ns/fusion", "shadow.ns/shadow_papers", "shadow.ns/dqw_test",
    "blur_motion.ns/deblur_papers", "real_blur_web", "noise.ns/nc12", "clean.ns/drewnoakes",
    "clean.ok/wall_linuxdeepin", "clean.ns/shine_mwd", "clean.nc/migan_photos",
    "clean.cl/wall_mate-desktop", "clean.ok/azure", "clean.ns/landscape_pb",
}  # fmt: skip
SCATTERED = ("snow", "raindrop", "clean.ok/codrops", "clean.ns/hardneg_snow_ground", "missing", "clean.ok/illustration")
# One source alone has these, or too few have them: every fifth file.
BY_FILE = (
    "jpeg.ns/humanseg_lowq", "clean.nc/imagenet1000", "clean.ns/humanseg", "haze.ns/mwd_fog", "lowlight.ns/sci",
    "lowlight.ns/dicm", "lowlight.nc/dicm_zerodce", "lowlight.ns/dicm_b", "clean.ok/pexels_day",
)  # fmt: skip
# Looked at, and not what their folder says; of the dehazing papers' pictures only those with plain haze are used.
WRONG = (
    "20151103_194033", "20151119_004611", "20151102_084118", "clouds255", "clouds156", "storm48", "photo-2889489",
    "photo-730256", "val_epoch214", "foggy119", "foggy151", "foggy113", "foggy24.", "augmented_image_262",
    "augmented_image_416", "haze-126", "fog112.", "fog128.", "real147/146", "real_rain/146", "rain_sirr_val/rain/15.",
    "rain_sirr_val/rain/14.", "rain_sirr_val/rain/11.", "rain_sirr_val/rain/4.",
)  # fmt: skip
HAZY = (
    "IMG_2281", "beijing1", "cabin-fog", "foggy_bench", "newyork", "piles", "trees2", "highquality4.", "IMG_0614",
    "IMG_0752", "highquality06", "shanghai_skyline_d",
)  # fmt: skip
LEFT_OUT = (
    "ambiguous",
    "blur_defocus",
    "clean.ns/hardneg_night_amos",
)  # the last: webcams in the dark, nobody's photographs
PAIRED = {  # folder of pairs -> label of its degraded and of its clean side, every n-th
    "lowlight_lol/low": ("lowlight", 1), "lowlight_lol/high": (CLEAN, 1), "lowlight_sice/high": (CLEAN, 1),
    "haze_sots_indoor/hazy": ("haze", 1), "haze_sots_indoor/gt": (CLEAN, 1), "noise_polyu/noisy": ("noise", 1),
    "noise_polyu/gt": (CLEAN, 1), "blur_gopro_crops/in": ("blur", 1), "blur_gopro_crops/gt": (CLEAN, 1),
    "haze_nhhaze/hazy": ("haze", 1), "haze_nhhaze/gt": (CLEAN, 1), "rain_rain13k_sample/rain": ("rain", 1),
    "rain_rain13k_sample/gt": (CLEAN, 1), "rain_sirr_val/rain": ("rain", 1), "rain_sirr_val/gt": (CLEAN, 1),
    "haze_sots_indoor_more/hazy": ("haze", 6), "lowlight_lol_more/low": ("lowlight", 3),
    "real_rain": ("rain", 1), "real_haze_famed": ("haze", 1),
    "real_blur_koehler": ("blur", 1), "real_blur_web": ("blur", 1), "real_noise_dnd": ("noise", 1),
    "real_shadow_masks/image": ("shadow", 1),
}  # fmt: skip


def fifth(text: str) -> bool:
    """Whether a name belongs to the fifth that is kept back."""
    return hashlib.sha256(text.encode()).digest()[0] % 5 == 0


def held(row: dict[str, str]) -> bool:
    kind = row["kind"]
    if kind.startswith(SCATTERED):
        return fifth(row["repo"])
    return kind in HELD or (kind in BY_FILE and fifth(row["file"]))


def label_of(row: dict[str, str]) -> str | None:
    """The label of a row of a manifest; None where it is not for the detector."""
    kind = row["kind"]
    if any(name in row["file"] for name in WRONG):
        return None
    if kind == "real_haze_famed" and not any(name in row["file"] for name in HAZY):
        return None
    if row["role"] == "detect" and not kind.startswith(LEFT_OUT):
        name = kind.split(".")[0].removesuffix("_motion")
        return name if name in (*IDS, CLEAN) else None
    label, every = PAIRED.get(kind, (None, 1))
    return label if int(hashlib.sha256(row["file"].encode()).hexdigest()[:8], 16) % every == 0 else None


SAME = 0.988
"""Correlation of two thumbnails from which they show the same picture; other pictures of plain fog reach 0.986."""


def thumbnail(path: Path) -> np.ndarray:
    """16 x 16 gray values of a picture as a vector (256,) of mean 0 and length 1, so that products are correlations.

    Of a file that cannot be read, which training leaves out, all are 0.
    """
    try:
        with Image.open(path) as image:
            image.draft("RGB", (64, 64))  # JPEG files are decoded small
            small = image.convert("RGB").resize((16, 16), Image.Resampling.BOX)
    except OSError:
        return np.zeros(256, dtype=np.float32)
    gray = np.asarray(small, dtype=np.float32).mean(axis=2)
    vector = (gray - gray.mean()).ravel()
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-6))


def again(files: Iterable[Path], kept: Iterable[Path]) -> set[Path]:
    """Those of `files` that show the same picture as one of `kept`."""
    known = np.stack([thumbnail(path) for path in kept])
    return {path for path in files if float((known @ thumbnail(path)).max()) > SAME}


def rows_of(manifest: Path, root: Path) -> list[dict[str, str]]:
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = [row | {"place": str(root / row["file"])} for row in csv.DictReader(file, delimiter="\t")]
    return [row for row in rows if Path(row["place"]).is_file()]


def gathered(roots: list[Path], out: Path) -> list[dict[str, str]]:
    """The rows of all manifests whose files are there; `out` gets the links that their places begin with."""
    rows: list[dict[str, str]] = []
    for name, root, manifest in zip(("data", "more"), roots, ("manifest.tsv", "more.tsv"), strict=False):
        link = out / name
        link.unlink(missing_ok=True)
        link.symlink_to(root.resolve())
        place = root / manifest if (root / manifest).is_file() else roots[0] / manifest
        rows += rows_of(place, link)
        if name == "data":
            rows += rows_of(root / "detect" / manifest, link)
    return rows


def extra(table: Path, out: Path) -> Iterator[tuple[str, bool, list[str]]]:
    """(label, whether it is kept back, line of the table) of the photographs of an extra table."""
    link = out / "extra"
    link.unlink(missing_ok=True)
    link.symlink_to(table.parent.resolve())
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            line = [f"extra/{row['file']}", row["label"], "", f"{row['source']} extra/{row['label']}", row["license"]]
            yield row["label"], row["held"] == "1", line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="DATA [MORE] OUT")
    parser.add_argument("--extra", type=Path)
    given = parser.parse_args()
    *roots, out = given.folders
    out.mkdir(parents=True, exist_ok=True)
    rows = gathered(roots, out)
    # What is tested on is not learned from, in whatever folder and size it lies.
    shown = [Path(row["place"]) for row in rows if row["role"] == "test" and row["kind"] != "inpainting_masks"]
    tested = {(row["repo"], row["path_in_repo"]) for row in rows if row["role"] == "test"}
    rows = [row for row in rows if (row["repo"], row["path_in_repo"]) not in tested]
    largest: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:  # the same photograph in two sizes: the larger, which comes later
        if label_of(row):
            largest[row["repo"], row["path_in_repo"]] = row
    tables: dict[bool, list[list[str]]] = {False: [], True: []}
    counts: Counter[tuple[str, bool]] = Counter()
    for row in largest.values():
        label, kept = str(label_of(row)), held(row)
        mask = (
            row["place"].replace("/image/", "/mask/").rsplit(".", 1)[0] + ".png"
            if "shadow_masks" in row["kind"]
            else ""
        )
        mask = mask if mask and Path(mask).is_file() else ""
        short = [str(Path(p).relative_to(out)) if p else "" for p in (row["place"], mask)]
        tables[kept].append([short[0], label, short[1], f"{row['repo']} {row['kind']}", row["licence"]])
        counts[label, kept] += 1
    for label, kept, line in extra(given.extra, out) if given.extra else ():
        tables[kept].append(line)
        counts[label, kept] += 1
    content = [line[0] for line in tables[False] if line[1] == CLEAN]
    for path in sorted((out / "drawn").glob("*.webp")):  # of tools/drawn_negatives.py
        kept = "_held_" in path.name
        kind = path.name.split("_")[0]
        tables[kept].append([f"drawn/{path.name}", CLEAN, "", f"drawn drawn/{kind}", "Apache-2.0"])
        counts[CLEAN, kept] += 1
    content += [str(Path(r["place"]).relative_to(out)) for r in rows if r["role"] == "train_clean"]
    learned = dict.fromkeys([*(line[0] for line in tables[False]), *content])
    twice = again([out / name for name in learned], [*(out / line[0] for line in tables[True]), *shown])
    for line in [line for line in tables[False] if out / line[0] in twice]:
        tables[False].remove(line)
        counts[line[1], False] -= 1
    content = [name for name in dict.fromkeys(content) if out / name not in twice]
    for name, lines in (
        ("detector_train.tsv", [["file", "label", "mask", "source", "license"], *tables[False]]),
        ("detector_held.tsv", [["file", "label", "mask", "source", "license"], *tables[True]]),
        ("detector_content.tsv", [["file"], *([name] for name in content)]),
    ):
        with (out / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter="\t", lineterminator="\n").writerows(lines)
    for label in (*IDS, CLEAN):
        print(f"{label}: {counts[label, False]} to learn from, {counts[label, True]} kept back")
    print(f"{len(content)} clean photographs to synthesise damage on")
    print(f"{len(twice)} files left out: they show what is kept back or tested on")


if __name__ == "__main__":
    main()
