"""The promise of memory: what is refused, when, and what it costs; in processes of their own, some with a limit."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import picture_samples as make
import pytest
import torch
from PIL import Image

from irtool import memory
from irtool.errors import PictureError
from irtool.picture import Picture, av1, encode, read
from irtool.picture.av1 import coded_size

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's figures are read as Linux gives them")

# Decodes, encodes as told, and prints what was said and how much memory that took beyond what the imports did.
CHILD = """
import json, resource, sys, time
import numpy, PIL.Image
from PIL import (AvifImagePlugin, BmpImagePlugin, GifImagePlugin, ImageCms, JpegImagePlugin, PngImagePlugin,
                 TiffImagePlugin, WebPImagePlugin)
from irtool.errors import PictureError
from irtool.memory import Budget, peak_resident_bytes, resident_bytes
from irtool.picture import encode, read

path, hard, limit, targets = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
if hard:
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
before, begun, told = resident_bytes(), time.process_time(), "read"
try:
    picture = read(path, budget=Budget(limit or None))
    for target in targets:
        encode(picture, target)
except PictureError as error:
    told = error.message
print(json.dumps({"told": told, "bytes": peak_resident_bytes() - before, "seconds": time.process_time() - begun}))
"""


def measured(path: Path, *targets: str, hard: int = 0, limit: int = 0) -> dict:
    command = [sys.executable, "-c", CHILD, str(path), str(hard), str(limit), *targets]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path.cwd(), timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    return json.loads(done.stdout)


def png(width: int, height: int, depth: int, kind: int, data: bytes, extra: bytes = b"") -> bytes:
    header = make.chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + make.chunk(b"IDAT", data) + make.chunk(b"IEND", b"")


def zeros(size: int) -> bytes:
    engine = zlib.compressobj(9)
    return b"".join([engine.compress(bytes(1 << 20)) for _ in range(size >> 20)]) + engine.flush()


def one_block(entries: int, size: int, order: str = "<") -> bytes:
    """A directory all of whose entries name the same block."""
    at = 8 + 2 + 12 * entries + 4
    head = struct.pack("<2sHIH", b"II", 42, 8, entries)
    rows = b"".join(struct.pack("<HHII", 1000 + i, 7, size, at) for i in range(entries))
    return head + rows + bytes(4) + bytes(size)


def tiff_of_one_block(entries: int, size: int) -> bytes:
    names = [(256, 16), (257, 16), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 16), (279, 256)]
    count = len(names) + entries
    at = 8 + 256
    data = struct.pack("<2sHI", b"II", 42, at) + bytes(256) + struct.pack("<H", count)
    block = at + 2 + 12 * count + 4
    data += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in names)
    return data + b"".join(struct.pack("<HHII", 40000 + i, 7, size, block) for i in range(entries)) + bytes(4 + size)


def profile_of_one_block(tags: int, size: int) -> bytes:
    table = struct.pack(">I", tags) + b"".join(struct.pack(">4sII", b"t%03d" % i, 128, size) for i in range(tags))
    return (make.rgb_profile()[:128] + table).ljust(size, b"\0")


def tiff_of_one_part(samples: int, depth: int, data: bytes, tile: int = 0) -> bytes:
    """16 x 16 pixels in one strip, or in one tile that is much larger."""
    values = [(256, 16), (257, 16), (258, depth), (259, 8), (262, 1), (277, samples)]
    values += [(322, tile), (323, tile)] if tile else []
    at = 8 + 2 + 12 * (len(values) + 2) + 4
    values = sorted([*values, (324 if tile else 273, at), (325 if tile else 279, len(data))])
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values)
    return struct.pack("<2sHIH", b"II", 42, 8, len(values)) + rows + bytes(4) + data


def many_directories(count: int) -> bytes:
    each = 2 + 12 + 4
    rows = [struct.pack("<HHHIII", 1, 254, 4, 1, 1, 8 + each * (i + 1)) for i in range(count - 1)]
    return struct.pack("<2sHI", b"II", 42, 8) + b"".join(rows) + struct.pack("<HHHIII", 1, 254, 4, 1, 1, 0)


def jpeg_claiming(width: int, height: int) -> bytes:
    data = make.saved(np.zeros((16, 16), np.uint8), "JPEG")
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def jpeg_with_exif(block: bytes) -> bytes:
    data = make.saved(make.noise(16, 16, 3), "JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block + data[2:]


def avif_claiming(width: int, height: int) -> bytes:
    data = make.saved(np.zeros((64, 64, 3), np.uint8), "AVIF")
    return data.replace(
        b"ispe\0\0\0\0" + struct.pack(">II", 64, 64), b"ispe\0\0\0\0" + struct.pack(">II", width, height)
    )


SMALL = zlib.compress(bytes(17 * 3 * 16))
BOMBS: dict[str, Callable[[], bytes]] = {
    "png of one bit, 17000 squared": lambda: png(17000, 17000, 1, 0, zeros(17000 * 2126)),
    "png of 250 megapixels of 16 bits": lambda: png(50000, 5000, 16, 6, zeros(1 << 22)),
    "png with two headers": lambda: make.png(
        make.noise(16, 16, 3), extra=make.chunk(b"IHDR", struct.pack(">IIBBBBB", 40000, 40000, 1, 0, 0, 0, 0))
    ),
    "png whose profile inflates to 60 MB": lambda: png(
        16, 16, 8, 2, SMALL, make.chunk(b"iCCP", b"x\0\0" + zlib.compress(profile_of_one_block(256, 60 << 20), 9))
    ),
    "png whose profile is one block 256 times": lambda: png(
        16, 16, 8, 2, SMALL, make.chunk(b"iCCP", b"x\0\0" + zlib.compress(profile_of_one_block(256, 7 << 20), 9))
    ),
    "png with many packets": lambda: png(
        16, 16, 8, 2, SMALL, make.chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zeros(60 << 20)) * 150
    ),
    "png with ten thousand texts": lambda: png(
        16, 16, 8, 2, SMALL, make.chunk(b"zTXt", b"a\0\0" + zeros(1 << 20)) * 10_000
    ),
    "jpeg that claims 17000 squared": lambda: jpeg_claiming(17000, 17000),
    "jpeg of two million segments": lambda: jpeg_claiming(16, 16)[:2] + b"\xff\xe1\0\2" * 2_000_000,
    "jpeg whose EXIF is one block": lambda: jpeg_with_exif(one_block(2000, 40_000)),
    "tiff whose entries are one block": lambda: tiff_of_one_block(5000, 200_000),
    "tiff of one tile, 16384 squared": lambda: tiff_of_one_part(1, 8, zeros(1 << 20), tile=16384),
    "tiff of one tile of gray and alpha": lambda: tiff_of_one_part(2, 16, zeros(1 << 20), tile=16384),
    "tiff of one strip of gray and alpha": lambda: tiff_of_one_part(2, 16, zeros(1 << 28)),
    "tiff of 60,000 directories": lambda: many_directories(60_000),
    "gif with a screen of 17000 squared": lambda: make.saved(Image.new("P", (9, 9)), "GIF").replace(
        struct.pack("<HH", 9, 9), struct.pack("<HH", 17000, 17000), 1
    ),
    "bmp of a few bytes that claims 200 megapixels": lambda: (
        struct.pack("<2sIHHI", b"BM", 216, 0, 0, 118)
        + struct.pack("<IiiHHIIiiII", 40, 1 << 24, 12, 1, 8, 1, 96, 0, 0, 16, 0)
        + bytes(164)
    ),
    "avif of a kilobyte, 16384 squared": lambda: avif_claiming(16384, 16384),
}


@pytest.mark.parametrize("name", BOMBS)
def test_small_files_do_not_take_the_machine(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(BOMBS[name]())
    assert path.stat().st_size < 12 << 20
    found = measured(path, "tiff", "avif", hard=3 << 30)
    assert found["bytes"] < 150 << 20, found
    assert found["seconds"] < 10, found


def test_the_public_bombs(shared: Path) -> None:
    for path in sorted((shared / "cases_attacks").iterdir()):
        if path.suffix in (".avif", ".bmp", ".gif", ".jpg", ".png", ".tif"):
            found = measured(path, "tiff", hard=3 << 30)
            assert found["bytes"] < 150 << 20, (path.name, found)
            assert found["seconds"] < 10, (path.name, found)


SAMPLES = ["jpeg", "progressive", "profile", "png", "alpha", "deep", "tiff", "deep tiff", "webp", "gif", "bmp", "gray"]


def sample(kind: str) -> bytes:
    codes = np.asarray(Image.fromarray(make.noise(50, 60, 3)).resize((2000, 1600), Image.Resampling.BICUBIC))
    if kind.startswith("deep"):
        return encode(Picture(codes / np.float32(255), bits=16), "tiff" if "tiff" in kind else "png")
    if kind == "alpha":
        return make.saved(np.dstack([codes, codes[..., :1]]), "PNG", compress_level=1)
    if kind == "gif":
        return make.saved(Image.fromarray(codes).quantize(64, method=Image.Quantize.FASTOCTREE), "GIF")
    options: dict = {"quality": 90} if kind not in ("png", "tiff", "bmp") else {}
    options |= {"progressive": True} if kind == "progressive" else {}
    options |= {"icc_profile": make.rgb_profile()} if kind == "profile" else {}
    format = {"progressive": "JPEG", "profile": "JPEG", "gray": "JPEG"}.get(kind, kind.upper())
    return make.saved(codes[..., 0] if kind == "gray" else codes, format, **options)


@pytest.mark.parametrize("kind", SAMPLES)
def test_decoding_takes_no_more_than_is_claimed(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "sample"
    path.write_bytes(sample(kind))
    claimed: list[float] = []

    class Told(memory.Budget):
        def require(self, name: str, size: tuple[int, int], per_pixel: float, file_bytes: int = 0) -> None:
            claimed.append(size[0] * size[1] * per_pixel)

    read(path, budget=Told())
    taken = measured(path)["bytes"] - path.stat().st_size
    assert taken < max(claimed) * 1.05 + (6 << 20)


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_picture_that_does_not_fit_is_refused_by_its_header(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "sample"
    path.write_bytes(sample(kind))
    with pytest.raises(PictureError, match=r"2000 x 1600 \(3.2 megapixels\) needs about .* MB"):
        read(path, budget=memory.Budget(memory.resident_bytes() + (40 << 20)))
    found = measured(path, limit=80 << 20)
    assert "needs about" in found["told"]
    assert found["bytes"] < 12 << 20


def test_an_avif_is_sized_up_by_what_is_coded_in_it() -> None:
    data = make.saved(make.noise(50, 70, 3), "AVIF")
    assert coded_size(data) == (70, 50)
    ispe = b"ispe\0\0\0\0" + struct.pack(">II", 70, 50)
    assert ispe in data
    small = data.replace(ispe, ispe[:8] + struct.pack(">II", 7, 5))
    assert coded_size(small) == (70, 50)
    with pytest.raises(PictureError, match=r"70 x 50 is .* more than the limit"):
        read(small, max_pixels=100)
    assert coded_size(data[:100]) == (0, 0)


def test_an_av1_header_of_every_kind_is_read() -> None:
    """Headers put together from the specification (5.5), bit by bit: width 1920, height 1080."""
    size = f"{10:04b}{10:04b}{1919:011b}{1079:011b}"
    short = "000" + "11" + "00000" + size
    plain = "000" + "00" + "0" + "0" + "00000" + 12 * "0" + "01000" + "0" + size  # level 8 has a tier
    model = "1" + "00111" + 32 * "1" + 10 * "0"
    times = "1" + 64 * "1" + "1" + "00101" + model  # ticks per picture: 5 as a number of variable length
    point = 12 * "0" + "00000" + "1" + 17 * "1" + "1" + "0101"
    full = "000" + "00" + times + "1" + "00001" + point + point + size
    for bits in (short, plain, full):
        header = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
        assert av1._size(header + bytes(9)) == (1920, 1080)
    # Frames of their own size may use all the bits there are.
    wide = "000" + "00" + "0" + "0" + "00000" + 12 * "0" + "00000" + f"{15:04b}{15:04b}{15:016b}{15:016b}"
    assert av1._size(int(wide.ljust(72, "0"), 2).to_bytes(9, "big")) == (65536, 65536)


def test_a_hard_limit_of_the_system_is_known(tmp_path: Path) -> None:
    path = tmp_path / "sample"
    path.write_bytes(sample("png"))
    found = measured(path, hard=500 << 20)  # address space, of which the interpreter and its libraries take most
    assert found["told"] == "read" or "MB" in found["told"]


def test_memory_figures_are_those_of_the_kernel() -> None:
    status = {
        line.split(":")[0]: line.split()[1]
        for line in Path("/proc/self/status").read_text().splitlines()
        if "kB" in line
    }
    assert memory.resident_bytes() == pytest.approx(int(status["VmRSS"]) * 1024, rel=0.05)
    assert memory.peak_resident_bytes() >= memory.resident_bytes()  # type: ignore[operator]
    assert 0 < memory.available_bytes() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    "megapixels", [1, pytest.param(4, marks=pytest.mark.slow), pytest.param(12, marks=pytest.mark.slow)]
)
@pytest.mark.skipif(torch.version.cuda is not None, reason="builds of torch for CUDA hold more than is asked for")
def test_the_least_that_a_refusal_names_suffices_and_is_kept_to(
    megapixels: int, tmp_path: Path, using: Callable[[str], dict[str, str]]
) -> None:
    def restore(limit: str) -> subprocess.CompletedProcess[str]:
        """In a process of its own: the tests' `cli` begins with torch in memory."""
        command = ["restore", tmp_path / "a.jpg", "--task", "denoise", "-o", tmp_path / "b.jpg", "--json"]
        return subprocess.run(
            [sys.executable, "-m", "irtool", *map(str, command), "--max-memory", limit],
            capture_output=True, text=True, env=os.environ | using("clean"), check=False,
        )  # fmt: skip

    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    codes = np.asarray(
        Image.fromarray(make.noise(50, 75, 3)).resize((height * 3 // 2, height), Image.Resampling.BICUBIC)
    )
    Image.fromarray(codes).save(tmp_path / "a.jpg", quality=92)
    refused = restore("100MB")
    assert refused.returncode == 1
    least = int(re.search(r"needs about (\d+) MB", refused.stderr)[1]) + 1  # type: ignore[index]
    done = restore(f"{least}MB")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["peak_resident_bytes"] < least * 1.05e6


def test_a_refusal_comes_before_torch(tmp_path: Path, cli: Callable, using: Callable[[str], dict[str, str]]) -> None:
    Image.fromarray(make.noise(1200, 1800, 3)).save(tmp_path / "a.jpg")
    done = cli(
        "restore", tmp_path / "a.jpg", "--task", "denoise", "--max-memory", "200MB", "--json", env=using("clean")
    )
    assert done.returncode == 1
    assert "needs about" in done.stderr
    assert "MB of memory" in done.stderr
    code = (
        "import sys\nfrom irtool.cli import main\nfrom irtool.memory import peak_resident_bytes\n"
        f"sys.argv = ['irtool', 'restore', {str(tmp_path / 'a.jpg')!r}, '--task', 'denoise', '--max-memory', '200MB']\n"
        "code = main()\nprint('torch' in sys.modules, peak_resident_bytes() < 150e6)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path.cwd(), check=False)
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_memory_that_runs_out_is_no_bug_of_ours() -> None:
    from irtool.errors import explained

    assert explained(MemoryError()) is not None
    assert explained(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")) is not None
    assert explained(RuntimeError("shape mismatch")) is None
