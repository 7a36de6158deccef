"""How many frames of which size a model makes by itself, and which it can take."""

from __future__ import annotations

from diffusers import DiffusionPipeline

from ieadapt.models.video_latents import fitting_size, own_size
from ieadapt.runs.sources import Frames
from ieadapt.tasks.generate import GenerationConfig


def frames_for(pipe: DiffusionPipeline, generation: GenerationConfig) -> Frames:
    """The number and size of the frames to take: those asked for or the model's own, rounded down to what fits it.

    Raises:
        UsageError: the model does not say its own size, or the size is none that it can take.

    Example:
        >>> from ieadapt.models import load
        >>> frames_for(load("shapes"), GenerationConfig(height=100))
        Frames(number=16, height=96, width=128)
    """
    asked = {name: getattr(generation, name) or own_size(pipe, name) for name in ("num_frames", "height", "width")}
    return Frames(*fitting_size(pipe, asked["num_frames"], asked["height"], asked["width"]))
