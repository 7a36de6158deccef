"""A clock that does not make a GPU wait: spans are marked as they pass and added up when somebody asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

Mark = Any
"""A moment: seconds of the wall clock, or an event in the GPU's stream."""


class Clock:
    """Adds up marked spans, in seconds; on CUDA by events in the stream, elsewhere by the wall clock.

    Args:
        device: where the work runs.

    Example:
        >>> clock = Clock(torch.device("cpu"))
        >>> with clock.span():
        ...     _ = torch.zeros(3) + 1
        >>> clock.seconds > 0
        True
    """

    def __init__(self, device: torch.device) -> None:
        self._now, self._between = _ON_GPU if device.type == "cuda" else _ON_WALL
        self._spans: list[tuple[Mark, Mark, int | float]] = []
        self._known = 0.0

    def now(self) -> Mark:
        """The present moment of the device's work."""
        return self._now()

    def add(self, begin: Mark, end: Mark, weight: int | float = 1.0) -> None:
        """Count the span between two moments, times a weight."""
        self._spans.append((begin, end, weight))

    @contextmanager
    def span(self) -> Iterator[None]:
        """Count the time inside the block."""
        begin = self.now()
        try:
            yield
        finally:
            self.add(begin, self.now())

    @property
    def seconds(self) -> float:
        """All spans added up; waits for the device."""
        self._known += sum(weight * self._between(begin, end) for begin, end, weight in self._spans)
        self._spans.clear()
        return self._known


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _elapsed(begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
    end.synchronize()
    return begin.elapsed_time(end) / 1000


Timing = tuple[Callable[[], Mark], Callable[[Mark, Mark], float]]
_ON_GPU: Timing = (_event, _elapsed)
_ON_WALL: Timing = (time.perf_counter, lambda begin, end: end - begin)
