"""Runs along a noise schedule: the pipeline's own videos, from any step, and the pipeline as before.

Clips that cannot be edited are refused before anything is computed, with what would fit.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ieadapt.attention import DenoiserCall, family_of, wrap_denoiser
from ieadapt.errors import FailureError, UsageError
from ieadapt.models.memory import memory_estimate
from ieadapt.models.noise_schedule import NoiseSchedule
from ieadapt.models.scheduler_wrapper import StepFunctionWrapper
from ieadapt.models.video_latents import encode_video
from ieadapt.tasks.edit.inversion import invert
from ieadapt.tasks.edit.method import edit
from ieadapt.tasks.edit.pipeline_run import PipelineRunner, check_source_clip
from tests.families import captured, every_family, tiny_pipeline
from tests.tasks.edit.fixture import SOURCE, TARGET, clip, run_from
from tests.tiny import call_arguments


def _noise(family: str, videos: int) -> Tensor:
    like = encode_video(tiny_pipeline(family), clip(family))
    return torch.randn((videos, *like.shape[1:]), generator=torch.Generator().manual_seed(3))


@every_family
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_whole_run_is_the_pipelines_own(family: str, scale: float) -> None:
    pipe, noise = tiny_pipeline(family), _noise(family, 2)
    runner = PipelineRunner(pipe, clip(family), 3)
    argument = family_of(captured(family)[0]).guidance_argument
    size = {name: value for name, value in call_arguments(family).items() if name != "max_sequence_length"}
    guided: dict[str, Any] = {argument: scale, "negative_prompt": ["grey"] * 2} if scale > 1 else {argument: scale}
    own = runner.scheduler.__class__.from_config(runner.scheduler.config)
    before, pipe.scheduler = pipe.scheduler, own  # the tiny CogVideoX clips its samples, which has no inverse
    expected = pipe([SOURCE, TARGET], latents=noise.clone(), num_inference_steps=3, output_type="pt", **guided, **size)
    pipe.scheduler = before
    found = runner.decode(run_from(runner, noise, [SOURCE, TARGET], 0, guidance_scale=scale, negative="grey"))
    torch.testing.assert_close(found, expected.frames.clamp(0, 1), rtol=1e-3, atol=2e-4)


@every_family
def test_the_rest_of_a_run_ends_where_the_whole_run_ends(family: str) -> None:
    runner, kept = PipelineRunner(tiny_pipeline(family), clip(family), 4), []

    def keeping(schedule: NoiseSchedule, step: int, latents: Tensor, prediction: Tensor) -> Tensor:
        kept.append(latents)
        return schedule.forward(step, latents, prediction)

    whole = run_from(runner, _noise(family, 1), [SOURCE], 0, step_function=keeping)
    rest = run_from(runner, kept[2], [SOURCE], 2)
    torch.testing.assert_close(rest, whole, rtol=1e-3, atol=1e-4)


@every_family
def test_the_way_back_takes_the_same_steps_in_the_other_order(family: str) -> None:
    runner, seen = PipelineRunner(tiny_pipeline(family), clip(family), 4), []

    def step_back(schedule: NoiseSchedule, step: int, latents: Tensor, prediction: Tensor) -> Tensor:
        assert prediction.shape == latents.shape
        seen.append(step)
        return schedule.backward(step, latents, prediction)

    timesteps: list[float] = []

    def look(call: DenoiserCall, prediction: Tensor) -> None:
        timesteps.append(float(torch.as_tensor(call.arguments["timestep"]).flatten()[0]))

    clean, backwards = encode_video(runner.pipe, clip(family)), range(3, 0, -1)
    with wrap_denoiser(runner.pipe, look):
        runner.run(StepFunctionWrapper(runner.scheduler, clean, backwards, step_back), [SOURCE])
    assert seen == [3, 2, 1]
    schedule = runner.schedule_for(_noise(family, 1))
    assert timesteps == pytest.approx(schedule.timesteps.flip(0)[:3].tolist())


@every_family
def test_the_pipeline_is_as_before(family: str) -> None:
    pipe = tiny_pipeline(family)
    before = dict(vars(pipe))
    runner = PipelineRunner(pipe, clip(family), 2)
    runner.decode(_noise(family, 1))
    with pytest.raises(FailureError, match=r"the latents are of another run; expected .*got \(1, 2, 3\)"):
        run_from(runner, torch.zeros(1, 2, 3), [SOURCE], 0)
    after = dict(vars(pipe))
    assert set(after) == set(before)
    assert after["scheduler"] is before["scheduler"]


def test_free_init_is_refused() -> None:
    pipe = tiny_pipeline("animatediff")
    pipe.enable_free_init(num_iters=2)
    try:
        with pytest.raises(
            UsageError, match=r"FreeInit draws noise anew during a run.*remedy: call pipe\.disable_free_init"
        ):
            PipelineRunner(pipe, clip("animatediff"), 2)
    finally:
        pipe.disable_free_init()


@every_family
def test_a_clip_that_fits(family: str) -> None:
    check_source_clip(tiny_pipeline(family), clip(family))


@pytest.mark.parametrize(
    ("family", "frames", "message"),
    [
        (
            "wan",
            torch.rand(9, 1, 32, 48),
            r"not a clip; expected frames of shape \(frame, 3, height, width\); got \(9, 1,",
        ),
        ("wan", torch.rand(1, 3, 32, 48), "a clip needs frames; expected at least 2; got 1"),
        ("wan", torch.rand(0, 3, 32, 48), "a clip needs frames; expected at least 2; got 0"),
        ("wan", 2 * torch.ones(9, 3, 32, 48), r"colours out of range; expected finite values in \[0, 1\]; got up to 2"),
        ("wan", torch.full((9, 3, 32, 48), torch.nan), "colours out of range"),
        (
            "wan",
            torch.rand(8, 3, 32, 50),
            r"cannot take a clip of this size; expected height and width in multiples of 16, 1 more than a multiple of "
            r"4 frames; got 8 frames of 50x32; in WanPipeline; remedy: the nearest size below it is 5 frames of 48x32",
        ),
        (
            "animatediff",
            torch.rand(33, 3, 16, 24),
            r"any number of frames, at most 32; got 33 frames of 24x16.*nearest size below it is 32 frames of 24x16",
        ),
    ],
)
def test_clips_that_do_not_fit(family: str, frames: Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_source_clip(tiny_pipeline(family), frames)


def test_edit_and_invert_refuse_before_they_begin() -> None:
    for refused in (
        lambda frames: edit(tiny_pipeline("wan"), frames, "a cube", source_prompt=SOURCE),
        lambda frames: invert(tiny_pipeline("wan"), frames, SOURCE),
    ):
        with pytest.raises(UsageError, match="cannot take a clip of this size"):
            refused(clip("wan")[:-1])


def test_a_clip_too_large_for_the_memory_is_refused_with_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ieadapt.models.memory.free_memory", lambda device: 2**21)
    huge = torch.zeros(9, 3, 32, 48).expand(9, 3, 32, 48)
    assert memory_estimate(tiny_pipeline("wan"), 9, 32, 48) < 2**21
    check_source_clip(tiny_pipeline("wan"), huge)
    huge = torch.zeros(1).expand(9, 3, 320, 480)
    with pytest.raises(
        UsageError,
        match=r"too large for the memory; expected at most 0.0 GiB.* free on cpu; got about 0\.\d GiB for 4 rows of 9",
    ):
        check_source_clip(tiny_pipeline("wan"), huge)
