"""Runs along a noise path: the pipeline's own videos, from any step, and the pipeline as before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ieadapt.attention import family_of
from ieadapt.errors import FailureError, UsageError
from ieadapt.models.video_latents import encode_video
from ieadapt.tasks.edit.noise_path import NoisePath
from ieadapt.tasks.edit.path_run import PathPipeline, forwards
from tests.families import captured, every_family, tiny_pipeline
from tests.tasks.edit.fixture import SOURCE, TARGET, clip
from tests.tiny import call_arguments


def _noise(family: str, videos: int) -> Tensor:
    like = encode_video(tiny_pipeline(family), clip(family))
    return torch.randn((videos, *like.shape[1:]), generator=torch.Generator().manual_seed(3))


@every_family
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_whole_run_is_the_pipelines_own(family: str, scale: float) -> None:
    pipe, noise = tiny_pipeline(family), _noise(family, 2)
    runner = PathPipeline.of(pipe, clip(family), 3)
    argument = family_of(captured(family)[0]).guidance_argument
    size = {name: value for name, value in call_arguments(family).items() if name != "max_sequence_length"}
    guided: dict[str, Any] = {argument: scale, "negative_prompt": ["grey"] * 2} if scale > 1 else {argument: scale}
    own = runner.scheduler.__class__.from_config(runner.scheduler.config)
    before, pipe.scheduler = pipe.scheduler, own  # the tiny CogVideoX clips its samples, which has no inverse
    expected = pipe([SOURCE, TARGET], latents=noise.clone(), num_inference_steps=3, output_type="pt", **guided, **size)
    pipe.scheduler = before
    found = runner.decode(runner.run(noise, [SOURCE, TARGET], 0, guidance_scale=scale, negative="grey"))
    torch.testing.assert_close(found, expected.frames.clamp(0, 1), rtol=1e-3, atol=2e-4)


@every_family
def test_the_rest_of_a_run_ends_where_the_whole_run_ends(family: str) -> None:
    runner, kept = PathPipeline.of(tiny_pipeline(family), clip(family), 4), []

    def keeping(path: NoisePath, step: int, latents: Tensor, prediction: Tensor) -> Tensor:
        kept.append(latents)
        return forwards(path, step, latents, prediction)

    whole = runner.run(_noise(family, 1), [SOURCE], 0, advance=keeping)
    rest = runner.run(kept[2], [SOURCE], 2)
    torch.testing.assert_close(rest, whole, rtol=1e-3, atol=1e-4)


@every_family
def test_the_way_back_takes_the_same_steps_in_the_other_order(family: str) -> None:
    runner, seen = PathPipeline.of(tiny_pipeline(family), clip(family), 4), []

    def looking(path: NoisePath, step: int, latents: Tensor, prediction: Tensor) -> Tensor:
        assert prediction.shape == latents.shape
        seen.append(step)
        return path.backward(step, latents, prediction)

    timesteps: list[float] = []

    def wrapping(scheduler: Any) -> Any:
        timesteps.extend(scheduler.timesteps.tolist())
        return lambda call, prediction: timesteps.append(
            float(torch.as_tensor(call.arguments["timestep"]).flatten()[0])
        )

    runner.run_back(encode_video(runner.pipe, clip(family)), SOURCE, 1, looking, wrapping)
    assert seen == [3, 2, 1]
    path = runner.path_of(_noise(family, 1))
    assert timesteps == pytest.approx(path.timesteps.flip(0)[:3].tolist())


@every_family
def test_the_pipeline_is_as_before(family: str) -> None:
    pipe = tiny_pipeline(family)
    before = dict(vars(pipe))
    runner = PathPipeline.of(pipe, clip(family), 2)
    runner.decode(_noise(family, 1))
    with pytest.raises(FailureError, match=r"the latents are of another run; expected .*got \(1, 2, 3\)"):
        runner.run(torch.zeros(1, 2, 3), [SOURCE], 0)
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
            PathPipeline.of(pipe, clip("animatediff"), 2)
    finally:
        pipe.disable_free_init()
