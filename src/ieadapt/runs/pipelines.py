"""Which model a run uses, on what and in which precision; and what the run's record says of it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from torch import nn

from ieadapt.attention import denoisers_of, family_of
from ieadapt.runs.flags import command_line
from ieadapt.runs.folder import RunFolder, open_run
from ieadapt.runs.settings import Hardware

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
