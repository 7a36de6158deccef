"""Which maps an enhancement changes, by how much: planned from a profile, or measured in the first steps of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ieadapt.attention import AttentionCall, AttentionSite
from ieadapt.errors import UsageError
from ieadapt.interventions import Record
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
        UsageError: nothing is chosen, or a measured figure is missing.
    """
    if config.adaptation.acts_on == "network":
        return Plan(())
    figures = profile.figures if profile else {}
    chosen = config.choice.choose(sites, **figures)
    heads: dict[str, tuple[int, ...]] = {}
    if config.head_choice is not None:
        heads = config.head_choice.choose(chosen, _required(profile, "choice of heads").head_ep)
        chosen = [site for site in chosen if site.name in heads]
    sharpened = config.sharpened.choose(sites, **figures) if config.sharpened else []
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


class Planner:
    """Gives the plan of every step: always the same one, or one measured in the first steps of each run.

    Online, it is an intervention that looks at the candidate sites for the first steps, all guidance branches alike,
    and plans from what they were; a new run of the pipeline is measured anew.

    Args:
        config: what is asked.
        sites: the model's sites.
        profile: the model's profile, or None.

    Attributes:
        candidates: sites that may be changed or must be measured.
        latest: the latest plan, or None while there is none.
    """

    def __init__(self, config: EnhanceConfig, sites: Sequence[AttentionSite], profile: EntropyProfile | None) -> None:
        self._config, self._sites = config, list(sites)
        self._online = config.online_steps
        self.latest = None if self._online else make_plan(config, sites, profile)
        self.candidates = self._candidates() if self.latest is None else self._changed(self.latest)
        self._record, self._step = Record(), -1

    def _candidates(self) -> list[AttentionSite]:
        rules = [rule for rule in (self._config.choice, self._config.sharpened) if rule is not None]
        wanted = {site for rule in rules for site in rule.candidates(self._sites)}
        return [site for site in self._sites if site in wanted]

    def _changed(self, plan: Plan) -> list[AttentionSite]:
        return [site for site in self._sites if site in plan.sites or site.name in plan.sharpened]

    def at(self, step: int) -> Plan | None:
        """The plan that holds at a step, or None while it is still measured."""
        if not self._online:
            return self.latest
        self._notice(step)
        if step < self._online:
            return None
        if self.latest is None:
            self.latest = make_plan(self._config, self.candidates, EntropyProfile.from_rows(self._record.records()))
        return self.latest

    def __call__(self, call: AttentionCall) -> None:
        """Measure a call of the first steps."""
        self._notice(call.step)
        if call.step < self._online:
            self._record(call)

    def _notice(self, step: int) -> None:
        """A step before the latest one belongs to a new run."""
        if step < self._step:
            self._record, self.latest = Record(), None
        self._step = step

    def __repr__(self) -> str:
        return f"Planner({self._config.entropy})"
