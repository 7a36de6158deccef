"""What a perturb run is asked, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from ieadapt.attention import AttentionSite, GuidanceChoice, StepWindow
from ieadapt.errors import UsageError
from ieadapt.functional import Scope
from ieadapt.interventions import AMOUNTS, Perturbation, parse_perturbation
from ieadapt.tasks.generate import PromptRun
from ieadapt.tasks.measure.layer_choice import SiteChoice

BRANCHES: Mapping[str, GuidanceChoice] = {"both": "all", "cond": "cond", "uncond": "uncond"}


@dataclass(frozen=True)
class PerturbRun(PromptRun):
    """The settings of a perturb run, beside those of every run with prompts; a random choice of sites takes its seed.

    Attributes:
        perturbation: what the chosen maps become.
        sites: which maps, as `SiteChoice` reads them.
        start: fraction of the steps at which the replacing begins.
        stop: fraction of the steps at which it ends.
        scope: which part of a joint map is replaced.
        branch: whose maps: of both guidance branches, or of one.
        profile: folder of a measure run of this model; without one, and if the choice of sites needs it, the model is
            measured first.

    Raises:
        UsageError: anything here that cannot be.
    """

    perturbation: str = field(default="identity", metadata={"help": f"identity, uniform, skip, {AMOUNTS}"})
    sites: str = field(
        default="temporal/joint",
        metadata={"help": "kinds, names or patterns, or [KIND:]RULE=AMOUNT, as temporal:top=3"},
    )
    start: float = field(default=0.0, metadata={"help": "fraction of the steps at which it begins"})
    stop: float = field(default=1.0, metadata={"help": "fraction of the steps at which it ends"})
    scope: str = field(
        default="video",
        metadata={"help": "part of a joint map: video, video-renormalised, all", "choices": get_args(Scope)},
    )
    branch: str = field(
        default="both", metadata={"help": "guidance branches: both, cond or uncond", "choices": tuple(BRANCHES)}
    )
    profile: Path | None = field(
        default=None, metadata={"help": "folder of a measure run; without one it measures first where it must"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.branch not in BRANCHES:
            raise UsageError("unknown guidance branch", expected=", ".join(BRANCHES), got=self.branch, where="--branch")
        if self.scope not in get_args(Scope):
            raise UsageError("unknown scope", expected=", ".join(get_args(Scope)), got=self.scope, where="--scope")
        _ = self.intervention, self.choice, self.steps

    @property
    def intervention(self) -> Perturbation:
        """The perturbation itself."""
        return parse_perturbation(self.perturbation, scope=self.scope)  # type: ignore[arg-type]

    @property
    def steps(self) -> StepWindow:
        """When maps are replaced."""
        return StepWindow(self.start, self.stop)

    @property
    def choice(self) -> SiteChoice:
        """The rule behind `sites`."""
        return SiteChoice.parse(self.sites, self.seed)


@dataclass(frozen=True)
class Perturbed:
    """One prompt, original and perturbed.

    Attributes:
        name: in the names of its files.
        prompt: what the video shows.
        seed: of its noise.
        measures: the perturbed video against the original one, by metric; metrics that refuse it are left out.
    """

    name: str
    prompt: str
    seed: int
    measures: Mapping[str, float]


@dataclass(frozen=True)
class PerturbResult:
    """What a perturb run found.

    Attributes:
        sites: whose maps were replaced.
        videos: one per prompt.
    """

    sites: Sequence[AttentionSite]
    videos: Sequence[Perturbed]
