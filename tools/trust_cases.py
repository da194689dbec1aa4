"""Runs the public cases one by one and compares with what is right for each.

    python tools/trust_cases.py /path/to/shared [NAME ...]

Every folder of SHARED/cases is copied, its cmd.sh run, and what its case.txt expects looked for. Every file of
SHARED/cases_attacks goes through detect, restore and degrade (pictures) or restore, export and download --from (model
files) under a limit of time, the peak of memory measured. Ends with 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from trust_hub import Child  # noqa: E402

from irtool.picture import read  # noqa: E402

Image.MAX_IMAGE_PIXELS = None
TIME = 900


@dataclass
class Done:
    """What a command did: exit code (None: it did not end), output, most resident memory of one process in it."""

    code: int | None
    out: str
    err: str
    peak: int
    seconds: float

    @property
    def said(self) -> str:
        return self.out + self.err


def run(command: list[str], folder: Path, seconds: float = TIME) -> Done:
    """Run a command in a folder and watch the memory of it and of its children."""
    begun = time.monotonic()
    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    peak = 0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            for pid in _family(process.pid):
                peak = max(peak, _held(pid))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        out, err = process.communicate(timeout=seconds)
        code: int | None = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        out, err = process.communicate()
        code = None
    watcher.join()
    return Done(code, out.decode(errors="replace"), err.decode(errors="replace"), peak, time.monotonic() - begun)


def _family(pid: int) -> list[int]:
    found = [pid]
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return found
    for child in children:
        found += _family(int(child))
    return found


def _held(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def _spent(pid: int) -> float:
    """Seconds of CPU time of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def codes(path: Path) -> np.ndarray:
    """(H, W, C) samples as stored."""
    return np.atleast_3d(np.asarray(Image.open(path)))


def shown(path: Path) -> np.ndarray:
    """(H, W, 3) sRGB in [0, 255] by LittleCMS where the file has a profile."""
    im = Image.open(path)
    icc = im.info.get("icc_profile")
    im = im.convert("RGB")
    if icc:
        source = ImageCms.ImageCmsProfile(BytesIO(icc))
        im = ImageCms.profileToProfile(im, source, ImageCms.createProfile("sRGB"))
    return np.asarray(im).astype(float)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def want(true: object, words: str) -> list[str]:
    return [] if true else [words]


def adobe(f: Path, d: Done) -> list[str]:
    offset = np.abs((codes(f / "out.bmp").astype(float) - shown(f / "adobe.png")).mean(axis=(0, 1)))
    return want(offset.max() <= 1, f"mean color off by {offset}")


def avif_p3(f: Path, d: Done) -> list[str]:
    data = (f / "out.avif").read_bytes()
    at = data.find(b"colrnclx")
    before = read(f / "p3.avif").pixels
    after = read(f / "out.avif").pixels
    found = want(np.abs(before.mean((0, 1)) - after.mean((0, 1))).max() < 1.5 / 255, "colors moved")
    return found + want(struct.unpack_from(">H", data, at + 8)[0] == 12 or b"colrprof" in data, "no P3 stated")


def bigtiff16(f: Path, d: Done) -> list[str]:
    import tifffile

    array = tifffile.imread(f / "out.tif")
    return want(array.dtype == np.uint16 and len(np.unique(array[..., 0])) > 256, f"{array.dtype}")


def bigtiff_meta(f: Path, d: Done) -> list[str]:
    tags = Image.open(f / "out.tif").tag_v2
    return want(tags.get(270) == "scan of a pond" and tags.get(271) == "ACME SCANNER", str(dict(tags))[:200])


def black_white(f: Path, d: Done) -> list[str]:
    array = codes(f / "out.png").astype(int)
    return want(array.shape[2] == 1 or not np.ptp(array[..., :3], axis=2).any(), "a tint")


def blank(f: Path, d: Done) -> list[str]:
    names = ("white.png", "black.png")
    return [f"{n} changed" for n in names if _digest(f / n) != _digest(f / "out" / n)]


def bitfields(f: Path, d: Done) -> list[str]:
    return want("damaged" not in d.said and d.code in (0, 1), d.said[:200])


def device(f: Path, d: Done) -> list[str]:
    found = stat.S_ISCHR((f / "null.jpg").stat().st_mode)
    return want(found and "a bug" not in d.said, d.said[:200])


def same_stem(f: Path, d: Done) -> list[str]:
    return want("3 of 3" in d.said or "3 pairs" in d.said or d.code == 1, d.said[:300])


def extended_xmp(f: Path, d: Done) -> list[str]:
    packet = read(f / "out.jpg").xmp or b""
    return want(b"Note" in packet and b"Rating" in packet, repr(packet[:300]))


def jpeg12(f: Path, d: Done) -> list[str]:
    return want(d.code == 1 and "12-bit" in d.said and "damaged" not in d.said, d.said[:200])


def exif64(f: Path, d: Done) -> list[str]:
    im = Image.open(f / "out.jpg")
    return want(d.code == 0 and im.getexif().get(271) == "ACMECAM" and im.getexif().get(274, 1) == 1, str(d.said[:200]))


