"""Options that several verbs share, and the checks of their values."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import cores
from ..diffusion.sampling import GUIDANCE, SAMPLERS, Sampling
from ..errors import UsageError, closest
from ..memory import available_bytes

if TYPE_CHECKING:
    from .. import memory
    from ..account import Account
    from ..plan import Upscale
    from ..shard import Shard
    from ..targets import Item

EXISTING = ("skip", "overwrite", "rename", "error")
DTYPES = ("auto", "fp32", "bf16", "fp16")
PROCESS_BYTES = 3 << 29  # what a process with its network and a picture of some megapixels holds
PADDINGS = ("auto", "reflect", "zeros")

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT", help="Pictures, folders or quoted patterns ('**/*.jpg'); - is stdin.", show_default=False
    ),
]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Take folders with all below them.")]
Device = Annotated[
    str, typer.Option("--device", envvar="IRTOOL_DEVICE", metavar="auto|cpu|cuda|cuda:N", help="Where to compute.")
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", envvar="IRTOOL_THREADS", metavar="N", min=1, max=65535, help="CPU threads to compute with."
    ),
]
Jobs = Annotated[
    str,
    typer.Option(
        "--jobs", envvar="IRTOOL_JOBS", metavar="N|auto", help="Processes to share the pictures out to; one per GPU."
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="I/N|auto", help="Do only this share of the pictures; auto: as the cluster's job array says."
    ),
]
On = Annotated[str | None, typer.Option("--on", metavar="ray[:ADDRESS]", help="Share the pictures out to a cluster.")]
Detector = Annotated[
    str,
    typer.Option("--detector", envvar="IRTOOL_DETECTOR", metavar="ID|local:PATH", help="The model that diagnoses."),
]
Output = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="PATH", help="File, folder, or - for stdout; else NAME.restored.EXT."),
]
Strength = Annotated[
    float,
    typer.Option("--strength", envvar="IRTOOL_STRENGTH", metavar="0..1", help="Blend of result (1) and input (0)."),
]
Existing = Annotated[
    str | None,
    typer.Option(
        "--existing",
        envvar="IRTOOL_EXISTING",
        metavar="|".join(EXISTING),
        help="What to do where an output exists. Default: skip in folder runs, so that they resume; else error.",
    ),
]
Overwrite = Annotated[
    str, typer.Option("--existing", metavar="overwrite|error", help="What to do where the output exists.")
]
Format = Annotated[
    str,
    typer.Option(
        "--format", envvar="IRTOOL_FORMAT", metavar="preserve|png|jpg|webp|tiff|avif", help="Format of the outputs."
    ),
]
Quality = Annotated[
    int | None,
    typer.Option(
        "--quality",
        envvar="IRTOOL_QUALITY",
        metavar="1..100",
        help="Quality of JPEG, WebP, AVIF. Default: like the source.",
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option(
        "--name", envvar="IRTOOL_NAME", metavar="TEMPLATE", help="Names of the outputs: '{stem}-{tasks}{ext}'."
    ),
]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="Do only the first N of what is left to do.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Then wait for pictures to come into the folders, until Ctrl-C.")]
Log = Annotated[
    Path | None, typer.Option("--log", envvar="IRTOOL_LOG", metavar="FILE", help="Also append what is said to a file.")
]
Strip = Annotated[bool, typer.Option("--strip", envvar="IRTOOL_STRIP", help="Leave metadata out.")]
SideBySide = Annotated[bool, typer.Option("--side-by-side", help="Also write NAME.side-by-side.jpg, before and after.")]
Review = Annotated[bool, typer.Option("--review", help="Also write OUTPUT/review.html, to look through what was done.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]
Dtype = Annotated[str, typer.Option("--dtype", envvar="IRTOOL_DTYPE", metavar="|".join(DTYPES), help="Number type.")]
Tile = Annotated[
    str, typer.Option("--tile", envvar="IRTOOL_TILE", metavar="auto|N|off", help="Side of the tiles, in pixels.")
]
Padding = Annotated[
    str,
    typer.Option(
        "--padding",
        envvar="IRTOOL_PADDING",
        metavar="|".join(PADDINGS),
        help="How the network's borders are padded; auto: as its authors do.",
    ),
]
MaxMemory = Annotated[
    str | None, typer.Option("--max-memory", envvar="IRTOOL_MAX_MEMORY", metavar="2GB", help="Memory limit.")
]
Ensemble = Annotated[
    bool,
    typer.Option(
        "--ensemble",
        envvar="IRTOOL_ENSEMBLE",
        help="Average over four mirrored views: a little better, 4 times slower.",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model", envvar="IRTOOL_MODEL", metavar="ID|local:PATH|hf-hub:REPO", help="The model that restores."
    ),
]
Scale = Annotated[
    int | None,
    typer.Option(
        "--scale",
        envvar="IRTOOL_SCALE",
        metavar="2|3|4",
        help="Enlarge that many times, after all else; alone, nothing else is done.",
        show_default=False,
    ),
]
Upscaler = Annotated[
    str,
    typer.Option("--upscaler", envvar="IRTOOL_UPSCALER", metavar="ID|local:PATH", help="The model that enlarges."),
]


def _go_offline(requested: bool) -> bool:
    # The variable is what the weights and the libraries below look at, wherever the files are needed.
    if requested:
        os.environ["IRTOOL_OFFLINE"] = "1"
    return requested


Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        envvar="IRTOOL_OFFLINE",
        callback=_go_offline,
        help="Download nothing; a model that is not here is an error.",
    ),
]
Controller = Annotated[
    str,
    typer.Option("--controller", metavar="ID|local:PATH", help="The DA-CLIP that steers a model; else its own."),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps", metavar="N", max=100_000, help="Sampling steps of a diffusion model. Default: as its sampler needs."
    ),
]
Sampler = Annotated[
    str | None, typer.Option("--sampler", metavar="|".join(SAMPLERS), help="Sampler of a diffusion model.")
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", max=2**63 - 1, help="Random seed of a diffusion model; 0 by default."),
]
Guidance = Annotated[
    str | None,
    typer.Option("--guidance", metavar="|".join(GUIDANCE), help="How a diffusion prior is conditioned on the picture."),
]
Operator = Annotated[
    str | None,
    typer.Option("--operator", metavar="TEXT", help="How it was degraded, for --guidance: 'blur(sigma=2)|noise(5)'."),
]
GuidanceStrength = Annotated[
    float | None,
    typer.Option("--guidance-strength", metavar="X", help="Scale of gdp, zeta of dps, lambda of diffpir."),
]
Published = Annotated[bool, typer.Option("--published", help="gdp exactly as its authors' code does it.")]
PreviewSteps = Annotated[
    bool, typer.Option("--preview-steps", help="Also write NAME.steps.jpg, a diffusion model's way to its result.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines: one per picture, then a summary.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print more remarks.")]


def one_of(value: str, known: Sequence[str], flag: str) -> str:
    """`value` if it is known.

    Raises:
        UsageError: it is not; the hint names the closest.
    """
    if value in known:
        return value
    raise UsageError(f"{flag} cannot be '{value}'.", closest(value, known))


def may_overwrite(existing: str, *outputs: Path) -> bool:
    """Whether outputs that are there are replaced.

    Raises:
        UsageError: they are not, and one is there.
    """
    from ..fileio import exists

    if one_of(existing, ("overwrite", "error"), "--existing") == "overwrite":
        return True
    for output in outputs:
        if exists(output):
            raise UsageError(f"{output} exists already.", "Choose another name, or --existing overwrite.")
    return False


_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_bytes(text: str, flag: str = "--max-memory") -> int:
    """A size such as "2GB" (1000 each), "2GiB" or "2G" (1024 each), or plain bytes.

    Raises:
        UsageError: it is no size above zero.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b)?\s*", text.lower())
    # No machine has as much as sixteen digits of terabytes.
    if match is None or len(match[1]) > 32 or not 0 < float(match[1]) < 1e16:
        raise UsageError(f"{flag} '{text}' is no size.", "Write a number with a unit, such as 2GB or 800MiB.")
    size = float(match[1])
    if match[3] == "b" and match[2]:
        return int(size * 1000 ** "kmgt".index(match[2]) * 1000)
    return int(size * _UNITS[match[2]])


