"""Which maps an enhancement changes, by how much, and what it costs: planned from a profile, or measured as it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field

import torch
from torch import Tensor

from ieadapt.attention import AttentionCall, AttentionSite, Clock, DenoiserCall, Prefix
from ieadapt.errors import FailureError, UsageError
from ieadapt.interventions import Record
from ieadapt.notation import counted
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.measure.profile import EntropyProfile


@dataclass(frozen=True)
class Plan:
    """What changes where.

    Attributes:
        sites: the changed sites, in order of execution.
        heads: by site name, the changed heads; empty where all heads are.
        shares: by site name, how much of the change is made, in 0..1.
        sharpened: further sites, whose maps are sharpened, with how much of it is made.
    """

    sites: tuple[AttentionSite, ...]
    heads: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    shares: Mapping[str, int | float] = field(default_factory=dict)
    sharpened: Mapping[str, int | float] = field(default_factory=dict)


def make_plan(config: EnhanceConfig, sites: Sequence[AttentionSite], profile: EntropyProfile | None) -> Plan:
    """The plan for a model with these sites.

    Raises:
        UsageError: nothing is chosen, or a measured value is missing.
    """
    if config.adaptation.acts_on == "network":
        return Plan(())
    statistics = profile.statistics if profile else {}
    chosen = config.choice.choose(sites, **statistics)
    heads: dict[str, tuple[int, ...]] = {}
    if config.head_choice is not None:
        ep_by_head = _required(profile, "choice of heads").head_ep if config.head_choice.needs_entropy else {}
        heads = config.head_choice.choose(chosen, ep_by_head)
        chosen = [site for site in chosen if site.name in heads]
    sharpened = config.sharpened.choose(sites, **statistics) if config.sharpened else []
    further = [site for site in sharpened if site not in chosen]
    ep = _required(profile, "weighting").ep if config.weighting == "ep" else {}
    missing = [site.name for site in (*chosen, *further) if ep and site.name not in ep]
    if missing:
        raise UsageError("the weighting needs the entropy of every site", got=f"a profile without {missing[0]}")
    return Plan(
        tuple(chosen),
        heads,
        {site.name: ep[site.name] / 100 if ep else 1.0 for site in chosen},
        {site.name: 1 - ep[site.name] / 100 if ep else 1.0 for site in further},
    )


def _required(profile: EntropyProfile | None, what: str) -> EntropyProfile:
    if profile is None:
        raise UsageError(
            f"the {what} needs the entropy of the sites",
            got="no profile",
            remedy="measure this model first and pass the profile, or take entropy=online",
        )
    return profile


@dataclass(frozen=True)
class Cost:
    """What enhancement has cost; costs of several batches add up.

    Attributes:
        passes: calls of the denoiser that the pipeline made.
        weak_passes: extra, weak calls.
        blocks_replayed: top-level blocks that weak passes took over from the pass before.
        blocks_computed: top-level blocks that weak passes computed.
        weak_seconds: time of the weak passes.
        seconds_saved: time that the replayed blocks took in the full passes, in proportion to the rows of weak passes.
    """

    passes: int = 0
    weak_passes: int = 0
    blocks_replayed: int = 0
    blocks_computed: int = 0
    weak_seconds: float = 0.0
    seconds_saved: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(round(a + b, 3) for a, b in zip(astuple(self), astuple(other), strict=True)))

    def summary(self) -> str:
        """What prefix reuse saved, in a sentence or two; empty where there was nothing to save."""
        blocks = self.blocks_replayed + self.blocks_computed
        if not blocks:
            return ""
        took = f"{self.weak_passes} weak pass{'es' * (self.weak_passes != 1)} took {self.weak_seconds:.1f} s"
        if not self.blocks_replayed:
            return f"{took}. No block comes before the first changed site, so none was replayed."
        return (
            f"{took}. {self.blocks_replayed} of {blocks} blocks were replayed, since the pass before had computed "
            f"them: about {self.seconds_saved:.1f} s were saved."
        )


class Enhancement:
    """An open enhancement: what it changes, and what it has cost so far.

    With `entropy="online"` the first steps of each run of the pipeline are measured, all guidance branches alike, and
    the plan is made from them; a new run is measured anew.

    Args:
        config: what changes where, when and how strongly.
        sites: the model's sites.
        profile: the model's profile, or None.
        size: frames, rows and columns of tokens that a run must have; None for any.

    Attributes:
        plan: the latest plan, or None while it is still measured.
        candidates: sites that may be changed or must be measured.
        passes: calls of the denoiser that the pipeline made.
        weak_passes: extra, weak calls.
        changed_steps: calls of the pipeline in which something was changed.
        replays: what the weak passes replay, one per denoiser with changed sites.
        weak_clock: time of the weak passes.
    """

    def __init__(
        self,
        config: EnhanceConfig,
        sites: Sequence[AttentionSite],
        profile: EntropyProfile | None = None,
        size: Sequence[int] | None = None,
    ) -> None:
        self.config, self._size = config, size
        self.plan = None if config.online_steps else make_plan(config, sites, profile)
        if self.plan is None:
            rules = filter(None, (config.choice, config.sharpened))
            possible = {site.name for rule in rules for site in rule.candidates(sites)}
        else:
            possible = {*self.plan.shares, *self.plan.sharpened}
        self.candidates = [site for site in sites if site.name in possible]
        self.passes = self.weak_passes = self.changed_steps = 0
        self.replays: list[Prefix] = []
        self.weak_clock: Clock | None = None
        self._record, self._step = Record(), -1

    @property
    def sites(self) -> tuple[AttentionSite, ...]:
        """The changed sites, by the latest plan; empty while they are still measured."""
        return self.plan.sites if self.plan else ()

    @property
    def heads(self) -> Mapping[str, tuple[int, ...]]:
        """By site name, the changed heads; empty where all heads are."""
        return self.plan.heads if self.plan else {}

    @property
    def sharpened(self) -> tuple[str, ...]:
        """Names of the sites whose maps are sharpened."""
        return tuple(self.plan.sharpened) if self.plan else ()

    @property
    def cost(self) -> Cost:
        """Passes, blocks and seconds so far."""
        return Cost(
            self.passes,
            self.weak_passes,
            sum(prefix.replayed for prefix in self.replays),
            sum(prefix.computed for prefix in self.replays),
            self.weak_clock.seconds if self.weak_clock else 0.0,
            sum((prefix.saved.seconds for prefix in self.replays), 0.0),
        )

    def plan_at(self, step: int) -> Plan | None:
        """The plan that holds at a step, or None while it is still measured."""
        if not self.config.online_steps:
            return self.plan
        self._notice(step)
        if step < self.config.online_steps:
            return None
        if self.plan is None:
            self.plan = make_plan(self.config, self.candidates, EntropyProfile.from_rows(self._record.records()))
        return self.plan

    def measure(self, call: AttentionCall) -> None:
        """Measure an attention call of the first steps; an intervention that only looks."""
        self._notice(call.step)
        if call.step < self.config.online_steps:
            self._record(call)

    def watch(self, call: DenoiserCall, prediction: Tensor) -> None:
        """Count a call of the denoiser, and refuse a run of another length or size than was planned for."""
        self.passes += 1
        if call.steps is not None:
            self.config.factors(call.steps)
        if self._size is not None and call.grid is not None:
            running = [call.grid.frames, *call.grid.resolutions[0]]
            if list(self._size) != running:
                raise UsageError(
                    "the profile was measured at another size",
                    expected=_format_grid(running),
                    got=_format_grid(self._size),
                    remedy="measure at this size, or force the run (--force)",
                )
        if self.config.mode == "direct" and self.plan_at(call.step) and self.config.strength(call.step, call.steps):
            self.changed_steps += 1

    def require_used(self) -> None:
        """Refuse a block in which nothing was enhanced.

        Raises:
            FailureError: that is so.
        """
        if not self.changed_steps:
            steps = self.config.online_steps
            first = f", after {steps} measured steps" if steps else ""
            raise FailureError(
                "no step was enhanced",
                got=f"window {self.config.start}..{self.config.stop}{first}",
                remedy="call the pipeline inside the block, with enough steps for the window"
                + (", and with guidance" if self.config.mode == "combine" else ""),
            )

    def _notice(self, step: int) -> None:
        """A step before the latest one belongs to a new run."""
        if step < self._step:
            self._record, self.plan = Record(), None
        self._step = step

    def __repr__(self) -> str:
        return f"Enhancement({self.config!r}, {counted(len(self.sites), 'site')})"


def _format_grid(grid: Sequence[int]) -> str:
    frames, rows, columns = grid
    return f"{frames} frames of {rows} x {columns} tokens"


def require_finite(prediction: Tensor, call: DenoiserCall) -> None:
    """Refuse a prediction that was not finite before anything was added to it.

    Raises:
        FailureError: with the step, and the sites that were changed in this pass.
    """
    if not torch.isfinite(prediction).all():
        changed = ", ".join(dict.fromkeys(call.changed_by))
        raise FailureError(
            "the denoiser's prediction is not finite",
            where=f"step {call.step}" + (f", changed at {changed}" if changed else ", before anything was changed"),
            remedy="use float32 or bfloat16 instead of float16",
        )
