"""The local engine: one process per GPU, or per processor core, each with the model loaded once."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from ieadapt.errors import FailureError
from ieadapt.models import model_folder
from ieadapt.runs.leases import Claims
from ieadapt.tasks.study.engines.crew import Crew, Reply, Workforce
from ieadapt.tasks.study.engines.here import here
from ieadapt.tasks.study.folder import StudyFolder
from ieadapt.tasks.study.worker import Task, WorkPlan

_MEMORY_PER_WEIGHT = 3.0
"""Memory that a worker needs, as a multiple of its model's files; stored halves become float32 on a processor."""
PARTING_SECONDS = 5.0
"""How long a worker has to end by itself."""


@contextmanager
def local(plan: WorkPlan, workers: int | None = None) -> Iterator[Workforce]:
    """Workers on this machine; one worker is this process itself.

    Args:
        plan: what to work on.
        workers: how many; by default one per GPU, or as many processor cores as there is memory for.
    """
    number = workers or default_workers(plan)
    cores = len(os.sched_getaffinity(0))
    if number == 1:
        with here(plan) as alone:
            yield alone
        return
    plan = dataclasses.replace(plan, threads=max(1, cores // number))
    crew = Crew(_Processes(plan), number, Claims(StudyFolder(plan.folder).claims_path))
    try:
        yield crew
    finally:
        crew.end()


def default_workers(plan: WorkPlan) -> int:
    """One worker per GPU; without one, a core each, as far as half of the memory goes."""
    device = plan.hardware.device
    if device in ("auto", "cuda") and torch.cuda.device_count():
        return torch.cuda.device_count()
    if device not in ("auto", "cpu"):
        return 1
    weights = sum(path.stat().st_size for path in model_folder(plan.load_from).rglob("*.safetensors"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    affordable = int(0.5 * memory / (_MEMORY_PER_WEIGHT * weights + 2**30))
    return max(1, min(len(os.sched_getaffinity(0)), affordable))


@dataclass(eq=False)
class _Hand:
    process: SpawnProcess
    pipe: Connection


class _Processes:
    """Workers as processes, each at the end of a pipe; a worker whose parent dies finds the pipe closed and ends."""

    def __init__(self, plan: WorkPlan) -> None:
        self._plan, self._hired = plan, 0

    def hire(self, owner: str) -> _Hand:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        plan = dataclasses.replace(self._plan, hardware=_placed(self._plan.hardware, self._hired))
        process = context.Process(target=_work, args=(plan, owner, theirs), daemon=True)
        with _deaf_to_ctrl_c():
            process.start()
        theirs.close()
        self._hired += 1
        return _Hand(process, ours)

    def give(self, hand: _Hand, task: Task) -> None:
        with suppress(BrokenPipeError):  # it has just died, and will be found so
            hand.pipe.send(task)

    def replies(self, hands: list[_Hand]) -> list[tuple[_Hand, Reply]]:
        ready = wait([hand.pipe for hand in hands])
        return [(hand, self._reply(hand)) for hand in hands if hand.pipe in ready]

    def dismiss(self, hand: _Hand) -> None:
        hand.pipe.close()  # which ends a worker that waits for work ...
        hand.process.terminate()  # ... and this one that does some
        hand.process.join(PARTING_SECONDS)
        hand.process.kill()
        hand.process.join()

    def _reply(self, hand: _Hand) -> Reply:
        try:
            return Reply(*hand.pipe.recv())
        except (EOFError, ConnectionResetError):
            return Reply("lost")


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that are started in the block leave Ctrl-C to this one."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not the main thread, which alone may say so
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _placed(hardware: Any, number: int) -> Any:
    """The hardware of one of several workers: GPUs are dealt out in turn."""
    if hardware.device in ("auto", "cuda") and torch.cuda.device_count():
        return dataclasses.replace(hardware, device=f"cuda:{number % torch.cuda.device_count()}")
    return hardware


def _work(plan: WorkPlan, owner: str, pipe: Connection) -> None:
    """A worker's life: say ready, do what comes, end when the pipe closes or the parent says so."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
    with suppress(EOFError, BrokenPipeError):
        try:
            with plan.bench(owner).open() as bench:
                pipe.send(("ready",))
                while True:
                    pipe.send(("done", pipe.recv().run(bench)))
        except (EOFError, BrokenPipeError):
            raise
        except Exception as error:
            pipe.send(("raised", _sendable(error)))


def _sendable(error: Exception) -> Exception:
    """An error that arrives whole: those of libraries may not survive being sent."""
    if type(error).__module__.startswith("ieadapt."):
        return error
    return FailureError("a worker of the study failed", got=f"{type(error).__name__}: {error}")
