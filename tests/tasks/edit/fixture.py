"""Clips and short runs for the tests of editing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from ieadapt.attention import denoisers_of
from ieadapt.attention.denoiser_calls import prediction_of, with_prediction
from ieadapt.models.noise_schedule import NoiseSchedule
from ieadapt.models.scheduler_wrapper import StepFunction, StepFunctionWrapper
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.edit.config import EDIT_PRESETS
from ieadapt.tasks.edit.pipeline_run import PipelineRunner
from tests.families import tiny_pipeline
from tests.tiny import call_arguments

SOURCE, TARGET = "a red ball", "a blue star"
STEPS = GenerationConfig(num_inference_steps=4)
INVERTED = dataclasses.replace(EDIT_PRESETS["inversion"], start=0.1, residual=1.0, inject_window="0:1")
"""Source and target from the inverted noise, with nothing injected."""


def clip(family: str) -> Tensor:
    """A random clip of the family's smallest size."""
    size = call_arguments(family)
    return torch.rand(size["num_frames"], 3, size["height"], size["width"], generator=torch.Generator().manual_seed(0))


@contextmanager
def calm(family: str, share: float = 0.01) -> Iterator[DiffusionPipeline]:
    """The tiny pipeline with a fainter denoiser: random ones are too rough for a fixed point in few steps."""
    pipe = tiny_pipeline(family)

    def fainter(module: Any, arguments: Any, output: Any) -> Any:
        return with_prediction(output, prediction_of(output) * share)

    handle = next(iter(denoisers_of(pipe).values())).register_forward_hook(fainter)
    try:
        yield pipe
    finally:
        handle.remove()


def run_from(
    runner: PipelineRunner,
    latents: Tensor,
    prompts: list[str],
    first: int,
    step_function: StepFunction = NoiseSchedule.forward,
    **guidance: Any,
) -> Tensor:
    """The latents at the end of a run that begins with a step."""
    scheduler = StepFunctionWrapper(runner.scheduler, latents, range(first, runner.steps), step_function)
    return runner.run(scheduler, prompts, **guidance)
