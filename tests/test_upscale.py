"""irtool restore --scale: what becomes of pixels, metadata, plans and mistakes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import irtool
from irtool import engine
from irtool.engine.tiling import Tiler
from irtool.enlarge import enlarge
from irtool.errors import UsageError
from irtool.models import etds, loading
from irtool.models.base import Condition
from irtool.models.etds import DualStreamETDS
from irtool.ops import downscale
from irtool.picture import Picture, exif, read
from irtool.plan import Plan, Step, Upscale


@pytest.fixture(scope="module")
def upscalers(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Files of tiny networks that enlarge; their backbones are random, so every pixel depends on its neighbors."""
    folder, files = tmp_path_factory.mktemp("upscalers"), {}
    for scale in (2, 3, 4):
        torch.manual_seed(scale)
        net = etds.fused(DualStreamETDS(scale, 2, 8))
        torch.nn.init.normal_(net.conv_last.weight[:, :5], std=0.1)
        files[scale] = folder / f"x{scale}.safetensors"
        config = {"scale": scale, "blocks": 2, "width": 8}
        loading.save(net, files[scale], architecture="etds", config=config)
    return files


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_tiles_of_an_enlarged_picture_agree_with_the_whole(upscalers, scale):
    model = loading.load(upscalers[scale])
    pixels = torch.rand(3, 37, 53)
    settings = {"device": torch.device("cpu")}
    whole = engine.run(model.bind(Condition()), pixels, tile="off", **settings)
    tiles = engine.run(model.bind(Condition()), pixels, tile="16", **settings)
    assert whole.pixels.shape == (3, 37 * scale, 53 * scale) and tiles.tiles > 4
    assert torch.allclose(whole.pixels, tiles.pixels, atol=1e-5)
    # With less overlap than its receptive field they would not.
    model.info = irtool.load_model(upscalers[scale]).info.__class__(**{**vars(model.info), "overlap": 1})
    short = Tiler(model.info, 18 * 18, padding="zeros")
    with torch.inference_mode():
        seams = short(model.net, pixels[None])[0].clamp(0, 1)
    assert not torch.allclose(whole.pixels, seams, atol=1e-3)


def test_alpha_depth_gray_and_wide_colors_are_enlarged_too(upscalers):
    model = loading.load(upscalers[2])
    alpha = np.zeros((20, 30), np.float32)
    alpha[:, 15:] = 1
    beyond = np.full((20, 30, 3), 0.1, np.float32)
    picture = Picture(np.random.default_rng(0).random((20, 30, 3), np.float32), alpha, 16, True, out_of_gamut=beyond)
    large, _ = enlarge(picture, Upscale(2, "x"), model, device=torch.device("cpu"))
    assert large.pixels.shape == (40, 60, 3) and large.bits == 16
    assert (large.pixels[..., 0] == large.pixels[..., 2]).all()
    assert large.alpha is not None and (large.alpha[:, :28] == 0).all() and (large.alpha[:, 32:] == 1).all()
    assert large.out_of_gamut is not None and np.allclose(large.out_of_gamut, 0.1)
    flat, _ = enlarge(
        Picture(picture.pixels, np.full((20, 30), 0.25, np.float32)), Upscale(2, "x"), model, device=torch.device("cpu")
    )
    assert flat.alpha is not None and (flat.alpha == 0.25).all()