def check_device(name: str) -> None:
    """Turn away a device that cannot exist, before torch is imported to look for one.

    Raises:
        UsageError: no such name.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        one_of(name, ("auto", "cpu", "cuda", "cuda:N"), "--device")


def upscale(scale: int | None, upscaler: str) -> Upscale | None:
    """How pictures are enlarged; None where that was not asked for.

    Raises:
        UsageError: there is no such scale, or a model without one.
    """
    from ..plan import SCALES, Upscale

    if scale is None:
        # From the environment it is a preference for the day that something is enlarged.
        if upscaler and upscaler != os.environ.get("IRTOOL_UPSCALER"):
            raise UsageError("--upscaler enlarges, and no --scale was given.", "Give --scale 2, 3 or 4.")
        return None
    if scale not in SCALES:
        raise UsageError(f"--scale is 2, 3 or 4, not {scale}.", "Other sizes: enlarge, then reduce the result.")
    return Upscale(scale, upscaler)


def jobs(text: str, items: int, device: str = "cpu") -> int:
    """The number of processes that --jobs asks for, no more than there are items.

    Under "auto" one for each GPU, else one for each free core, as far as the memory goes.

    Raises:
        UsageError: it is neither a number above zero nor auto.
    """
    if text != "auto" and (not text.isdecimal() or int(text) < 1):
        raise UsageError(f"--jobs cannot be '{text}'.", "Give a number of processes, or auto.")
    if items < 2:
        return 1
    if text != "auto":
        return min(int(text), items)
    return max(1, min(cores.gpus(device) or min(cores.free(), available_bytes() // PROCESS_BYTES), items))


def set_threads(count: int | None) -> None:
    """Let torch have so many threads (`thread_count`)."""
    import torch

    torch.set_num_threads(thread_count(count))


def thread_count(count: int | None) -> int:
    """The threads to compute with: `count`, else as OMP_NUM_THREADS says, else the cores that are free."""
    named = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return count or (int(named) if named.isdecimal() and int(named) else cores.free())


def sampling(
    steps: int | None,
    sampler: str | None,
    seed: int | None,
    guidance: str | None = None,
    operator: str | None = None,
    strength: float | None = None,
    published: bool = False,
) -> Sampling | None:
    """How a diffusion model is sampled; None where nothing was said.

    Raises:
        UsageError: a value is out of range.
    """
    options: dict[str, Any] = {
        "steps": steps, "sampler": sampler, "seed": seed, "guidance": guidance, "operator": operator,
        "strength": strength, "published": published or None,
    }  # fmt: skip
    values = {name: value for name, value in options.items() if value is not None}
    if steps == 0:
        raise UsageError("--steps is at least 1.")
    if operator is not None:
        from ..diffusion.observation import parse

        parse(operator)
    return Sampling(**values) if values else None


@dataclass(frozen=True)
class Request:
    """The options of a run, as given; the names are those of the flags.

    Raises:
        UsageError: a value is out of range. Everything that can be wrong with a request is said before torch is
            imported.
    """

    inputs: Sequence[str]
    model: str
    detector: str
    controller: str = ""
    output: str | None = None
    recursive: bool = False
    existing: str | None = None
    format: str = "preserve"
    quality: int | None = None
    strip: bool = False
    side_by_side: bool = False
    dry_run: bool = False
    review: bool = False
    device: str = "auto"
    dtype: str = "auto"
    tile: str = "auto"
    padding: str = "auto"
    max_memory: str | None = None
    ensemble: bool = False
    threads: int | None = None
    preview_steps: bool = False
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    ask: bool = False
    mask: Path | None = None
    root: Path | None = None
    jobs: str = "1"
    shard: Shard | None = None
    on: str | None = None
    name: str | None = None
    limit: int | None = None
    log: Path | None = None
    watch: bool = False

    def __post_init__(self) -> None:
        from ..picture.formats import format_named

        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"--quality lies from 1 to 100, not {self.quality}.")
        if self.format != "preserve" and not format_named(self.format).writable:
            raise UsageError(f"irtool does not write {self.format}.", "Use --format png.")
        if self.tile not in ("auto", "off") and not (self.tile.isdecimal() and len(self.tile) < 10):
            raise UsageError(f"--tile cannot be '{self.tile}'.", "Give auto, off, or a number of pixels.")
        one_of(self.dtype, DTYPES, "--dtype")
        one_of(self.padding, PADDINGS, "--padding")
        check_device(self.device)
        if self.max_memory is not None:
            parse_bytes(self.max_memory)
        if self.existing is not None:
            one_of(self.existing, EXISTING, "--existing")
        if self.on is not None and (self.jobs != "1" or self.ask):
            raise UsageError("--on excludes --jobs and --ask.", "Leave one of them out.")
        if self.review and (self.is_remote or self.output in (None, "-")):
            raise UsageError("--review goes into an output folder.", "Name one with -o.")
        if self.ask and self.jobs != "1":
            raise UsageError("--ask and --jobs exclude each other.", "Leave one of them out.")
        if self.ask and not sys.stdin.isatty():
            raise UsageError("--ask waits for an answer, and there is no terminal to give one.", "Leave --ask out.")

    @property
    def policy(self) -> str:
        """What becomes of outputs that are there already."""
        from ..targets import has_folder

        return self.existing or ("skip" if self.is_remote or has_folder(self.inputs) else "error")

    @cached_property
    def is_remote(self) -> bool:
        """Whether an input or the output is an address or an archive (`irtool.remote`)."""
        from ..targets import is_address

        return any(is_address(one) for one in (*self.inputs, self.output or ""))

    def items(self) -> list[Item]:
        """The pictures of the request with their outputs; raises as `irtool.targets.make_items`."""
        from ..targets import make_items

        format = None if self.format == "preserve" else self.format
        if self.is_remote:
            from ..remote import make_items as make_remote_items

            if self.side_by_side or self.preview_steps or self.existing == "rename" or self.name:
                raise UsageError(
                    "An address or an archive takes no --side-by-side, --preview-steps, --name or --existing rename.",
                    "Leave them out.",
                )
            return make_remote_items(
                self.inputs, output=self.output, recursive=self.recursive, format=format, shard=self.shard
            )
        return make_items(
            self.inputs, output=self.output, recursive=self.recursive, format=format, side_by_side=self.side_by_side,
            preview_steps=self.preview_steps, root=self.root, others=self.others,
            shard=self.shard, name=self.name,
        )  # fmt: skip

    @property
    def others(self) -> tuple[Path, ...]:
        """Further files that no output may replace."""
        return tuple(path for path in (self.mask, self.log) if path is not None)

    @property
    def is_shared_out(self) -> bool:
        """Whether other processes do some of the pictures."""
        return self.shard is not None or self.jobs != "1" or self.on is not None

    def account(self) -> Account | None:
        """The account of a folder run that is shared out or reviewed; plain runs leave nothing but pictures.

        Its head has the arguments of `make_items` that give the same outputs again.
        """
        from ..account import Account
        from ..targets import has_folder

        if self.is_remote or self.output is None or not (has_folder(self.inputs) or self.review):
            return None
        targets = {
            "inputs": [str(Path(one).absolute()) for one in self.inputs],
            "output": str(Path(self.output or "").absolute()),
            "recursive": self.recursive,
            "format": None if self.format == "preserve" else self.format,
            "root": None if self.root is None else str(self.root.absolute()),
            "name": self.name,
        }
        return Account(Path(self.output), targets, self.shard)

    def budget(self, detects: bool = False, scale: int = 1) -> memory.Budget:
        """The memory that a picture's way may take where a detector looks (`detects`) and it is enlarged `scale` times.
        A limit that was asked for is kept to from here on."""
        from .. import memory

        limit = None if self.max_memory is None else parse_bytes(self.max_memory)
        if limit is not None and self.jobs != "1":
            limit //= jobs(self.jobs, sys.maxsize, self.device)
        if limit is not None:
            memory.keep_to(limit)
        # A page has the picture itself beside an enlarged one.
        beside = memory.BESIDE * self.side_by_side * (1 if scale == 1 else 1 + scale**2)
        per_pixel = memory.LOOKED_AT if self.dry_run else memory.per_pixel(scale) + beside
        return memory.Budget(limit, per_pixel=per_pixel, floor=memory.FLOOR + memory.DETECTING * detects)
