"""From a file to a network: by its header, or by the names and shapes of its tensors."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from irtool import weights
from irtool.degradation import IDS
from irtool.errors import UnavailableError, UsageError
from irtool.models import architectures, loading

SMALL: dict[str, dict[str, Any]] = {
    "universal-unet": {"nf": 32, "ch_mult": (1, 2), "context_dim": 16},
    "wild-unet": {"nf": 32, "ch_mult": (1, 2), "context_dim": 16, "use_degra_context": False, "scale": 0.5},
    "irsde-unet": {"nf": 8, "depth": 2},
    "denoising-unet": {"nf": 8, "depth": 2, "conditional": False},
    "latent-unet": {"ch": 8, "ch_mult": (1, 2), "embed_dim": 4},
    "refusion-nafnet": {"width": 8, "enc_blk_nums": (1,), "dec_blk_nums": (1,)},
    "latent-nafnet": {"img_channel": 8, "width": 8, "enc_blk_nums": (1,), "dec_blk_nums": (1,)},
    "nafnet": {"width": 8, "enc_blk_nums": (1,), "dec_blk_nums": (1,)},
    "span": {"scale": 2, "width": 8},
    "etds-int8": {"scale": 4, "blocks": 2, "width": 8},
    "etds": {"scale": 3, "blocks": 2, "width": 8},
    "etds-dual-stream": {"scale": 2, "blocks": 2, "width": 8, "residual": 4},
    "daclip": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 100, "width": 64, "heads": 1, "layers": 1},
    },
}


def network(family: str) -> torch.nn.Module:
    torch.manual_seed(0)
    net: torch.nn.Module = loading._resolve(loading.ARCHITECTURES[family].network)(**SMALL[family])
    return net


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_ASSETS_CACHE", raising=False)


def test_the_registry_knows_the_architectures_without_torch(environment):
    code = "import sys; from irtool.weights import registry; registry.records(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
    assert set(loading.ARCHITECTURES) <= set(architectures.names())


@pytest.mark.parametrize("family", loading.ARCHITECTURES)
def test_every_place_of_the_table_is_there(family):
    entry = loading.ARCHITECTURES[family]
    for place in (entry.network, entry.recognize, entry.restorer):
        assert not place or callable(loading._resolve(place))
    # Either its files describe themselves, or there are tensors to tell it by, and to tell the user.
    assert bool(entry.keys) == bool(entry.recognize)


@pytest.mark.parametrize("family", SMALL)
def test_a_bare_state_dict_is_recognized_with_its_sizes_and_loads_strictly(family, tmp_path):
    net = network(family)
    path = tmp_path / "net.pth"
    torch.save(net.state_dict(), path)
    where = weights.locate(f"local:{path}")
    assert loading.describe(where)[0] == family
    read, header = loading.read(where)
    assert header["architecture"] == family and json.loads(header["config"])
    expected = net.state_dict()
    assert read.state_dict().keys() == expected.keys()
    assert all(torch.equal(v, expected[k]) for k, v in read.state_dict().items())
    assert not any(p.requires_grad or p.is_meta for p in read.parameters()) and not read.training


@pytest.mark.parametrize("family", SMALL)
def test_no_two_families_take_the_same_file(family):
    shapes = {k: tuple(v.shape) for k, v in network(family).state_dict().items()}
    assert [name for name in loading.ARCHITECTURES if loading.recognize(shapes, [name])] == [family]


def test_the_published_layouts_are_recognized(shared):
    folder = shared / "facts" / "keys"
    if not folder.is_dir():
        pytest.skip("the shared folder has no list of published keys")
    expected = {
        "daclip_vit_b32": "daclip",
        "daclip_vit_l14_wild": "daclip",
        "denoising_sde_unet_nf64_depth4": "denoising-unet",
        "irsde_unet_deshadow_nf32_depth5": "irsde-unet",
        "irsde_unet_nf64_depth4": "irsde-unet",
        "refusion_latent_nafnet_dehazing": "latent-nafnet",
        "refusion_latent_unet_dehazing": "latent-unet",
        "refusion_nafnet_width64": "refusion-nafnet",
        "universal_unet_nf64": "universal-unet",
        "wild_unet_nf64": "wild-unet",
        # Another network than ours under the same names: two views, or a lens, at once.
        "refusion_stereo_nafnet": None,
        "refusion_latent_nafnet_bokeh": None,
    }
    for name, family in expected.items():
        lines = [line for line in (folder / f"{name}.txt").read_text().splitlines() if not line.startswith("#")]
        shapes = {k: tuple(json.loads(f"[{s.strip('(),')}]")) for k, s in (line.split("\t")[:2] for line in lines)}
        found = loading.recognize(shapes)
        assert (found and found[0]) == family, name
        if found is not None:
            with torch.device("meta"):
                net = loading._resolve(loading.ARCHITECTURES[found[0]].network)(**found[1])
            assert {k: tuple(v.shape) for k, v in net.state_dict().items()} == shapes, name


def test_an_unknown_file_says_what_was_looked_for_and_found(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file({"conv.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(UnavailableError, match="no network that irtool knows") as raised:
        loading.read(path)
    assert "conv.weight" in raised.value.hint and raised.value.hint.count(" lacks ") == loading.NEAREST
    assert len(raised.value.hint) < 400  # not every tensor of every family
    # A published file is called by the name its user knows, not by that of what it was converted to.
    save_file({"conv.weight": torch.zeros(2, 2)}, path, metadata={"source": "theirs.pth"})
    with pytest.raises(UnavailableError, match=r"^theirs\.pth holds no network"):
        loading.read(path)
    # A record has said what it is: only that is told.
    save_file({"conv.weight": torch.zeros(2, 2)}, path, metadata={"architecture": "latent-unet"})
    with pytest.raises(UnavailableError) as raised:
        loading.read(path)
    assert raised.value.hint.count(" lacks ") == 1 and "latent-unet lacks" in raised.value.hint


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ({"architecture": "restormer"}, "its header names 'restormer'"),
        ({"architecture": "compact", "config": "{"}, "damaged header"),
        ({"architecture": "compact", "config": '{"wide": 3}'}, "does not fit its own description"),
        ({"architecture": "latent-unet", "config": "{}"}, "does not fit its own description"),
        ({"architecture": "compact", "config": "{}", "aliases": '{"b": "absent"}'}, "damaged header"),
        ({"architecture": "compact", "config": "{}", "aliases": '{"b": []}'}, "damaged header"),
        ({"architecture": "compact", "config": "{}", "aliases": "[" * 5000}, "damaged header"),
        ({"architecture": "compact", "config": "[" * 5000}, "damaged header"),
        ({"architecture": "compact", "config": "3"}, "damaged header"),
        ({"architecture": "compact", "config": '{"width": 1e30}'}, "damaged header"),
        ({"architecture": "compact", "config": '{"width": NaN}'}, "damaged header"),
        ({"architecture": "compact", "config": '{"encoder": [1000000]}'}, "more than 20000 parts"),
        ({"architecture": "compact", "config": '{"width": "8"}'}, "does not fit its own description"),
    ],
)
def test_a_file_with_a_wrong_header_is_an_error(tmp_path, header, told):
    path = tmp_path / "net.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata=header)
    with pytest.raises(UnavailableError, match=told):
        loading.read(path)


def test_a_local_file_of_a_family_finds_its_companions():
    assert weights.needs("daclip-universal.ten-tasks", "universal-unet") == ("daclip-vit-b-32.universal",)
    assert weights.needs("daclip-universal", "universal-unet") == ("daclip-vit-b-32.universal",)
    assert weights.needs("local:universal-ir.pth", "universal-unet") == ("daclip-vit-b-32.universal",)
    assert weights.needs("hf-hub:a/b@main:c.pth", "wild-unet") == ("daclip-vit-l-14.wild",)
    assert weights.needs("local:x.safetensors", "compact") == ()


def test_the_registry_is_whole():
    known = {record.id: record for record in weights.records()}
    assert len(known) > 25
    for record in known.values():
        assert set(record.tasks) <= set(IDS) and record.licence and record.origin
        own = record.kind == "manual" and record.id.startswith("irtool-")  # they lie in the source repository
        assert record.kind == "asset" or own or record.page.startswith("https://")
        assert all(known[needed].family != record.family for needed in record.needs)
    # What the mission rests on is pinned by hash, with the published sizes.
    pinned = {r.originals[0].name: r.bytes for r in known.values() if r.kind == "hf-hub" and r.originals[0].sha256}
    assert pinned == {
        "daclip_ViT-B-32.pt": 1_744_725_787,
        "universal-ir.pth": 195_990_371,
        "wild-daclip_ViT-L-14.pt": 5_661_040_338,
        "wild-ir.pth": 197_969_027,
    }


def test_loading_a_restorer_hands_over_its_companions(tmp_path, monkeypatch):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    for path, family in ((one, "latent-nafnet"), (two, "latent-unet")):
        save_file(
            {k: v.contiguous() for k, v in network(family).state_dict().items()},
            path,
            metadata={"settings": '{"steps": 3}'},
        )
    seen: list[Any] = []
    real = loading._resolve

    def resolve(place: str) -> Any:
        return (lambda *given: seen.extend(given)) if place.endswith("restorer") else real(place)

    monkeypatch.setattr(loading, "_resolve", resolve)
    loading.load(one, [two])
    net, header, companion = seen
    assert type(net).__name__ == "ConditionalNAFNet" and type(companion).__name__ == "LatentUNet"
    assert header["settings"] == '{"steps": 3}'
    with pytest.raises(UnavailableError, match="not a restorer"):
        loading.load(two)


FAMILIES = [name for name in architectures.names() if architectures.get(name).keys]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 1, 1), (1, 1), (2, 3, 5, 7), (4, 4, 4, 4, 4)])
def test_the_names_of_a_family_with_other_shapes_are_no_bug(family, shape):
    shapes = dict.fromkeys(architectures.get(family).keys, shape)
    loading.recognize(shapes)  # raises nothing, whatever it finds


@pytest.mark.parametrize(
    "name",
    [
        "prenet_0d.safetensors",
        "st_aliases_unhashable.safetensors",
        "st_arch_huge_blocks.safetensors",
        "st_tensor_esc.safetensors",
    ],
)
def test_small_hostile_model_files_are_refused_quickly(shared, name):
    begun = time.monotonic()
    with pytest.raises(UnavailableError):
        loading.read(shared / "cases_attacks" / name)
    assert time.monotonic() - begun < 60


def test_a_model_file_makes_nobody_fetch_what_was_not_asked_for(tmp_path):
    (tmp_path / "controller.safetensors").write_bytes(b"")
    here = f"local:{tmp_path / 'net.safetensors'}"

    def beside(needs: object, reference: str = here) -> tuple[str, ...]:
        return weights.companions(reference, "universal-unet", {"needs": json.dumps(needs)})

    known = weights.needs("local:", "universal-unet")
    assert known and beside([]) == known and beside(list(known)) == known
    assert beside(["local:/elsewhere/controller.safetensors"]) == (f"local:{tmp_path / 'controller.safetensors'}",)
    for wanted in ("hf-hub:evil/tracker", "https://example.org/x", "evil/tracker", "nobody.v1", "", "local:x"):
        with pytest.raises(UsageError, match="neither a known one nor a local file") as raised:
            beside([wanted], "hf-hub:acme/net" if wanted == "local:x" else here)
        assert "--controller" in raised.value.hint
    for damaged in ("hf-hub:x", {"a": 1}, [1], [["x"]], ["x"] * 9, 3):
        with pytest.raises(UnavailableError, match="damaged header"):
            beside(damaged)
    with pytest.raises(UnavailableError, match="damaged header"):
        weights.companions(here, "compact", {"needs": "[" * 5000})
