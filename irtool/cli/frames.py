"""Files of several frames in a run of `restore` or `instruct`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..api import restore_with
from ..memory import Budget
from ..sequence import ModelOf, restore_frames

if TYPE_CHECKING:
    from ..models.base import Progress
    from ..picture import Frames, Picture
    from ..plan import Plan
    from ..result import Result
    from .batch import JobPlan
    from .options import Request


def restore_file(
    frames: Frames, format: str | None, request: Request, decision: JobPlan, mask: Picture | None, budget: Budget,
    on_progress: Progress | None,
) -> Result:  # fmt: skip
    """Do to all frames of a file what was decided; raises as `irtool.sequence.restore_frames`."""
    settings: Any = {
        "mask": mask, "detector": request.detector, "device": request.device, "dtype": request.dtype,
        "tile": request.tile, "padding": request.padding, "max_memory": budget.limit, "ensemble": request.ensemble,
        "on_progress": on_progress,
    }  # fmt: skip

    def restored(picture: Picture, plan: Plan | None, model_of: ModelOf) -> Result:
        found = decision.planner if plan is None else None
        return restore_with(model_of, picture, None, plan, found, request.model, settings)

    return restore_frames(
        frames, restored, decision.plan, format=format, quality=request.quality, strip=request.strip, budget=budget
    )
