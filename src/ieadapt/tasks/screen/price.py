"""What a screen will take, said before it starts, and how much of it a budget allows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from ieadapt.errors import UsageError
from ieadapt.tasks.price import PassTimes, counted, format_duration
from ieadapt.tasks.study.grid import Condition

CHUNK = 32
"""Passes that share one plain pass and one encoding of the prompt."""


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
        films: videos that are generated in full as a check.
    """

    conditions: Sequence[Condition]
    steps: Sequence[int]
    prompts: int
    batch: int
    run_steps: int
    times: PassTimes
    films: int = 0

    @property
    def passes(self) -> int:
        """Passes of the denoiser from a replaced site on, one prompt each."""
        return len(self.conditions) * len(self.steps) * self.prompts

    @property
    def forwards(self) -> int | float:
        """The same in whole passes, with the trajectories and the plain passes beside them, without the check."""
        return self.prompts * self._per_prompt

    @property
    def _per_prompt(self) -> int | float:
        shares = sum(self.times.shares[condition.sites[0]] for condition in self.conditions)
        return self.run_steps + len(self.steps) * (-(-len(self.conditions) // CHUNK) + shares)

    @property
    def seconds(self) -> int | float:
        """About how long it takes on one worker."""
        films = self.films * self.run_steps / self.batch
        return (-(-self.prompts // self.batch) * self._per_prompt + films) * self.times.seconds

    def summary(self) -> str:
        """What is done and what it takes, in a line."""
        share = sum(self.times.shares[each.sites[0]] for each in self.conditions) / len(self.conditions)
        sites = len({each.sites for each in self.conditions})
        check = f"{counted(self.films, 'video')} as a check, " if self.films else ""
        return (
            f"{len(self.conditions)} replacements at {counted(sites, 'site')} x {counted(len(self.steps), 'step')} x "
            f"{counted(self.prompts, 'prompt')}: {self.passes:,} passes of {100 * share:.0f} % of the network, "
            f"{check}about {format_duration(self.seconds)} (a whole pass takes {self.times.seconds:.2g} s)"
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
                expected=f"at least {format_duration(plans[-1].seconds)}",
                got=format_duration(budget),
                where="--budget",
                remedy="raise it, or choose fewer --sites",
            )
        return fitting
