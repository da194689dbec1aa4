"""Tiles cover the picture, agree with the whole, and stay within the memory allowed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from compact_samples import random_net
from hypothesis import given
from hypothesis import strategies as st

from irtool import engine
from irtool.engine import tiling
from irtool.errors import PictureError, UnavailableError, UsageError
from irtool.models.base import Condition, Progress, Tiled
from irtool.models.compact import CompactBound, CompactModel

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def expert() -> CompactBound:
    return CompactModel(random_net()).bind(Condition({"noise": 1.0}))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 70), st.integers(24, 60))
def test_a_grid_covers_every_pixel_once_within_the_budget(rows: int, columns: int, overlap: int, side: int) -> None:
    height, width, pixels = 16 * rows, 16 * columns, (side * 16) ** 2 // 4
    seen = torch.zeros(height, width, dtype=torch.int)
    tiles = tiling.grid(height, width, multiple=16, overlap=overlap, pixels=max(pixels, (16 + 2 * 80) ** 2))
    assert len({(t.bottom - t.top, t.right - t.left) for t in tiles}) == 1
    for t in tiles:
        assert (t.bottom - t.top) * (t.right - t.left) <= max(pixels, (16 + 2 * 80) ** 2)
        assert t.top % 16 == t.left % 16 == (t.bottom - t.top) % 16 == (t.right - t.left) % 16 == 0
        assert t.top == 0 or t.keep_top - t.top >= overlap
        assert t.bottom == height or t.bottom - t.keep_bottom >= overlap
        assert t.left == 0 or t.keep_left - t.left >= overlap
        assert t.right == width or t.right - t.keep_right >= overlap
        seen[t.keep_top : t.keep_bottom, t.keep_left : t.keep_right] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("size", [(203, 331), (401, 97), (64, 900)])
def test_tiled_and_whole_agree_on_odd_sizes(expert: CompactBound, size: tuple[int, int]) -> None:
    pixels = torch.rand(3, *size)
    whole = engine.run(expert, pixels, device=CPU, dtype="fp32", tile="off")
    tiled = engine.run(expert, pixels, device=CPU, dtype="fp32", tile="64")
    assert whole.tiles == 1
    assert tiled.tiles > 1
    assert (whole.pixels - tiled.pixels).abs().max() < 1 / 255


def test_a_margin_too_small_would_show(expert: CompactBound) -> None:
    """The test above can fail: without a margin tiles do differ from the whole."""
    pixels = torch.rand(3, 203, 331)
    import dataclasses

    bare = CompactBound(expert.placed, dataclasses.replace(expert.info, overlap=0))
    whole = engine.run(bare, pixels, device=CPU, dtype="fp32", tile="off")
    tiled = engine.run(bare, pixels, device=CPU, dtype="fp32", tile="64")
    assert (whole.pixels - tiled.pixels).abs().max() > 1 / 255


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (17, 15), (2, 200)])
def test_any_size(expert: CompactBound, size: tuple[int, int]) -> None:
    result = engine.run(expert, torch.rand(3, *size), device=CPU).pixels
    assert result.shape == (3, *size)
    assert result.isfinite().all()
    assert result.min() >= 0
    assert result.max() <= 1


@pytest.mark.parametrize("tile", ["off", "64"])
def test_an_ensemble_treats_a_picture_and_its_mirror_alike(expert: CompactBound, tile: str) -> None:
    pixels = torch.rand(3, 96, 128)  # no padding, or the mirrored picture would be padded on its other side

    def run(x: torch.Tensor, ensemble: bool) -> torch.Tensor:
        x = x.contiguous()
        return engine.run(expert, x, device=CPU, dtype="fp32", tile=tile, ensemble=ensemble).pixels

    for sides in ((-1,), (-2,), (-2, -1)):
        apart = [(run(pixels.flip(sides), e).flip(sides) - run(pixels, e)).abs().max() for e in (True, False)]
        assert apart[0] < 1 / 255 < apart[1]
    views = [run(pixels.flip(s), False).flip(s) for s in ((), (-1,), (-2,), (-2, -1))]
    assert (run(pixels, True) - torch.stack(views).mean(0)).abs().max() < 1 / 255


def test_memory_decides_on_tiles(expert: CompactBound) -> None:
    from irtool.memory import resident_bytes

    pixels = torch.rand(3, 800, 800)
    held = resident_bytes() + 2 * pixels.numel() * 4
    seen: list[tuple[int, int]] = []
    outcome = engine.run(
        expert,
        pixels,
        device=CPU,
        dtype="fp32",
        max_memory=held + (64 << 20),
        on_progress=lambda a, b: seen.append((a, b)),
    )
    assert outcome.tiles > 1
    assert seen[-1] == (outcome.tiles, outcome.tiles)
    with pytest.raises(PictureError, match="too small"):
        engine.run(expert, pixels, device=CPU, max_memory=1 << 20)


def test_settings_that_are_none(expert: CompactBound) -> None:
    pixels = torch.rand(3, 32, 32)
    for tile in ("0", "4", "big", "-5"):
        with pytest.raises(UsageError, match="tile"):
            engine.run(expert, pixels, device=CPU, tile=tile)
    with pytest.raises(UsageError, match="number type"):
        engine.run(expert, pixels, device=CPU, dtype="fp8")
    with pytest.raises(UsageError, match="fp16"):
        engine.run(expert, pixels, device=CPU, dtype="fp16")
    with pytest.raises(UsageError, match="Unknown device"):
        engine.pick_device("tpu")
    with pytest.raises(UnavailableError, match="no device 'cuda:99'"):
        engine.pick_device("cuda:99")


def test_bf16_stays_within_a_level(expert: CompactBound) -> None:
    pixels = torch.rand(3, 64, 64)
    exact = engine.run(expert, pixels, device=CPU, dtype="fp32").pixels
    rough = engine.run(expert, pixels, device=CPU, dtype="bf16").pixels
    assert (exact - rough).abs().mean() < 1 / 255


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_cpu(expert: CompactBound) -> None:
    pixels = torch.rand(3, 203, 331)
    here = engine.run(expert, pixels, device=CPU, dtype="fp32").pixels
    there = engine.run(expert, pixels, device=torch.device("cuda"), dtype="fp32", tile="64").pixels
    assert (here - there).abs().max() < 1 / 255


def test_the_memory_a_pass_takes_is_what_the_capability_says(tmp_path: Path) -> None:
    """In a fresh process, whose peak is not yet that of another test."""
    code = """
