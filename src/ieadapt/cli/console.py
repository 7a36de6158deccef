"""What a person sees: progress with the time left on stderr, tables or JSON on stdout."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich.table
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from ieadapt.notation import counted
from ieadapt.runs.folder import Batch, Progress, Stages, default_folder, display_path
from ieadapt.runs.report import Table


@dataclass(frozen=True)
class Summary:
    """What a command prints when it is done.

    Attributes:
        content: what `--json` prints.
        parts: what is printed otherwise: lines, and tables with blank lines around them.
        folder: of the run, if it is one; it is part of the content, and its report is named in the last line.
        batch: of the inputs, where some may have been left out; that is part of the content, and ends the command.
        remedy: for what was left out.
    """

    content: Any
    parts: Sequence[Table | str]
    folder: Path | None = None
    batch: Batch | None = None
    remedy: str | None = None

    def show(self, *, as_json: bool) -> None:
        """Print it.

        Raises:
            FailureError: inputs were left out.
        """
        if as_json:
            content = self.content if self.folder is None else {"folder": str(self.folder), **self.content}
            if self.batch is not None:
                content = {**content, "left_out": self.batch.left_out}
            print(json.dumps(content, indent=1, ensure_ascii=False, default=str))
        else:
            self._print()
        if self.batch is not None and self.batch.left_out:
            raise self.batch.shortfall(self.remedy)

    def _print(self) -> None:
        parts = list(self.parts)
        if self.folder is not None and (self.folder / "report.html").is_file():
            parts.append(location("report", self.folder / "report.html"))
        for before, part in zip([None, *parts], parts, strict=False):
            if isinstance(before, Table) or (before and isinstance(part, Table)):
                print()
            print_table(part) if isinstance(part, Table) else print(part)


@contextlib.contextmanager
def run_in(folder: Path | None, workflow: str) -> Iterator[tuple[Path, Stages]]:
    """The folder of a run, by default a new one under runs/, and its stages, which are shown."""
    with shown_stages() as stages:
        yield folder or default_folder(workflow), stages


@contextlib.contextmanager
def shown_stages() -> Iterator[Stages]:
    """Show every stage that a run announces as a bar with the time left, or as a plain line where no terminal is."""
    console = Console(stderr=True)
    counts = (MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), *counts)
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:

        def begin(stage: str, counts: str = "step") -> Progress:
            if console.is_terminal:
                unit = counted(2, counts).partition(" ")[2]
                task = bars.add_task(f"{stage}, {unit}" if counts else stage, total=None)
                return lambda done, total: bars.update(task, completed=done, total=total)
            return _announce(stage, counts)

        yield begin


def _announce(stage: str, counts: str) -> Progress:
    """Print the stage once, when its first step is done."""
    pending = [stage]

    def report(done: int, total: int) -> None:
        while pending:
            print_progress(f"{pending.pop()}: {counted(total, counts) if counts else total}")

    return report


def print_progress(line: str) -> None:
    """Print on standard error how far a command is."""
    print(line, file=sys.stderr, flush=True)


def mend_and_resume(folder: Path) -> str:
    """The remedy for inputs that a run left out."""
    return f"mend that, then repeat with --resume --out {folder}"


def print_table(table: Table) -> None:
    """Print a table on stdout, its caption above it; on a pipe it is not cut to the width of a terminal."""
    if table.caption:
        print(table.caption)
    numeric = set(table.numeric)
    drawn = rich.table.Table(box=None, pad_edge=False, header_style="bold")
    for index, heading in enumerate(table.headings):
        drawn.add_column(heading, overflow="fold", justify="right" if index in numeric else "left")
    for row in table.rows:
        drawn.add_row(*row)
    terminal = sys.stdout.isatty()
    console = Console(
        width=None if terminal else 200, color_system="auto" if terminal else None, markup=False, emoji=False
    )
    console.print(drawn, soft_wrap=not terminal)


def location(label: str, path: Path) -> str:
    """The line that says where a file lies."""
    return f"{label}: {display_path(path)}"
