"""Running a pipeline along its noise schedule: from given latents, part of the way, forwards or backwards.

The pipeline's own call is what runs. For its length a `StepFunctionWrapper` takes the scheduler's place.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import family_of, first_denoiser
from ieadapt.errors import UsageError
from ieadapt.models.memory import check_run
from ieadapt.models.noise_schedule import NoiseSchedule, matching_scheduler
from ieadapt.models.scheduler_wrapper import STEP_IN_PART, StepFunctionWrapper
from ieadapt.models.video_latents import Latents, fitting_size, latents_of
from ieadapt.notation import counted
from ieadapt.runs.inputs import FRAMES, GivenInput, call_values
from ieadapt.runs.videos import Video
from ieadapt.tasks.generate import call_pipeline, quiet

Frames = Float[Tensor, "video frame channel height width"]


class PipelineRunner:
    """A pipeline for clips of one size, with a scheduler that has an inverse.

    Args:
        pipe: any text-to-video pipeline of a known family.
        frames: a clip of the size.
        steps: of a whole run.
        call: further inputs of the pipeline's call, the same for all rows, as `GenerationConfig.call` holds them.

    Attributes:
        size: (frames, height, width) in pixels.
        scheduler: gives the noise schedule.
        notes: what to tell the user about the scheduler.

    Raises:
        UsageError: the scheduler has no inverse, or the pipeline draws its noise anew during a run, steps only a part
            of its latents, or lacks an input.
    """

    def __init__(
        self,
        pipe: DiffusionPipeline,
        frames: Video,
        steps: int,
        call: Mapping[str, Any] | None = None,
    ) -> None:
        call_values(type(pipe), call or {})
        in_part, own = isinstance(pipe, STEP_IN_PART), not set(FRAMES) & set(signature(type(pipe).__call__).parameters)
        if in_part or own:
            what = "keeps the latents of the given picture apart" if in_part else "makes a video from a video by itself"
            raise UsageError(
                f"this pipeline {what}, so a clip cannot be inverted with it",
                where=type(pipe).__name__,
                remedy="load the model's text-to-video pipeline",
            )
        if getattr(pipe, "free_init_enabled", False):
            raise UsageError(
                "FreeInit draws noise anew during a run, so a clip's own noise would be lost",
                where=type(pipe).__name__,
                remedy="call pipe.disable_free_init() first",
            )
        self.pipe, self.steps, self._inputs = pipe, steps, call or {}
        self.size: tuple[int, int, int] = (frames.shape[0], frames.shape[2], frames.shape[3])
        self.scheduler, note = matching_scheduler(pipe.scheduler)
        self.notes = () if note is None else (note,)

    def decode(self, latents: Latents) -> Frames:
        """The frames of clean latents, by the pipeline's own last lines (a run of no steps), one video at a time.

        Args:
            latents: clean ones, in the pipeline's own form.
        """
        return torch.cat([self._call(StepFunctionWrapper(self.scheduler, one, []), [""]) for one in latents.split(1)])

    def schedule_for(self, latents: Latents) -> NoiseSchedule:
        """The schedule of runs with latents of this shape."""
        wrapper = StepFunctionWrapper(self.scheduler, latents, [])
        self._call(wrapper, [""] * len(latents), output_type="latent")
        return wrapper.schedule

    def run(
        self, wrapper: StepFunctionWrapper, prompts: list[str], guidance_scale: float = 1.0, negative: str = ""
    ) -> Latents:
        """Run the steps of a wrapper, and return the latents to which they lead.

        Args:
            wrapper: with latents of one row per prompt.
            prompts: one per row.
            guidance_scale: of the pipeline's classifier-free guidance; 1 runs none.
            negative: prompt of the unconditional rows.
        """
        argument = family_of(first_denoiser(self.pipe)).guidance_argument
        guidance: dict[str, Any] = {argument: float(guidance_scale)}
        if guidance_scale > 1:
            guidance["negative_prompt"] = [negative] * len(prompts)
        self._call(wrapper, prompts, output_type="latent", **guidance)
        return wrapper.latents

    def _call(self, wrapper: StepFunctionWrapper, prompts: list[str], **arguments: Any) -> Frames | Latents:
        frames, height, width = self.size
        size = {"num_frames": frames, "height": height, "width": width, "num_inference_steps": self.steps}
        with torch.no_grad(), quiet(self.pipe), wrapper.installed(self.pipe):
            inputs = call_values(type(self.pipe), self._inputs, frames)
            if latents_of(self.pipe).pictures == "each" and len(prompts) > 1:
                given = {name for name, value in self._inputs.items() if isinstance(value, GivenInput)}
                inputs |= {name: [inputs[name]] * len(prompts) for name in given}
            return call_pipeline(self.pipe, prompts, {**size, **inputs, **arguments}, [0] * len(prompts))


def check_source_clip(pipe: DiffusionPipeline, frames: Video) -> None:
    """Refuse a clip that the pipeline cannot take, before anything is computed.

    Args:
        pipe: a text-to-video pipeline of a known family.
        frames: the clip, in [0, 1].

    Raises:
        UsageError: no clip, one frame, colours outside [0, 1], a size that the model's grid does not divide, more
            frames than it has positions for, or more than twice the memory that there is.
    """
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise UsageError("not a clip", expected="frames of shape (frame, 3, height, width)", got=tuple(frames.shape))
    count, _, height, width = frames.shape
    if count < 2:
        raise UsageError("a clip needs frames", expected="at least 2", got=count)
    if not torch.isfinite(frames).all() or frames.min() < 0 or frames.max() > 1:
        raise UsageError("colours out of range", expected="finite values in [0, 1]", got=f"up to {frames.max():.4g}")
    fits = fitting_size(pipe, count, height, width)
    if fits != (count, height, width):
        row = latents_of(pipe)
        longest = f", at most {row.longest(pipe)}" if row.longest(pipe) else ""
        raise UsageError(
            "the model cannot take a clip of this size",
            expected=f"height and width in multiples of {row.pixels(pipe)}, {row.lengths(pipe)}{longest}",
            got=f"{counted(count, 'frame')} of {width}x{height}",
            where=type(pipe).__name__,
            remedy=f"the nearest size below it is {fits[0]} frames of {fits[2]}x{fits[1]}",
        )
    size = {"num_frames": count, "height": height, "width": width}
    check_run(pipe, size, rows=4)  # source and target, times two with guidance
