"""Running a pipeline along a noise path: from given latents, part of the way, forwards or backwards.

The pipeline's own call is what runs. For its length a stand-in takes the scheduler's place: it asks the scheduler for
its tables, tells the pipeline the timesteps of the part that is wanted, and makes the steps itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Protocol, runtime_checkable

import torch
from diffusers import DiffusionPipeline
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import DenoiserWrapper, denoisers_of, family_of, wrap_denoiser
from ieadapt.attention.restore import attribute
from ieadapt.errors import FailureError, UsageError
from ieadapt.tasks.edit.noise_path import Latents, NoisePath, matching_scheduler, noise_path
from ieadapt.tasks.generate import call_pipeline, quiet

Frames = Float[Tensor, "video frame channel height width"]
Step = Callable[[], None]


@runtime_checkable
@runtime_checkable
class Advance(Protocol):
    """Where a step leads: (path, step, latents at hand, prediction) -> the next latents."""

    def __call__(self, path: NoisePath, step: int, latents: Latents, prediction: Latents) -> Latents:
        """The next latents."""
        ...


def forwards(path: NoisePath, step: int, latents: Latents, prediction: Latents) -> Latents:
    """A step towards the video."""
    return path.forward(step, latents, prediction)


class PathScheduler:
    """Stands in for a pipeline's scheduler and makes its steps along a noise path, in float32.

    Args:
        scheduler: gives the tables and, to whoever asks, its config.
        latents: with which the run begins.
        steps: which steps of the path are run, in which order.
        advance: makes a step.
        done: called after each step.

    Attributes:
        step_index: the step of the path that is running.
        latents: as they are now, in the pipeline's own form.
    """

    order = 1
    init_noise_sigma = 1.0

    def __init__(
        self,
        scheduler: Any,
        latents: Latents,
        steps: Callable[[int], Sequence[int]],
        advance: Advance = forwards,
        done: Step = lambda: None,
    ) -> None:
        self._inner, self._wanted, self._advance, self._done = scheduler, steps, advance, done
        self._steps: list[int] = []
        self.latents = latents.float()
        self._path: NoisePath | None = None
        self.timesteps = self.sigmas = torch.zeros(0)
        self.set_timesteps = functools.wraps(scheduler.set_timesteps)(functools.partial(self._set_timesteps))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        self._inner.set_timesteps(*args, **kwargs)
        path = self._path = noise_path(self._inner)
        self._steps = list(self._wanted(len(path)))
        self.timesteps = path.timesteps[self._steps]
        self.sigmas = torch.tensor([path.levels[step].noise for step in self._steps])

    @property
    def path(self) -> NoisePath:
        """The path, once the pipeline has asked for timesteps."""
        if self._path is None:
            raise FailureError("the pipeline has not asked its scheduler for timesteps")
        return self._path

    @property
    def step_index(self) -> int:
        """The step of the path that is running."""
        return self._steps[0]

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Pipelines say that they begin at the beginning; the stand-in counts by itself."""

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The latents as they are."""
        return sample

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True) -> Any:
        """Make a step; what the pipeline hands back may be rounded, so the stand-in goes on from its own latents."""
        prediction = unfolded(model_output, self.latents.shape).float()
        self.latents = self._advance(self.path, self.step_index, self.latents, prediction)
        self._steps.pop(0)
        self._done()
        result = _folded(self.latents, sample.shape).to(sample.dtype)
        return SimpleNamespace(prev_sample=result) if return_dict else (result,)


def unfolded(sample: Tensor, shape: torch.Size) -> Tensor:
    """Latents in the pipeline's own form; ModelScope folds frames into rows around the scheduler's step."""
    if sample.shape == shape or sample.ndim != 4 or len(shape) != 5:
        return sample
    pattern = "(video frame) channel height width -> video channel frame height width"
    return rearrange(sample, pattern, frame=shape[2])


def _folded(latents: Tensor, shape: torch.Size) -> Tensor:
    if latents.shape == shape:
        return latents
    return rearrange(latents, "video channel frame height width -> (video frame) channel height width")


@dataclass(frozen=True)
class PathPipeline:
    """A pipeline, the scheduler that gives its path, and the size of the clip that it works on.

    Attributes:
        pipe: any text-to-video pipeline of a known family.
        scheduler: one with an inverse.
        steps: of a whole run.
        size: (frames, height, width) in pixels.
        notes: what to tell the user about the scheduler.
        done: called after each step of every run.
    """

    pipe: DiffusionPipeline
    scheduler: Any
    steps: int
    size: tuple[int, int, int]
    notes: tuple[str, ...] = ()
    done: Step = field(default=lambda: None, repr=False)

    @classmethod
    def of(
        cls,
        pipe: DiffusionPipeline,
        frames: Float[Tensor, "frame channel height width"],
        steps: int,
        done: Step = lambda: None,
    ) -> PathPipeline:
        """The pipeline for clips of this size.

        Raises:
            UsageError: the scheduler has no inverse, or the pipeline draws its noise anew during a run.
        """
        if getattr(pipe, "free_init_enabled", False):
            raise UsageError(
                "FreeInit draws noise anew during a run, so a clip's own noise would be lost",
                where=type(pipe).__name__,
                remedy="call pipe.disable_free_init() first",
            )
        scheduler, note = matching_scheduler(pipe.scheduler)
        size = (frames.shape[0], frames.shape[2], frames.shape[3])
        return cls(pipe, scheduler, steps, size, () if note is None else (note,), done)

    def decode(self, latents: Latents) -> Frames:
        """The frames of clean latents, by the pipeline's own last lines (a run of no steps), one video at a time.

        Args:
            latents: clean ones, in the pipeline's own form.
        """
        stand_ins = [PathScheduler(self.scheduler, one, lambda steps: []) for one in latents.split(1)]
        return torch.cat([self._call(stand_in, [""], {}) for stand_in in stand_ins])

    def path_of(self, latents: Latents) -> NoisePath:
        """The path of runs with latents of this shape."""
        stand_in = PathScheduler(self.scheduler, latents, lambda steps: [])
        self._call(stand_in, [""] * len(latents), {"output_type": "latent"})
        return stand_in.path

    def run(
        self,
        latents: Latents,
        prompts: Sequence[str],
        first: int,
        *,
        advance: Advance = forwards,
        guidance_scale: float = 1.0,
        negative: str = "",
        wrapping: Callable[[PathScheduler], Sequence[DenoiserWrapper]] = lambda scheduler: (),
        within: Callable[[PathScheduler], Any] | None = None,
    ) -> Latents:
        """Run from the beginning of a step to the clean latents.

        Args:
            latents: as they are at the beginning of the step, one row per prompt.
            prompts: one per row.
            first: the step.
            advance: makes the steps.
            guidance_scale: of the pipeline's classifier-free guidance; 1 runs none.
            negative: prompt of the unconditional rows.
            wrapping: denoiser wrappers for the run, from the scheduler that knows its step.
            within: a context to run in, from the same.
        """
        stand_in = PathScheduler(self.scheduler, latents, lambda steps: range(first, steps), advance, self.done)
        given = self._guidance(guidance_scale, [negative] * len(prompts))
        with ExitStack() as stack:
            for wrapper in wrapping(stand_in):
                stack.enter_context(wrap_denoiser(self.pipe, wrapper))
            if within is not None:
                stack.enter_context(within(stand_in))
            self._call(stand_in, list(prompts), {**given, "output_type": "latent"})
        return stand_in.latents

    def run_back(
        self,
        latents: Latents,
        prompt: str,
        first: int,
        advance: Advance,
        wrapping: Callable[[PathScheduler], DenoiserWrapper],
    ) -> None:
        """Run from the video back to the beginning of a step, without guidance; `advance` keeps what it needs."""
        stand_in = PathScheduler(
            self.scheduler, latents, lambda steps: range(steps - 1, first - 1, -1), advance, self.done
        )
        with wrap_denoiser(self.pipe, wrapping(stand_in)):
            self._call(stand_in, [prompt], {**self._guidance(1.0, [""]), "output_type": "latent"})

    def _guidance(self, scale: float, negatives: list[str]) -> dict[str, Any]:
        name = family_of(next(iter(denoisers_of(self.pipe).values()))).guidance_argument
        return {name: float(scale)} | ({"negative_prompt": negatives} if scale > 1 else {})

    def _call(self, stand_in: PathScheduler, prompts: list[str], given: Mapping[str, Any]) -> Latents:
        frames, height, width = self.size
        size = {"num_frames": frames, "height": height, "width": width, "num_inference_steps": self.steps}
        with torch.no_grad(), quiet(self.pipe), _standing_in(self.pipe, stand_in):
            return call_pipeline(self.pipe, prompts, {**size, **given}, [0] * len(prompts))


@contextmanager
def _standing_in(pipe: Any, stand_in: PathScheduler) -> Iterator[None]:
    """Let the pipeline begin with the stand-in's latents and step by it."""
    original = pipe.prepare_latents

    @functools.wraps(original)
    def prepare_latents(*args: Any, **kwargs: Any) -> Tensor:
        noise = original(*args, **kwargs)
        if noise.shape != stand_in.latents.shape:
            raise FailureError(
                "the latents are of another run",
                expected=tuple(noise.shape),
                got=tuple(stand_in.latents.shape),
                where=type(pipe).__name__,
            )
        stand_in.latents = stand_in.latents.to(noise.device)
        return stand_in.latents.to(noise.dtype)

    with attribute(pipe, "scheduler", stand_in), attribute(pipe, "prepare_latents", prepare_latents):
        yield