def aspect(f: Path, d: Done) -> list[str]:
    info = Image.open(f / "out.jpg").info
    return want((info.get("jfif_unit"), info.get("jfif_density")) == (0, (1, 2)), str(info))


def no_eoi(f: Path, d: Done) -> list[str]:
    return want(d.code == 0 and "end marker" in d.said and (f / "out.png").exists(), d.said[:200])


def long_name(f: Path, d: Done) -> list[str]:
    return want("a bug" not in d.said and (d.code == 0 or "name" in d.said.lower()), d.said[-300:])


def mask(f: Path, d: Done) -> list[str]:
    before, after, hole = (codes(f / n).astype(int) for n in ("scratched.png", "out.png", "mask.png"))
    outside = hole[..., 0] < 128
    changed = np.abs(before[..., :3] - after[..., :3]).max(axis=2)
    found = want(after.shape[:2] == (44, 60), str(after.shape)) + want(not changed[outside].any(), "changed outside")
    return found + want(changed[~outside].mean() > 5, "nothing changed inside")


def memory_1gb(f: Path, d: Done) -> list[str]:
    return want(d.code == 0 and d.peak <= 1e9, f"{d.code} {d.peak / 1e6:.0f} MB {d.said[:200]}")


def motion(f: Path, d: Done) -> list[str]:
    data = (f / "out.jpg").read_bytes()
    return want("video" in d.said and b"MicroVideoOffset" not in data, d.said[:200])


def ours(f: Path, d: Done) -> list[str]:
    made = sorted(p.name for p in (f / "out").rglob("*") if p.is_file()) if (f / "out").exists() else []
    return want(d.code == 0 and len(made) == 3, f"{d.code} {made} {d.said[:300]}")


def nan(f: Path, d: Done) -> list[str]:
    return want(d.code in (1, 3) and not (f / "out.png").exists() and "in.png" in d.said, d.said[:200])


def checkpoint(f: Path, d: Done) -> list[str]:
    good = (d.code == 0 and (f / "out.png").exists()) or "train export" in d.said
    return want(good and len(d.said) < 1500, d.said[-300:])


def pipe(f: Path, d: Done) -> list[str]:
    made = list((f / "d").iterdir())
    found = want(_digest(f / "clean.jpg") == _digest(f / "out.jpg"), "out.jpg is not clean.jpg")
    found += want(len(made) == 1 and codes(made[0]).shape == codes(f / "clean.jpg").shape, f"d/ has {made}")
    return found + want(d.code == 0, f"{d.code} {d.said[:300]}")


def cicp(f: Path, d: Done) -> list[str]:
    offset = np.abs(shown(f / "out/p3.jpg").mean((0, 1)) - 255 * read(f / "p3.png").pixels.mean((0, 1)))
    return want(offset.max() < 1.5, str(offset))


def gama(f: Path, d: Done) -> list[str]:
    mean = shown(f / "out/linear.jpg").mean()
    return want(abs(mean - 104.6) < 3, f"mean {mean}, ImageMagick's 104.6")


def raw_profile(f: Path, d: Done) -> list[str]:
    im = Image.open(f / "out/sideways.jpg")
    return want(im.size == (48, 32) and im.getexif().get(271) == "ACMECAM", f"{im.size} {dict(im.getexif())}")


def stops_folder(f: Path, d: Done) -> list[str]:
    made = sorted(p.name for p in (f / "out").iterdir()) if (f / "out").exists() else []
    return want("b.png" in made and (len(made) >= 3 or "a." in d.err), f"{made} {d.said[:300]}")


def semicolons(f: Path, d: Done) -> list[str]:
    return want(d.code == 0 or "comma" in d.said, d.said[:200])


def overwrites(f: Path, d: Done) -> list[str]:
    sums = [line.split()[0] for line in d.out.splitlines() if "side-by-side.jpg" in line and len(line.split()[0]) == 32]
    return want(len(sums) == 2 and sums[0] == sums[1] and "exist" in d.said, d.said[:300])


def full(f: Path, d: Done) -> list[str]:
    return want(d.code == 1 and "a bug" not in d.said and "No space" in d.said, d.said[:200])


def infrared(f: Path, d: Done) -> list[str]:
    return want("channel" in d.said or codes(f / "out.tif").shape[2] == 4, d.said[:200])


def pairs(f: Path, d: Done) -> list[str]:
    rows = [line.split(" <-> ") for line in d.out.splitlines() if " <-> " in line]
    wrong = [row for row in rows if row[0].split("/")[-2:] != row[1].split("/")[-2:]]
    return want(len(rows) == 4 and not wrong, str(rows))


def xmp64(f: Path, d: Done) -> list[str]:
    return want(d.code == 0 and b"Rating" in (read(f / "out/in.jpg").xmp or b""), d.said[:200])


