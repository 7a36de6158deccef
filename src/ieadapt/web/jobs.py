"""Jobs: runs that wait in a queue and are carried out one at a time, so that one model is in memory at a time."""

from __future__ import annotations

import concurrent.futures
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ieadapt.errors import UsageError
from ieadapt.runs.folder import Progress, Stages
from ieadapt.web.rendering import NO_LABELS, message_of

State = Literal["waiting", "running", "complete", "stopped", "failed"]
LONGEST_QUEUE = 50
"""Jobs that may wait at once."""
_PATIENCE = 5.0

Work = Callable[[Stages], object]
"""A run, given where it announces its stages; it ends early if a report of a step raises."""


class Stopped(KeyboardInterrupt):
    """Raised into a run by its own report of a step: someone has stopped it. Its folder is marked as after Ctrl-C."""


@dataclass(frozen=True)
class Status:
    """How far a job is.

    Attributes:
        state: waiting, running, complete, stopped or failed.
        ahead: jobs before it, the running one included; 0 once it runs.
        stage: what the run is doing, as it announces it.
        done: steps of the stage that are done.
        total: steps of the stage; 0 before the first is done.
        seconds: since the job began to run.
        left: estimated seconds until the end of the stage; None before its first step.
        message: what went wrong, for the reader of the page.
    """

    state: State
    ahead: int = 0
    stage: str = ""
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    left: float | None = None
    message: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state not in ("waiting", "running")


STOPPED = Status("stopped", message="Stopped. What was finished by then is kept.")


@dataclass
class _Job:
    """A run with its latest report. Its future holds a status and no exception, whose frames would hold the model."""

    work: Work
    labels: Mapping[str, str]
    future: concurrent.futures.Future[Status] = field(default_factory=concurrent.futures.Future)
    stopping: threading.Event = field(default_factory=threading.Event)
    latest: Status = Status("running")
    began: float = 0.0
    stage_began: float = 0.0

    def begin_stage(self, stage: str, counts: str = "step") -> Progress:
        """Note the stage; its reports end the run once someone has asked for that."""
        self.report(0, 0)
        self.latest, self.stage_began = Status("running", stage=stage), time.monotonic()
        return self.report

    def report(self, done: int, total: int) -> None:
        """Note how many steps of the stage are done."""
        if self.stopping.is_set():
            raise Stopped
        self.latest = replace(self.latest, done=done, total=total)

    def carry_out(self) -> Status:
        """Run it; how it ended."""
        try:
            self.work(self.begin_stage)
        except Stopped:
            return STOPPED
        except BaseException as error:  # whatever ends a job, the thread goes on to the next one
            logging.getLogger(__name__).warning("a job failed", exc_info=error)
            return Status("failed", message=message_of(error, self.labels))
        return Status("complete")

    def status(self, ahead: int = 0) -> Status:
        """As it is now."""
        if self.future.cancelled():
            return Status("stopped", message="Stopped before it began.")
        if self.future.done():
            return self.future.result()
        if not self.future.running():
            return Status("waiting", ahead)
        now, latest = time.monotonic(), self.latest
        left = (now - self.stage_began) / latest.done * (latest.total - latest.done) if latest.done else None
        return replace(latest, seconds=now - self.began, left=left)


class JobQueue:
    """A queue of jobs and the one thread that carries them out.

    Args:
        longest: how many may wait.

    Example:
        >>> jobs = JobQueue()
        >>> jobs.submit("one", lambda stages: stages("counting")(1, 1))
        >>> jobs.wait("one").state
        'complete'
        >>> jobs.close()
    """

    def __init__(self, longest: int = LONGEST_QUEUE) -> None:
        self._longest = longest
        self._jobs: dict[str, _Job] = {}
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # a daemon, unlike the threads of an executor: a job that hangs does not keep the server from ending
        self._worker = threading.Thread(target=self._carry_out, name="ieadapt-jobs", daemon=True)
        self._worker.start()

    def submit(self, name: str, work: Work, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Put a job at the end of the queue.

        Args:
            name: of the job.
            work: what it does.
            labels: of the form that asked for it, for the message with which it fails.

        Raises:
            UsageError: the queue is full, or a job of that name is there.
        """
        with self._lock:
            if name in self._jobs:
                raise UsageError("there is a job of that name", got=name)
            if sum(job.status().state == "waiting" for job in self._jobs.values()) >= self._longest:
                expected = f"at most {self._longest}"
                raise UsageError("the queue of jobs is full", expected=expected, remedy="wait, or stop some")
            self._jobs[name] = job = _Job(work, labels)
            self._queue.put(job)

    def status(self, name: str) -> Status | None:
        """How far a job is; None for a name that was never submitted here."""
        with self._lock:
            job = self._jobs.get(name)
            if job is None:
                return None
            earlier = itertools.takewhile(lambda each: each is not job, self._jobs.values())
            return job.status(sum(not each.future.done() for each in earlier))

    def stop(self, name: str) -> None:
        """Take a job out of the queue; a running one ends at its next step."""
        job = self._jobs.get(name)
        if job is not None:
            job.stopping.set()
            job.future.cancel()

    def wait(self, name: str, seconds: float = 60.0) -> Status:
        """The status of a job once it is over, or after so many seconds."""
        job = self._jobs[name]
        concurrent.futures.wait([job.future], seconds)
        return job.status()

    def close(self) -> None:
        """Stop everything; the running job has a few seconds to mark its folder."""
        for name in list(self._jobs):
            self.stop(name)
        self._queue.put(None)
        self._worker.join(_PATIENCE)

    def _carry_out(self) -> None:
        while (job := self._queue.get()) is not None:
            job.began = time.monotonic()
            if job.future.set_running_or_notify_cancel():
                job.future.set_result(job.carry_out())
