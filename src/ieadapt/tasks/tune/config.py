"""The request of a tune: which metric is to rise, at what price, and what counts as better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ieadapt.errors import UsageError, require_types
from ieadapt.runs.flags import setting
from ieadapt.runs.settings import BudgetRun, GenerationConfig, check_seeds

_STILL = ("motion", "sharpness")
METRICS: Mapping[str, tuple[str, ...]] = {
    "testbed_accuracy": (),
    "testbed_fit": (),
    "flicker": _STILL,
    "warp_error": _STILL,
    "mobilenet_consistency": _STILL,
    "clip_consistency": _STILL,
    "dino_consistency": _STILL,
    "sharpness": ("flicker", "warp_error"),
    "motion": ("flicker", "warp_error"),
    "clip_text": ("flicker",),
    "aesthetic": ("flicker",),
    "pickscore": ("flicker",),
}
"""What can be tuned, and its guards: a frozen, blurred or flickering video can fool the one, but not the others."""
LEAST_PROMPTS = 12
"""Six in each half: with fewer, an interval says nothing."""
DEFAULT_GENERATION = GenerationConfig(20)


@dataclass(frozen=True)
class TuneConfig:
    """What is raced, and what counts as better.

    Attributes:
        metric: what is to get better, one of `METRICS`.
        candidates: how many enhancements are raced, the first of the default ones.
        seeds: videos of each prompt.
        matters: the smallest gain that matters, in the metric's unit; None is a fifth of its spread over prompts.

    Raises:
        UsageError: an unknown metric or one whose weights are missing, or a number out of range.

    Example:
        >>> TuneConfig(metric="flicker").guards
        ('motion', 'sharpness')
    """

    metric: str = setting("testbed_accuracy", "what is to get better", choices=[*METRICS])
    candidates: int = setting(16, "how many enhancements are raced")
    seeds: int = setting(1, "videos of each prompt")
    matters: float | int | None = setting(
        None, "smallest gain that matters (default: a fifth of the spread over prompts)"
    )

    def __post_init__(self) -> None:
        require_types(self)
        if self.metric not in METRICS:
            raise UsageError("this metric cannot be tuned", expected=", ".join(METRICS), got=self.metric)
        if not self.of_testbed:
            from ieadapt.metrics import select_metrics  # which needs torch

            select_metrics([self.metric, *self.guards])
        for name, least in (("candidates", 2), ("seeds", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"too few {name} of a tune", expected=f">= {least}", got=getattr(self, name))
        if self.matters is not None and self.matters <= 0:
            raise UsageError("the smallest gain that matters is out of range", expected="> 0", got=self.matters)

    @property
    def guards(self) -> tuple[str, ...]:
        """Metrics that must not get worse."""
        return METRICS[self.metric]

    @property
    def of_testbed(self) -> bool:
        """Whether the metric is a score of the test bed, which only bundled models have."""
        return self.metric.startswith("testbed_")

    def higher_is_better(self, name: str) -> bool:
        """Which way a metric is better."""
        from ieadapt.metrics import select_metrics

        return name.startswith("testbed_") or select_metrics([name])[0].better != "lower"


@dataclass(frozen=True)
class TuneRun(BudgetRun):
    """The settings of a tune, beside those of every run with a budget: it races fewer candidates.

    Attributes:
        tune: what is raced, and what counts as better.
        profile: folder of a screen or measure run of this model, by which sites are chosen; without one, it measures.

    Raises:
        UsageError: too few prompts, no such time, an unknown engine, or no workers.
    """

    tune: TuneConfig = field(default_factory=TuneConfig)
    generation: GenerationConfig = field(default=DEFAULT_GENERATION)
    profile: Path | None = setting(None, "folder of a screen or measure run of this model")

    def __post_init__(self) -> None:
        super().__post_init__()
        different = len(set(self.prompts))
        if different < LEAST_PROMPTS:
            raise UsageError(
                "too few prompts to choose on one half and to prove on the other",
                expected=f"at least {LEAST_PROMPTS} different ones; 60 show what matters",
                got=different,
                where="--prompts",
            )
        check_seeds(self.seed, different * self.tune.seeds)

    @property
    def request(self) -> dict[str, Any]:
        """What a resumed run must share."""
        own = {"prompts": list(self.prompts), "seed": self.seed, "tune": vars(self.tune), "budget": self.budget}
        return {**self.shared, **own, "profile": None if self.profile is None else str(self.profile)}