def test_exif_and_xmp_state_the_new_size_and_dots_per_inch_stay(upscalers, tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 36, 3), dtype=np.uint8))
    tags = Image.Exif()
    tags[0x010F] = "Camera"
    tags.get_ifd(0x8769)[0xA002], tags.get_ifd(0x8769)[0xA003] = 36, 24
    xmp = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
    <rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
    tiff:ImageWidth="36" tiff:ImageLength="24"><exif:PixelXDimension>36</exif:PixelXDimension></rdf:Description>
    </rdf:RDF></x:xmpmeta>"""
    image.save(tmp_path / "a.jpg", exif=tags, dpi=(300, 300), xmp=xmp, quality=95)
    result = irtool.restore(tmp_path / "a.jpg", scale=3, upscaler=f"local:{upscalers[3]}")
    result.save(tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as large:
        assert large.size == (108, 72) and large.info["dpi"] == (300, 300)
        found = large.getexif()
        assert found[0x010F] == "Camera"
        assert (found.get_ifd(0x8769)[0xA002], found.get_ifd(0x8769)[0xA003]) == (108, 72)
        packet = large.info["xmp"]
    assert b'tiff:ImageWidth="108"' in packet and b'tiff:ImageLength="72"' in packet
    assert b"<exif:PixelXDimension>108<" in packet
    assert exif.with_dimensions(b"no EXIF", 1, 1) == b"no EXIF"


def test_restoring_comes_first_and_the_plan_says_so(cli, using, photo, upscalers, tmp_path):
    photo(tmp_path / "a.png")
    upscaler = f"local:{upscalers[2]}"
    done = cli(
        "restore", tmp_path / "a.png", "--task", "noise", "--scale", "2", "--upscaler", upscaler, "--json",
        "-o", tmp_path / "b.png", "--side-by-side", env=using("rain"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout.splitlines()[0])
    assert record["plan"]["upscale"] == {"scale": 2, "model": upscaler}
    assert [list(step["mixture"]) for step in record["plan"]["steps"]] == [["noise"]]
    assert (record["width"], record["height"]) == (112, 80) == Image.open(tmp_path / "b.png").size
    plan = Plan.from_dict(record["plan"])
    assert plan.upscale == Upscale(2, upscaler) and plan.to_dict() == record["plan"]
    restored = irtool.restore(tmp_path / "a.png", plan=Plan(plan.steps), model=plan.steps[0].model)
    again = irtool.restore(restored.picture, scale=2, upscaler=upscaler)
    assert np.abs(again.array.astype(int) - np.asarray(Image.open(tmp_path / "b.png"))).max() <= 1


def test_auto_and_scale_enlarge_a_clean_picture_and_scale_alone_looks_for_nothing(
    cli, using, photo, upscalers, tmp_path
):
    photo(tmp_path / "a.png")
    larger = ("--scale", "2", "--upscaler", f"local:{upscalers[2]}", "--json")
    done = cli("restore", tmp_path / "a.png", "--auto", *larger, "-o", tmp_path / "b.png", env=using("clean"))
    record = json.loads(done.stdout.splitlines()[0])
    assert record["status"] == "restored" and record["diagnosis"]["present"] == ["clean"] and record["width"] == 112
    env = using("clean") | {"IRTOOL_DETECTOR": "local:absent.safetensors", "IRTOOL_MODEL": "local:absent.safetensors"}
    done = cli("restore", tmp_path / "a.png", *larger, "-o", tmp_path / "c.png", env=env)
    assert done.returncode == 0 and json.loads(done.stdout.splitlines()[0])["plan"]["steps"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "5"], "2, 3 or 4, not 5"),
        (["--scale", "3", "--upscaler", "{2}"], "enlarges 2 times, not 3"),
        (["--upscaler", "{2}"], "no --scale"),
        (["--task", "noise", "--model", "{2}"], "enlarges pictures and removes nothing"),
        (["--scale", "2", "--upscaler", "{restorer}"], "enlarges none"),
    ],
)
def test_senseless_combinations_are_refused_before_a_picture_is_read(
    cli, using, photo, upscalers, models_dir, tmp_path, arguments, message
):
    photo(tmp_path / "a.png")
    names = {"2": f"local:{upscalers[2]}", "restorer": f"local:{models_dir / 'restorer.safetensors'}"}
    arguments = [names.get(a.strip("{}"), a) if a.startswith("{") else a for a in arguments]
    done = cli("restore", tmp_path / "a.png", *arguments, "-o", tmp_path / "b.png", env=using("rain"))
    assert done.returncode == 2 and message in done.stderr and not (tmp_path / "b.png").exists()


def test_words_enlarge_and_the_record_says_so(cli, using, photo, upscalers, tmp_path):
    photo(tmp_path / "a.png")
    done = cli(
        "instruct", tmp_path / "a.png", "remove the noise and make it twice as large", "--upscaler",
        f"local:{upscalers[2]}", "--json", "-o", tmp_path / "b.png", env=using("rain"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout.splitlines()[0])
    assert record["instruction"][0]["scale"] == 2 and record["plan"]["upscale"]["scale"] == 2 and record["width"] == 112


def test_the_api_enlarges_arrays_and_refuses_other_scales(upscalers):
    array = np.zeros((8, 9, 3), np.uint8)
    upscaler = f"local:{upscalers[4]}"
    result = irtool.restore(array, scale=4, upscaler=upscaler)
    assert result.array.shape == (32, 36, 3) and not result.untouched and "enlarged 4 times" in repr(result)
    with pytest.raises(UsageError, match="2, 3 or 4"):
        irtool.restore(array, scale=1)
    with pytest.raises(UsageError, match="no `scale`"):
        irtool.restore(array, tasks="noise", upscaler=upscaler)
    with pytest.raises(UsageError, match="removes nothing"):
        irtool.restore(array, plan=Plan((Step({"noise": 1.0}, upscaler),)))


def test_memory_for_the_result_is_counted_before_a_picture_is_read(cli, using, photo, upscalers, tmp_path):
    photo(tmp_path / "a.png", size=(2000, 3000))
    done = cli(
        "restore", tmp_path / "a.png", "--scale", "4", "--upscaler", f"local:{upscalers[4]}", "--max-memory", "2GB",
        "-o", tmp_path / "b.png", env=using("rain"),
    )  # fmt: skip
    assert done.returncode == 1 and "needs about" in done.stderr and not (tmp_path / "b.png").exists()


def test_reduction_is_that_of_pillow_inside_and_mirrors_at_the_edges():
    codes = np.random.default_rng(0).integers(0, 256, (48, 60, 3), dtype=np.uint8)
    planes = [
        Image.fromarray(codes[..., c].astype(np.float32)).resize((20, 16), Image.Resampling.BICUBIC) for c in range(3)
    ]
    want = np.stack([np.asarray(plane) for plane in planes], -1)
    got = downscale(torch.from_numpy(codes).permute(2, 0, 1)[None].float(), 3)[0].permute(1, 2, 0).numpy()
    assert np.abs(got - want)[2:-2, 2:-2].max() < 1e-3
    ramp = torch.arange(30.0).expand(1, 1, 30, 30)
    row = downscale(ramp, 3)[0, 0, 4]
    assert torch.allclose(row[4:6], torch.tensor([13.0, 16.0]), atol=1e-4)
    mirrored = downscale(torch.cat([ramp.flip(-1), ramp], dim=-1), 3)[0, 0, 4, 10:]
    assert torch.allclose(row[:5], mirrored[:5], atol=1e-4)
    with pytest.raises(ValueError, match="no multiple"):
        downscale(torch.rand(1, 3, 10, 12), 3)


def test_an_enlarged_16_bit_png_with_alpha_keeps_both(upscalers, tmp_path):
    picture = Picture(np.random.default_rng(0).random((10, 12, 3), np.float32), np.eye(10, 12, dtype=np.float32), 16)
    result = irtool.restore(picture, scale=2, upscaler=f"local:{upscalers[2]}")
    back = read(io.BytesIO(result.encode("PNG")))
    assert back.bits == 16 and back.alpha is not None and back.pixels.shape == (20, 24, 3)
    assert np.abs(back.pixels - result.picture.pixels).max() < 1e-4
