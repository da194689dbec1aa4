"""Animations and pages: frame by frame, by one plan and with one context; times, loops and pages are kept."""

from __future__ import annotations

import io
import itertools
import json

import numpy as np
import picture_samples as make
import pytest
from PIL import Image

from irtool import api, provenance, sequence
from irtool.errors import PictureError
from irtool.memory import Budget, resident_bytes
from irtool.picture import FramesError, FramesWriter, encode, read, read_frames
from irtool.plan import Plan, plan_tasks

DURATIONS = [100, 40, 60, 80]


def clip(count=4, size=(64, 96), noise=0.0, light=1.0) -> list[Image.Image]:
    """A textured scene across which a bright square moves; its lowest rows are the same in all frames but for noise."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[: size[0], : size[1]]
    scene = 0.45 + 0.25 * np.sin(x / 7)[..., None] * np.cos(y / 9)[..., None] * np.array([1, 0.8, 0.6])
    frames = []
    for i in range(count):
        frame = scene.copy()
        frame[20:44, 8 + 14 * i : 32 + 14 * i] = 0.95
        frame = frame * light + draw.normal(0, noise, frame.shape)
        frames.append(Image.fromarray((frame.clip(0, 1) * 255).round().astype(np.uint8)))
    return frames


def animation(frames, format, **options) -> bytes:
    out = io.BytesIO()
    if format == "WEBP":
        options = {"lossless": True, **options}
    frames[0].save(out, format, save_all=True, append_images=frames[1:], duration=DURATIONS, loop=3, **options)
    return out.getvalue()


def shown(data: bytes) -> tuple[list[np.ndarray], list[float], int]:
    frames = read_frames(data)
    pairs = list(frames)
    assert len(pairs) == frames.count
    return [picture.pixels for picture, _ in pairs], [duration for _, duration in pairs], frames.loop


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_frames_are_read_as_they_are_shown(format):
    frames = clip()
    if format == "GIF":  # of colors that its palette has
        frames = [frame.quantize(64, dither=Image.Dither.NONE).convert("RGB") for frame in frames]
    data = animation(frames, format)
    pixels, durations, loop = shown(data)
    assert durations == DURATIONS and loop == (4 if format == "GIF" else 3)  # a GIF says how often it is repeated
    for got, frame in zip(pixels, frames, strict=True):
        assert np.array_equal(np.rint(got * 255), np.asarray(frame))
    with pytest.raises(FramesError, match="4 frames"):
        read(data)


def test_a_picture_for_those_who_show_no_animations_is_no_frame():
    frames = clip(4)
    out = io.BytesIO()
    frames[3].save(
        out, "PNG", save_all=True, append_images=frames[:3], default_image=True, duration=DURATIONS[:3], loop=0
    )
    pixels, durations, loop = shown(out.getvalue())
    assert len(pixels) == 3 and durations == DURATIONS[:3] and loop == 0
    assert np.array_equal(np.rint(pixels[0] * 255), np.asarray(frames[0]))


def restore(model="irtool-small", **settings):
    return lambda picture, plan, models: api.restore_with(models, picture, None, plan, None, model, settings)


def change(frames: list[np.ndarray]) -> float:
    """The mean change from frame to frame where nothing moves."""
    still = [frame[48:] for frame in frames]
    return float(np.mean([np.abs(a - b).mean() for a, b in itertools.pairwise(still)]))


@pytest.mark.parametrize(
    ("task", "options"), [("denoise", {"noise": 0.06}), ("brighten", {"noise": 0.004, "light": 0.15})]
)
def test_what_stands_still_flickers_less_than_before(task, options):
    data = animation(clip(**options), "PNG")
    before, _, _ = shown(data)
    after, durations, loop = shown(sequence.restore_frames(read_frames(data), restore(), plan_tasks([task])).encode())
    assert durations == DURATIONS and loop == 3
    gain = np.mean(after) / np.mean(before)
    assert change(after) / gain < 0.7 * change(before)
    assert gain > 3 if task == "brighten" else gain == pytest.approx(1, abs=0.05)
    # And not more than if each frame were measured by itself, as a square that moves would have it.
    alone = [api.restore(picture, plan=plan_tasks([task])).picture.pixels for picture, _ in read_frames(data)]
    assert change(after) <= change(alone) * 1.01


def test_all_frames_are_told_what_the_one_in_the_middle_was_measured_to_be():
    frames = [Image.new("RGB", (32, 32), (v, v, v)) for v in (20, 60, 200)]
    seen = []

    def spy(picture, plan, models):
        bound = models("irtool-small", "").bind(api.Condition({"lowlight": 1.0}))
        image = api.torch.from_numpy(picture.pixels).permute(2, 0, 1)[None]
        seen.append(bound.prepare(image)[1])
        return api.Result(picture, plan)

    plan = plan_tasks(["brighten"])
    out = io.BytesIO()
    frames[0].save(out, "PNG", save_all=True, append_images=frames[1:], duration=40)
    sequence.restore_frames(read_frames(out.getvalue()), spy, plan)
    assert len(seen) == 4 and all(api.torch.equal(context, seen[0]) for context in seen)
    # Pages are pictures of their own.
    seen.clear()
    out = io.BytesIO()
    frames[0].save(out, "TIFF", save_all=True, append_images=frames[1:])
    sequence.restore_frames(read_frames(out.getvalue()), spy, plan)
    assert not api.torch.equal(seen[1], seen[3])


def pages() -> list[bytes]:
    small = encode(read(make.saved(make.noise(10, 12, 3), "PNG")), "tif")
    deep = read(make.saved(make.noise(8, 6, 3, seed=1), "PNG"))
    return [small, encode(api.replace(deep, bits=16, dpi=(300.0, 300.0)), "tif")]


def test_pages_keep_their_size_depth_and_resolution(tmp_path):
    from irtool.picture.frames import join_pages

    data = join_pages([*pages(), *pages()])
    with Image.open(io.BytesIO(data)) as im:
        assert im.n_frames == 4
    frames = read_frames(data)
    assert frames.paged and frames.count == 4
    sizes = [((p.height, p.width), p.bits, p.dpi) for p, _ in frames]
    assert sizes == [((10, 12), 8, None), ((8, 6), 16, (300.0, 300.0))] * 2
    result = sequence.restore_frames(frames, restore(), plan_tasks(["denoise"]))
    again = read_frames(result.encode())
    assert [((p.height, p.width), p.bits, p.dpi) for p, _ in again] == sizes
    for (page, _), (before, _) in zip(again, frames, strict=True):
        assert not np.array_equal(page.pixels, before.pixels)
        assert provenance.read(page.xmp).plan["steps"][0]["mixture"] == {"noise": 1.0}


def test_big_endian_pages_without_metadata_stay_together():
    from irtool.picture.frames import join_pages

    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x0e\0\x02\0\0\0\x02a\0\0\0\0\0\0\0"
    page = encode(api.replace(read(make.saved(make.noise(6, 6, 3), "PNG")), exif=exif), "tif")
    assert page[:2] == b"MM"
    result = sequence.restore_frames(read_frames(join_pages([page, page])), restore(), plan_tasks(["denoise"]))
    assert result.encode()[:2] == b"MM" and read_frames(result.encode()).count == 2
    with pytest.raises(ValueError, match="byte order"):
        join_pages([page, pages()[0]])


def test_animations_are_restored_by_the_command_line(cli, using, tmp_path):
    for name, format in (("a.gif", "GIF"), ("b.webp", "WEBP"), ("c.png", "PNG")):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(animation(clip(noise=0.02), format))
    Image.fromarray(make.noise(9, 9, 3)).save(
        tmp_path / "in" / "d.tif", save_all=True, append_images=[Image.fromarray(make.noise(5, 7, 3))]
    )
    done = cli("restore", tmp_path / "in", "-o", tmp_path / "out", "--json", env=using("rain"))
    assert done.returncode == 0, done.stderr
    for name, source in (("a.png", "a.gif"), ("b.webp", "b.webp"), ("c.png", "c.png")):
        pixels, durations, loop = shown((tmp_path / "out" / name).read_bytes())
        before, _, times = shown((tmp_path / "in" / source).read_bytes())
        assert durations == DURATIONS and loop == times
        assert len(pixels) == 4 and not np.array_equal(pixels[0], before[0])
    assert read_frames(tmp_path / "out" / "d.tif").count == 2
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(list(record["plan"]["steps"][0]["mixture"]) == ["rain"] for record in records[:4])
    assert json.loads(cli("info", tmp_path / "out" / "b.webp", "--json").stdout.splitlines()[0])["irtool"]
    again = cli("restore", tmp_path / "in", "-o", tmp_path / "out", "--json", env=using("rain"))
    assert json.loads(again.stdout.splitlines()[-1])["skipped"] == 4


def test_an_animation_in_which_nothing_is_found_is_passed_through(cli, using, tmp_path):
    source = tmp_path / "a.webp"
    source.write_bytes(animation(clip(), "WEBP"))
    assert cli("restore", source, env=using("clean")).returncode == 0
    assert (tmp_path / "a.restored.webp").read_bytes() == source.read_bytes()
    assert cli("restore", source, "--format", "png", env=using("clean")).returncode == 0
    before, after = (shown((tmp_path / name).read_bytes()) for name in ("a.webp", "a.restored.png"))
    assert all(map(np.array_equal, before[0], after[0])) and before[1:] == after[1:]


def test_enlarged_frames(cli, using, tmp_path):
    source = tmp_path / "a.png"
    source.write_bytes(animation(clip(size=(40, 60)), "PNG"))
    done = cli("restore", source, "--scale", 2, env=using("rain"))
    assert done.returncode == 0, done.stderr
    pixels, durations, _ = shown((tmp_path / "a.restored.png").read_bytes())
    assert [p.shape for p in pixels] == [(80, 120, 3)] * 4 and durations == DURATIONS


@pytest.mark.parametrize(("name", "to"), [("a.gif", "jpg"), ("a.gif", "tiff"), ("a.tif", "png"), ("a.tif", "webp")])
def test_a_format_that_does_not_hold_the_frames_is_an_error(cli, using, tmp_path, name, to):
    frames = clip()
    options = {"duration": DURATIONS} if name.endswith("gif") else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    done = cli("restore", tmp_path / name, "--format", to, env=using("rain"))
    assert done.returncode == 1 and "does not hold" in done.stderr and "--format" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]


def test_transparent_frames_and_odd_ones():
    frames = [frame.convert("RGBA") for frame in clip(3)]
    frames[1].putalpha(Image.linear_gradient("L").resize(frames[1].size))
    out = io.BytesIO()
    frames[0].save(out, "PNG", save_all=True, append_images=frames[1:], duration=40)
    result = sequence.restore_frames(read_frames(out.getvalue()), restore(), plan_tasks(["denoise"]))
    before, after = (list(read_frames(data)) for data in (out.getvalue(), result.encode()))
    assert after[0][0].alpha is None and np.array_equal(after[1][0].alpha, before[1][0].alpha)


def test_frames_that_would_not_fit_in_memory_are_refused():
    data, done = animation(clip(), "PNG"), []

    def spy(picture, plan, models):
        done.append(picture)
        return api.Result(picture, plan)

    with pytest.raises(PictureError, match="needs about"):
        sequence.restore_frames(read_frames(data), spy, plan_tasks(["denoise"]), budget=Budget(resident_bytes()))
    assert len(done) == 1  # the one in the middle


def test_metadata_of_an_animation_survives():
    icc, exif = make.rgb_profile(), make.exif_block(1)
    for format in ("PNG", "WEBP"):
        data = animation(clip(), format, icc_profile=icc, exif=exif)
        result = sequence.restore_frames(read_frames(data), restore(), plan_tasks(["denoise"]))
        first = next(iter(read_frames(result.encode())))[0]
        assert first.icc == icc and first.exif is not None
        assert provenance.read(first.xmp).plan["steps"]
        stripped = sequence.restore_frames(read_frames(data), restore(), plan_tasks(["denoise"]), strip=True)
        first = next(iter(read_frames(stripped.encode())))[0]
        assert (first.xmp, first.exif) == (None, None) and first.icc == icc


@pytest.mark.parametrize("cut", [60, 400, 3000])
def test_a_damaged_animation_is_one_error_of_ours(cut):
    for format in ("GIF", "PNG", "WEBP"):
        data = animation(clip(), format)[:-cut]
        try:
            for picture, _ in read_frames(data):
                assert picture.pixels.shape == (64, 96, 3)
        except PictureError as error:
            assert "damaged" in error.message or "frames" in error.message


def test_a_single_picture_is_no_file_of_frames():
    with pytest.raises(PictureError, match="one picture"):
        read_frames(make.saved(make.noise(8, 8, 3), "JPEG"))
    with pytest.raises(PictureError, match="does not hold"):
        FramesWriter("jpg", paged=False, loop=0)
    assert Plan().empty
