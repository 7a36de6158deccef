"""Batches: one bad input never ends the others; what was left out is listed, and the run is marked partial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from ieadapt.errors import FailureError, IEAdaptError
from ieadapt.runs.folder import RunFolder

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batch:
    """The inputs of a run, tried one after another.

    Args:
        noun: what they are, such as "videos".
        say: gets a line for each input of several that is left out.

    Attributes:
        left_out: name of an input -> why it is left out.

    Example:
        >>> batch = Batch("numbers")
        >>> batch.each({"a": 1, "b": 2}, lambda number: 2 * number), batch.left_out
        ([2, 4], {})
    """

    def __init__(self, noun: str, say: Callable[[str], None] = lambda line: None) -> None:
        self._noun, self._say, self._total = noun, say, 0
        self.left_out: dict[str, str] = {}

    @property
    def notes(self) -> list[str]:
        """A line for each input that is left out."""
        return [f"left out: {name}: {reason}" for name, reason in self.left_out.items()]

    def each(self, inputs: Mapping[str, Item], act: Callable[[Item], Result]) -> list[Result]:
        """What comes of every input, by name, that is not left out already.

        Raises:
            IEAdaptError: every input was refused; the first reason.
        """
        self._total = max(self._total, len(inputs))
        results, first = list[Result](), None
        for name in [name for name in inputs if name not in self.left_out]:
            try:
                results.append(act(inputs[name]))
            except IEAdaptError as error:
                first = first or error
                self.left_out[name] = str(error)
                if len(inputs) > 1:
                    self._say(f"{name}: left out: {error}")
        if first is not None and not results:
            raise first
        return results

    def mark(self, run: RunFolder) -> None:
        """Say in the record of a finished run what it lacks."""
        if self.left_out:
            run.note(status="partial", error=str(self.shortfall()), left_out=self.left_out)

    def shortfall(self, remedy: str | None = None) -> FailureError:
        """The error that a command ends with, after all else was done."""
        name, reason = next(iter(self.left_out.items()))
        number = f"{len(self.left_out)} of {self._total}"
        return FailureError(f"{number} {self._noun} were left out", got=f"{name}: {reason}", remedy=remedy)
