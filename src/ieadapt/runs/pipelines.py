"""Which model a run uses, on what and in which precision; and what the run's record says of it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from torch import nn

from ieadapt.attention import denoisers_of, family_of
from ieadapt.errors import UsageError
from ieadapt.models import PRECISIONS, load
from ieadapt.runs.flags import command_line, setting
from ieadapt.runs.folder import RunFolder, open_run

MOST_VIDEOS = 1_000_000
"""More than any run finishes; a larger number is a slip, and listing that many takes the memory."""
SEED_LIMIT = 2**63


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
    dtype: str = setting(
        "auto", "auto, float32, bfloat16 or float16; auto is float32 on a CPU", choices=tuple(PRECISIONS)
    )

    def __post_init__(self) -> None:
        if self.dtype not in PRECISIONS:
            raise UsageError("unknown precision", expected=", ".join(PRECISIONS), got=self.dtype, where="--dtype")

    def load(self, model: str) -> DiffusionPipeline:
        """The pipeline, on this hardware."""
        return load(model, device=self.device, dtype=self.dtype)


Load = Callable[[Hardware, str], DiffusionPipeline]
"""How a run comes by its pipeline: given the hardware and the model's name."""


@contextlib.contextmanager
def open_model_run(
    workflow: str,
    config: Any,
    out: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    load: Load = Hardware.load,
) -> Iterator[tuple[RunFolder, DiffusionPipeline]]:
    """Open the folder of a run and load its pipeline; the record says the config, the command and the pipeline.

    Args:
        workflow: the command's name.
        config: the run's config, a dataclass with `model` and `hardware`.
        out: the run folder.
        overwrite: as in `open_run`.
        resume: as in `open_run`.
        load: how the run comes by its pipeline; by default it loads one.

    Raises:
        UsageError: the folder cannot be used, or there is no such model.
    """
    command, record = command_line(workflow, config, out), dataclasses.asdict(config)
    with open_run(out, workflow, record, command=command, overwrite=overwrite, resume=resume) as run:
        pipe = load(config.hardware, config.model)
        run.note(model=describe(pipe))
        yield run, pipe


def check_prompts(prompts: tuple[str, ...]) -> None:
    """Refuse a run without prompts, or with a blank one.

    Raises:
        UsageError: there is no prompt, or one has no text in it.
    """
    if not prompts:
        raise UsageError("there is no prompt", remedy='pass --prompt "a red ball" or --prompts FILE')
    blank = [number for number, prompt in enumerate(prompts, start=1) if not prompt.strip()]
    if blank:
        raise UsageError(
            "a prompt is blank", got=f"prompt {blank[0]} of {len(prompts)}", remedy="write some words in it"
        )


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


def name_of(pipe: DiffusionPipeline) -> str:
    """Where a pipeline was loaded from, or its class where it was built in memory."""
    return str(pipe.config.get("_name_or_path") or type(pipe).__name__)


def named(model: str | Path | DiffusionPipeline) -> tuple[str, DiffusionPipeline | None]:
    """The name of a model, and the pipeline itself where that is what was given."""
    return (name_of(model), model) if isinstance(model, DiffusionPipeline) else (str(model), None)


def describe(pipe: DiffusionPipeline) -> dict[str, Any]:
    """What the record of a run says about its pipeline."""
    denoiser = next(iter(denoisers_of(pipe).values()))
    return {
        "pipeline": type(pipe).__name__,
        "family": family_of(denoiser).name,
        "denoiser": type(denoiser).__name__,
        "parameters": sum(parameter.numel() for parameter in denoiser.parameters()),
        "weights": str(pipe.config.get("_name_or_path", "")),
        "scheduler": type(pipe.scheduler).__name__,
        "device": str(pipe.device),
        "dtype": str(denoiser.dtype).removeprefix("torch."),
        "attention_backend": _attention_backend(denoiser),
    }


def _attention_backend(denoiser: nn.Module) -> str:
    """The backend set on the model, or the process-wide default of diffusers."""
    chosen = (getattr(getattr(module, "processor", None), "_attention_backend", None) for module in denoiser.modules())
    named = next((backend for backend in chosen if backend is not None), None)
    return str(getattr(named, "value", named or os.environ.get("DIFFUSERS_ATTN_BACKEND", "native")))


def display_path(path: str | Path) -> str:
    """A path as a reader would type it: relative to the working folder where it lies below that."""
    full = Path(path).resolve()
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(path)
