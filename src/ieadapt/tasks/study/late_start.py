"""Late start: a run begins at a later denoising step, from latents that an earlier run of the same noise left there.

Pipelines such as AnimateDiff's and Wan's take neither `timesteps` nor `strength`, so the scheduler is cut short:
for the length of a block its `set_timesteps` drops the first steps, and the pipeline's `prepare_latents` gives what was
saved. The pipeline's own code is what runs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers import CogVideoXDDIMScheduler, DDIMScheduler, DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from einops import rearrange
from jaxtyping import Shaped
from torch import Tensor

from ieadapt.attention.restore import attribute
from ieadapt.errors import FailureError, UsageError

ONE_STEP = (DDIMScheduler, CogVideoXDDIMScheduler, FlowMatchEulerDiscreteScheduler)
"""Schedulers whose step needs the present latents only, and draws no noise."""


def can_start_late(pipe: Any) -> bool:
    """Whether a run of this pipeline can begin at a later step.

    Schedulers that keep a history of predictions (UniPC, DPM) or draw noise (DDPM) cannot: their runs begin at step 0.

    Example:
        >>> from types import SimpleNamespace
        >>> from diffusers import DDIMScheduler, UniPCMultistepScheduler
        >>> can_start_late(SimpleNamespace(scheduler=DDIMScheduler()))
        True
        >>> can_start_late(SimpleNamespace(scheduler=UniPCMultistepScheduler()))
        False
    """
    return type(pipe.scheduler) in ONE_STEP and not pipe.scheduler.config.get("stochastic_sampling", False)


@contextmanager
def kept_latents(pipe: DiffusionPipeline, step: int) -> Iterator[list[Shaped[Tensor, "video ..."]]]:
    """Keep the latents with which a denoising step begins; one entry per run of the pipeline inside the block.

    Args:
        pipe: a pipeline whose scheduler is called once per step.
        step: which step, from 0.
    """
    kept: list[Tensor] = []
    counted = {"step": 0}
    form: dict[str, torch.Size] = {}

    def prepare_latents(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        noise = original(*args, **kwargs)
        counted["step"], form["latents"] = 0, noise.shape
        return noise

    def take(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if counted["step"] == step:
            sample = kwargs["sample"] if "sample" in kwargs else args[2]
            kept.append(_unfolded(sample, form["latents"]).detach().cpu().clone())
        counted["step"] += 1
        return original(*args, **kwargs)

    with _around(pipe, "prepare_latents", prepare_latents), _around(pipe.scheduler, "step", take):
        yield kept


@contextmanager
def late_start(pipe: DiffusionPipeline, latents: Shaped[Tensor, "video ..."], step: int) -> Iterator[None]:
    """Let every run of the pipeline inside the block begin at a step, with these latents.

    Args:
        pipe: a pipeline with a scheduler of one-step form, see `can_start_late`.
        latents: what `kept_latents` kept at that step, one row per video of the run.
        step: from 0; 0 is the whole run, from the given noise.

    Raises:
        UsageError: the scheduler needs what came before the step.
        FailureError: inside the block, a run asks for latents of another shape.
    """
    if not can_start_late(pipe):
        raise UsageError(
            "this scheduler cannot start at a later step",
            expected="one of " + ", ".join(each.__name__ for each in ONE_STEP),
            got=type(pipe.scheduler).__name__,
            remedy="start from the beginning",
        )

    def set_timesteps(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        _drop_first(pipe.scheduler, step)
        return result

    def prepare_latents(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        noise = original(*args, **kwargs)
        if noise.shape != latents.shape:
            raise FailureError(
                "the saved latents are of another run", expected=tuple(noise.shape), got=tuple(latents.shape)
            )
        return latents.to(noise)

    with ExitStack() as stack:
        stack.enter_context(_around(pipe.scheduler, "set_timesteps", set_timesteps))
        stack.enter_context(_around(pipe, "prepare_latents", prepare_latents))
        yield


def _unfolded(sample: Tensor, shape: torch.Size) -> Tensor:
    """The scheduler's latents in the pipeline's own form; ModelScope folds frames into rows around the step."""
    if sample.shape == shape or sample.ndim != 4 or len(shape) != 5:
        return sample
    pattern = "(video frame) channel height width -> video channel frame height width"
    return rearrange(sample, pattern, frame=shape[2])


def _drop_first(scheduler: Any, step: int) -> None:
    """Drop the first steps of a prepared scheduler; a flow scheduler finds its step by position, so its sigmas too."""
    scheduler.timesteps = scheduler.timesteps[step:]
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        scheduler.sigmas = scheduler.sigmas[step:]


@contextmanager
def _around(owner: Any, method: str, change: Callable[..., Any]) -> Iterator[None]:
    """Put `change(original, ...)` around a method of one instance; its signature stays visible, pipelines read it."""
    original = getattr(owner, method)
    changed = functools.wraps(original)(functools.partial(change, original))
    with attribute(owner, method, changed):
        yield
