"""The settings of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

from ieadapt.runs.flags import setting
from ieadapt.runs.settings import ReadConfig


@dataclass(frozen=True)
class EvaluateConfig:
    """How videos are evaluated.

    Attributes:
        metrics: names with commas; None for every metric that can run.
        weights: see `read_places`.
        reading: length, size, alignment.
    """

    metrics: str | None = setting(None, "names with commas; by default all that can run")
    weights: str | None = setting(None, "weights of CLIP, RAFT, ...: a folder of them, or clip=PLACE,raft=PLACE")
    reading: ReadConfig = field(default_factory=ReadConfig)
