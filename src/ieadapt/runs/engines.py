"""Engines: where workers run: in this process, in processes of this machine, or in actors of a Ray cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from types import ModuleType
from typing import Any

import torch
from diffusers import DiffusionPipeline

from ieadapt.errors import FailureError, IEAdaptError, UsageError, raised_as
from ieadapt.files import sweep
from ieadapt.models import model_folder
from ieadapt.runs.folder import Stages
from ieadapt.runs.notes import pass_on
from ieadapt.runs.settings import ENGINES, check_engine
from ieadapt.runs.shared_files import locked_keys
from ieadapt.runs.workers import LOCKS, Outcome, Reply, RunTasks, Task, Work, Worker, make_all

ATTEMPTS = 3
"""Workers that one task may lose before it is given up, and new workers in place of each lost one."""
PATIENCE_SECONDS = 180.0
"""How long a first worker may take to start, or a cluster to give one while none works."""
STOP_SECONDS = 5.0
"""How long a worker has to end by itself."""
STALE_SECONDS = 60.0
"""Half-written files that nobody has touched for so long are removed."""
_MEMORY_PER_WEIGHT = 3.0
"""Memory that a worker needs, as a multiple of its model's files; stored halves become float32 on a processor."""


def _no_files(work: Any, pipe: DiffusionPipeline, items: dict[str, Any]) -> None:
    """What a worker makes when it only shows that it has started."""


_START = Task(_no_files, {})


class _Process:
    """A worker in a process of its own, so that one which is killed takes no other along."""

    def __init__(self, work: Work, threads: int, number: int) -> None:
        if work.hardware.device in ("auto", "cuda") and (count := torch.cuda.device_count()):
            placed = dataclasses.replace(work.hardware, device=f"cuda:{number % count}")
            work = dataclasses.replace(work, hardware=placed)
        self._work, self._threads = work, threads
        context = multiprocessing.get_context("spawn")
        self._pool = futures.ProcessPoolExecutor(1, mp_context=context, initializer=_prepare_process)
        with _ctrl_c_ignored():
            self._pid = self._pool.submit(os.getpid)

    def submit(self, task: Task) -> futures.Future[Any]:
        try:
            return self._pool.submit(_reply, self._work, self._threads, task)
        except BrokenProcessPool as error:  # it has just died
            lost: futures.Future[Any] = futures.Future()
            lost.set_exception(error)
            return lost

    def stop(self) -> None:
        """Ask the process to end, and end it if it does not."""
        pid = self._pid.result() if self._pid.done() and self._pid.exception() is None else None
        own = [process for process in multiprocessing.active_children() if process.pid == pid]
        for process in own:
            process.terminate()
            process.join(STOP_SECONDS)
            process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)


@cache
def _worker(work: Work, threads: int) -> Worker:
    """The one worker of a process, kept from task to task with its pipeline."""
    return Worker(work, threads)


def _reply(work: Work, threads: int, task: Task) -> Reply:
    return _worker(work, threads).reply(task)


def _prepare_process() -> None:
    """Let SIGTERM unwind a worker, so that it leaves no half-written file, and let it end when its parent has died."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


@contextlib.contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Processes that are started in the block leave Ctrl-C, which a terminal sends to all, to this one."""
    if threading.current_thread() is not threading.main_thread():  # which alone may say what a signal does
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Actor:
    """A worker on a node of a Ray cluster."""

    def __init__(self, ray: Any, work: Work, needs: Mapping[str, int]) -> None:
        self._ray = ray
        # not restarted by Ray: a restarted actor would wait for a node with its task, which others could do
        self._actor = ray.remote(max_restarts=0, **needs)(Worker).remote(work, None if "num_gpus" in needs else 1)

    def submit(self, task: Task) -> futures.Future[Any]:
        future: futures.Future[Any] = self._actor.reply.remote(task).future()
        return future

    def stop(self) -> None:
        self._ray.kill(self._actor)