import torch
from irtool.engine.device import peak_bytes
from irtool.models.compact import CompactNet, CompactModel
from irtool.models.base import Condition
peak = lambda: peak_bytes(torch.device("cpu"))
torch.set_num_threads(2)
torch.set_grad_enabled(False)
expert = CompactModel(CompactNet(width=64).eval().requires_grad_(False)).bind(Condition())
expert.forward(torch.rand(1, 3, 64, 64), torch.rand(1, 36))
before = peak()
expert.forward(torch.rand(1, 3, 512, 1024), torch.rand(1, 36))
print((peak() - before) / (512 * 1024) / expert.info.bytes_per_pixel)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path.parents[0],
        env={**os.environ, "PYTHONPATH": str(Path(engine.__file__).parents[2])},
    )
    assert 0.4 < float(done.stdout) < 1.2  # within what allocators differ by


class Hungry:
    """A bound model with room for `room` pixels only; for more it tries an allocation that cannot be met."""

    def __init__(self, inner: CompactBound, room: int) -> None:
        self.inner, self.room, self.info = inner, room, inner.info

    def to(self, device: torch.device, dtype: torch.dtype) -> Hungry:
        self.inner.to(device, dtype)
        return self

    def prepare(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inner.prepare(image)

    def run(self, image: torch.Tensor, context: torch.Tensor, tiled: Tiled, on_progress: Progress) -> torch.Tensor:
        def forward(tile: torch.Tensor) -> torch.Tensor:
            if tile.shape[-2] * tile.shape[-1] > self.room:
                torch.empty(1 << 60, dtype=torch.uint8)
            return self.inner.forward(tile, context)

        with torch.inference_mode():
            return tiled(forward, image, on_progress=on_progress)


def test_memory_that_runs_out_on_the_way_makes_smaller_tiles(expert: CompactBound) -> None:
    pixels = torch.rand(3, 500, 300)
    outcome = engine.run(Hungry(expert, 260 * 260), pixels, device=CPU, dtype="fp32", tile="off")
    assert outcome.tiles > 1
    whole = engine.run(expert, pixels, device=CPU, dtype="fp32", tile="off")
    assert (outcome.pixels - whole.pixels).abs().max() < 1 / 255
    with pytest.raises(PictureError, match="too small"):
        engine.run(Hungry(expert, 0), pixels, device=CPU, dtype="fp32", tile="off")
