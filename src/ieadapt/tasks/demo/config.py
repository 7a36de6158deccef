"""The settings of the demo."""

from __future__ import annotations

from dataclasses import dataclass, field

from ieadapt.errors import UsageError
from ieadapt.runs.flags import setting
from ieadapt.runs.settings import GenerationConfig, Hardware
from ieadapt.tasks.enhance.config import EnhanceConfig


@dataclass(frozen=True)
class DemoRun:
    """The settings of the demo; the defaults suit a few minutes on two cores.

    Attributes:
        captions: number of held-out captions, each generated plain and enhanced.
        generation: steps, size, guidance.
        enhancement: scale, perturbation, sites, window.
        seed: of the captions and of the first video's noise.
        hardware: device and precision.

    Raises:
        UsageError: no caption.
    """

    captions: int = setting(6, "held-out captions, each generated plain and enhanced")
    generation: GenerationConfig = field(default_factory=lambda: GenerationConfig(num_inference_steps=8))
    enhancement: EnhanceConfig = field(default_factory=EnhanceConfig)
    seed: int = setting(0, "seed of the captions and of the first video's noise")
    hardware: Hardware = field(default_factory=Hardware)

    def __post_init__(self) -> None:
        if self.captions < 1:
            raise UsageError("the demo needs a caption", expected="--captions 1 or more", got=self.captions)
