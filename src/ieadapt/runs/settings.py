"""The settings that runs share: hardware, generation, prompts, workers, and which frames of a video are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ieadapt import models
from ieadapt.errors import UsageError, require_types
from ieadapt.models import PRECISIONS, known_models
from ieadapt.notation import PERTURBATION_FORMS, counted, parse_seconds, parse_term
from ieadapt.runs.flags import setting
from ieadapt.runs.inputs import given_inputs, inputs_field

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

AnyRun = TypeVar("AnyRun", bound="PromptRun")
ENGINES = ("local", "ray")
"""Where workers run, see `ieadapt.runs.engines`."""
MOST_VIDEOS = 1_000_000
"""More than any run finishes; a larger number is a slip, and listing that many takes the memory."""
SEED_LIMIT = 2**63
FITTINGS = ("crop", "fit")
"""`crop` fills the frame and loses the overhang on two sides; `fit` keeps all and adds black bars."""


@dataclass(frozen=True)
class Hardware:
    """On what a pipeline runs.

    Raises:
        UsageError: the precision is none of those known.

    Example:
        >>> Hardware(device="cpu").dtype
        'auto'
    """

    device: str = setting("auto", "auto, cpu, cuda or cuda:N")
    dtype: str = setting("auto", "auto, float32, bfloat16 or float16; auto is float32 on a CPU", choices=PRECISIONS)

    def __post_init__(self) -> None:
        if self.dtype not in PRECISIONS:
            raise UsageError("unknown precision", expected=", ".join(PRECISIONS), got=self.dtype, where="--dtype")

    def load(self, model: str) -> DiffusionPipeline:
        """The pipeline, on this hardware."""
        return models.load(model, device=self.device, dtype=self.dtype)


@dataclass(frozen=True)
class GenerationConfig:
    """How a video is generated. None means the pipeline's own default.

    Attributes:
        call: further arguments of the pipeline's call by name, such as `{"image": "first.png"}`: a text that ends like
            a picture or a video names a file; pictures, tensors and numbers are passed on. Kept by content.

    Raises:
        UsageError: a number is not positive, or an input cannot be read.

    Example:
        >>> GenerationConfig(num_inference_steps=8).guidance_scale is None
        True
    """

    num_inference_steps: int = setting(25, "denoising steps")
    guidance_scale: int | float | None = setting(None, "classifier-free guidance scale")
    num_frames: int | None = setting(None, "frames per video")
    height: int | None = setting(None, "height in pixels")
    width: int | None = setting(None, "width in pixels")
    negative_prompt: str | None = setting(None, "what the video should not show")
    batch_size: int = setting(4, "videos that run as one batch")
    call: Mapping[str, Any] = inputs_field(
        image="picture that the video begins with or is made from",
        video="video, or folder of frames, that it is made from",
    )

    def __post_init__(self) -> None:
        require_types(self)
        object.__setattr__(self, "call", given_inputs(self.call))
        for name in ("num_inference_steps", "num_frames", "height", "width", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be positive", expected=">= 1", got=value)


@dataclass(frozen=True)
class PromptRun:
    """The settings of every run that makes videos from prompts; each task adds its own.

    Attributes:
        model: a bundled name, a folder or a hub id.
        prompts: what the videos show.
        generation: steps, size, guidance.
        seed: of the first prompt; the next prompts take the next ones.
        hardware: device and precision.

    Raises:
        UsageError: no prompt, a blank one, or a seed out of range.
    """

    model: str
    prompts: tuple[str, ...]
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    seed: int = setting(0, "seed of the first prompt; the next ones count up")
    hardware: Hardware = field(default_factory=Hardware)

    def __post_init__(self) -> None:
        check_prompts(self.prompts)
        check_seeds(self.seed, len(self.prompts))

    @property
    def prompt_seeds(self) -> list[int]:
        """The seed of each prompt."""
        return [self.seed + index for index in range(len(self.prompts))]

    @property
    def summary(self) -> str:
        """The size of the run, for a report."""
        steps = counted(self.generation.num_inference_steps, "step")
        return f"{counted(len(self.prompts), 'prompt')}, {steps}, first seed {self.seed}."

    def with_model_defaults(self: AnyRun) -> AnyRun:
        """The same run, with the guidance scale that a bundled model was made for where none is given."""
        return dataclasses.replace(self, generation=with_model_defaults(self.generation, self.model))


@dataclass(frozen=True)
class BudgetRun(PromptRun):
    """The settings of a run that keeps to a budget and works with several workers, beside those of every run.

    Attributes:
        budget: the most time it may take, such as `30m`; the run then does less.
        engine: `local` or `ray`.
        workers: None for one per GPU, or per core as far as memory goes.

    Raises:
        UsageError: no such time, an unknown engine, or no workers.
    """

    budget: str | None = setting(None, "the most time it may take, as in 30m; the run then does less")
    engine: str = setting("local", "local (processes) or ray (a cluster)")
    workers: int | None = setting(None, "one per GPU or core by default")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_engine(self.engine, self.workers)
        if self.budget is not None:
            parse_seconds(self.budget)

    @property
    def shared(self) -> dict[str, Any]:
        """What all that it computes depends on."""
        settings = {name: value for name, value in vars(self.generation).items() if name != "batch_size"}
        return {"model": self.model, **settings}


@dataclass(frozen=True)
class SourceConfig:
    """Which frames of a video file are taken.

    Attributes:
        start: of the span, in seconds from the first picture.
        fps: frames taken per second, at which the output plays too; None for the file's own rate.
        size: `crop` fills the frame and cuts the overhang, `fit` shows all with black bars.
        strict: refuse a video with signs of damage in the span; without it they are notes.

    Raises:
        UsageError: a value out of range.

    Example:
        >>> SourceConfig(start=1.5, fps=8).size
        'crop'
    """

    start: int | float = setting(0.0, "where the span of the video begins, in seconds")
    fps: int | float | None = setting(None, "frames taken per second of the video; by default all of them")
    size: str = setting("crop", "crop (fill the frame) or fit (all of it, with black bars)", choices=FITTINGS)
    strict: bool = setting(False, "refuse a video with signs of damage")

    def __post_init__(self) -> None:
        if not self.start >= 0:
            raise UsageError("a span begins in the video", expected="--start 0 or more", got=self.start)
        if self.fps is not None and not 0.1 <= self.fps <= 240:
            raise UsageError("frames per second out of range", expected="--fps 0.1..240", got=self.fps)
        if self.size not in FITTINGS:
            raise UsageError("unknown fitting", expected=", ".join(FITTINGS), got=self.size, where="--size")

    def as_key(self) -> dict[str, Any]:
        """What decides about the frames; a run that was begun without `strict` is known by the same key as ever."""
        return {name: value for name, value in vars(self).items() if name != "strict" or value}


@dataclass(frozen=True)
class ReadConfig:
    """How videos are read.

    Attributes:
        align: make two videos alike that differ in length or size.
        frames: read only so many frames from the beginning.
        side: shrink to this shorter side.
        strict: refuse a video with signs of damage; without it they are notes.

    Raises:
        UsageError: a number is not positive.
    """

    align: bool = setting(False, "resize and trim videos that differ from their reference")
    frames: int | None = setting(None, "measure only so many frames from the beginning; by default all")
    side: int | None = setting(None, "shrink videos first, to this shorter side in pixels")
    strict: bool = setting(False, "leave out videos with signs of damage")

    def __post_init__(self) -> None:
        for name in ("frames", "side"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name} must be positive", expected=">= 1", got=value)


def check_prompts(prompts: tuple[str, ...]) -> None:
    """Refuse a run without prompts, or with a blank one.

    Raises:
        UsageError: there is no prompt, or one has no text in it.
    """
    if not prompts:
        raise UsageError("there is no prompt", remedy='pass --prompt "a red ball" or --prompts FILE')
    blank = [number for number, prompt in enumerate(prompts, start=1) if not prompt.strip()]
    if blank:
        got = f"prompt {blank[0]} of {len(prompts)}"
        raise UsageError("a prompt is blank", got=got, remedy="write some words in it")


def check_seeds(first: int, videos: int = 1) -> None:
    """Refuse seeds that torch does not take, and more videos than any run finishes, before anything is loaded.

    Args:
        first: the seed of the first video; those of the others count up from it.
        videos: how many there are.

    Raises:
        UsageError: a seed is out of range, or there are too many videos.
    """
    if videos > MOST_VIDEOS:
        got = f"{videos} videos"
        raise UsageError("a run makes too many videos", expected=f"at most {MOST_VIDEOS}", got=got, where="--seeds")
    if not -SEED_LIMIT <= first <= SEED_LIMIT - videos:
        raise UsageError("a seed is out of range", expected="64 bits, with the seeds that count up from it", got=first)


def check_engine(name: str, workers: int | None) -> None:
    """Refuse an engine that is none, and less than one worker.

    Raises:
        UsageError: either of the two.
    """
    if name not in ENGINES:
        raise UsageError("unknown engine", expected=", ".join(ENGINES), got=name, where="--engine")
    if workers is not None and workers < 1:
        raise UsageError("a study needs workers", expected=">= 1", got=workers, where="--workers")


def check_perturbation(text: str) -> None:
    """Refuse a perturbation that there is not, or whose amount is out of range.

    Raises:
        UsageError: either of the two.
    """
    if parse_term(text, PERTURBATION_FORMS, "perturbation")[1]:
        from ieadapt.interventions import parse_perturbation  # which knows the ranges, and needs torch

        parse_perturbation(text)


def with_model_defaults(generation: GenerationConfig, model: str) -> GenerationConfig:
    """The settings of a run, with the guidance scale that a bundled model was made for where none is given.

    Example:
        >>> with_model_defaults(GenerationConfig(), "scenes").guidance_scale
        3.0
    """
    bundled = known_models().get(model)
    if generation.guidance_scale is not None or bundled is None:
        return generation
    return dataclasses.replace(generation, guidance_scale=bundled.guidance_scale)
