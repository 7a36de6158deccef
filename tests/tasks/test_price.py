"""What a run costs is counted from its own settings, and said in a line."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from diffusers import DiffusionPipeline

from ieadapt.attention import find_sites
from ieadapt.models.scheduler_wrapper import can_start_late
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks import price
from ieadapt.tasks.price import PassTimes, price_videos, time_passes
from ieadapt.tasks.study.config import StudyConfig
from ieadapt.tasks.study.run import StudyRun, study_size
from tests.families import tiny_pipeline

GENERATION = GenerationConfig(4, guidance_scale=4.0, num_frames=9, height=16, width=16, batch_size=2)


def test_a_pass_is_timed_and_shared_out_over_the_sites() -> None:
    pipe = tiny_pipeline("cogvideox")
    scheduler, times = pipe.scheduler, time_passes(pipe, "a red ball", GENERATION)
    assert 0 < times.seconds < 60
    assert 0 < times.decoding < 60
    shares = [times.shares[site.name] for site in find_sites(pipe)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1  # nothing comes before the first site that a pass could replay
    assert pipe.scheduler is scheduler
    assert "step" not in vars(scheduler)


def test_the_line_adds_steps_and_decoding_by_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    own = tiny_pipeline("cogvideox")

    def timed(pipe: object, prompt: str, generation: GenerationConfig) -> PassTimes:
        assert (pipe, prompt, generation.batch_size) == (own, "a ball", 2)
        return PassTimes(3.0, {}, 10.0)

    monkeypatch.setattr(price, "time_passes", timed)
    hardware = SimpleNamespace(load=lambda model: own)
    config: Any = SimpleNamespace(hardware=hardware, model="m", prompts=("a ball", "a dog"), generation=GENERATION)
    assert price_videos(config, lambda pipe: (4, 1200)) == (
        "4 videos, 1,200 steps in all: about 30 min on one worker (a step of 2 videos takes 3 s, decoding 10 s)"
    )


@pytest.mark.parametrize(
    ("config", "conditions", "steps"),
    [
        (StudyConfig(), 4, 4),
        (StudyConfig(window="0.5:1", perturb="uniform"), 2, 2),
        (StudyConfig(mode="cumulative", perturb="uniform"), 4, 4),
        (StudyConfig(mode="per-head", perturb="uniform", seeds=3), 4, 4),
    ],
)
def test_the_size_of_a_study(config: StudyConfig, conditions: int, steps: int) -> None:
    pipe: DiffusionPipeline = tiny_pipeline("cogvideox")
    request = StudyRun("m", ("a ball", "a dog"), config, GENERATION)
    late = steps if can_start_late(pipe) else 4
    clips = 2 * config.seeds
    assert study_size(request, pipe) == (clips * (1 + conditions) + 2, clips * (4 + conditions * late) + 2 * 4)
