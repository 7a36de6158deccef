"""Jobs: runs that wait in a line and are carried out one at a time, so that one model is in memory at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ieadapt.errors import UsageError
from ieadapt.runs.folder import Progress, Stages
from ieadapt.web.wording import NO_LABELS, told

State = Literal["waiting", "running", "complete", "stopped", "failed"]
LONGEST_LINE = 50
"""Jobs that may wait at once."""
_PATIENCE = 5.0

Work = Callable[[Stages], None]
"""A run, told where to announce its stages; it ends early if a report of a step raises."""


class Stopped(KeyboardInterrupt):
    """Raised into a run by its own report of a step: someone has stopped it. Its folder is marked as after Ctrl-C."""


@dataclass(frozen=True)
class Status:
    """How far a job is.

    Attributes:
        state: waiting, running, complete, stopped or failed.
        ahead: jobs before it, the running one included; 0 once it runs.
        stage: what the run is doing, in its own words.
        done: steps of the stage that are done.
        total: steps of the stage; 0 before the first is done.
        seconds: since the job began to run.
        left: estimated seconds until the end of the stage; None before its first step.
        words: what went wrong, for the reader of the page.
    """

    state: State
    ahead: int = 0
    stage: str = ""
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    left: float | None = None
    words: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state not in ("waiting", "running")


@dataclass
class _Job:
    name: str
    work: Work
    labels: Mapping[str, str]
    state: State = "waiting"
    stop: threading.Event = field(default_factory=threading.Event)
    words: str = ""
    began: float = 0.0
    stage: str = ""
    stage_began: float = 0.0
    done: int = 0
    total: int = 0

    def begin_stage(self, stage: str) -> Progress:
        """Note the stage; its reports end the run once someone has asked for that."""
        self._end_if_stopped()
        self.stage, self.stage_began, self.done, self.total = stage, time.monotonic(), 0, 0
        return self._report

    def _report(self, done: int, total: int) -> None:
        self._end_if_stopped()
        self.done, self.total = done, total

    def _end_if_stopped(self) -> None:
        if self.stop.is_set():
            raise Stopped

    def status(self, ahead: int) -> Status:
        """As it is now."""
        if self.state != "running":
            return Status(self.state, ahead, words=self.words)
        now = time.monotonic()
        left = (now - self.stage_began) / self.done * (self.total - self.done) if self.done else None
        return Status("running", 0, self.stage, self.done, self.total, now - self.began, left)


class JobQueue:
    """A line of jobs and the one thread that carries them out.

    Args:
        longest: how many may wait.

    Example:
        >>> queue = JobQueue()
        >>> queue.submit("one", lambda stages: stages("counting")(1, 1))
        >>> queue.wait("one").state
        'complete'
        >>> queue.close()
    """

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._jobs: dict[str, _Job] = {}
        self._line: list[_Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._worker = threading.Thread(target=self._carry_out, name="ieadapt-jobs", daemon=True)
        self._worker.start()

    def submit(self, name: str, work: Work, labels: Mapping[str, str] = NO_LABELS) -> None:
        """Put a job at the end of the line.

        Args:
            name: of the job.
            work: what it does.
            labels: of the form that asked for it, for the words in which it fails.

        Raises:
            UsageError: the line is full, or a job of that name is there.
        """
        with self._changed:
            if name in self._jobs:
                raise UsageError("there is a job of that name", got=name)
            if sum(job.state == "waiting" for job in self._line) >= self._longest:
                raise UsageError(
                    "the line of jobs is full", expected=f"at most {self._longest}", remedy="wait, or stop some"
                )
            self._jobs[name] = job = _Job(name, work, labels)
            self._line.append(job)
            self._changed.notify_all()

    def status(self, name: str) -> Status | None:
        """How far a job is; None for a name that was never submitted here."""
        with self._changed:
            job = self._jobs.get(name)
            if job is None:
                return None
            return job.status(self._line.index(job) if job in self._line else 0)

    def stop(self, name: str) -> None:
        """Take a job out of the line; a running one ends at its next step."""
        with self._changed:
            job = self._jobs.get(name)
            if job is None or job.state not in ("waiting", "running"):
                return
            job.stop.set()
            if job.state == "waiting":
                job.state, job.words = "stopped", "Stopped before it began."
                self._line.remove(job)
            self._changed.notify_all()

    def wait(self, name: str, seconds: float = 60.0) -> Status:
        """The status of a job once it is over, or after so many seconds."""
        with self._changed:
            job = self._jobs[name]
            self._changed.wait_for(lambda: job not in self._line, seconds)
            return job.status(0)

    def close(self) -> None:
        """Stop everything; the running job has a few seconds to mark its folder."""
        for name in list(self._jobs):
            self.stop(name)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._worker.join(_PATIENCE)

    def _carry_out(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._line or self._closed)
                if not self._line:
                    return
                job = self._line[0]
                job.state, job.began = "running", time.monotonic()
            state, words = _outcome(job)
            with self._changed:
                job.state, job.words = state, words
                self._line.remove(job)
                self._changed.notify_all()


def _outcome(job: _Job) -> tuple[State, str]:
    """Carry out a job; how it ended, and what is said of it."""
    try:
        job.work(job.begin_stage)
    except Stopped:
        return "stopped", "Stopped. What was finished by then is kept."
    except BaseException as error:  # whatever ends a job, the thread goes on to the next one
        logging.getLogger(__name__).warning("job %s failed", job.name, exc_info=error)
        return "failed", told(error, job.labels)
    return "complete", ""
