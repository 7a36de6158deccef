"""The queue of jobs: one at a time on one thread, progress, stops that stop, and what is said of failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ieadapt.errors import UsageError
from ieadapt.runs.folder import Stages, open_run, read_run
from ieadapt.web.jobs import JobQueue
from ieadapt.web.rendering import UNEXPECTED


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    made = JobQueue(longest=25)
    yield made
    made.close()


class Steps:
    """A job that takes steps until it is let go."""

    def __init__(self, total: int = 1000) -> None:
        self.total, self.taken, self.begun = total, 0, threading.Event()

    def __call__(self, stages: Stages) -> None:
        report = stages("stepping")
        for step in range(1, self.total + 1):
            time.sleep(0.005)
            report(step, self.total)
            self.taken = step
            self.begun.set()


def test_twenty_jobs_run_one_at_a_time_on_one_thread_in_their_order(queue: JobQueue) -> None:
    running, most, order, threads = 0, 0, [], set()

    def work(number: int, stages: Stages) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        threads.add(threading.get_ident())
        time.sleep(0.005)
        order.append(number)
        running -= 1

    def submit(number: int) -> None:
        queue.submit(f"job-{number}", lambda stages: work(number, stages))

    asking = [threading.Thread(target=submit, args=(number,)) for number in range(20)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert {queue.wait(f"job-{number}").state for number in range(20)} == {"complete"}
    assert (most, len(threads), sorted(order)) == (1, 1, list(range(20)))


def test_a_waiting_job_knows_how_many_are_before_it(queue: JobQueue) -> None:
    first = Steps()
    queue.submit("first", first)
    first.begun.wait(5)
    queue.submit("second", Steps(1))
    queue.submit("third", Steps(1))
    assert [queue.status(name).ahead for name in ("first", "second", "third")] == [0, 1, 2]
    queue.stop("second")
    assert queue.status("second").state == "stopped"
    assert queue.status("third").ahead == 1
    queue.stop("first")
    assert queue.wait("third").state == "complete"


def test_progress_has_the_stage_its_steps_and_the_time_left(queue: JobQueue) -> None:
    work = Steps()
    queue.submit("one", work)
    work.begun.wait(5)
    time.sleep(0.1)
    status = queue.status("one")
    assert (status.state, status.stage, status.total) == ("running", "stepping", 1000)
    assert status.left == pytest.approx(status.seconds / status.done * (1000 - status.done), rel=0.3)
    queue.stop("one")


def test_a_stop_ends_the_job_at_its_next_step_and_marks_its_folder_as_after_ctrl_c(
    queue: JobQueue, tmp_path: Path
) -> None:
    work = Steps()

    def run(stages: Stages) -> None:
        with open_run(tmp_path / "run", "measure", {}) as folder:
            folder.write("first.txt", "kept")
            work(stages)

    queue.submit("one", run)
    work.begun.wait(5)
    queue.stop("one")
    assert queue.wait("one").state == "stopped"
    taken = work.taken
    time.sleep(0.05)
    assert work.taken == taken < 1000
    record = read_run(tmp_path / "run")
    assert (record["status"], record["error"]) == ("partial", "stopped by the user")
    assert (tmp_path / "run" / "first.txt").read_text() == "kept"


def test_errors_of_this_package_are_told_and_others_are_not(queue: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    def refused(stages: Stages) -> None:
        raise UsageError("no such thing", got="/home/someone/secret/name", where="/home/someone")

    def broken(stages: Stages) -> None:
        raise KeyError("/home/someone/secret")

    def short(stages: Stages) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")

    for name, work in (("refused", refused), ("broken", broken), ("short", short)):
        queue.submit(name, work)
    assert queue.wait("refused").message == "No such thing; got name."
    assert queue.wait("broken").message == UNEXPECTED
    assert "secret" in caplog.text
    assert queue.wait("short").message.startswith("The memory did not do.")


def test_a_full_queue_and_a_name_that_is_there_are_refused(queue: JobQueue) -> None:
    first = Steps()
    queue.submit("first", first)
    first.begun.wait(5)
    for number in range(25):
        queue.submit(f"job-{number}", Steps(1))
    with pytest.raises(UsageError, match="the queue of jobs is full; expected at most 25; remedy: wait, or stop some"):
        queue.submit("one-more", Steps(1))
    with pytest.raises(UsageError, match="there is a job of that name"):
        queue.submit("first", Steps(1))


def test_closing_stops_what_runs_and_what_waits() -> None:
    queue, first = JobQueue(), Steps()
    queue.submit("first", first)
    queue.submit("second", Steps(1))
    first.begun.wait(5)
    queue.close()
    assert [queue.status(name).state for name in ("first", "second")] == ["stopped", "stopped"]
