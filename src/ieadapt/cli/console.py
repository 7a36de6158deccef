"""What a person sees: progress with the time left on stderr, tables or JSON on stdout."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ieadapt.runs.folder import Progress as Report
from ieadapt.runs.folder import Stages


@contextlib.contextmanager
def shown_stages() -> Iterator[Stages]:
    """Show every stage that a run announces as a bar with the time left, or as a plain line where no terminal is."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def begin(stage: str) -> Report:
            if console.is_terminal:
                task = progress.add_task(stage, total=None)
                return lambda done, total: progress.update(task, completed=done, total=total)
            return _announce(stage)

        yield begin


def _announce(stage: str) -> Report:
    """Print the stage once, when its first step is done."""
    pending = [stage]

    def report(done: int, total: int) -> None:
        while pending:
            print(f"{pending.pop()}: {total} steps", file=sys.stderr, flush=True)

    return report


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int] = ()) -> None:
    """Print a table on stdout; on a pipe it is not cut to the width of a terminal."""
    table = Table(*(_column(heading) for heading in headings), box=None, pad_edge=False, header_style="bold")
    for index in numeric:
        table.columns[index].justify = "right"
    for row in rows:
        table.add_row(*(_escaped(cell) for cell in row))
    console = Console() if sys.stdout.isatty() else Console(width=200, color_system=None)
    console.print(table, soft_wrap=not sys.stdout.isatty())


def print_json(content: Any) -> None:
    """Print a value as JSON on stdout."""
    print(json.dumps(content, indent=1, ensure_ascii=False, default=str))


def _column(heading: str) -> Any:
    from rich.table import Column

    return Column(_escaped(heading), overflow="fold")


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
