"""A run: pairs read, restored and scored one after the other, in bounded memory.

What a run is, its `header` says: all that must agree for two figures to be comparable. Each pair gives one record,
also where it is broken; `irtool.evaluation.summary` makes the figures of them.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..data import Pair, PairSet, Protocol
from ..errors import PictureError, UnavailableError, explained
from ..fileio import read_bytes, sha256
from ..metrics.extra import Extra
from ..plan import Plan
from ..synth import Chain
from .degrade import Degrader
from .score import crop, quantize, read_stored, score, stored

NO_MODEL = "none"
"""As a model: the degraded pictures are scored as they are, such as those another program has restored."""

Record = dict[str, Any]


@dataclass(frozen=True)
class EvalRequest:
    """What is to be scored, and how.

    Attributes:
        found: the pairs.
        protocol: how.
        model: reference of the restorer, or `NO_MODEL`.
        plan: what it is asked to do; None to have it found in every picture.
        dataset: name of the set; empty where there is none.
        degrade: how degraded pictures are made of the true ones; None where they are given.
        extras: metrics beyond PSNR and SSIM.
        seed: a further part of the seeds of `degrade`.
        device, dtype, tile, max_memory, ensemble: as `irtool.api.restore`.
        detector: that finds what to undo where `plan` is None.
        keep: called with (name, before, after, truth) of every scored picture, (H, W, 3) uint8; to save them.
    """

    found: PairSet
    protocol: Protocol
    model: str
    plan: Plan | None = None
    dataset: str = ""
    degrade: Chain | None = None
    extras: Sequence[Extra] = ()
    seed: int = 0
    device: str = "auto"
    dtype: str = "fp32"
    tile: str = "auto"
    max_memory: int | None = None
    ensemble: bool = False
    detector: str = ""
    keep: Callable[[str, np.ndarray, np.ndarray, np.ndarray], None] | None = field(default=None, compare=False)


def header(request: EvalRequest) -> Record:
    """What the run is: everything that figures must share to be compared."""
    from ..api import info
    from ..engine import pick_device, pick_dtype

    device = pick_device(request.device)
    # As the engine will choose; only "auto" depends on the network.
    probe = request.dtype == "auto" and request.model != NO_MODEL and info(request.model).bears_bf16
    names = {"torch": "torch", "numpy": "numpy", "scikit-image": "scikit-image", "pillow": "pillow"}
    for extra in request.extras:
        names |= dict.fromkeys(extra.packages)  # type: ignore[arg-type]
    return {
        "type": "run",
        "protocol": request.protocol.to_dict(),
        "dataset": request.dataset,
        "layout": request.found.layout,
        "pairs": len(request.found.pairs),
        "listing": listing_hash(request.found.pairs),
        "degrade": None if request.degrade is None else str(request.degrade),
        "seed": request.seed,
        "model": request.model,
        "network": network_of(request.model),
        "weights": {} if request.model == NO_MODEL else weights_of(request.model),
        "plan": None if request.plan is None else request.plan.to_dict(),
        "detector": weights_of(request.detector) if request.plan is None and request.detector else {},
        "metrics": ["psnr", "ssim", *(extra.id for extra in request.extras)],
        "metric_weights": {extra.id: extra.weights() for extra in request.extras},
        "device": _device_name(device),
        "dtype": str(pick_dtype(request.dtype, device, probe=probe)).removeprefix("torch."),
        "tile": request.tile,
        "ensemble": request.ensemble,
        "versions": {"irtool": __version__, "python": platform.python_version()} | {n: _version(n) for n in names},
    }


def listing_hash(pairs: Iterable[Pair]) -> str:
    """sha256 over the names of all pairs and the sizes of their files, in bytes."""
    digest = hashlib.sha256()
    for pair in pairs:
        sizes = [
            path.stat().st_size if path is not None and path.is_file() else -1
            for path in (pair.degraded, pair.reference)
        ]
        digest.update(f"{pair.name}\t{sizes[0]}\t{sizes[1]}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def network_of(reference: str) -> dict[str, Any]:
    """Name of a model's architecture and number of its weights; {} for `NO_MODEL`."""
    if reference == NO_MODEL:
        return {}
    from .. import api

    info = api.info(reference)
    return {"architecture": info.name, "parameters": info.parameters}


def weights_of(reference: str) -> dict[str, str]:
    """Where the weights of a model are from: sha256 of the file that is loaded, and of the published one."""
    from ..weights import get, locate

    hashes = {"loaded_sha256": sha256(locate(reference))}
    if ":" not in reference:
        record = get(reference)
        hashes |= {"id": record.id, "licence": record.licence}
        hashes["published_sha256"] = " ".join(file.sha256 or "unknown" for file in record.originals)
    elif reference.startswith("local:"):
        hashes["published_sha256"] = sha256(Path(reference.removeprefix("local:")).expanduser())
    return hashes


def _device_name(device: Any) -> str:
    import torch

    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@dataclass
class _Loaded:
    reference: np.ndarray
    degraded: np.ndarray
    content: str


