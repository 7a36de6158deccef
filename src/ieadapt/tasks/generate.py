"""Running a pipeline: one place that calls diffusers, for every family."""

from __future__ import annotations

import inspect
import itertools
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import family_of, first_denoiser
from ieadapt.attention.restore import around, attribute
from ieadapt.errors import FailureError, IEAdaptError, IEAdaptWarning, UsageError
from ieadapt.models import known_models
from ieadapt.models.memory import check_run
from ieadapt.models.video_latents import latents_of
from ieadapt.runs.folder import Progress
from ieadapt.runs.inputs import FRAMES, GivenInput, call_values, media_of, no_input
from ieadapt.runs.settings import GenerationConfig, check_prompts
from ieadapt.testbed.captions import words


def generate(
    pipe: DiffusionPipeline,
    prompts: str | Sequence[str],
    config: GenerationConfig | None = None,
    seeds: Sequence[int] | int = 0,
    progress: Progress | None = None,
) -> Float[Tensor, "video frame channel height width"]:
    """Generate one video per prompt; float32 on the CPU, in [0, 1].

    Noise is drawn per video from its own seed, so that a video does not depend on its batch, up to rounding.
    Several run as one batch, but one at a time where that would not hold, and with a picture or a video among
    `config.call`.

    Args:
        pipe: any video pipeline; one that takes no prompt is not given any.
        prompts: one prompt or several.
        config: steps, size, guidance.
        seeds: one per prompt, or the first of consecutive ones.
        progress: called with (denoising steps done, denoising steps in all).

    Raises:
        UsageError: no or empty prompts, a prompt too long for the text encoder, an argument that the pipeline lacks,
            a run that cannot fit into the memory (one that may not is warned of).
        FailureError: the frames hold NaN.
    """
    config = config or GenerationConfig()
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    check_prompts(tuple(prompts))
    for prompt in prompts:
        check_prompt(pipe, prompt)
    seeds = list(range(seeds, seeds + len(prompts))) if isinstance(seeds, int) else list(seeds)
    if len(seeds) != len(prompts):
        raise UsageError("as many seeds as prompts are needed", expected=len(prompts), got=len(seeds))
    size = videos_at_once(pipe, config)
    starts = range(0, len(prompts), size)
    total = len(starts) * config.num_inference_steps
    videos = []
    for done, start in enumerate(starts):
        batch = slice(start, start + size)
        with reporting(pipe, progress, done * config.num_inference_steps, total), quiet(pipe):
            videos.append(run_batch(pipe, prompts[batch], config, seeds[batch]))
    made = torch.cat(videos)
    _say_what_was_made(pipe, config, made)
    return made


def made_size(videos: Float[Tensor, "*video frame channel height width"]) -> dict[str, int]:
    """What was made, for a record: a model rounds the number of frames, and the size, to what it can make.

    Example:
        >>> made_size(torch.zeros(1, 9, 3, 16, 24))
        {'num_frames': 9, 'height': 16, 'width': 24}
    """
    frames, _, height, width = videos.shape[-4:]
    return {"num_frames": frames, "height": height, "width": width}


def _say_what_was_made(pipe: DiffusionPipeline, config: GenerationConfig, videos: Tensor) -> None:
    made = made_size(videos)
    requested = {name: value for name in made if (value := getattr(config, name)) is not None}
    others = [f"{name} {made[name]} instead of {value}" for name, value in requested.items() if made[name] != value]
    if others:
        warnings.warn(
            f"{type(pipe).__name__} made {', '.join(others)}: the nearest that it can make",
            IEAdaptWarning,
            stacklevel=3,
        )


def run_batch(
    pipe: DiffusionPipeline, prompts: list[str], config: GenerationConfig, seeds: Sequence[int], **given: Any
) -> Float[Tensor, "video ..."]:
    """Call the pipeline once for some prompts; further arguments are the pipeline's own, as for `call_pipeline`."""
    size = {name: getattr(config, name) for name in ("num_frames", "height", "width")}
    if config.negative_prompt is not None:
        check_prompt(pipe, config.negative_prompt, "the negative prompt")
    check_run(pipe, size, rows=len(prompts) * _rows_per_video(pipe, config))
    arguments = {
        **size,
        "num_inference_steps": config.num_inference_steps,
        "guidance_scale": config.guidance_scale,
        "negative_prompt": None if config.negative_prompt is None else [config.negative_prompt] * len(prompts),
        **call_values(type(pipe), config.call, config.num_frames),
    }
    named = {_name_in(pipe, name, config): value for name, value in arguments.items() if value is not None}
    named.pop("", None)
    return call_pipeline(pipe, prompts, named | given, seeds)


def videos_at_once(pipe: DiffusionPipeline, config: GenerationConfig) -> int:
    """Videos of one call of the pipeline.

    One where a video would depend on its batch, and where a picture or a video is given: pipelines differ in how they
    want several.
    """
    given = any(isinstance(value, GivenInput) for value in config.call.values())
    return 1 if given or family_of(first_denoiser(pipe)).prompts == "alone" else config.batch_size


def _name_in(pipe: DiffusionPipeline, name: str, config: GenerationConfig) -> str:
    """What a pipeline calls a setting; nothing for the number of frames of one that makes as many as it is given."""
    parameters = inspect.signature(type(pipe).__call__).parameters
    if name in parameters:
        return name
    if name == "num_frames":
        return next((each for each in FRAMES if each in parameters), "" if config.call else name)
    return family_of(first_denoiser(pipe)).guidance_argument if name == "guidance_scale" else name


