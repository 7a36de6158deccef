"""`ieadapt edit`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ieadapt.cli.console import print_json, print_table, shown_stages
from ieadapt.cli.options import Json, Out, Overwrite, takes
from ieadapt.runs.folder import default_folder
from ieadapt.runs.pipelines import spoken_folder
from ieadapt.tasks.edit.records import JobRecord
from ieadapt.tasks.edit.report import measures_table
from ieadapt.tasks.edit.run import run_edit
from ieadapt.tasks.edit.run_config import EditRun


@takes(EditRun, prompts_from="jobs")
def command(
    asked: EditRun,
    *,
    out: Out = None,
    overwrite: Overwrite = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the edit run in that folder")] = False,
    as_json: Json = False,
) -> None:
    """The source is a video file, a folder of frames, or generated; how well the model reconstructs it is said first.

    Several `--prompt`s share that, and `--method inversion` keeps its inversion for later runs. The run folder gets
    source, reconstruction and edits as videos, pictures of their frames, measures and a report. All sources of a
    file of jobs are checked first; a job that cannot be done is left out, and the exit status is then 1.

    Example: `ieadapt edit shapes --video clip.mp4 --source-prompt "a big red star moving left over hills"
    --prompt "a big blue star moving left over hills" --out runs/edited`
    """
    folder = out or default_folder("edit")
    with shown_stages() as stages:
        records, batch = run_edit(asked, folder, overwrite=overwrite, resume=resume, stages=stages, say=_aside)
    if as_json:
        jobs = [dataclasses.asdict(record) for record in records]
        print_json({"folder": str(folder), "jobs": jobs, "left_out": batch.left_out})
    else:
        _print(records, folder)
    if batch.left_out:
        raise batch.shortfall(remedy=f"mend that, then repeat with --resume --out {folder}")


def _aside(words: str) -> None:
    """Say something while the run goes on, beside what it prints at the end."""
    print(words, file=sys.stderr, flush=True)


def _print(records: Sequence[JobRecord], folder: Path) -> None:
    table = measures_table(records)
    print("Each edit against its source:")
    print_table(table.headings, table.rows, table.numeric)
    print()
    for record in records:
        for edit in record.edits:
            print(f"video: {spoken_folder(folder / record.file(edit, 'side-by-side.mp4'))}")
    print(f"report: {spoken_folder(folder / 'report.html')}")
