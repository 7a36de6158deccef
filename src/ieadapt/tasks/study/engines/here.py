"""One worker: this process itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from diffusers import DiffusionPipeline

from ieadapt.tasks.study.engines.crew import Workforce
from ieadapt.tasks.study.worker import Outcome, Task, WorkPlan


class _Alone:
    """Does one task after the other."""

    def __init__(self, bench: Any) -> None:
        self._bench = bench

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        for task in tasks:
            yield task.run(self._bench)


@contextmanager
def here(plan: WorkPlan, pipe: DiffusionPipeline | None = None) -> Iterator[Workforce]:
    """A workforce of this process alone."""
    with plan.bench(pipe=pipe).open() as bench:
        yield _Alone(bench)
