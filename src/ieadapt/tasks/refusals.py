"""Why a pipeline failed, in one line: what it was not given, a setting that it cannot take, or its own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import DiffusionPipeline

from ieadapt.errors import UsageError
from ieadapt.models.video_latents import latents_of
from ieadapt.runs.inputs import media_of, no_input


def refusal(pipe: DiffusionPipeline, given: Mapping[str, Any], error: Exception) -> UsageError | None:
    """The request's fault in an error that a pipeline's call raised; None where it is a fault of the program.

    Args:
        pipe: the pipeline.
        given: the arguments of its call.
        error: what it raised.
    """
    where, absent, text = type(pipe).__name__, media_of(type(pipe)), str(error)
    about = [name for name in absent if name in text] or absent[:1] * any(word in text for word in ("None", "PIL"))
    if about and not set(absent) & set(given):
        return no_input(type(pipe), about[:1], text.splitlines()[0][:200])
    last = getattr(pipe, "_last_supported_version", None)
    if isinstance(error, ValueError) or last is not None:
        remedy = last and f"diffusers maintains this pipeline up to {last} only; use another, or versions of that time"
        return UsageError("the pipeline refuses this call", got=text, where=where, remedy=remedy)
    if isinstance(error, ZeroDivisionError) and given.get("num_inference_steps") == 1:
        return UsageError("this pipeline cannot make a video in one step", expected="--steps 2 or more", where=where)
    return _unfit(pipe, given) if isinstance(error, RuntimeError) else None


def _unfit(pipe: Any, given: Mapping[str, Any]) -> UsageError | None:
    """A size or number of frames that the model's grid or positions do not take."""
    try:
        row = latents_of(pipe)
        pixels, longest = row.pixels(pipe), row.longest(pipe)
    except UsageError:
        return None
    frames, height, width = (given.get(name) for name in ("num_frames", "height", "width"))
    if longest and (frames or 0) > longest:
        return UsageError(
            "more frames than the motion adapter has positions for",
            expected=f"at most {longest}",
            got=frames,
            where=type(pipe).__name__,
            remedy="lower --frames, or call pipe.enable_free_noise() in Python",
        )
    if all(side is None or side % pixels == 0 for side in (height, width)):
        return None
    expected, got = f"height and width in multiples of {pixels}", f"{width}x{height}"
    return UsageError("the model cannot make a video of this size", expected=expected, got=got)
