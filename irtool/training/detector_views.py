"""What the frozen layers of the detector see in training samples, computed once and kept on disk.

Several processes can fill the cache side by side before a run:

    python -m irtool.training.detector_views RECIPE --data DATA --part 1/3
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor
from torch.utils.data import Dataset

from ..detection.network import CROP, CROP_AREA, WHOLE_AREA, DetectorNet, cells_hit, reduced
from ..fileio import atomic_write
from .data import Sample, seed_of
from .detector_data import CHANGE, DetectorPools
from .recipe import Recipe, find, load
from .tasks import Shard, training_task

VIEWS = ("seen_whole", "seen_crops", "seen_fine")
WHOLE_CELLS, CROP_CELLS = "whole_cells", "crop_cells"
"""Names in `Sample.extras`: the fields of `irtool.detection.network.Views`, and what the maps should say."""
CROPS = 2  # of middle size, for each sample


class SeenPools(Dataset[Sample]):
    """Pool `i` of `DetectorPools`, modulo `count`, with the pictures replaced by what the frozen layers see in them.

    Args:
        pools: of pictures.
        net: its frozen layers are used.
        count: how many different pools there are.
        where: folder of the cache.
    """

    def __init__(self, pools: DetectorPools, net: DetectorNet, count: int, where: Path) -> None:
        self.pools, self.net, self.count, self.where = pools, net, count, where
        self.kinds: list[str] = []  # `data.training_data` makes no held-out samples of these: they are no pictures

    def __getitem__(self, index: int) -> Sample:
        path = self.where / f"{index % self.count:05d}.safetensors"
        if not path.is_file():
            self._make(index % self.count, path)
        held_out = load_file(path)
        labels = held_out.pop("labels").float()
        nothing = torch.zeros(len(labels), 1)
        return Sample(nothing, nothing, nothing, labels, labels, held_out).to(self.pools.shard.device)

    def _make(self, index: int, path: Path) -> None:
        sample = self.pools[index]
        g = torch.Generator().manual_seed(seed_of(self.pools.recipe.seed, index, 0x76))
        change = sample.extras[CHANGE].float()
        middle, middle_change = reduced(sample.degraded, CROP_AREA), reduced(change, CROP_AREA)
        boxes = [_box(middle, g) for _ in range(CROPS)]
        crops = torch.stack([_cut(middle, box) for box in boxes], dim=1)
        with torch.inference_mode():
            views = self.net.see(sample.degraded, crops)
            whole_map = self.net.maps(views.whole)
            crop_map = self.net.maps(views.crops[:, 0])
        cells = [cells_hit(_cut(middle_change, box), crop_map) for box in boxes]
        whole_change = F.interpolate(change, reduced(sample.degraded[:1], WHOLE_AREA).shape[-2:], mode="area")
        kept = dict(zip(VIEWS, views, strict=True))
        kept |= {WHOLE_CELLS: cells_hit(whole_change, whole_map), CROP_CELLS: torch.stack(cells, dim=1)}
        kept |= {name: value for name, value in sample.extras.items() if name != CHANGE} | {"labels": sample.labels}
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, serialize({name: value.half().contiguous() for name, value in kept.items()}))


def _box(pixels: Tensor, g: torch.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random crop of middle size."""
    h, w = (min(side, CROP) for side in pixels.shape[-2:])
    top, left = (
        int(torch.randint(side - cut + 1, (1,), generator=g))
        for side, cut in zip(pixels.shape[-2:], (h, w), strict=True)
    )
    return top, left, h, w


def _cut(pixels: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    top, left, h, w = box
    return pixels[..., top : top + h, left : left + w]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part", default="1/1", help="which of how many processes this is")
    given = parser.parse_args()
    recipe: Recipe = load(find(given.recipe))
    number, parts = map(int, given.part.split("/"))
    pools = training_task(recipe.kind).dataset(recipe, given.data, Shard(0, 1, torch.device("cpu"))).pools
    for index in range(number - 1, int(recipe.settings["pools"]), parts):
        pools[index]
        print(index, flush=True)


if __name__ == "__main__":
    main()