def _rows_per_video(pipe: DiffusionPipeline, config: GenerationConfig) -> int:
    """Rows of the denoiser's batch for one video: two where both guidance branches run in one call."""
    unguided = config.guidance_scale is not None and config.guidance_scale <= 1
    batched = family_of(first_denoiser(pipe)).guidance == "batched"
    return 2 if batched and not unguided else 1


def call_pipeline(
    pipe: DiffusionPipeline, prompts: list[str], given: Mapping[str, Any], seeds: Sequence[int]
) -> Float[Tensor, "video ..."]:
    """Call the pipeline with one prompt and seed per video.

    Returns:
        Frames (video, frame, channel, height, width) in [0, 1], or latents if `output_type` asks for them; float32 on
        the CPU.

    Raises:
        UsageError: an argument that the pipeline lacks or refuses.
        FailureError: the frames hold NaN.
    """
    parameters = inspect.signature(type(pipe).__call__).parameters
    unknown = [name for name in given if name not in parameters]
    if unknown:
        raise UsageError("the pipeline has no such argument", got=", ".join(unknown), where=type(pipe).__name__)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    texts = {"prompt": prompts, **{name: given[name] for name in ("negative_prompt",) if name in given}}
    noise: Any = generators
    if len(prompts) == 1:  # some pipelines refuse every list
        noise, texts = generators[0], {name: text[0] for name, text in texts.items()}
    texts = {name: text for name, text in texts.items() if name in parameters}
    try:
        frames = pipe(generator=noise, **{"output_type": "pt", **given, **texts}).frames
    except (ValueError, TypeError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        refused = None if isinstance(error, IEAdaptError) else _refusal(pipe, given, error)
        if refused is None:
            raise
        raise refused from error
    frames = torch.as_tensor(frames).float().cpu()
    if not torch.isfinite(frames).all():
        raise FailureError(
            "the generated frames are not finite",
            where=type(pipe).__name__,
            remedy="use float32 or bfloat16, or a lower guidance or perturbation scale",
        )
    return frames.clamp(0, 1)


def _refusal(pipe: DiffusionPipeline, given: Mapping[str, Any], error: Exception) -> UsageError | None:
    """The request's fault in an error that a pipeline's call raised; None where it is a fault of the program."""
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


@contextmanager
def reporting(pipe: DiffusionPipeline, progress: Progress | None, done: int, total: int) -> Iterator[None]:
    """Tell a callback of every step that the pipeline tells its own progress bar; the model is not touched."""
    if progress is None:
        yield
        return
    steps = itertools.count(done + 1)

    def with_report(proceed: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        bar = proceed(*args, **kwargs)
        update = bar.update

        def updated(number: int = 1) -> Any:
            progress(min(next(steps), total), total)
            return update(number)

        bar.update = updated
        return bar

    with around(pipe, "progress_bar", with_report):
        yield


def quiet(pipe: DiffusionPipeline) -> AbstractContextManager[None]:
    """Switch the pipeline's own progress bar off for the length of the block."""
    own = getattr(pipe, "_progress_bar_config", {})  # what `set_progress_bar_config` sets
    return attribute(pipe, "_progress_bar_config", {**own, "disable": True})


def check_prompt(pipe: Any, prompt: str, what: str = "the prompt") -> None:
    """Refuse a prompt that the text encoder would cut in silence, and name words that a bundled model does not know.

    Raises:
        UsageError: the prompt is too long.
    """
    unknown = unknown_words(pipe, prompt)
    if unknown:
        warnings.warn(
            f"{what} has words that this bundled model was not trained on: {', '.join(unknown)}; it knows: "
            f"{', '.join(words())}",
            IEAdaptWarning,
            stacklevel=2,
        )
    tokenizer = getattr(pipe, "tokenizer", None)
    if tokenizer is None or not hasattr(tokenizer, "decode"):
        return
    limits = [getattr(tokenizer, "model_max_length", None)]
    parameters = inspect.signature(type(pipe).__call__).parameters
    if "max_sequence_length" in parameters:
        limits.append(parameters["max_sequence_length"].default)
    limit = min(value for value in limits if isinstance(value, int))
    tokens = tokenizer(prompt, truncation=False, verbose=False).input_ids
    if len(tokens) > limit:
        lost = tokenizer.decode(tokens[limit - 1 :], skip_special_tokens=True)
        raise UsageError(
            f"{what} is too long for the text encoder",
            expected=f"at most {limit} tokens",
            got=f"{len(tokens)}; these words would be dropped: {lost!r}",
            remedy=f"shorten {what}",
        )


def unknown_words(pipe: Any, prompt: str) -> list[str]:
    """The words of a prompt that a bundled model has never seen; none of any other model.

    Example:
        >>> from ieadapt.models import load
        >>> unknown_words(load("scenes"), "A big red dog moving left over bricks.")
        ['dog']
    """
    folder = getattr(pipe, "name_or_path", None)
    if not any(folder == str(model.folder) for model in known_models().values()):
        return []
    known = words()
    return [word for word in dict.fromkeys(re.findall(r"[\w'-]+", prompt.lower())) if word not in known]
