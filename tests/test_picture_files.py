"""Errors that a person can act on, files that appear whole or not at all, folders listed in order."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import picture_samples as make
import pytest
from PIL import Image

from irtool.errors import PictureError, UnavailableError, UsageError
from irtool.picture import FoundPicture, Picture, encode, find, format_for, format_named, read, save_bytes, sniff, write
from irtool.picture.exif import reset_orientation

SMALL = Picture(np.linspace(0, 1, 12, dtype=np.float32).reshape(2, 2, 3))
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read and write anything")


def refused(source: object, *words: str, **options: object) -> PictureError:
    with pytest.raises(PictureError) as caught:
        read(source, **options)  # type: ignore[arg-type]
    for word in words:
        assert word in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


def test_sources_of_every_kind_give_the_same(tmp_path: Path) -> None:
    data = encode(SMALL)
    path = tmp_path / "müll 图片 👍.png"
    path.write_bytes(data)
    for source in (path, str(path), data, BytesIO(data)):
        assert (read(source).pixels == read(data).pixels).all()
    assert read(path).name == str(path)
    assert read(path).source == path
    assert read(data, name="-").name == "-"
    written = write(SMALL, tmp_path / "søster.webp")
    assert read(written).format == "WEBP"


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(SMALL, "png"))
    assert read(path).format == "PNG"


def test_heif_containers_are_told_apart_by_what_they_hold() -> None:
    data = make.saved(make.noise(8, 8, 3), "AVIF")
    assert sniff(data) == sniff(data.replace(b"avif", b"mif1")) == "AVIF"
    assert sniff(b"\0\0\0\x10ftypmif1\0\0\0\0 ... hvc1") == "HEIF"
    assert sniff(b"\0\0\0\x18ftypisom\0\0\0\0avifmif1") == "AVIF"


def test_what_is_no_picture(tmp_path: Path) -> None:
    for name, data, word in (
        ("empty.jpg", b"", "zero bytes"),
        ("text.png", b"hello, world\n" * 50, "not a picture"),
        ("letter.bmp", b"BMW is a car maker and this is a text", "not a picture"),
        ("film.mp4", b"\0\0\0\x18ftypmp42" + bytes(99), "not a picture"),
    ):
        (tmp_path / name).write_bytes(data)
        assert refused(tmp_path / name, str(tmp_path / name), word).hint
    refused(tmp_path, "folder")
    refused(tmp_path / "none.png", "no such file")
    refused("nul\0byte.png", "cannot be read")
    refused(tmp_path / ("x" * 400 + ".png"), "cannot be read")


@as_root
def test_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(SMALL))
    path.chmod(0)
    refused(path, "not allowed")
    (tmp_path / "locked").mkdir(mode=0)
    refused(tmp_path / "locked", "not allowed")
    (tmp_path / "locked").chmod(0o700)


def test_a_stream_that_fails() -> None:
    class Broken(BytesIO):
        def read(self, *_: object) -> bytes:
            raise OSError(5, "Input/output error")

    refused(Broken(), "picture", "Input/output")


def test_too_many_pixels_is_refused_before_decoding() -> None:
    huge = make.png(np.zeros((1, 1, 3), np.uint8)).replace(
        make.chunk(b"IHDR", bytes.fromhex("00000001000000010802000000")),
        make.chunk(b"IHDR", bytes.fromhex("00030d4000030d400802000000")),
    )
    error = refused(huge, "200000 x 200000", "limit", name="bomb.png")
    assert "max_pixels" in error.hint
    assert error.message.startswith("bomb.png")
    for format in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "BMP", "GIF"):
        data = make.saved(make.noise(20, 30, 3), format)
        refused(data, "30 x 20", "limit", max_pixels=599)
        assert read(data, max_pixels=600).width == 30


def test_a_hundred_megapixels_are_allowed_in_tiff(monkeypatch: pytest.MonkeyPatch) -> None:
    # Pillow would refuse by its own limit, lowered here to keep the test small.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for format in ("JPEG", "PNG", "TIFF", "BMP", "GIF", "AVIF"):
        assert read(make.saved(make.noise(20, 30, 3), format)).height == 20


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_animations_are_refused_with_their_number_of_frames(format: str) -> None:
    frames = [Image.fromarray(make.noise(8, 8, 3, seed=i)) for i in range(3)]
    data = make.saved(frames[0], format, save_all=True, append_images=frames[1:])
    refused(data, "3 frames")


def test_thumbnails_in_a_tiff_are_no_pages() -> None:
    import tifffile

    out = BytesIO()
    with tifffile.TiffWriter(out) as tiff:
        tiff.write(make.noise(20, 20, 3), photometric="rgb", metadata=None)
        tiff.write(make.noise(5, 5, 3), photometric="rgb", metadata=None, subfiletype=1)
    assert read(out.getvalue()).width == 20


@pytest.mark.parametrize("kind", ["float", "uint32", "raw", "lab", "int32"])
def test_tiffs_of_other_kinds_are_refused_plainly(kind: str) -> None:
    import tifffile

    out = BytesIO()
    if kind == "raw":
        tifffile.imwrite(out, make.noise(8, 8, 3), photometric="rgb", metadata=None, subfiletype=1)
    elif kind == "lab":
        out.write(make.saved(Image.new("LAB", (8, 8)), "TIFF"))
    else:
        dtype = {"float": np.float32, "uint32": np.uint32, "int32": np.int32}[kind]
        tifffile.imwrite(out, np.ones((8, 8), dtype), photometric="minisblack", metadata=None)
    error = refused(out.getvalue(), {"raw": "camera raw", "lab": "Lab"}.get(kind, "32-bit"))
    assert error.hint


@pytest.mark.filterwarnings("ignore")  # pytest resets the filter that keeps Pillow's warnings away
def test_truncated_files_are_refused() -> None:
    codes = np.asarray(Image.fromarray(make.noise(40, 40, 3)).resize((200, 160)))
    files = {
        "jpeg": make.saved(codes, "JPEG", quality=90),
        "progressive": make.saved(codes, "JPEG", quality=90, progressive=True),
        "png": make.saved(codes, "PNG"),
        "png16": encode(Picture(codes / np.float32(255), bits=16)),
        "tiff": make.saved(codes, "TIFF", compression="tiff_lzw"),
        "tiff raw": make.saved(codes, "TIFF"),
        "webp": make.saved(codes, "WEBP"),
        "avif": make.saved(codes, "AVIF"),
        "bmp": make.saved(codes, "BMP"),
        "gif": make.saved(codes, "GIF"),
    }
    for name, data in files.items():
        for share in (0.02, 0.5, 0.9, 0.98):
            refused(data[: int(len(data) * share)], name, name=name)


def test_damaged_png_pixels_are_refused() -> None:
    data = bytearray(make.saved(make.noise(40, 40, 3), "PNG"))
    data[len(data) // 2] ^= 1  # Pillow by itself would not look at the checksum
    refused(bytes(data), "checksum")


def test_heif_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
    with pytest.raises(UnavailableError) as caught:
        read(data, name="IMG_1.HEIC")
    assert "IMG_1.HEIC" in caught.value.message
    assert caught.value.hint == "pip install 'irtool[heif]'"
    with pytest.raises(UnavailableError):
        encode(SMALL, "heic")


@pytest.mark.parametrize("bits", [8, 16])
def test_heif_round_trip(bits: int) -> None:
    pytest.importorskip("pillow_heif")
    smooth = np.asarray(Image.fromarray(make.noise(4, 4, 3)).resize((48, 32))) / np.float32(255)
    picture = Picture(smooth, bits=bits, exif=make.exif_block(1), xmp=make.XMP % 1, icc=make.rgb_profile())
    again = read(encode(picture, "heic"))
    assert again.format == "HEIF"
    assert np.abs(again.pixels - smooth).mean() < 0.03
    assert again.icc == picture.icc
    assert again.xmp == picture.xmp
    assert b"Irtool Camera" in (again.exif or b"")
    data = encode(picture, "heic")
    for share in (0.1, 0.5, 0.95):
        refused(data[: int(len(data) * share)])


def test_heif_orientation() -> None:
    heif = pytest.importorskip("pillow_heif")
    codes = np.zeros((32, 64, 3), np.uint8)
    codes[:, :32] = 255
    out = BytesIO()
    stored = np.ascontiguousarray(np.rot90(codes))  # a tag of 6 turns it back, clockwise
    heif.from_pillow(Image.fromarray(stored)).save(out, quality=95, exif=make.exif_block(6))
    picture = read(out.getvalue())
    assert picture.pixels.shape == codes.shape
    assert picture.pixels[:, :28].min() > 0.9
    assert picture.pixels[:, 36:].max() < 0.1
    assert reset_orientation(picture.exif or b"")[1] == 1


def test_several_threads_may_read_at_once() -> None:
    codes = make.noise(60, 80, 3, np.uint16)
    data = [make.saved(codes.astype(np.uint8), f) for f in ("PNG", "TIFF", "JPEG", "WEBP")]
    data.append(encode(read(encode(Picture(codes / np.float32(65535), bits=16))), "tiff"))
    alone = [read(d).pixels for d in data]
    with ThreadPoolExecutor(8) as pool:
        for i, picture in enumerate(pool.map(read, data * 20)):
            assert (picture.pixels == alone[i % len(data)]).all()


def test_nothing_reaches_the_terminal(tmp_path: Path) -> None:
    """Odd files in a fresh interpreter: not a word on either stream from Python."""
    import tifffile

    odd = BytesIO()
    tifffile.imwrite(odd, make.noise(9, 9, 3), photometric="rgb", metadata=None, extratags=[(65000, 2, 4, "abc", True)])
    good = odd.getvalue()
    paths = []
    for i in range(0, len(good), 3):
        path = tmp_path / f"{i}.tif"
        path.write_bytes(good[:i] + bytes([good[i] ^ 0x55]) + good[i + 1 :])
        paths.append(str(path))
    jpeg = make.saved(make.noise(30, 30, 3), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05junk")
    (tmp_path / "a.jpg").write_bytes(jpeg[:300] + b"\x55" + jpeg[301:])
    code = (
        "import sys\nfrom irtool.picture import read\nfrom irtool.errors import PictureError\n"
        "for p in sys.argv[1:]:\n    try:\n        read(p, max_pixels=10**6)\n    except PictureError:\n        pass\n"
    )
    paths.append(str(tmp_path / "a.jpg"))
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, check=False, cwd=Path.cwd())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_import_is_light() -> None:
    heavy = "m in ('torch', 'tifffile', 'skimage') or 'ImagePlugin' in m"
    code = f"import sys, irtool.picture; print([m for m in sys.modules if {heavy}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "[]"


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_write_takes_the_format_from_the_suffix(tmp_path: Path) -> None:
    for name, format in (("a.PNG", "PNG"), ("b.JPeG", "JPEG"), ("c.tif", "TIFF"), ("d.webp", "WEBP"), ("e.bmp", "BMP")):
        assert read(write(SMALL, tmp_path / name)).format == format
    assert read(write(SMALL, tmp_path / "f.dat", format="png")).format == "PNG"
    for name in ("g", "h.xyz", "i.gif"):
        with pytest.raises(UsageError):
            write(SMALL, tmp_path / name)
    assert len(leftovers(tmp_path)) == 6


def test_write_never_touches_its_source(tmp_path: Path) -> None:
    path = write(SMALL, tmp_path / "a.png")
    before = path.read_bytes()
    picture = read(path)
    (tmp_path / "link.png").symlink_to(path)
    for target in (path, tmp_path / "link.png", tmp_path / "." / "a.png"):
        with pytest.raises(PictureError, match="input"):
            write(picture, target)
    assert path.read_bytes() == before
    assert leftovers(tmp_path) == ["a.png", "link.png"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["write", "replace"])
def test_a_failed_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, failure: BaseException
) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    def fail(*_: object, **__: object) -> None:
        raise failure

    if step == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    else:
        opened = Path.open

        def half(self: Path, mode: str = "r", **options: object) -> object:
            file = opened(self, mode, **options)  # type: ignore[call-overload]
            if "x" in mode:
                file.write(b"half")
                file.close()
                fail()
            return file

        monkeypatch.setattr(Path, "open", half)
    with pytest.raises(type(failure) if isinstance(failure, KeyboardInterrupt) else PictureError) as caught:
        write(SMALL, target)
    if isinstance(caught.value, PictureError):
        assert "No space left" in caught.value.message
        assert str(target) in caught.value.message
    assert leftovers(tmp_path) == ["a.png"]
    assert target.read_bytes() == b"old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_is_really_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def full(self: Path, mode: str = "r", **options: object) -> object:
        return opened(Path("/dev/full"), "wb") if "x" in mode else opened(self, mode, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(PictureError, match="No space left"):
        save_bytes(b"x" * 100000, tmp_path / "a.png")
    assert leftovers(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for target in ("folder.png", "none/a.png", "file/a.png", "x" * 300 + ".png", "nul\0.png"):
        with pytest.raises(PictureError) as caught:
            write(SMALL, tmp_path / target)
        assert caught.value.hint
    assert leftovers(tmp_path) == ["file", "folder.png"]
    assert leftovers(tmp_path / "folder.png") == []
    longest = tmp_path / ("x" * 251 + ".png")
    assert read(write(SMALL, longest)).width == 2


@as_root
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PictureError, match="Permission"):
        write(SMALL, tmp_path / "a.png")
    tmp_path.chmod(0o700)


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_permissions(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        path = write(SMALL, tmp_path / "a.png")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        write(SMALL, path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    finally:
        os.umask(old)


def test_find(tmp_path: Path) -> None:
    for name in (
        "b.JPG",
        "a.png",
        "z.txt",
        ".hidden.png",
        ".irtool-12.tmp",
        "sub/c.webp",
        "sub/deep/d.HEIC",
        ".git/e.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)

    def names(found: list[FoundPicture]) -> list[str]:
        return [f.relative.as_posix() for f in found]

    assert names(find([tmp_path])) == ["a.png", "b.JPG"]
    assert names(find([tmp_path], recursive=True)) == ["a.png", "b.JPG", "sub/c.webp", "sub/deep/d.HEIC"]
    assert names(find([tmp_path / "z.txt", tmp_path, tmp_path / "a.png"])) == ["z.txt", "a.png", "b.JPG"]
    assert find([tmp_path / "sub" / "c.webp"]) == [FoundPicture(tmp_path / "sub" / "c.webp", tmp_path / "sub")]
    missing = find([tmp_path / "none", str(tmp_path / "sub")])
    assert names(missing) == ["none", "c.webp"]
    refused(missing[0].path, "no such file")
    (tmp_path / "void").mkdir()
    assert find([tmp_path / "void"], recursive=True) == []


def test_a_folder_that_cannot_be_listed_is_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.png").write_bytes(b"")
    listing = os.scandir

    def locked(path: Path) -> object:
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied")
        return listing(path)

    monkeypatch.setattr(os, "scandir", locked)
    assert [f.path.name for f in find([tmp_path], recursive=True)] == ["a.png", "sub"]


def test_format_names() -> None:
    assert format_named("jpg").name == format_named(".JPEG").name == "JPEG"
    assert format_for("x/y.Tif").name == "TIFF"
    with pytest.raises(UsageError) as caught:
        format_named("pgn")
    assert "png" in caught.value.hint
    with pytest.raises(UsageError):
        format_for("x")
