"""Perturbed videos: windows, branches, batches, against the same run made by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ieadapt.attention import find_sites, intercept
from ieadapt.interventions import Identity, Uniform
from ieadapt.models import scheduler_wrapper
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.generate import generate
from ieadapt.tasks.study.config import StudyConfig
from ieadapt.tasks.study.grid import Condition
from ieadapt.tasks.study.videos import make_baselines, make_perturbed
from tests.families import PROMPTS, every_family, tiny_pipeline
from tests.tiny import call_arguments

PAIRS = [(PROMPTS[0], 3), (PROMPTS[1], 3)]


def short(family: str, **changes: Any) -> GenerationConfig:
    size = {name: value for name, value in call_arguments(family).items() if name in ("height", "width", "num_frames")}
    return GenerationConfig(**{"num_inference_steps": 4, **size, **changes})


def self_attention(family: str) -> Condition:
    site = next(site for site in find_sites(tiny_pipeline(family)) if site.kind in ("spatial", "joint"))
    return Condition((site.name,), site.kind, "uniform")


@every_family
def test_a_window_from_the_saved_latents_is_the_whole_run(family: str) -> None:
    pipe, config, condition = tiny_pipeline(family), short(family), self_attention(family)
    study = StudyConfig(window="0.5:1")
    baselines = make_baselines(pipe, PAIRS, study, config)
    frames = make_perturbed(pipe, condition, PAIRS, baselines, study, config)
    with intercept(pipe, Uniform(), list(condition.sites), (0.5, 1.0), guidance="all"):
        expected = generate(pipe, PROMPTS, config, [3, 3])
    torch.testing.assert_close(frames, expected, rtol=1e-3, atol=1e-4)
    assert (frames - torch.stack([baseline.frames for baseline in baselines])).abs().max() > 1e-4


def test_a_window_that_ends_early() -> None:
    pipe, config, condition = tiny_pipeline("animatediff"), short("animatediff"), self_attention("animatediff")
    study = StudyConfig(window="0.25:0.75")
    frames = make_perturbed(pipe, condition, PAIRS, make_baselines(pipe, PAIRS, study, config), study, config)
    with intercept(pipe, Uniform(), list(condition.sites), (0.25, 0.75), guidance="all"):
        expected = generate(pipe, PROMPTS, config, [3, 3])
    torch.testing.assert_close(frames, expected, rtol=1e-3, atol=1e-4)


def test_a_scheduler_with_a_history_starts_at_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_wrapper, "ONE_STEP", ())
    pipe, config, condition = tiny_pipeline("wan"), short("wan"), self_attention("wan")
    study = StudyConfig(window="0.5:1")
    baselines = make_baselines(pipe, PAIRS, study, config)
    assert all(baseline.latents is None for baseline in baselines)
    frames = make_perturbed(pipe, condition, PAIRS, baselines, study, config)
    with intercept(pipe, Uniform(), list(condition.sites), (0.5, 1.0), guidance="all"):
        torch.testing.assert_close(frames, generate(pipe, PROMPTS, config, [3, 3]), rtol=1e-3, atol=1e-4)


def test_one_branch_and_one_head() -> None:
    pipe = tiny_pipeline("animatediff")
    config, site = short("animatediff", num_inference_steps=2, guidance_scale=4.0), find_sites(pipe)[0]
    condition = Condition((site.name,), site.kind, "identity", head=0)
    study = StudyConfig(branch="cond")
    frames = make_perturbed(pipe, condition, PAIRS, make_baselines(pipe, PAIRS, study, config), study, config)
    with intercept(pipe, Identity(), site, heads=(0,)):
        torch.testing.assert_close(frames, generate(pipe, PROMPTS, config, [3, 3]))


@pytest.mark.parametrize("family", ["animatediff", "cogvideox"])
def test_a_video_does_not_depend_on_its_batch(family: str) -> None:
    pipe, config, condition = tiny_pipeline(family), short(family), self_attention(family)
    study = StudyConfig(window="0.5:1")
    baselines = make_baselines(pipe, PAIRS, study, config)
    together = make_perturbed(pipe, condition, PAIRS, baselines, study, config)
    alone = [
        make_perturbed(pipe, condition, [pair], [baseline], study, config)
        for pair, baseline in zip(PAIRS, baselines, strict=True)
    ]
    torch.testing.assert_close(torch.cat(alone), together, rtol=1e-3, atol=1e-4)
