"""Workers: what they know and the tasks they do; `ieadapt.runs.engines` starts them.

A task makes files of one folder, each whole or not there, and locks them meanwhile. So a worker may be killed at any
time: its task is given to another one. Processes that work on the same folder share its tasks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from ieadapt.errors import FailureError, IEAdaptError, UsageError, raised_as
from ieadapt.notation import counted
from ieadapt.runs.folder import Stages
from ieadapt.runs.notes import overheard
from ieadapt.runs.settings import Hardware
from ieadapt.runs.shared_files import StorageError, locked

LOCKS = "locks"
"""Folder of the lock files, in the folder of the work."""
WAIT_SECONDS = 1.0
"""Between two looks at files that other processes are making."""


@dataclass(frozen=True)
class Work:
    """What every worker of a run has to know; small, since it is sent to other processes.

    Attributes:
        folder: where the files go; every worker must see it.
        model: a bundled name, a folder or a hub id.
        hardware: device and precision.
    """

    folder: Path
    model: str
    hardware: Hardware

    def check_folder(self) -> None:
        """Refuse to work where the folder is another one, or not there."""

    def pipeline(self, given: DiffusionPipeline | None = None) -> DiffusionPipeline:
        """The pipeline that makes the files: the one at hand, or a loaded one."""
        return given if given is not None else self.hardware.load(self.model)


@dataclass(frozen=True)
class Task:
    """Files that one worker makes together.

    Attributes:
        make: called with the work, the pipeline and those items that no other process is making; it makes what is
            missing. What it raises concerns all of them; reasons for some of them it returns, by key.
        items: what `make` needs to know of each file, by the key under which it is locked.
    """

    make: Callable[[Any, DiffusionPipeline, dict[str, Any]], Mapping[str, IEAdaptError] | None]
    items: Mapping[str, Any]


def tasks_of(
    make: Callable[[Any, DiffusionPipeline, dict[str, Any]], Any], items: Mapping[str, Any], size: int
) -> list[Task]:
    """Items in tasks of at most so many.

    Example:
        >>> [list(task.items) for task in tasks_of(print, {"a": 1, "b": 2, "c": 3}, 2)]
        [['a', 'b'], ['c']]
    """
    keys = list(items)
    return [Task(make, {key: items[key] for key in keys[start : start + size]}) for start in range(0, len(keys), size)]


Outcome = Mapping[str, IEAdaptError | None]
"""What became of a task: None, or why it could not be made, by key; what another process is making is not in it."""
RunTasks = Callable[[Iterable[Task]], Iterator[Outcome]]
"""Workers: they do tasks in any order, and give the outcomes as they come."""


@dataclass(frozen=True)
class Reply:
    """What a worker in another process answers.

    Attributes:
        outcome: of the task, or the error that ends the run.
        notes: what came up meanwhile; the process's own output is not seen.
    """

    outcome: Outcome | IEAdaptError
    notes: tuple[str, ...] = ()


class Worker:
    """A pipeline, loaded once, and a folder to fill.

    Args:
        work: what to know.
        threads: processor threads; None leaves them as they are.
        given: the pipeline, where it is at hand; else it is loaded when it is first needed.
    """

    def __init__(self, work: Work, threads: int | None = None, given: DiffusionPipeline | None = None) -> None:
        self._work, self._given = work, given
        if threads:
            torch.set_num_threads(threads)

    @cached_property
    def _pipe(self) -> DiffusionPipeline:
        return self._work.pipeline(self._given)

    def run(self, task: Task) -> Outcome:
        """Do a task, but for what other processes are doing.

        Raises:
            IEAdaptError: the run cannot go on: the folder cannot be used, or the model not be loaded.
        """
        self._work.check_folder()
        with locked(self._work.folder / LOCKS, task.items) as free:
            if not free:
                return {}
            pipe, items = self._pipe, {key: task.items[key] for key in free}
            try:
                with within_memory(len(items)):
                    return dict.fromkeys(items) | dict(task.make(self._work, pipe, items) or {})
            except StorageError:
                raise
            except IEAdaptError as error:
                return dict.fromkeys(items, error)

    def reply(self, task: Task) -> Reply:
        """As `run`, with the error that ends the run as a value: those of libraries may not survive being sent."""
        outcome: Outcome | IEAdaptError
        with overheard() as notes:
            try:
                outcome = self.run(task)
            except IEAdaptError as error:
                outcome = error
            except Exception as error:
                outcome = FailureError("a worker failed", got=f"{type(error).__name__}: {error}")
        return Reply(outcome, tuple(notes))


def within_memory(videos: int) -> AbstractContextManager[None]:
    """Say what to do where the device's memory is too small for a batch."""
    facts = {"got": f"{counted(videos, 'video')} in a batch", "remedy": "use a smaller --batch"}
    return raised_as(FailureError, "the device's memory is too small", torch.OutOfMemoryError, **facts)


@contextmanager
def leaving_nothing(
    folder: Path, prepared: Collection[str] = (), unless: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Let go of what a request left in its folder where it is refused, so that the folder itself can go.

    Args:
        folder: of the work.
        prepared: names of files that were made for it.
        unless: says whether something was made already; then these stay.
    """
    try:
        yield
    except UsageError:
        for name in prepared if not unless() else ():
            (folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # a task still holds a lock
            (folder / LOCKS).rmdir()
        raise


def make_all(
    run: RunTasks, pending: Callable[[Collection[str]], Sequence[Task]], stages: Stages, stage: str
) -> dict[str, IEAdaptError]:
    """Run tasks until none is left; files that other processes are making are waited for.

    Args:
        run: the workers.
        pending: the tasks that are left, without those keys that have failed.
        stages: told how far it is.
        stage: its name.

    Returns:
        Why some files could not be made, by key.
    """
    failed: dict[str, IEAdaptError] = {}
    tasks, done = pending(failed), 0
    if not tasks:
        return failed
    total, report = sum(len(task.items) for task in tasks), stages(stage, "")
    while tasks:
        before = done
        for outcome in run(tasks):
            done += len(outcome)
            failed |= {key: reason for key, reason in outcome.items() if reason is not None}
            report(min(done, total), total)
        if done == before:
            time.sleep(WAIT_SECONDS)
        tasks = pending(failed)
    return failed


def require_all(
    run: RunTasks, pending: Callable[[Collection[str]], Sequence[Task]], stages: Stages, stage: str
) -> None:
    """`make_all` of what the work cannot go on without.

    Raises:
        IEAdaptError: why the first of some files could not be made.
    """
    for error in make_all(run, pending, stages, stage).values():
        raise error


def require_once(
    run: RunTasks, make: Callable[..., None], there: Callable[[], bool], stages: Stages, stage: str
) -> None:
    """Let one worker make what the work needs one of, unless it is there; errors as of `require_all`."""

    def pending(failed: Collection[str]) -> list[Task]:
        return [] if failed or there() else [Task(make, {make.__name__: None})]

    require_all(run, pending, stages, stage)
