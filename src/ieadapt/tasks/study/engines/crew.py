"""A crew: workers that take tasks one by one. A task whose worker died is given to another."""

from __future__ import annotations

import secrets
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from ieadapt.errors import FailureError
from ieadapt.runs.leases import Claims
from ieadapt.tasks.study.worker import Outcome, Task

ATTEMPTS = 3
"""Workers that one task may lose before it is given up, and new workers in place of each lost one."""


@runtime_checkable
class Workforce(Protocol):
    """Whoever does tasks."""

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Do the tasks in any order; their outcomes as they come."""
        ...


@dataclass(frozen=True)
class Reply:
    """What a worker says.

    Attributes:
        kind: `ready` for work, `done` with an outcome, `raised` an error that ends the study, or `lost`.
        value: the outcome or the error.
    """

    kind: Literal["ready", "done", "raised", "lost"]
    value: Any = None


@runtime_checkable
class Hiring(Protocol):
    """How an engine gets workers and speaks with them; a hand is whatever it calls a worker."""

    def hire(self, owner: str) -> Any:
        """Start a worker that claims its work under this name; it says `ready` when it can begin."""
        ...

    def give(self, hand: Any, task: Task) -> None:
        """Send a task to a worker that is ready."""
        ...

    def replies(self, hands: list[Any]) -> list[tuple[Any, Reply]]:
        """Wait until some of these workers say something."""
        ...

    def dismiss(self, hand: Any) -> None:
        """End a worker at once."""
        ...


class Crew:
    """Workers of one engine.

    Args:
        hiring: the engine.
        size: number of workers.
        claims: of the study folder, to give back what a dead worker held.
    """

    def __init__(self, hiring: Hiring, size: int, claims: Claims) -> None:
        self._hiring, self._size, self._claims = hiring, size, claims
        self._owners: dict[Any, str] = {}
        self._ready: list[Any] = []
        self._busy: dict[Any, Task] = {}
        self._lost: Counter[Task] = Counter()
        self._spare = ATTEMPTS * size

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Do the tasks, as many at once as there are workers.

        Raises:
            FailureError: a task has lost several workers, or so many died that there is none left.
        """
        waiting = deque(tasks)
        while waiting or self._busy:
            while len(self._owners) < min(self._size, len(waiting) + len(self._busy)):
                self._hire()
            while waiting and self._ready:
                hand = self._ready.pop()
                self._busy[hand] = waiting.popleft()
                self._hiring.give(hand, self._busy[hand])
            for hand, reply in self._hiring.replies(list(self._owners)):
                yield from self._hear(hand, reply, waiting)

    def end(self) -> None:
        """End every worker and give back what they held."""
        for hand in list(self._owners):
            self._hiring.dismiss(hand)
            self._claims.release_owner(self._owners.pop(hand))

    def _hire(self) -> None:
        owner = secrets.token_hex(8)
        self._owners[self._hiring.hire(owner)] = owner

    def _hear(self, hand: Any, reply: Reply, waiting: deque[Task]) -> Iterator[Outcome]:
        if reply.kind == "raised":
            raise reply.value
        if reply.kind == "lost":
            self._lose(hand, waiting)
            return
        if reply.kind == "done":
            del self._busy[hand]
            yield reply.value
        self._ready.append(hand)

    def _lose(self, hand: Any, waiting: deque[Task]) -> None:
        self._hiring.dismiss(hand)
        self._claims.release_owner(self._owners.pop(hand))
        self._ready = [other for other in self._ready if other is not hand]
        self._spare -= 1
        task = self._busy.pop(hand, None)
        if task is not None:
            self._lost[task] += 1
            waiting.appendleft(task)
        if self._spare < 0 or (task is not None and self._lost[task] >= ATTEMPTS):
            raise FailureError(
                "workers of the study keep dying",
                got=f"{max(self._lost.values(), default=0)} times with one piece of work",
                remedy="they may have run out of memory: take fewer --workers or a smaller --batch, then --resume",
            )
