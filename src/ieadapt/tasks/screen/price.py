"""What a screen will take, said before it starts: one timed pass, and how much of it each site leaves to compute."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

from ieadapt.attention import Prefix, attention_modules, denoisers_of, family_of, find_sites
from ieadapt.attention.restore import around
from ieadapt.errors import UsageError
from ieadapt.tasks.generate import GenerationConfig, quiet, run_batch
from ieadapt.tasks.study.grid import Condition

CHUNK = 32
"""Passes that share one plain pass and one encoding of the prompt."""
TIMED_STEPS = 2
"""The first warms up; the last is timed."""


@dataclass(frozen=True)
class PassTimes:
    """How long a plain step takes, and how much of it a pass of each site takes.

    Attributes:
        seconds: of a step of one batch, both guidance branches.
        shares: by site name, the share of a step that a pass from this site on computes.
    """

    seconds: int | float
    shares: Mapping[str, int | float]


@dataclass(frozen=True)
class ScreenPlan:
    """What a screen does, and what that takes.

    Attributes:
        conditions: what is replaced by what.
        steps: that are tried.
        prompts: how many of the prompts.
        batch: prompts that share a pass.
        run_steps: denoising steps of a trajectory.
        times: of a pass.
    """

    conditions: Sequence[Condition]
    steps: Sequence[int]
    prompts: int
    batch: int
    run_steps: int
    times: PassTimes

    @property
    def passes(self) -> int:
        """Passes of the denoiser from a replaced site on, one prompt each."""
        return len(self.conditions) * len(self.steps) * self.prompts

    @property
    def forwards(self) -> int | float:
        """The same in whole passes, with the trajectories and the plain passes beside them."""
        shares = sum(self.times.shares[condition.sites[0]] for condition in self.conditions)
        plain = -(-len(self.conditions) // CHUNK)
        return self.prompts * (self.run_steps + len(self.steps) * (plain + shares))

    @property
    def seconds(self) -> int | float:
        """About how long it takes on one worker."""
        return self.forwards / self.batch * self.times.seconds

    def summary(self) -> str:
        """What is done and what it takes, in a line."""
        share = sum(self.times.shares[each.sites[0]] for each in self.conditions) / len(self.conditions)
        sites = len({each.sites for each in self.conditions})
        return (
            f"{len(self.conditions)} replacements at {_counted(sites, 'site')} x {_counted(len(self.steps), 'step')} x "
            f"{_counted(self.prompts, 'prompt')}: {self.passes:,} passes of {100 * share:.0f} % of the network, "
            f"about {spoken_time(self.seconds)} (a whole pass takes {self.times.seconds:.2g} s)"
        )

    def within(self, budget: int | float) -> ScreenPlan:
        """The largest part of the plan that keeps to a budget in seconds: first fewer prompts, then fewer steps.

        Raises:
            UsageError: one prompt at one step takes longer.
        """
        middle = self.steps[(len(self.steps) - 1) // 2]
        fewer = sorted({self.steps[0], middle, self.steps[-1]})
        smaller = [(self.steps, count) for count in range(self.prompts, min(2, self.prompts) - 1, -1)]
        smaller += [(steps, count) for steps in (fewer, [middle]) for count in range(min(2, self.prompts), 0, -1)]
        plans = [dataclasses.replace(self, steps=tuple(steps), prompts=count) for steps, count in smaller]
        fitting = next((plan for plan in plans if plan.seconds <= budget), None)
        if fitting is None:
            raise UsageError(
                "the budget is below one prompt at one step",
                expected=f"at least {spoken_time(plans[-1].seconds)}",
                got=spoken_time(budget),
                where="--budget",
                remedy="raise it, or choose fewer --sites",
            )
        return fitting


def time_passes(pipe: DiffusionPipeline, prompt: str, generation: GenerationConfig) -> PassTimes:
    """Run one batch for two steps and time the second.

    Args:
        pipe: the pipeline.
        prompt: of every video of the batch.
        generation: size, guidance, videos of a batch.
    """
    marks: list[float] = []

    def timed(proceed: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        marks.append(time.perf_counter())
        return proceed(*args, **kwargs)

    short = dataclasses.replace(generation, num_inference_steps=TIMED_STEPS)
    size = generation.batch_size
    with torch.no_grad(), quiet(pipe), around(pipe.scheduler, "step", timed):
        run_batch(pipe, [prompt] * size, short, [0] * size, output_type="latent")
    return PassTimes(marks[-1] - marks[-2], _shares(pipe))


def _shares(pipe: DiffusionPipeline) -> dict[str, float]:
    """By site name, the share of the denoiser's parameters in and after the stage of the site."""
    sites = find_sites(pipe)
    shares = {}
    for denoiser in denoisers_of(pipe).values():
        prefix, whole, own = (
            Prefix(denoiser, family_of(denoiser), lambda: False),
            _size(denoiser),
            set(denoiser.modules()),
        )
        for site, module in zip(sites, attention_modules(pipe, sites), strict=True):
            if module in own:
                shares[site.name] = 1 - sum(_size(stage) for stage in prefix.before([module])) / whole
    return shares


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def spoken_time(seconds: int | float) -> str:
    """A time as a person says it.

    Example:
        >>> spoken_time(42), spoken_time(1260), spoken_time(148_000)
        ('42 s', '21 min', '41 h')
    """
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.{0 if seconds >= 36000 else 1}f} h"
