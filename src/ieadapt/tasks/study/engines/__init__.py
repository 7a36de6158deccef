"""Engines: where the work of a study is done. Every engine runs the same tasks on the same benches, into one folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from diffusers import DiffusionPipeline

from ieadapt.errors import UsageError
from ieadapt.tasks.study.engines.crew import Crew, Workforce
from ieadapt.tasks.study.engines.here import here
from ieadapt.tasks.study.engines.local import local
from ieadapt.tasks.study.engines.on_ray import on_ray
from ieadapt.tasks.study.worker import WorkPlan

Engine = Callable[[WorkPlan, int | None], AbstractContextManager[Workforce]]

ENGINES: Mapping[str, Engine] = {"local": local, "ray": on_ray}


def open_engine(
    name: str, plan: WorkPlan, workers: int | None, pipe: DiffusionPipeline | None = None
) -> AbstractContextManager[Workforce]:
    """Workers of an engine, for the length of a block; a pipeline at hand is used in this process.

    Raises:
        UsageError: an unknown engine, or a pipeline at hand and an engine of other processes.
    """
    if name not in ENGINES:
        raise UsageError("unknown engine", expected=", ".join(ENGINES), got=name, where="--engine")
    if workers is not None and workers < 1:
        raise UsageError("a study needs workers", expected=">= 1", got=workers, where="--workers")
    if pipe is None:
        return ENGINES[name](plan, workers)
    if name != "local" or workers not in (None, 1):
        raise UsageError(
            "a pipeline in memory stays in its process",
            expected='engine="local" with one worker',
            got=f"engine={name!r}, workers={workers}",
            remedy="save the pipeline with save_pretrained(folder) and pass the folder",
        )
    return here(plan, pipe)


__all__ = ["ENGINES", "Crew", "Engine", "Workforce", "here", "local", "on_ray", "open_engine"]
