"""What a run will take, said before it starts: one timed pass of the model, times the passes of the run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline
from torch import nn

from ieadapt.attention import Prefix, attention_modules, denoisers_of, family_of, find_sites
from ieadapt.attention.restore import around
from ieadapt.notation import counted, format_duration
from ieadapt.runs.settings import GenerationConfig, with_model_defaults
from ieadapt.tasks.generate import quiet, run_batch, videos_at_once

TIMED_STEPS = 2
"""The first warms up; the second is timed."""


@dataclass(frozen=True)
class PassTimes:
    """How long a plain step takes, and how much of it a pass of each site takes.

    Attributes:
        seconds: of a step of one batch, both guidance branches.
        shares: by site name, the share of a step that a pass from this site on computes.
        decoding: seconds from the last step of a batch to its frames.
    """

    seconds: int | float
    shares: Mapping[str, int | float]
    decoding: int | float = 0.0


def time_passes(
    pipe: DiffusionPipeline, prompt: str, generation: GenerationConfig, *, output: Literal["pt", "latent"] = "pt"
) -> PassTimes:
    """Run one batch for two steps, time the second, and what follows it.

    Args:
        pipe: the pipeline.
        prompt: of every video of the batch.
        generation: size, guidance, videos of a batch.
        output: frames, or latents that are not decoded.
    """
    marks: list[float] = []

    def timed(proceed: Any, *args: Any, **kwargs: Any) -> Any:
        marks.append(_now())
        return proceed(*args, **kwargs)

    short = dataclasses.replace(generation, num_inference_steps=TIMED_STEPS)
    size = generation.batch_size
    with torch.no_grad(), quiet(pipe), around(pipe.scheduler, "step", timed):
        run_batch(pipe, [prompt] * size, short, [0] * size, output_type=output)
    return PassTimes(marks[-1] - marks[-2], _shares(pipe), _now() - marks[-1])


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _shares(pipe: DiffusionPipeline) -> dict[str, float]:
    """By site name, the share of the denoiser's parameters in and after the stage of the site."""
    sites = find_sites(pipe)
    shares = {}
    for denoiser in denoisers_of(pipe).values():
        prefix = Prefix(denoiser, family_of(denoiser), lambda: False)
        whole, own = _size(denoiser), set(denoiser.modules())
        for site, module in zip(sites, attention_modules(pipe, sites), strict=True):
            if module in own:
                shares[site.name] = 1 - sum(_size(stage) for stage in prefix.before([module])) / whole
    return shares


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def price_videos(config: Any, count: Callable[[DiffusionPipeline], tuple[int | float, int | float]]) -> str:
    """About how long it takes to make some videos on one worker, in a line; loads the model and times one pass.

    Args:
        config: of a run: model, prompts, generation, hardware.
        count: given the pipeline, how many videos, and how many plain steps of one video in all of them together.
    """
    pipe, generation = config.hardware.load(config.model), with_model_defaults(config.generation, config.model)
    videos, steps = count(pipe)
    size = min(videos_at_once(pipe, generation), max(1, len(config.prompts)))
    times = time_passes(pipe, config.prompts[0], dataclasses.replace(generation, batch_size=size))
    seconds = (steps * times.seconds + videos * times.decoding) / size
    return (
        f"{counted(videos, 'video')}, {counted(steps, 'step')} in all: about {format_duration(seconds)} on one worker "
        f"(a step of {counted(size, 'video')} takes {times.seconds:.2g} s, decoding {times.decoding:.2g} s)"
    )
