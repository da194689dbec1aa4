"""Training of what finds scratches and undoes fading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from training_samples import tiny

from irtool.models import loading
from irtool.repairs.fade import FadeNet
from irtool.repairs.scratches import ScratchNet
from irtool.training import loop, recipe
from irtool.training.export import export
from irtool.training.fade import TonePools
from irtool.training.pictures import gather
from irtool.training.scratches import MARK, MarkedPools

OWN = {
    "scratches": {"model": {"widths": [4, 8]}, "region": 48, "phases": [{"until": 1.0, "crop": 48, "batch": 4}]},
    "fade": {"model": {"width": 8}, "region": 16, "phases": [{"until": 1.0, "crop": 16, "batch": 4}]},
}


@pytest.fixture(autouse=True)
def cache(decoded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ASSETS_CACHE", str(decoded))


def own(kind: str, **changes: object) -> recipe.Recipe:
    return tiny(
        **{"kind": kind, "settings": {}, "weights": {"clean": 1.0}, "precision": "fp32", **OWN[kind], **changes}
    )


@pytest.mark.parametrize(("kind", "network"), [("scratches", ScratchNet), ("fade", FadeNet)])
def test_it_learns_and_its_file_describes_itself(photos, tmp_path, kind, network, monkeypatch):
    for module in ("scratches", "fade"):
        monkeypatch.setattr(f"irtool.training.{module}.HELD_OUT_EACH", 4)
    torch.set_num_threads(1)
    made = own(kind, steps=40, rate=1e-2, preview_every=40, report_every=10)
    last = loop.train(made, photos, tmp_path / "run", device=torch.device("cpu"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    net, header = loading.read(export(last, tmp_path / "net.safetensors"))
    assert isinstance(net, network) and header["architecture"] == kind


def test_marks_are_labelled_where_they_can_be_seen_and_letters_and_rain_are_not(photos):
    made = own("scratches", group=8)
    pools = MarkedPools(gather(made, photos), made)
    sample = pools.group("clean", torch.Generator().manual_seed(0))
    mark = sample.extras[MARK]
    assert mark.shape == (8, 1, 48, 48) and set(mark.unique().tolist()) <= {0.0, 0.5, 1.0}
    bare = ~(mark > 0).flatten(1).any(1)
    assert bare.any() and not bare.all()
    again = pools.group("clean", torch.Generator().manual_seed(0))
    assert torch.equal(again.degraded, sample.degraded) and torch.equal(again.extras[MARK], mark)


def test_tones_are_taken_from_all_over_a_picture(photos):
    made = own("fade", group=8)
    pools = TonePools(gather(made, photos), made)
    sample = pools.group("clean", torch.Generator().manual_seed(1))
    assert sample.degraded.shape == (8, 3, 16, 16) and 0 <= sample.degraded.min() <= sample.degraded.max() <= 1


@pytest.mark.parametrize("kind", ["scratches", "fade"])
def test_recipes_turn_away_pairs(kind):
    pairs = [{"task": ["noise"], "degraded": "a", "clean": "b"}]
    with pytest.raises(Exception, match="leave them out"):
        recipe.build({"kind": kind, "pairs": pairs}, "x")
