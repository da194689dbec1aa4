"""Picture files, EXIF blocks and TIFF directories, mutated and made up: each is read or refused by an error of irtool's
own, in bounded time and memory. Some hundred of each here; a minute of each with ``-m slow``
(``IRTOOL_FUZZ_SECONDS`` says how long).
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable

import numpy as np
import picture_samples as make
import pytest
from test_picture_fuzz import VALID, damaged

from irtool.errors import PictureError, UnavailableError
from irtool.picture import encode, read
from irtool.picture.exif import block_of, directories, fitted, parse, reset_orientation, with_dimensions

SECONDS = float(os.environ.get("IRTOOL_FUZZ_SECONDS", "60"))
SLOWEST = 20.0
"""Seconds of CPU time for one input."""
QUICK = 100
Target = Callable[[np.random.Generator], None]


def decode(rng: np.random.Generator) -> None:
    """A sample of any format, damaged up to three times; what is read is written in another format and read again."""
    kind = list(VALID)[int(rng.integers(len(VALID)))]
    data = VALID[kind]()
    for _ in range(int(rng.integers(1, 4))):
        data = damaged(data, rng) or b"\0"
    try:
        picture = read(data, name="fuzz", max_pixels=2_000_000)
        target = ("png", "jpg", "tiff", "webp", "bmp")[int(rng.integers(5))]
        assert read(encode(picture, target)).pixels.shape == picture.pixels.shape
    except (PictureError, UnavailableError):
        return


def exif(rng: np.random.Generator) -> None:
    """EXIF blocks: patched, parsed, written anew and cut to a size."""
    block = damaged(make.exif_block(int(rng.integers(1, 9)), note=rng.bytes(int(rng.integers(1, 400)))), rng)
    try:
        out, orientation = reset_orientation(block)
        assert len(out) == len(block)
        assert 1 <= orientation <= 8
        assert len(with_dimensions(out, 5, 6)) == len(block)
        order, directory = parse(block)
        assert parse(block_of(order, directory))[1].keys() == directory.keys()
        assert len(fitted(block, 200)[0] or b"") <= 200
    except ValueError:
        return


def tiff_directories(rng: np.random.Generator) -> None:
    """Classic and big TIFF structures of wild entries, some of which name one block or one another."""
    big = rng.random() < 0.5
    order = "<" if rng.random() < 0.5 else ">"
    body = bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42))
    body += struct.pack(order + "HHQ", 8, 0, 16) if big else struct.pack(order + "I", 8)
    for _ in range(int(rng.integers(1, 5))):
        count = int(rng.integers(0, 30))
        body += struct.pack(order + ("Q" if big else "H"), count)
        for _ in range(count):
            tag = int(rng.choice([254, 256, 257, 258, 259, 262, 273, 277, 279, 338, 0x8769, 0x8825, 700, 34675, 50000]))
            kind, length = int(rng.integers(0, 20)), int(rng.choice([0, 1, 2, 3, 100, 2**16, 2**31]))
            value = int(rng.choice([0, 1, 8, 16, 60, 2**31]))
            body += struct.pack(order + ("HHQQ" if big else "HHII"), tag, kind, length, value)
        body += struct.pack(order + ("Q" if big else "I"), int(rng.choice([0, 8, 16, len(body)])))
    data = bytes(body) + rng.bytes(200)
    try:
        total = sum(len(entry[2]) for page in directories(data) for entry in page.values() if isinstance(entry, tuple))
        assert total <= len(data)
        parse(data)
    except ValueError:
        pass
    try:
        read(data, max_pixels=1_000_000)
    except PictureError:
        return


TARGETS: list[Target] = [decode, exif, tiff_directories]


def tried(target: Target, seed: int) -> None:
    """One input. What it was is told by its seed."""
    begun = time.process_time()
    target(np.random.default_rng(seed))
    assert time.process_time() - begun < SLOWEST, f"seed {seed} is slow"


@pytest.mark.parametrize("target", TARGETS)
def test_some(target: Target) -> None:
    for seed in range(QUICK):
        tried(target, seed)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_for_a_minute(target: Target) -> None:
    end, seed = time.monotonic() + SECONDS, int(time.time()) << 20
    while time.monotonic() < end:
        tried(target, seed)
        seed += 1
