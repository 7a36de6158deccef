"""The request of a screen: which maps are tried where, at which steps; the effects that it predicts; and its price."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ieadapt.attention import StepWindow
from ieadapt.errors import UsageError, require_types
from ieadapt.notation import counted, format_duration
from ieadapt.runs.flags import setting
from ieadapt.runs.settings import BudgetRun, GenerationConfig
from ieadapt.tasks.study.config import StudyConfig
from ieadapt.tasks.study.grid import Condition

if TYPE_CHECKING:
    from ieadapt.tasks.price import PassTimes

DEFAULT_GENERATION = GenerationConfig(20, batch_size=1)
MOST_STEPS = 20
"""More chosen steps than this are a slip."""


@dataclass(frozen=True)
class ScreenedEffect:
    """An effect on the finished video that a screen predicts.

    Attributes:
        statistic: the column of a pass that speaks for it, see `ieadapt.tasks.screen.method.statistics`.
        window: the part of the run whose chosen steps count; where none is inside, there is no prediction.
        definition: what it is, in a line.
    """

    statistic: str
    window: StepWindow
    definition: str


EFFECTS: Mapping[str, ScreenedEffect] = {
    "structure": ScreenedEffect(
        "change", StepWindow(0.0, 1.0), "how far the predicted clean video moves, mean over the steps"
    ),
    "quality": ScreenedEffect(
        "change", StepWindow(0.3, 0.6), "how far the predicted clean video moves in the middle of the run"
    ),
    "motion": ScreenedEffect("lost", StepWindow(0.1, 0.5), "differences between frames that are lost early in the run"),
    "flicker": ScreenedEffect(
        "rise", StepWindow(0.6, 1.0), "differences between frames that appear late where nothing moved"
    ),
}
"""By name; larger is more damage."""


@dataclass(frozen=True)
class ScreenConfig:
    """What a screen tries, and when.

    Attributes:
        maps: what the maps become, one at a time: perturbations with commas, as in a study.
        sites: names, patterns or kinds with commas; None for all.
        at: the steps at which sites are tried, as fractions of the run with commas.
        heads: try every head of every site instead of whole sites.

    Raises:
        UsageError: an unknown perturbation, or steps that are no fractions of a run.

    Example:
        >>> ScreenConfig(at="0.2,0.45").steps(20)
        (4, 9)
    """

    maps: str = setting("identity,uniform", "what maps become, with commas: identity, uniform")
    sites: str | None = setting(None, "names, patterns or kinds, with commas; all by default")
    at: str = setting("0.2,0.45,0.7,0.9", "steps that are tried, as fractions of the run")
    heads: bool = setting(False, "try every head of every site")

    def __post_init__(self) -> None:
        require_types(self)
        self.study  # noqa: B018 (which refuses unknown perturbations)
        self.fractions  # noqa: B018 (which refuses what is no fraction)

    @property
    def study(self) -> StudyConfig:
        """The conditions as those of a study."""
        return StudyConfig(perturb=self.maps, sites=self.sites, mode="per-head" if self.heads else "each")

    @property
    def fractions(self) -> tuple[float, ...]:
        """Where in the run sites are tried."""
        try:
            listed = tuple(sorted({float(part) for part in self.at.split(",")}))
        except ValueError:
            listed = ()
        if not listed or len(listed) > MOST_STEPS or not all(0 <= each < 1 for each in listed):
            raise UsageError(
                "not a choice of steps", expected=f"1 to {MOST_STEPS} fractions in [0, 1)", got=self.at, where="--at"
            )
        return listed

    def steps(self, number: int) -> tuple[int, ...]:
        """The steps that are tried in a run of so many."""
        return tuple(sorted({min(round(each * number), number - 1) for each in self.fractions}))


@dataclass(frozen=True)
class ScreenRun(BudgetRun):
    """The settings of a screen, beside those of every run with a budget: it takes fewer prompts, then fewer steps.

    Attributes:
        screen: what is tried, and when.
        check: of so many sites of largest, and of smallest, predicted effect one video is generated in full.

    Raises:
        UsageError: no prompt, a blank one, no such time, an unknown engine, or no workers.
    """

    screen: ScreenConfig = field(default_factory=ScreenConfig)
    generation: GenerationConfig = field(default=DEFAULT_GENERATION)
    check: int = setting(3, "strongest and weakest sites that are generated in full as a check")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.check < 0:
            raise UsageError("a number of sites is negative", expected=">= 0", got=self.check, where="--check")

    @property
    def request(self) -> dict[str, Any]:
        """What a resumed run must share."""
        own = {"prompts": list(self.prompts), "seed": self.seed, "screen": vars(self.screen)}
        return {**self.shared, **own, "budget": self.budget, "check": self.check}


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
