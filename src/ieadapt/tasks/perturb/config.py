"""The settings of a perturb run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ieadapt.attention import GuidanceChoice, StepWindow
from ieadapt.errors import UsageError
from ieadapt.notation import PERTURBATION_FORMS, Scope
from ieadapt.runs.flags import setting
from ieadapt.runs.settings import PromptRun, check_perturbation
from ieadapt.tasks.measure.layer_choice import SiteChoice

if TYPE_CHECKING:
    from ieadapt.interventions import Perturbation

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

    perturbation: str = setting("identity", ", ".join(PERTURBATION_FORMS))
    sites: str = setting("temporal/joint", "kinds, names or patterns, or [KIND:]RULE=AMOUNT, as temporal:top=3")
    start: float = setting(0.0, "fraction of the steps at which it begins")
    stop: float = setting(1.0, "fraction of the steps at which it ends")
    scope: str = setting("video", "part of a joint map: video, video-renormalised, all", choices=get_args(Scope))
    branch: str = setting("both", "guidance branches: both, cond or uncond", choices=tuple(BRANCHES))
    profile: Path | None = setting(None, "folder of a measure run; without one it measures first where it must")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.branch not in BRANCHES:
            raise UsageError("unknown guidance branch", expected=", ".join(BRANCHES), got=self.branch, where="--branch")
        if self.scope not in get_args(Scope):
            raise UsageError("unknown scope", expected=", ".join(get_args(Scope)), got=self.scope, where="--scope")
        check_perturbation(self.perturbation)
        SiteChoice.parse(self.sites)
        StepWindow(self.start, self.stop)

    @property
    def intervention(self) -> Perturbation:
        """The perturbation itself."""
        from ieadapt.interventions import parse_perturbation

        return parse_perturbation(self.perturbation, scope=self.scope)  # type: ignore[arg-type]

    @property
    def steps(self) -> StepWindow:
        """When maps are replaced."""
        return StepWindow(self.start, self.stop)

    @property
    def choice(self) -> SiteChoice:
        """The rule behind `sites`."""
        return SiteChoice.parse(self.sites, self.seed)
