"""Tiny pipelines, built once per test process, and one captured denoiser call of each."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from ieadapt.attention import DenoiserCall, denoisers_of, wrap_denoiser
from ieadapt.tasks.generate import quiet
from tests.tiny import FAMILIES, build, call_arguments

every_family = pytest.mark.parametrize("family", FAMILIES)
PROMPTS = ["a red ball moving left", "a blue star over the hills at night"]
GUIDED = {family: {"guidance_scale": 4.0} for family in FAMILIES} | {
    "hunyuanvideo": {"true_cfg_scale": 4.0, "negative_prompt": "blurry"}
}
UNGUIDED: dict[str, dict[str, Any]] = {family: {"guidance_scale": 1.0} for family in FAMILIES}
SEVERAL_VIDEOS = ("wan", "hunyuanvideo", "ltx", "mochi")  # the other pipelines of diffusers 0.42 make one per prompt


@cache
def tiny_pipeline(family: str) -> DiffusionPipeline:
    """The family's tiny random pipeline; tests must leave it as it was."""
    return build(family)


def run(family: str, prompts: str | list[str] = PROMPTS[0], steps: int = 2, **arguments: Any) -> Tensor:
    """A short run to latents, seeded, guided unless the arguments say otherwise."""
    pipe = tiny_pipeline(family)
    settings = {**call_arguments(family), **GUIDED[family], "num_inference_steps": steps, "output_type": "latent"}
    if isinstance(prompts, list) and "negative_prompt" in settings | arguments:
        settings["negative_prompt"] = [(settings | arguments)["negative_prompt"]] * len(prompts)
    with quiet(pipe):
        generator = arguments.pop("generator", torch.Generator().manual_seed(0))
        return pipe(prompts, generator=generator, **{**settings, **arguments}).frames


@cache
def _captured(family: str) -> dict[str, Any]:
    calls: list[DenoiserCall] = []
    with wrap_denoiser(tiny_pipeline(family), lambda call, prediction: calls.append(call)):
        run(family, PROMPTS)
    return dict(calls[0].arguments)


def captured(family: str) -> tuple[nn.Module, dict[str, Any]]:
    """The denoiser and the arguments of a pipeline's first call with two prompts."""
    return next(iter(denoisers_of(tiny_pipeline(family)).values())), _captured(family)


def predict(family: str) -> Tensor:
    """The captured call, made again by hand."""
    denoiser, arguments = captured(family)
    with torch.no_grad():
        return denoiser(**arguments)[0]
