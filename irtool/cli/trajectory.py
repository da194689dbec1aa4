"""The trajectory of a diffusion model, from noise to a picture, as a sheet."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SIDE = 320  # the most pixels a state is kept with
FRAMES = 10
COLUMNS = 5


class Trajectory:
    """Takes the states of a model as they come (the callback of `irtool.restore`) and draws some of them.

    A state is reduced at once: a hundred of a large picture would not fit in memory.
    """

    def __init__(self) -> None:
        self.states: list[tuple[int, np.ndarray]] = []

    def __len__(self) -> int:
        return len(self.states)

    def __call__(self, time: int, state: Tensor) -> None:
        """A time, counted down to 0, and the state there, (3, H, W) about [0, 1]."""
        from torch.nn.functional import avg_pool2d

        factor = -(-max(state.shape[-2:]) // SIDE)
        if factor > 1:
            # Of a strip thinner than the factor nothing would be left.
            state = avg_pool2d(state, [min(factor, side) for side in state.shape[-2:]])
        self.states.append((time, state.permute(1, 2, 0).clamp(0, 1).numpy()))

    def sheet(self) -> np.ndarray:
        """At most `FRAMES` states, evenly chosen, the first and the last among them -> (H, W, 3) uint8."""
        from ..picture import sheet

        count = min(FRAMES, len(self.states))
        last = len(self.states) - 1
        chosen = [self.states[round(i * last / max(1, count - 1))] for i in range(count)]
        rows = [chosen[i : i + COLUMNS] for i in range(0, count, COLUMNS)]
        captions = [[f"t = {time}" for time, _ in row] for row in rows]
        return sheet([[state for _, state in row] for row in rows], captions=captions)
