"""Taking over a pipeline's scheduler: a run that begins with given latents and makes some of the steps only.

Pipelines such as AnimateDiff's and Wan's take neither `timesteps` nor `strength`. A wrapper therefore takes the
scheduler's place for the length of a block: its `set_timesteps` leaves steps out, and the pipeline's `prepare_latents`
gives what the run shall begin with. The pipeline's own code is what runs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXImageToVideoPipeline,
)
from einops import rearrange
from jaxtyping import Shaped
from torch import Tensor

from ieadapt.attention.restore import around, attribute
from ieadapt.errors import FailureError, UsageError
from ieadapt.models.noise_schedule import NoiseSchedule, noise_schedule
from ieadapt.models.video_latents import Latents

ONE_STEP = (DDIMScheduler, CogVideoXDDIMScheduler, FlowMatchEulerDiscreteScheduler)
"""Schedulers whose step needs the present latents only, and draws no noise."""
STEP_IN_PART = (LTXImageToVideoPipeline, LTXConditionPipeline)
"""Pipelines that step a part of their latents, and keep those of the given picture as they are."""

StepFunction = Callable[[NoiseSchedule, int, Latents, Latents], Latents]
"""Where a step leads: (schedule, step, latents at hand, prediction) -> the next latents."""


class SchedulerWrapper:
    """A scheduler that makes some of its steps, in a run that begins with given latents; all else is the scheduler's.

    Args:
        scheduler: whatever the wrapper does not have is looked up in it.
        latents: with which a run begins, in the pipeline's own form.
        steps: which of the scheduler's steps are made.
    """

    def __init__(self, scheduler: Any, latents: Tensor, steps: list[int] | slice) -> None:
        self._scheduler, self._selected, self.latents = scheduler, steps, latents
        # Pipelines read the signature to learn whether they may pass `sigmas` or `timesteps`.
        self.set_timesteps = functools.wraps(scheduler.set_timesteps)(functools.partial(self._set_timesteps))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def _set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        self._scheduler.set_timesteps(*args, **kwargs)
        self.timesteps = self._scheduler.timesteps[self._selected]
        if hasattr(self._scheduler, "sigmas"):  # Wan's pipeline reads them beside the timesteps
            self.sigmas = self._scheduler.sigmas[self._selected]

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Do nothing: pipelines say that a run begins at step 0; the scheduler finds its step by the timestep."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Make a step."""
        return self._scheduler.step(*args, **kwargs)

    @contextmanager
    def installed(self, pipe: DiffusionPipeline) -> Iterator[None]:
        """Let every run of the pipeline inside the block begin with the latents and step by this scheduler.

        Raises:
            FailureError: inside the block, a run asks for latents of another shape.
        """

        def prepare_latents(proceed: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            noise, *others = _prepared(proceed(*args, **kwargs))
            if noise.shape != self.latents.shape:
                raise FailureError(
                    "the latents are of another run",
                    expected=tuple(noise.shape),
                    got=tuple(self.latents.shape),
                    where=type(pipe).__name__,
                )
            self.latents = self.latents.to(noise.device)
            begun = self.latents.to(noise.dtype)
            return (begun, *others) if others else begun

        with attribute(pipe, "scheduler", self), around(pipe, "prepare_latents", prepare_latents):
            yield


class StepFunctionWrapper(SchedulerWrapper):
    """Takes the place of a pipeline's scheduler and makes the steps by a function, in float32.

    Args:
        scheduler: gives the tables and its config.
        latents: with which the run begins.
        steps: which steps of the schedule are run, in which order.
        step_function: makes a step.
        done: called after each step.

    Attributes:
        latents: as they are now, in the pipeline's own form.
        schedule: of the run, from when the pipeline has asked for timesteps.
    """

    schedule: NoiseSchedule

    def __init__(
        self,
        scheduler: Any,
        latents: Latents,
        steps: Iterable[int],
        step_function: StepFunction = NoiseSchedule.forward,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        self._steps, self._step_function, self._done = list(steps), step_function, done
        super().__init__(scheduler, latents.float(), list(self._steps))

    def _set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        super()._set_timesteps(*args, **kwargs)
        self.schedule = noise_schedule(self._scheduler)

    @property
    def step_index(self) -> int:
        """The step of the schedule that is running."""
        return self._steps[0]

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True) -> Any:
        """Make a step; what the pipeline hands back may be rounded, so the wrapper goes on from its own latents."""
        prediction = unfold_frames(model_output, self.latents.shape).float()
        self.latents = self._step_function(self.schedule, self.step_index, self.latents, prediction)
        self._steps.pop(0)
        self._done()
        following = self.latents
        if following.shape != sample.shape:  # ModelScope's frames, see `unfold_frames`
            following = rearrange(following, "video channel frame height width -> (video frame) channel height width")
        following = following.to(sample.dtype)
        return SimpleNamespace(prev_sample=following) if return_dict else (following,)


def _prepared(result: Any) -> tuple[Any, ...]:
    """The latents that a pipeline begins with, and what else it prepares, such as the latents of a given picture."""
    return result if isinstance(result, tuple) else (result,)


def unfold_frames(sample: Tensor, shape: torch.Size) -> Tensor:
    """A scheduler's latents in the pipeline's own form; ModelScope folds frames into rows around the step."""
    if sample.shape == shape or sample.ndim != 4 or len(shape) != 5:
        return sample
    pattern = "(video frame) channel height width -> video channel frame height width"
    return rearrange(sample, pattern, frame=shape[2])


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
    in_part, stochastic = isinstance(pipe, STEP_IN_PART), pipe.scheduler.config.get("stochastic_sampling", False)
    return type(pipe.scheduler) in ONE_STEP and not (in_part or stochastic)


@contextmanager
def kept_latents(pipe: DiffusionPipeline, step: int) -> Iterator[list[Shaped[Tensor, "video ..."]]]:
    """Keep the latents with which a denoising step begins; one entry per run of the pipeline inside the block.

    Args:
        pipe: a pipeline whose scheduler is called once per step.
        step: which step, from 0.
    """
    kept: list[Tensor] = []
    shape, steps_made = torch.Size(), 0

    def prepare_latents(proceed: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        nonlocal shape, steps_made
        result = proceed(*args, **kwargs)
        shape, steps_made = _prepared(result)[0].shape, 0
        return result

    def keep(proceed: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        nonlocal steps_made
        if steps_made == step:
            sample = kwargs["sample"] if "sample" in kwargs else args[2]
            kept.append(unfold_frames(sample, shape).detach().cpu().clone())
        steps_made += 1
        return proceed(*args, **kwargs)

    with around(pipe, "prepare_latents", prepare_latents), around(pipe.scheduler, "step", keep):
        yield kept


def late_start(
    pipe: DiffusionPipeline, latents: Shaped[Tensor, "video ..."], step: int
) -> AbstractContextManager[None]:
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
    return SchedulerWrapper(pipe.scheduler, latents, slice(step, None)).installed(pipe)