def evaluate(
    request: EvalRequest,
    done: Mapping[str, Record] | None = None,
    on_begin: Callable[[str], None] = lambda name: None,
    on_tiles: Callable[[int, int], None] | None = None,
) -> Generator[Record, None, None]:
    """Score pair after pair; a broken one gives a record with "error" and the run goes on.

    Args:
        request: what and how.
        done: records of an earlier run by name, which are passed on as they are.
        on_begin: called with the name of the pair that is now restored.
        on_tiles: called with (tiles done, tiles in all) while it is.

    Yields:
        One record per pair, in the order of the names.

    Raises:
        UsageError, UnavailableError: as `irtool.api.restore`; also where the protocol does not know the degradation.
    """
    from ..engine.pipeline import pipelined

    done = done or {}
    degrader = _degrader(request)

    def read(pair: Pair) -> _Loaded | None:
        if pair.name in done:
            if degrader is not None and request.protocol.noise == "stream" and pair.reference is not None:
                degrader.skip(crop(read_stored(pair.reference), request.protocol.multiple).shape)
            return None
        return _load(pair, request.protocol, degrader)

    def work(pair: Pair, loaded: _Loaded | None) -> tuple[_Loaded, _Restored] | None:
        if loaded is None:
            return None
        on_begin(pair.name)
        return loaded, _restore(request, loaded.degraded, on_tiles)

    def write(pair: Pair, restored: tuple[_Loaded, _Restored] | None) -> Record:
        return done[pair.name] if restored is None else _record(request, pair, *restored)

    for ended in pipelined(request.found.pairs, read, work, write):
        if ended.result is not None:
            yield ended.result
        elif isinstance(ended.error, (BrokenPipeError, UnavailableError)):
            raise ended.error
        else:
            yield {"type": "image", "name": ended.item.name, "error": _error_text(ended.error)}


def _degrader(request: EvalRequest) -> Degrader | None:
    """What makes the degraded pictures; None where they are read from files."""
    if request.degrade is None:
        return None
    return Degrader(request.degrade, request.protocol, request.dataset, request.seed)


def _error_text(error: Exception | None) -> str:
    if (known := explained(error)) is not None:
        return known.message
    return f"a bug in irtool ({type(error).__name__}: {error})"


def _load(pair: Pair, protocol: Protocol, degrader: Degrader | None) -> _Loaded:
    if pair.reference is None:
        raise PictureError("no truth belongs to it")
    data = read_bytes(pair.reference)
    digest = hashlib.sha256(data)
    reference = crop(stored(data, str(pair.reference)), protocol.multiple)
    if 0 in reference.shape:
        raise PictureError(f"it is smaller than {protocol.multiple} pixels, which the protocol crops to")
    if degrader is not None:
        return _Loaded(reference, degrader(pair.name, reference), digest.hexdigest()[:16])
    assert pair.degraded is not None
    data = read_bytes(pair.degraded)
    digest.update(data)
    degraded = stored(data, str(pair.degraded))
    degraded = enlarge(degraded, reference) if protocol.scale > 1 else crop(degraded, protocol.multiple)
    if degraded.shape != reference.shape:
        sizes = f"{degraded.shape[1]}x{degraded.shape[0]} against {reference.shape[1]}x{reference.shape[0]}"
        raise PictureError(f"its size differs from its truth's: {sizes}")
    return _Loaded(reference, degraded, digest.hexdigest()[:16])


def enlarge(small: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(h, w, 3) float to the size of the truth, bicubically, and to 8 bit as a saved file would be."""
    from PIL import Image

    size = (reference.shape[1], reference.shape[0])
    drawn = Image.fromarray(quantize(small, "round")).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(drawn, dtype=np.float32) / np.float32(255)


@dataclass
class _Restored:
    pixels: np.ndarray
    seconds: float
    tiles: int = 0
    peak_bytes: int | None = None
    plan: Plan | None = None


def _restore(request: EvalRequest, degraded: np.ndarray, on_tiles: Callable[[int, int], None] | None) -> _Restored:
    started = time.perf_counter()
    if request.model == NO_MODEL:
        return _Restored(degraded, time.perf_counter() - started)
    from .. import api
    from ..picture import Picture
    from ..plan import plan_auto

    planner = None if request.plan is not None else partial(plan_auto, model=request.model)
    options: dict[str, Any] = {"detector": request.detector} if request.detector else {}
    result = api.restore(
        Picture(np.ascontiguousarray(degraded, dtype=np.float32)),
        plan=request.plan,
        planner=planner,
        device=request.device,
        dtype=request.dtype,
        tile=request.tile,
        max_memory=request.max_memory,
        ensemble=request.ensemble,
        on_progress=on_tiles,
        **options,
    )
    found = result.plan if request.plan is None else None
    return _Restored(result.picture.pixels, result.seconds, result.tiles, result.peak_bytes, found)


def _record(request: EvalRequest, pair: Pair, loaded: _Loaded, restored: _Restored) -> Record:
    is_real_pair = request.degrade is None
    before = score(loaded.reference, loaded.degraded, request.protocol, stored=is_real_pair)
    after = score(
        loaded.reference, restored.pixels, request.protocol, stored=is_real_pair and request.model == NO_MODEL
    )
    for extra in request.extras:
        value = extra.measure(loaded.reference, quantize(restored.pixels, request.protocol.levels))
        if value is not None:
            after[extra.id] = value
    if request.keep is not None:
        shown = (quantize(pixels, "round") for pixels in (loaded.degraded, restored.pixels, loaded.reference))
        request.keep(pair.name, *shown)
    record: Record = {
        "type": "image",
        "name": pair.name,
        "input": _finite(before),
        "output": _finite(after),
        "width": loaded.reference.shape[1],
        "height": loaded.reference.shape[0],
        "seconds": round(restored.seconds, 4),
        "tiles": restored.tiles,
        "peak_bytes": restored.peak_bytes,
        "content": loaded.content,
    }
    if restored.plan is not None:
        record["plan"] = str(restored.plan)
    return record


def _finite(scores: Mapping[str, float]) -> dict[str, float | None]:
    """JSON knows no infinity: the PSNR of equal pictures is null."""
    return {key: round(value, 6) if np.isfinite(value) else None for key, value in scores.items()}
