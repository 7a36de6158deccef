"""Combine mode: each way of summing the two predictions against a slow reference, in every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ieadapt.attention import DenoiserCall, wrap_denoiser
from ieadapt.attention.restore import attribute
from ieadapt.errors import FailureError, UsageError
from ieadapt.tasks.enhance.combining import COMBINATIONS
from ieadapt.tasks.enhance.config import COMBINATION_FORMS, EnhanceConfig
from ieadapt.tasks.enhance.method import enhancement
from tests.families import PROMPTS, UNGUIDED, every_family, run, tiny_pipeline

SCALE = 4.0


def combine(perturbation: str, **changes: Any) -> EnhanceConfig:
    return EnhanceConfig(mode="combine", perturbation=perturbation, **{"start": 0.0} | changes)


def test_every_form_has_its_combination() -> None:
    assert [form.partition(":")[0] for form in COMBINATION_FORMS] == list(COMBINATIONS)


def scheduled(family: str, config: EnhanceConfig | None, **arguments: Any) -> list[Tensor]:
    """What the pipeline's scheduler is given, step by step."""
    pipe, given = tiny_pipeline(family), []
    step = pipe.scheduler.step

    def kept(model_output: Tensor, *args: Any, **kwargs: Any) -> Any:
        given.append(model_output.clone())
        return step(model_output, *args, **kwargs)

    with attribute(pipe.scheduler, "step", kept):
        if config is None:
            run(family, PROMPTS, **arguments)
        else:
            with enhancement(pipe, config):
                run(family, PROMPTS, **arguments)
    return given


@every_family
@pytest.mark.parametrize("neutral", ["interval", "apg:0:1:0", "fdg:1:1"])
def test_neutral_numbers_are_plain_guidance(family: str, neutral: str) -> None:
    if family == "ltx" and neutral.startswith("fdg"):
        with pytest.raises(UsageError, match="predicts a list of tokens"):
            scheduled(family, combine(neutral))
        return
    for plain, combined in zip(scheduled(family, None), scheduled(family, combine(neutral)), strict=True):
        torch.testing.assert_close(combined, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))


def _reference(name: str, cond: Tensor, uncond: Tensor) -> Tensor:
    """One video's sum, written out."""
    difference = cond - uncond
    if name == "apg:2:0.25:0":
        difference = difference * min(1.0, 2 / float(difference.norm()))
        along = cond * float((difference * cond).sum() / cond.square().sum())
        return cond + (SCALE - 1) * (difference - along + 0.25 * along)
    if name == "cfg-zero:0":
        share = float((cond * uncond).sum() / uncond.square().sum())
        return share * uncond + SCALE * (cond - share * uncond)
    if name == "cfg-zero:1":
        return torch.zeros_like(cond)
    pictures = [
        torch.nn.functional.interpolate(
            torch.nn.functional.avg_pool2d(picture[None, None], 2, ceil_mode=True), picture.shape, mode="bilinear"
        )
        for picture in difference.flatten(0, -3)
    ]
    coarse = torch.cat(pictures).reshape(difference.shape)
    return uncond + SCALE * (0.5 * coarse + 1.5 * (difference - coarse))


@pytest.mark.parametrize("family", ["cogvideox", "animatediff", "wan", "hunyuanvideo"])
@pytest.mark.parametrize("name", ["apg:2:0.25:0", "cfg-zero:0", "cfg-zero:1", "fdg:0.5:1.5"])
def test_the_first_step_is_the_sources_formula_video_by_video(family: str, name: str) -> None:
    branches: dict[str, Tensor] = {}

    def keep(call: DenoiserCall, prediction: Tensor) -> None:
        for branch in ("cond", "uncond"):
            if call.step == 0 and (rows := call.rows.denoiser_rows((branch,))):
                branches[branch] = prediction[rows].clone()

    with wrap_denoiser(tiny_pipeline(family), keep):
        run(family, PROMPTS)
    combined = scheduled(family, combine(name))[0]
    pairs = zip(branches["cond"], branches["uncond"], strict=True)
    expected = torch.stack([_reference(name, *pair) for pair in pairs])
    if combined.shape != expected.shape:  # AnimateDiff's scheduler sees frames as a batch
        expected = expected.transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(combined, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_momentum_sums_earlier_steps_and_a_new_run_begins_anew() -> None:
    torch.manual_seed(0)
    combination = COMBINATIONS["apg"](0.0, 1.0, -0.5)
    cond, uncond = torch.randn(2, 1, 3, 4, 4), torch.randn(2, 1, 3, 4, 4)
    differences = cond - uncond
    for _run in range(2):
        first = combination(cond[0], uncond[0], SCALE, 0)
        second = combination(cond[1], uncond[1], SCALE, 1)
        torch.testing.assert_close(first, cond[0] + (SCALE - 1) * differences[0])
        torch.testing.assert_close(second, cond[1] + (SCALE - 1) * (differences[1] - 0.5 * differences[0]))


@every_family
def test_outside_the_interval_there_is_no_guidance(family: str) -> None:
    """The last two of four steps are unguided, as in a run whose scale is 1 there."""
    config = combine("interval", stop=0.5)
    given, plain = scheduled(family, config, steps=4), scheduled(family, None, steps=4)
    torch.testing.assert_close(given[1], plain[1], rtol=1e-3, atol=1e-3 * float(plain[1].abs().max()))
    assert not torch.allclose(given[2], plain[2], rtol=1e-2)
    with enhancement(tiny_pipeline(family), config) as state:
        run(family, steps=4)
    assert state.weak_passes == 0
    assert config.passes(4) == 8


def test_a_run_without_guidance_has_nothing_to_combine() -> None:
    pipe = tiny_pipeline("cogvideox")
    with (
        pytest.raises(FailureError, match=r"no step was enhanced.*and with guidance"),
        enhancement(pipe, combine("apg:0:0:0")),
    ):
        run("cogvideox", **UNGUIDED["cogvideox"])


def test_a_pipeline_that_sums_otherwise_is_refused() -> None:
    pipe = tiny_pipeline("animatediff")
    with (
        pytest.raises(FailureError, match="does not combine its guidance branches linearly"),
        enhancement(pipe, combine("interval")),
    ):
        step = pipe.scheduler.step

        def rescaled(model_output: Tensor, *args: Any, **kwargs: Any) -> Any:
            return step(model_output.sign() * model_output.abs().sqrt(), *args, **kwargs)

        with attribute(pipe.scheduler, "step", rescaled):
            run("animatediff")
    assert "step" not in vars(pipe.scheduler)
