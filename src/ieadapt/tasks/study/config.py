"""The config of a study: which maps are replaced by what, when, on which branch, and how the effect is measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from ieadapt.attention import StepWindow
from ieadapt.errors import UsageError, require_types
from ieadapt.interventions import PERTURBATIONS, parse_perturbation
from ieadapt.metrics import METRICS, Metric, select_metrics

Branch = Literal["both", "cond"]
Mode = Literal["each", "cumulative", "per-head"]

STUDY_METRICS = (
    *("psnr", "ssim", "st_lpips", "warp_error", "flicker", "mobilenet_consistency", "motion", "sharpness"),
)
"""What a study measures by default: at least one metric of every aspect, defined for clips of any size."""


@dataclass(frozen=True)
class StudyConfig:
    """How a study perturbs and measures; frozen, and recorded with its results.

    Attributes:
        perturb: perturbations with commas: `identity`, `uniform`, `mix:WEIGHT`, `temperature:T`, `blur:SIGMA`, `skip`.
        sites: names, patterns or kinds with commas, or a choice by entropy such as `temporal:top=3`; None for all.
            Identity is left out at cross-attention, where there is none.
        seeds: how many videos each prompt gets; their seeds count up from `seed`.
        seed: the first seed.
        window: `start:stop`, the part of the run that is perturbed, in fractions of its steps.
        branch: whose maps are replaced: `both` guidance branches, or `cond` alone.
        mode: `each` perturbs one site at a time; `cumulative` the k sites of highest, and of lowest, EP of each kind,
            k growing; `per-head` one head of one site at a time.
        metrics: names with commas; None for `STUDY_METRICS`, without those whose weights are not installed.

    Raises:
        UsageError: an unknown perturbation, metric, branch or mode, a number out of range, or no window.

    Example:
        >>> config = StudyConfig(perturb="identity, mix:0.5", window="0.5:1")
        >>> config.perturbations, config.perturbed.steps(8)
        (('identity', 'mix:0.5'), range(4, 8))
    """

    perturb: str = field(
        default="identity,uniform",
        metadata={"help": "identity, uniform, mix:WEIGHT, temperature:T, blur:SIGMA, skip, with commas"},
    )
    sites: str | None = field(
        default=None, metadata={"help": "names, patterns or kinds, with commas, or [KIND:]top=N, bottom=N, random=N"}
    )
    seeds: int = field(default=1, metadata={"help": "videos per prompt"})
    seed: int = field(default=0, metadata={"help": "the first seed; the next ones count up"})
    window: str = field(default="0:1", metadata={"help": "START:STOP, the perturbed part of the steps"})
    branch: str = field(default="both", metadata={"help": "both guidance branches, or cond alone"})
    mode: str = field(default="each", metadata={"help": "each site alone, cumulative by EP, or per-head"})
    metrics: str | None = field(
        default=None, metadata={"help": "names, with commas; the usual ones whose weights are installed by default"}
    )

    def __post_init__(self) -> None:
        require_types(self)
        for name, known in (("branch", get_args(Branch)), ("mode", get_args(Mode))):
            if getattr(self, name) not in known:
                raise UsageError(f"unknown {name} of a study", expected=", ".join(known), got=getattr(self, name))
        if self.seeds < 1:
            raise UsageError("a study needs seeds", expected=">= 1", got=self.seeds, where="--seeds")
        if self.seed < 0:
            raise UsageError("a seed cannot be negative", expected=">= 0", got=self.seed, where="--seed")
        StepWindow.of(self.window)
        if self.metrics is not None:
            select_metrics(self.metrics)
        if not self.perturbations:
            raise UsageError("a study needs a perturbation", expected=", ".join(PERTURBATIONS), got=repr(self.perturb))

    @property
    def perturbations(self) -> tuple[str, ...]:
        """The perturbations by name and amount, each written in one way only."""
        return tuple(dict.fromkeys(_normal(text.strip()) for text in self.perturb.split(",") if text.strip()))

    @property
    def perturbed(self) -> StepWindow:
        """The part of the run that is perturbed."""
        return StepWindow.of(self.window)

    @property
    def chosen_metrics(self) -> list[Metric]:
        """The metrics that are computed."""
        if self.metrics is not None:
            return select_metrics(self.metrics)
        return [METRICS[name] for name in STUDY_METRICS if METRICS[name].available]


def _normal(text: str) -> str:
    """`mix:0.50` and `mix:.5` are one perturbation, and have one name."""
    parse_perturbation(text)  # which refuses an unknown one
    name, _, amount = text.partition(":")
    return f"{name}:{float(amount):g}" if amount else name
