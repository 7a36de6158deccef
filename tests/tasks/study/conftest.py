"""A tiny model in a folder, and the smallest study of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ieadapt.runs.settings import GenerationConfig, Hardware
from ieadapt.tasks.study.config import StudyConfig
from ieadapt.tasks.study.run import StudyRun
from tests.tiny import build

PROMPTS = ("a red ball moving left", "a blue star over the hills")
SITE = "mid_block.attentions.0.transformer_blocks.0.attn1"
OTHER = "mid_block.motion_modules.0.transformer_blocks.0.attn1"
SMALL = GenerationConfig(2, height=16, width=24, num_frames=5, batch_size=1)
ASKED = StudyConfig(sites=f"{SITE},{OTHER}", metrics="psnr,sharpness")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny AnimateDiff pipeline."""
    folder = tmp_path_factory.mktemp("models") / "animatediff"
    build("animatediff").save_pretrained(folder)
    return folder


@pytest.fixture
def asked(model: Path) -> Callable[..., StudyRun]:
    """A study run of eight cells, with changes."""

    def make(study: dict[str, Any] | None = None, **changes: Any) -> StudyRun:
        run = StudyRun(
            str(model), PROMPTS, dataclasses.replace(ASKED, **study or {}), SMALL, workers=1, hardware=Hardware("cpu")
        )
        return dataclasses.replace(run, **changes)

    return make


def same(one: pl.DataFrame, other: pl.DataFrame, tolerance: float = 0.0) -> None:
    """Fail unless two tables hold the same cells with the same numbers."""
    assert one["key"].to_list() == other["key"].to_list()
    measured = one.columns[one.columns.index("ep") :]
    for name in measured:
        assert (one[name] - other[name]).abs().max() <= tolerance, name
