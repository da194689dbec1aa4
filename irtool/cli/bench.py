"""irtool doctor --bench: how fast the network that ships is here, in figures to paste into a report."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

ROUNDS, SIDE, PRODUCT = 5, 1024, 2048
TOP = 8


def bench(device_name: str = "auto", side: int = SIDE) -> dict[str, Any]:
    """Time the shipped network on one square picture, and a product of matrices in the same type.

    Returns:
        For JSON: megapixels a second, the share of the product's rate that the network's multiply-accumulates reach,
        and the share of the time of the operations that take most.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    from .. import engine
    from ..api import cached_model
    from ..models.base import Condition
    from ..weights import DEFAULT_RESTORER

    device = engine.pick_device(device_name)
    dtype = engine.pick_dtype("auto", device, probe=True)
    model = cached_model(DEFAULT_RESTORER)
    bound = model.bind(Condition({"noise": 1.0}))
    pixels = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))
    matrix = torch.rand(PRODUCT, PRODUCT).to(device, dtype)

    def network() -> None:
        engine.run(bound, pixels, device=device)

    def product() -> None:
        matrix @ matrix

    def seconds(call: Callable[[], None]) -> float:
        call()
        times = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    megapixels = side * side / 1e6
    elapsed, peak = seconds(network), PRODUCT**3 / seconds(product)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as profiler:
        network()
    key = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, key))
    whole = sum(getattr(event, key) for event in events) or 1
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "megapixels_per_second": round(megapixels / elapsed, 3),
        "peak_gflops": round(2 * peak / 1e9, 1),
        "share_of_peak": round(model.info.gmacs_per_megapixel * 1e9 * megapixels / elapsed / peak, 3),
        "time": {event.key: round(getattr(event, key) / whole, 3) for event in events[:TOP]},
    }
