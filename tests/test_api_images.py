"""What the API takes for an image and gives back: arrays, tensors, PIL images, folders, loaded models."""

from __future__ import annotations

import gc
import io
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import irtool
from irtool import api
from irtool.inputs import to_array, to_picture

RGB = np.random.default_rng(0).integers(0, 256, (33, 45, 3), dtype=np.uint8)


@pytest.fixture
def use(models_dir: Path) -> dict[str, Any]:
    return {"model": f"local:{models_dir / 'restorer.safetensors'}", "dtype": "fp32"}


def saved(image: Image.Image, **told: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **told)
    return stream.getvalue()


def test_all_kinds_of_one_image_give_the_same_result(use: dict[str, Any], tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    kinds = {
        "path": tmp_path / "a.png",
        "str": str(tmp_path / "a.png"),
        "bytes": (tmp_path / "a.png").read_bytes(),
        "pil": Image.fromarray(RGB),
        "uint8": RGB,
        "uint16": RGB.astype(np.uint16) * 257,
        "float": RGB / 255,
        "tensor": torch.from_numpy(RGB).permute(2, 0, 1),
        "batch": torch.from_numpy(RGB / np.float32(255)).permute(2, 0, 1)[None],
    }
    wanted = irtool.restore(kinds["path"], tasks="denoise", **use)
    for name, image in kinds.items():
        result = irtool.restore(image, tasks="denoise", **use)
        assert np.abs(result.picture.pixels - wanted.picture.pixels).max() < 1e-6, name
        assert result.array.dtype == (np.uint16 if name == "uint16" else np.uint8), name
    assert wanted.array.shape == RGB.shape and not np.array_equal(wanted.array, RGB)
    assert wanted.tensor.shape == (3, 33, 45) and wanted.image.mode == "RGB" and wanted.image.size == (45, 33)


@pytest.mark.parametrize(
    "array",
    [
        RGB,
        RGB[:, :, :1],
        RGB.astype(np.uint16) * 251,
        np.dstack([RGB, RGB[:, :, :1]]),
        (RGB[:, :, :1].astype(np.uint16) * 200),
    ],
    ids=["rgb", "gray", "16-bit", "alpha", "16-bit gray"],
)
def test_an_untouched_array_comes_back_as_it_was(array: np.ndarray) -> None:
    result = irtool.restore(array, plan=irtool.Plan())
    assert result.untouched and result.array.dtype == array.dtype and np.array_equal(result.array, array)
    image = result.image
    assert image.size == (45, 33)
    if array.dtype == np.uint8:
        assert np.array_equal(np.asarray(image).reshape(array.shape), array)


def test_gray_without_a_channel_and_with_strides() -> None:
    gray = RGB[:, :, 0]
    assert to_picture(gray).gray and np.array_equal(to_array(to_picture(gray))[:, :, 0], gray)
    turned = RGB[::-1, ::2]
    assert np.array_equal(to_array(to_picture(turned)), turned)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "YCbCr", "I;16"])
def test_every_mode_of_pil_is_taken(mode: str) -> None:
    image = Image.fromarray(RGB).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    picture = to_picture(image)
    assert (picture.height, picture.width) == (33, 45)
    assert (picture.alpha is not None) == (mode in ("LA", "RGBA"))
    assert picture.bits == (16 if mode == "I;16" else 8)
    wanted = np.asarray(Image.fromarray(RGB).convert("L" if mode in ("L", "LA", "I;16") else "RGB"), np.float32) / 255
    if mode not in ("1", "P"):
        got = picture.pixels if wanted.ndim == 3 else picture.pixels[:, :, 0]
        assert np.abs(got - wanted).max() < (0.06 if mode == "YCbCr" else 1e-6)


def test_an_image_of_pil_is_turned_upright_as_its_file_is() -> None:
    exif = Image.Exif()
    exif[274] = 6
    data = saved(Image.fromarray(RGB), exif=exif)
    by_pil, by_bytes = to_picture(Image.open(io.BytesIO(data))), to_picture(data)
    assert by_pil.pixels.shape == (45, 33, 3) and np.array_equal(by_pil.pixels, by_bytes.pixels)


@pytest.mark.parametrize(
    ("image", "error", "told"),
    [
        (3, irtool.UsageError, "no image"),
        (None, irtool.UsageError, "no image"),
        ([[1, 2]], irtool.UsageError, "no image"),
        (RGB.transpose(2, 0, 1), irtool.UsageError, "shape"),
        (np.zeros((0, 4, 3), np.uint8), irtool.UsageError, "shape"),
        (np.zeros((2, 3, 4, 3), np.uint8), irtool.UsageError, "shape"),
        (RGB.astype(np.int32), irtool.UsageError, "int32"),
        (RGB > 3, irtool.UsageError, "bool"),
        (RGB.astype(np.float32), irtool.PictureError, "outside"),
        (np.full((4, 4, 3), np.nan), irtool.PictureError, "finite"),
        (np.full((4, 4, 3), -0.1), irtool.PictureError, "outside"),
        (torch.zeros(2, 3, 8, 8), irtool.UsageError, "shape"),
        (torch.zeros(8, 8, 3), irtool.UsageError, "shape"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), irtool.UsageError, "int64"),
        (torch.full((3, 4, 4), torch.inf), irtool.PictureError, "finite"),
        (Image.new("CMYK", (8, 8)), irtool.PictureError, "CMYK without"),
        (b"nothing", irtool.PictureError, "known kind"),
        ("nowhere.png", irtool.PictureError, "nowhere.png"),
    ],
)
def test_what_is_no_image_is_an_error_of_ours(image: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        irtool.restore(image, plan=irtool.Plan())


def test_the_array_given_is_not_changed(use: dict[str, Any]) -> None:
    floats = (RGB / np.float32(255)).astype(np.float32)
    before = floats.copy()
    irtool.restore(floats, tasks="denoise", **use)
    assert np.array_equal(floats, before)


def test_an_option_that_is_none_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"'tle'\. Did you mean 'tile'"):
        irtool.restore(RGB, plan=irtool.Plan(), tle="64")  # type: ignore[call-arg]


