"""Late start: the rest of a run from saved latents gives what the whole run gave."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UniPCMultistepScheduler

from ieadapt.errors import FailureError, UsageError
from ieadapt.models.scheduler_wrapper import can_start_late, kept_latents, late_start
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.generate import generate
from tests.families import PROMPTS, tiny_pipeline
from tests.tiny import call_arguments


def short(family: str, **changes: Any) -> GenerationConfig:
    size = {name: value for name, value in call_arguments(family).items() if name in ("height", "width", "num_frames")}
    return GenerationConfig(**{"num_inference_steps": 4, **size, **changes})


@pytest.mark.parametrize("family", ["animatediff", "modelscope", "ltx"])  # test_study_videos has every family
def test_the_rest_of_a_run_ends_where_the_whole_run_ends(family: str) -> None:
    pipe, config = tiny_pipeline(family), short(family)
    assert can_start_late(pipe)
    steps: list[int] = []
    with kept_latents(pipe, 2) as kept:
        whole = generate(pipe, PROMPTS, config)
    before = dict(vars(pipe.scheduler)), dict(vars(pipe))
    with late_start(pipe, kept[0], 2):
        rest = generate(pipe, PROMPTS, config, progress=lambda done, total: steps.append(done))
    torch.testing.assert_close(rest, whole, rtol=1e-3, atol=1e-4)
    assert max(steps) == 2
    assert set(vars(pipe.scheduler)) == set(before[0])
    assert set(vars(pipe)) == set(before[1])


def test_latents_are_kept_batch_by_batch() -> None:
    pipe = tiny_pipeline("wan")
    with kept_latents(pipe, 1) as kept:
        generate(pipe, PROMPTS, short("wan", batch_size=1))
    assert [latents.shape[0] for latents in kept] == [1, 1]


def test_a_scheduler_with_a_history_cannot_start_late(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny_pipeline("wan")
    own = pipe.scheduler
    pipe.scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    try:
        assert not can_start_late(pipe)
        with (
            pytest.raises(UsageError, match=r"cannot start at a later step; expected one of DDIM.*got UniPC"),
            late_start(pipe, torch.zeros(1), 1),
        ):
            pass
    finally:
        pipe.scheduler = own


def test_latents_of_another_run_are_refused() -> None:
    pipe = tiny_pipeline("wan")
    with pytest.raises(FailureError, match="the latents are of another run"), late_start(pipe, torch.zeros(1), 1):
        generate(pipe, PROMPTS[0], short("wan"))