class WorkerPool:
    """Workers that take tasks one by one. A task whose worker died is given to another.

    `ray.util.ActorPool` would go on giving tasks to an actor that is dead.

    Args:
        start: starts a worker, given how many there were before.
        size: number of workers.
    """

    def __init__(self, start: Callable[[int], _Process | _Actor], size: int) -> None:
        self._start, self._size, self._started = start, size, 0
        self._free: list[_Process | _Actor] = []
        self._busy: dict[futures.Future[Any], tuple[_Process | _Actor, Task]] = {}
        self._lost: Counter[tuple[str, ...]] = Counter()

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Do the tasks, as many at once as there are workers.

        Raises:
            FailureError: a task has lost several workers, or so many died that there is none left.
        """
        waiting = deque(tasks)
        while open_tasks := len(waiting) + sum(bool(task.items) for _, task in self._busy.values()):
            while len(self._busy) + len(self._free) < min(self._size, open_tasks):
                self._give(self._start(self._started), _START)
                self._started += 1
            while waiting and self._free:
                self._give(self._free.pop(), waiting.popleft())
            for future in self._finished():
                worker, task = self._busy.pop(future)
                if (error := future.exception()) is not None:  # what the task raises is a value, see `Worker.reply`
                    self._replace(worker, task, error)
                    waiting.extendleft([task] if task.items else [])
                    continue
                self._free.append(worker)
                reply: Reply = future.result()
                pass_on(reply.notes)
                if isinstance(reply.outcome, IEAdaptError):
                    raise reply.outcome
                yield reply.outcome

    def close(self) -> None:
        """End every worker, all at once."""
        workers = [*self._free, *(worker for worker, _ in self._busy.values())]
        with futures.ThreadPoolExecutor() as threads:
            list(threads.map(lambda worker: worker.stop(), workers))

    def _give(self, worker: _Process | _Actor, task: Task) -> None:
        self._busy[worker.submit(task)] = worker, task

    def _finished(self) -> Collection[futures.Future[Any]]:
        finished, _ = futures.wait(self._busy, PATIENCE_SECONDS, return_when=futures.FIRST_COMPLETED)
        if not finished and not any(task.items for _, task in self._busy.values()):
            raise FailureError(
                "no worker has started",
                got=f"nothing for {PATIENCE_SECONDS:.0f} s",
                remedy="ask for fewer --workers; with Ray, see what `ray status` says",
            )
        return finished

    def _replace(self, worker: _Process | _Actor, task: Task, error: BaseException) -> None:
        worker.stop()
        self._lost[tuple(task.items)] += 1
        if self._lost.total() > ATTEMPTS * self._size or (task.items and self._lost[tuple(task.items)] >= ATTEMPTS):
            raise FailureError(
                "workers of the study keep dying",
                got=f"{max(self._lost.values())} times with one piece of work",
                remedy="they may have run out of memory: take fewer --workers or a smaller --batch, then --resume",
            ) from error


def _in_this_process(work: Work, pipe: DiffusionPipeline | None = None) -> RunTasks:
    worker = Worker(work, given=pipe)
    return lambda tasks: map(worker.run, tasks)


@contextlib.contextmanager
def _local(work: Work, workers: int | None) -> Iterator[RunTasks]:
    """Workers on this machine; one worker is this process itself."""
    number = workers or _local_workers(work)
    if number == 1:
        yield _in_this_process(work)
        return
    threads = max(1, len(os.sched_getaffinity(0)) // number)
    with contextlib.closing(WorkerPool(lambda started: _Process(work, threads, started), number)) as pool:
        yield pool.run


def _local_workers(work: Work) -> int:
    """One worker per GPU; without one, a core each, as far as half of the memory goes."""
    device = work.hardware.device
    if device in ("auto", "cuda") and torch.cuda.device_count():
        return torch.cuda.device_count()
    if device not in ("auto", "cpu"):
        return 1
    weights = sum(path.stat().st_size for path in model_folder(work.model).rglob("*.safetensors"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    affordable = int(0.5 * memory / (_MEMORY_PER_WEIGHT * weights + 2**30))
    return max(1, min(len(os.sched_getaffinity(0)), affordable))


@contextlib.contextmanager
def _on_ray(work: Work, workers: int | None) -> Iterator[RunTasks]:
    """Workers on a Ray cluster: the one that is connected, the one at RAY_ADDRESS, or a new one on this machine."""
    with raised_as(
        UsageError, "Ray is not installed", ImportError, got=None, remedy="in a clone of ieadapt: pip install '.[ray]'"
    ):
        import ray
    connected = ray.is_initialized()
    if not connected:
        _connect(ray)
    resources = ray.cluster_resources()
    number = workers or int(resources.get("GPU", 0) or resources.get("CPU", 1))
    needs = {"num_gpus": 1} if resources.get("GPU", 0) else {"num_cpus": 1}
    try:
        with contextlib.closing(WorkerPool(lambda started: _Actor(ray, work, needs), number)) as pool:
            yield pool.run
    finally:
        if not connected:
            ray.shutdown()


def _connect(ray: ModuleType) -> None:
    address, causes = os.environ.get("RAY_ADDRESS"), (ConnectionError, ValueError, RuntimeError, TimeoutError)
    where, remedy = address or "this machine", "check RAY_ADDRESS and `ray status`"
    with raised_as(FailureError, "the Ray cluster cannot be reached", causes, where=where, remedy=remedy):
        ray.init(address=address, log_to_driver=False, include_dashboard=False)


_OPENERS: Mapping[str, Callable[[Work, int | None], contextlib.AbstractContextManager[RunTasks]]] = dict(
    zip(ENGINES, (_local, _on_ray), strict=True)
)


@contextlib.contextmanager
def open_workers(
    work: Work, engine: str = "local", workers: int | None = None, pipe: DiffusionPipeline | None = None
) -> Iterator[RunTasks]:
    """Workers for the length of a block; what killed processes left in the folder is removed.

    Args:
        work: what they have to know.
        engine: `local` or `ray`.
        workers: how many; None for one per GPU, or per core as far as memory goes.
        pipe: a pipeline at hand, which is used in this process.

    Raises:
        UsageError: an unknown engine, no workers, or a pipeline at hand and an engine of other processes.
        FailureError: the Ray cluster cannot be reached.
    """
    check_engine(engine, workers)
    if pipe is not None and (engine != "local" or workers not in (None, 1)):
        raise UsageError(
            "a pipeline in memory stays in its process",
            expected='engine="local" with one worker',
            got=f"engine={engine!r}, workers={workers}",
            remedy="save the pipeline with save_pretrained(folder) and pass the folder",
        )
    sweep(work.folder, STALE_SECONDS)  # other processes may be writing there now
    try:
        at_hand = None if pipe is None else contextlib.nullcontext(_in_this_process(work, pipe))
        with at_hand or _OPENERS[engine](work, workers) as run:
            yield run
    finally:
        locked_keys(work.folder / LOCKS)  # which removes the lock files of workers that died


def make_missing(
    work: Work,
    pending: Callable[[Collection[str]], Sequence[Task]],
    stages: Stages,
    stage: str,
    *,
    engine: str,
    workers: int | None,
) -> dict[str, IEAdaptError]:
    """`make_all` with workers that are started if there is anything to make."""
    if not pending(()):
        return {}
    with open_workers(work, engine, workers) as run:
        return make_all(run, pending, stages, stage)