def test_a_result_is_short_in_words(use: dict[str, Any]) -> None:
    result = irtool.restore(RGB, tasks="denoise", **use)
    assert repr(result).startswith("<irtool.Result 45x33, removed noise") and len(repr(result)) < 120
    assert "untouched" in repr(irtool.restore(RGB, plan=irtool.Plan()))


def test_a_mask_may_be_an_array_too(use: dict[str, Any]) -> None:
    mask = np.zeros((33, 45), np.uint8)
    mask[5:12, 20:30] = 255
    result = irtool.restore(RGB, mask=mask, **use)
    changed = (result.array != RGB).any(2)
    assert not changed[mask == 0].any() and changed[mask > 0].mean() > 0.9


def test_a_loaded_model_restores_like_the_function_and_is_freed(use: dict[str, Any]) -> None:
    model = irtool.load_model(use["model"], device="cpu", dtype="fp32")
    assert model.info.name == "compact" and "compact" in repr(model) and "cpu" in repr(model)
    wanted = irtool.restore(RGB, tasks="denoise", device="cpu", **use)
    assert np.array_equal(model.restore(RGB, tasks="denoise").array, wanted.array)
    assert np.array_equal(model.restore(RGB, plan=wanted.plan).array, wanted.array)
    net = weakref.ref(model._model.net)  # type: ignore[attr-defined]
    del model
    gc.collect()
    assert net() is None


def test_the_cache_of_the_functions_can_be_emptied(use: dict[str, Any]) -> None:
    irtool.clear_cache()
    irtool.restore(RGB, tasks="denoise", **use)
    net = weakref.ref(api.cached_model(use["model"], "").net)  # type: ignore[attr-defined]
    assert net() is not None
    irtool.clear_cache()
    gc.collect()
    assert net() is None


def test_what_cannot_be_loaded_is_said() -> None:
    with pytest.raises(irtool.UsageError, match="no model"):
        irtool.load_model(3)  # type: ignore[arg-type]
    with pytest.raises(irtool.UsageError, match="irtool-smal"):
        irtool.load_model("irtool-smal")
    with pytest.raises(irtool.UnavailableError, match="nowhere"):
        irtool.load_model(Path("nowhere.pth"))
    with pytest.raises(irtool.UnavailableError, match="state dict"):
        irtool.load_model({"conv.weight": torch.zeros(2, 2)})


def test_hyperparameters_go_before_what_is_assumed(tmp_path: Path) -> None:
    from irtool.models.ipt import IPT

    state = IPT((1,), patch_size=16, patch_dim=4, num_layers=1, n_feats=4, num_heads=2).state_dict()
    with pytest.raises(irtool.UnavailableError, match="num_heads"):
        irtool.load_model(state)
    one, two = (irtool.load_model(state, device="cpu", num_heads=n) for n in (1, 2))
    first, second = (m.restore(RGB, tasks="denoise", dtype="fp32").picture.pixels for m in (one, two))
    assert not np.array_equal(first, second)
    with pytest.raises(irtool.UnavailableError, match="wings"):
        irtool.load_model(state, num_heads=2, wings=2)


def test_a_folder_gives_results_and_errors_one_by_one(use: dict[str, Any], photo: Any, tmp_path: Path) -> None:
    for name in ("a.png", "sub/b.jpg"):
        photo(tmp_path / "in" / name, size=(20, 30))
    (tmp_path / "in" / "broken.png").write_bytes(b"no")
    run = lambda **more: list(  # noqa: E731
        irtool.restore_folder(tmp_path / "in", tmp_path / "out", recursive=True, tasks="denoise", **use, **more)
    )
    done = {d.item.source.name: d for d in run()}  # type: ignore[union-attr]
    assert set(done) == {"a.png", "b.jpg", "broken.png"}
    assert isinstance(done["broken.png"].error, irtool.PictureError) and done["broken.png"].result is None
    assert done["b.jpg"].item.target == tmp_path / "out" / "sub" / "b.jpg" and done["b.jpg"].item.target.is_file()
    assert done["a.png"].result is not None and not done["a.png"].result.untouched
    again = run()
    assert [d.result for d in again] == [None] * 3 and sum(d.error is not None for d in again) == 1
    with pytest.raises(irtool.UsageError, match="exists"):
        run(existing="error")
    (tmp_path / "empty").mkdir()
    with pytest.raises(irtool.NothingToDoError):
        list(irtool.restore_folder(tmp_path / "empty"))


@pytest.mark.parametrize("existing", ["skip", "error", "rename"])
def test_a_folder_keeps_a_file_that_appears_meanwhile(use, photo, tmp_path, existing) -> None:
    for name in ("a.png", "b.png"):
        photo(tmp_path / "in" / name, size=(20, 30))
    late = tmp_path / "out" / "b.png"
    begun = []

    def appears(of: int, all: int) -> None:
        begun.append(of == 0)
        if sum(begun) == 2:  # the second picture is being restored: its output was not there when that was decided
            late.parent.mkdir(exist_ok=True)
            late.write_bytes(b"theirs")

    folders = tmp_path / "in", tmp_path / "out"
    done = list(irtool.restore_folder(*folders, existing=existing, tasks="denoise", on_progress=appears, **use))
    assert late.read_bytes() == b"theirs"
    assert done[0].error is None and isinstance(done[1].error, irtool.PictureError)
