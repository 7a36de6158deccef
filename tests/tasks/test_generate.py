"""Generating: one call for every family, noise per row, prompts checked."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ieadapt.errors import UsageError
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.generate import generate
from tests.families import PROMPTS, every_family, tiny_pipeline
from tests.tiny import build, call_arguments


def config_for(family: str, **changes: Any) -> GenerationConfig:
    """The smallest run of a family as a configuration."""
    size = {name: value for name, value in call_arguments(family).items() if name in ("height", "width", "num_frames")}
    return GenerationConfig(**{"num_inference_steps": 2, **size, **changes})


@every_family
def test_frames_are_videos_in_0_to_1(family: str) -> None:
    frames = generate(tiny_pipeline(family), PROMPTS, config_for(family))
    assert frames.shape[0] == len(PROMPTS)
    assert frames.shape[2] == 3
    assert frames.dtype == torch.float32
    assert 0 <= frames.min() < frames.max() <= 1


@pytest.mark.parametrize("family", ["animatediff", "wan"])
def test_a_video_does_not_depend_on_its_batch(family: str) -> None:
    pipe = build(family).to(torch.float64)  # random weights amplify the rounding of float32
    together = generate(pipe, PROMPTS, config_for(family), seeds=[3, 7])
    alone = generate(pipe, PROMPTS, config_for(family, batch_size=1), seeds=[3, 7])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    assert (together[0] - together[1]).abs().max() > 0.01


def test_seeds_count_up_from_the_first() -> None:
    pipe, config = tiny_pipeline("wan"), config_for("wan", batch_size=1)
    torch.testing.assert_close(generate(pipe, PROMPTS, config, 5)[1:], generate(pipe, PROMPTS[1], config, 6))


def test_progress_counts_denoising_steps_over_all_batches() -> None:
    seen: list[tuple[int, int]] = []
    config = config_for("wan", batch_size=1, num_inference_steps=3)
    generate(tiny_pipeline("wan"), PROMPTS, config, progress=lambda done, total: seen.append((done, total)))
    assert list(dict.fromkeys(seen)) == [(done, 6) for done in range(1, 7)]


def test_the_pipeline_keeps_its_progress_bar() -> None:
    pipe = tiny_pipeline("wan")
    before = dict(pipe._progress_bar_config)
    generate(pipe, PROMPTS[0], config_for("wan"))
    assert pipe._progress_bar_config == before


def test_a_negative_prompt_works_with_several_prompts() -> None:
    pipe = tiny_pipeline("animatediff")
    frames = generate(pipe, PROMPTS, config_for("animatediff", negative_prompt="blurry"))
    assert (frames - generate(pipe, PROMPTS, config_for("animatediff"))).abs().max() > 0


@pytest.mark.parametrize("prompts", [[], "", "  ", ["a ball", " "]])
def test_missing_prompts(prompts: str | list[str]) -> None:
    with pytest.raises(UsageError, match=r"there is no prompt|a prompt is blank"):
        generate(tiny_pipeline("wan"), prompts)


def test_a_prompt_too_long_says_what_would_be_dropped() -> None:
    with pytest.raises(
        UsageError, match=r"too long for the text encoder; expected at most 77 tokens.*would be dropped"
    ):
        generate(tiny_pipeline("animatediff"), "a red ball " * 40, config_for("animatediff"))


def test_what_the_pipeline_refuses_is_told_in_its_words() -> None:
    with pytest.raises(
        UsageError, match=r"the pipeline refuses this call; got .*divisible by 8.*in AnimateDiffPipeline"
    ):
        generate(tiny_pipeline("animatediff"), "a ball", GenerationConfig(height=12, width=8))


def test_seeds_and_prompts_must_agree() -> None:
    with pytest.raises(UsageError, match="as many seeds as prompts are needed; expected 2; got 1"):
        generate(tiny_pipeline("wan"), PROMPTS, config_for("wan"), seeds=[1])


def test_an_argument_that_the_pipeline_lacks() -> None:
    pipe = tiny_pipeline("animatediff")

    class Bare(type(pipe)):  # type: ignore[misc]
        def __call__(self, prompt: Any, generator: Any, output_type: str, num_inference_steps: int) -> None:
            raise AssertionError

    bare = Bare(**pipe.components)
    with pytest.raises(UsageError, match="the pipeline has no such argument; got height, width"):
        generate(bare, "a ball", GenerationConfig(height=8, width=8))


@pytest.mark.parametrize("name", ["num_inference_steps", "num_frames", "height", "width", "batch_size"])
def test_sizes_must_be_positive(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} must be positive; expected >= 1; got 0"):
        GenerationConfig(**{name: 0})
