"""The config of a study: which maps are replaced by what, when, on which branch, and how the effect is measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from ieadapt.attention import StepWindow
from ieadapt.errors import UsageError, require_types
from ieadapt.notation import PERTURBATION_FORMS
from ieadapt.runs.flags import setting
from ieadapt.runs.settings import (
    GenerationConfig,
    Hardware,
    check_engine,
    check_perturbation,
    check_prompts,
    check_seeds,
)

if TYPE_CHECKING:
    from ieadapt.metrics import Metric

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

    perturb: str = setting("identity,uniform", ", ".join((*PERTURBATION_FORMS, "with commas")))
    sites: str | None = setting(None, "names, patterns or kinds, with commas, or [KIND:]top=N, bottom=N, random=N")
    seeds: int = setting(1, "videos per prompt")
    seed: int = setting(0, "the first seed; the next ones count up")
    window: str = setting("0:1", "START:STOP, the perturbed part of the steps")
    branch: str = setting("both", "both guidance branches, or cond alone")
    mode: str = setting("each", "each site alone, cumulative by EP, or per-head")
    metrics: str | None = setting(None, "names, with commas; the usual ones whose weights are installed by default")

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
            self.chosen_metrics  # noqa: B018 (which refuses an unknown one)
        if not self.perturbations:
            raise UsageError(
                "a study needs a perturbation", expected=", ".join(PERTURBATION_FORMS), got=repr(self.perturb)
            )

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
        from ieadapt.metrics import METRICS, select_metrics  # which need torch

        if self.metrics is not None:
            return select_metrics(self.metrics)
        return [METRICS[name] for name in STUDY_METRICS if METRICS[name].available]


def _normal(text: str) -> str:
    """`mix:0.50` and `mix:.5` are one perturbation, and have one name."""
    check_perturbation(text)  # which refuses an unknown one
    name, _, amount = text.partition(":")
    return f"{name}:{float(amount):g}" if amount else name


@dataclass(frozen=True)
class StudyRun:
    """The request of a study run.

    Attributes:
        model: a bundled name, a folder or a hub id.
        prompts: each different.
        study: what is perturbed and measured.
        generation: steps, size, guidance; its batch size is that of the perturbed videos too.
        engine: `local` or `ray`.
        workers: None for one per GPU, or per core as far as memory goes.
        strips: how many prompts have frames kept for the figures.
        hardware: device and precision.

    Raises:
        UsageError: no prompt, a blank one or one that stands twice, an unknown engine, or no workers.
    """

    model: str
    prompts: tuple[str, ...]
    study: StudyConfig = field(default_factory=StudyConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    engine: str = setting("local", "local (processes) or ray (a cluster)")
    workers: int | None = setting(None, "one per GPU or core by default")
    strips: int = setting(1, "prompts of which frames are kept for the figures")
    hardware: Hardware = field(default_factory=Hardware)

    def __post_init__(self) -> None:
        check_prompts(self.prompts)
        check_seeds(self.study.seed, len(self.prompts) * self.study.seeds)
        first = {prompt: number for number, prompt in reversed(list(enumerate(self.prompts, start=1)))}
        twice = [number for number, prompt in enumerate(self.prompts, start=1) if first[prompt] != number]
        if twice:
            got = f"prompt {twice[0]} is prompt {first[self.prompts[twice[0] - 1]]} again"
            remedy = "remove it; --seeds makes several videos of each prompt"
            raise UsageError("a prompt stands twice", got=got, remedy=remedy)
        check_engine(self.engine, self.workers)
        if self.strips < 0:
            raise UsageError(
                "frames are kept of some prompts, or of none", expected=">= 0", got=self.strips, where="--strips"
            )
        self.study.perturbed.steps(self.generation.num_inference_steps)  # which refuses a window without a step