CASES: dict[str, Callable[[Path, Done], list[str]]] = {
    "adobe-rgb-to-bmp": adobe, "avif-display-p3": avif_p3, "bigtiff-16-bit": bigtiff16,
    "bigtiff-metadata": bigtiff_meta, "black-and-white-in-rgb": black_white, "blank-pictures": blank,
    "bmp-bitfields": bitfields, "device-file-as-output": device, "eval-same-stem": same_stem,
    "extended-xmp": extended_xmp, "jpeg-12-bit": jpeg12, "jpeg-exif-over-64k": exif64, "jpeg-pixel-aspect": aspect,
    "jpeg-without-eoi": no_eoi, "long-name": long_name, "mask-any-size": mask,
    "max-memory-1GB-4-megapixels": memory_1gb, "motion-photo": motion, "names-like-results": ours,
    "nan-weights-black-picture": nan, "own-checkpoint-as-model": checkpoint, "pipe-as-file": pipe,
    "png-cicp-p3-to-jpg": cicp, "png-gama-to-jpg": gama, "png-raw-profile-exif": raw_profile,
    "same-stem-stops-folder": stops_folder, "semicolon-csv": semicolons, "side-by-side-overwrites": overwrites,
    "stdout-full": full, "tiff-infrared-channel": infrared, "train-pairs-in-subfolders": pairs,
    "xmp-over-64k-to-jpg": xmp64,
}  # fmt: skip

FLOOR = 600 << 20
"""Memory of a run that restores a small picture, torch included (builds for CUDA hold more)."""


def attack(path: Path, folder: Path) -> list[str]:
    """One hostile file through every verb that takes it."""
    name = path.name
    shutil.copy(path, folder)
    Image.new("RGB", (40, 40), (90, 120, 60)).save(folder / "in.png")
    if path.suffix in (".pth", ".safetensors"):
        commands = [
            ["restore", "in.png", "--task", "denoise", "--model", f"local:{name}", "-o", "out.png"],
            ["detect", "in.png", "--detector", f"local:{name}"],
            ["train", "export", name, "exported.safetensors"],
            ["download", "promptir", "--from", name],
        ]
    else:
        limit = ["--max-memory", "1GB"]
        commands = [
            ["detect", name],
            ["restore", name, "--task", "denoise", *limit, "--format", "tiff", "-o", "o1/"],
            ["restore", name, "--task", "denoise", *limit, "--format", "avif", "-o", "o2/"],
            ["degrade", name, "noise(5)", "-o", "worse.png"],
            ["compare", name, "in.png", "-o", "sheet.png"],
        ]
    found = []
    for command in commands:
        child, peak, spent = Child(command, folder), 0, 0.0
        end = time.monotonic() + TIME
        while child.runs() and time.monotonic() < end:
            peak = max(peak, _held(child.pid))
            spent = max(spent, _spent(child.pid))
            time.sleep(0.02)
        code, said = child.wait(0), child.words()
        words = " ".join(command)
        found += want(code in (0, 1, 2, 3), f"{words}: exit code {code}")
        found += want("a bug in irtool" not in said and "Traceback" not in said, f"{words}: {said[:200]}")
        found += want(not any(c in said for c in "\x1b\x07\u202e"), f"{words}: control characters")
        found += want(peak < FLOOR, f"{words}: {peak / 1e6:.0f} MB")
        found += want(spent < 20, f"{words}: {spent:.0f} s of CPU time")
    for made in folder.rglob("*"):
        if made.is_file() and made.suffix in (".png", ".tif", ".tiff", ".avif") and made.name != name:
            try:
                Image.open(made).load()
            except (OSError, ValueError, SyntaxError) as error:
                found.append(f"{made.name} cannot be opened: {error}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("names", nargs="*")
    asked = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    missing = {p.name for p in (asked.shared / "cases").iterdir() if p.is_dir()} - set(CASES)
    wrong = len(missing)
    print(*(f"{name}: no check of it here" for name in missing), sep="\n", end="")
    attacks = {p.name: p for p in sorted((asked.shared / "cases_attacks").iterdir()) if p.suffix != ".md"}
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))  # of all that is started here
    with tempfile.TemporaryDirectory() as place:
        commands = Path(place) / "bin"
        commands.mkdir()
        (commands / "irtool").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m irtool "$@"\n')
        (commands / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        for command in commands.iterdir():
            command.chmod(0o755)
        os.environ["PATH"] = f"{commands}:{os.environ['PATH']}"
        for name in [*CASES, *attacks]:
            if asked.names and name not in asked.names:
                continue
            folder = Path(place) / name
            if name in CASES:
                shutil.copytree(asked.shared / "cases" / name, folder)
                for path in [folder, *folder.rglob("*")]:
                    path.chmod(path.stat().st_mode | 0o200)
                done = run(["bash", "cmd.sh"], folder)
                try:
                    found = CASES[name](folder, done)
                except Exception as error:
                    found = [f"{type(error).__name__}: {error} | {done.code} {done.said[:300]}"]
                found += want("a bug in irtool" not in done.said and "Traceback" not in done.said, done.said[-300:])
                detail = f"{done.peak / 1e6:.0f} MB, {done.seconds:.0f} s"
            else:
                folder.mkdir()
                begun = time.monotonic()
                found, detail = attack(attacks[name], folder), ""
                detail = f"{time.monotonic() - begun:.0f} s"
            wrong += bool(found)
            print(json.dumps([name, "wrong" if found else "right", detail, *found]), flush=True)
    print(f"{wrong} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
