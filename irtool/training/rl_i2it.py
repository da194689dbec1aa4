"""The training of a stepwise restorer by reinforcement learning ("rl-i2it"): soft actor-critic beside supervision.

Wang et al., arXiv 2309.13672, with Haarnoja et al., "Soft Actor-Critic Algorithms and Applications" (2018) for the
automatic entropy. Differences from the published training, each for the sake of one loop that resumes exactly: states
are drawn by letting the current agent walk a random number of steps, not from a memory of old walks; the reward is the
gain in PSNR, so that what the critics predict is what is still to be gained; there is no adversarial term.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..degradation import IDS
from ..models import loading
from ..models.rl_i2it import REWARD_UNIT, Critic, StepwiseNet
from .checks import recipe_problems
from .data import Sample, cut, training_data
from .recipe import Recipe
from .restorer import psnr
from .tasks import Preview, Shard, TrainingData

SETTINGS: Mapping[str, float] = {
    "gamma": 0.99, "tau": 0.005, "supervised": 1.2, "reinforced": 0.1, "target_entropy": -1.0, "hole": 0,
    "border": 5.0, "least_gain": 0.0,
}  # fmt: skip


class Agent(nn.Module):
    """What is trained: the networks, slow copies of the critics, and the weight of the entropy."""

    def __init__(self, net: StepwiseNet) -> None:
        super().__init__()
        self.net = net
        self.targets = nn.ModuleList()
        for critic in net.critics:
            assert isinstance(critic, Critic)
            copied = Critic(*critic.arguments)
            copied.load_state_dict(critic.state_dict())
            self.targets.append(copied.requires_grad_(False))
        self.log_alpha = nn.Parameter(torch.tensor(math.log(0.01)))  # rewards are tenths: a larger one would drown them

    @torch.no_grad()
    def follow(self, tau: float) -> None:
        """Move the slow critics towards the quick ones."""
        for slow, quick in zip(self.targets.parameters(), self.net.critics.parameters(), strict=True):
            slow.lerp_(quick, tau)


class StepwiseTask:
    """The `TrainingTask` of the kind "rl-i2it". The figure is PSNR in dB of held-out samples after all steps.

    Settings: gamma, discount; tau, share by which the slow critics follow; supervised and reinforced, weights of the
    two losses; target_entropy, per number of the plan; hole, side of a square in the middle to be filled (0 for none),
    with border, how much more its rim of 4 pixels counts; least_gain, dB expected below which the restorer stops.
    """

    figure_of_merit = "psnr"

    def problems(self, recipe: Recipe) -> list[str]:
        problems = recipe_problems(StepwiseNet, recipe, tuple(SETTINGS))
        wrong = [k for k, v in recipe.settings.items() if k in SETTINGS and not isinstance(v, (int, float))]
        problems += [f"settings: {key} is a number" for key in wrong]
        multiple = 2 ** int(recipe.model.get("levels", 3))
        if any(phase.crop % multiple for phase in recipe.phases):
            problems.append(f"phases: crops must be multiples of {multiple}, the network's")
        return problems

    def settings(self, recipe: Recipe) -> dict[str, float]:
        return {**SETTINGS, **recipe.settings}

    def build(self, recipe: Recipe) -> Agent:
        return Agent(StepwiseNet(**recipe.model))

    def dataset(self, recipe: Recipe, root: Path, shard: Shard) -> TrainingData[Sample]:
        return training_data(recipe, root, shard)

    def batch(self, pool: Sample, row: int, rows: int, crop: int, generator: torch.Generator) -> Sample:
        return cut(pool, row, rows, crop, generator)

    def _given(self, sample: Sample, hole: int) -> tuple[Tensor, Tensor]:
        """The degraded pictures, and 1 where they may be changed."""
        free = torch.ones_like(sample.degraded[:, :1])
        if not hole:
            return sample.degraded, free
        height, width = free.shape[-2:]
        top, left = (height - hole) // 2, (width - hole) // 2
        free = torch.zeros_like(free)
        free[..., top : top + hole, left : left + hole] = 1
        return torch.where(free > 0, 1.0, sample.degraded), free

    def loss(
        self, net: nn.Module, batch: Sample, recipe: Recipe, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        agent, s = net, self.settings(recipe)
        assert isinstance(agent, Agent)
        actor, clean = agent.net, batch.clean
        degraded, free = self._given(batch, int(s["hole"]))

        def act(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            state = actor.state(x, degraded)
            following, plan, log_density = actor.act(state, sample=True)
            return state, torch.where(free > 0, following, x), plan, log_density / plan[0].numel()

        agent.follow(s["tau"])
        walked = int(torch.randint(actor.max_steps, (1,), generator=generator))
        with torch.no_grad():
            x = degraded
            for _ in range(walked):
                x = act(x)[1]
        state, following, plan, log_density = act(x)
        alpha = agent.log_alpha.exp().detach()

        gain = psnr(following, clean) - psnr(x, clean)
        with torch.no_grad():
            target = gain / REWARD_UNIT
            if walked < actor.max_steps - 1:
                state_after, _, plan_after, log_density_after = act(following.detach())
                values = [critic(state_after, plan_after) for critic in agent.targets]
                target = target + s["gamma"] * (torch.minimum(*values) - alpha * log_density_after)
        of_critics = torch.stack([(q - target).square().mean() for q in actor.value(state, plan.detach())]).sum()
        of_planner = (alpha * log_density - torch.minimum(*actor.value(state, plan, frozen=True))).mean()
        of_alpha = -(agent.log_alpha * (log_density.detach() + s["target_entropy"])).mean()
        weight = self._weight(free, s["border"]) if s["hole"] else free
        error = ((following - clean).abs() * weight).mean()
        loss = s["supervised"] * error + s["reinforced"] * (of_planner + of_alpha) + of_critics
        figures = {"gain": gain, "psnr": psnr(following, clean), "critics": of_critics.detach(), "alpha": alpha}
        return loss, figures

    @staticmethod
    def _weight(free: Tensor, border: float) -> Tensor:
        """Of the error inside a hole: its rim counts more (published: 4 pixels, 5 times)."""
        inner = -torch.nn.functional.max_pool2d(-free, 9, 1, 4)
        return free * (border - (border - 1) * inner)

    def preview(self, net: nn.Module, held_out: Sample, recipe: Recipe) -> Preview:
        assert isinstance(net, Agent)
        actor, s = net.net, self.settings(recipe)
        side = held_out.clean.shape[-1] // actor.multiple * actor.multiple
        window = (..., slice(0, side), slice(0, side))
        held_out = held_out.map(lambda t: t[window] if t.ndim == 4 else t)
        degraded, free = self._given(held_out, int(s["hole"]))
        x, by_step, columns = degraded, [float(psnr(degraded, held_out.clean).mean())], [degraded]
        for _ in range(actor.max_steps):
            x = torch.where(free > 0, actor.step(x, degraded)[0].float(), x)
            by_step.append(float(psnr(x, held_out.clean).mean()))
            columns.append(x)
        figures = {"psnr": by_step[-1], "psnr_gain": by_step[-1] - by_step[0]}
        figures |= {f"psnr/step{k}": value for k, value in enumerate(by_step)}
        shown = [columns[0], columns[1], columns[-1], held_out.clean]
        pictures = [c.clamp(0, 1).permute(0, 2, 3, 1).float().cpu().numpy() for c in shown]
        count = min(6, len(x))
        return Preview(
            figures,
            rows=[[column[i] for column in pictures] for i in range(count)],
            titles=("input", "step 1", f"step {actor.max_steps}", "target"),
            captions=[[""] * 4] * count,
        )

    def export(self, net: nn.Module, recipe: Recipe, target: Path, notes: Mapping[str, str]) -> None:
        assert isinstance(net, Agent)
        tasks = ["missing"] if recipe.settings.get("hole") else [i for i in IDS if recipe.weights.get(i, 0) > 0]
        header = {
            "settings": json.dumps({"least_gain": self.settings(recipe)["least_gain"]}),
            "tasks": json.dumps(tasks),
        }
        loading.save(net.net, target, architecture="rl-i2it", config=recipe.model, notes={**header, **notes})
