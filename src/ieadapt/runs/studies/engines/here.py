"""One worker: this process itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from diffusers import DiffusionPipeline

from ieadapt.runs.studies.bench import Bench, Outcome, Plan, Task
from ieadapt.runs.studies.engines.crew import Workforce


class _Alone:
    """Does one task after the other."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        for task in tasks:
            yield task.run(self._bench)


@contextmanager
def here(plan: Plan, pipe: DiffusionPipeline | None = None) -> Iterator[Workforce]:
    """A workforce of this process alone."""
    with Bench(plan, pipe=pipe).open() as bench:
        yield _Alone(bench)
