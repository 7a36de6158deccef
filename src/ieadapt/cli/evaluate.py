"""`ieadapt evaluate`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from ieadapt.cli.console import print_json, print_table, shown_stages
from ieadapt.cli.options import Json, Out, Overwrite, takes
from ieadapt.runs.folder import default_folder
from ieadapt.runs.pipelines import spoken_folder
from ieadapt.tasks.evaluate.run import EvaluateConfig, Evaluation, run_evaluation

Videos = Annotated[str, typer.Argument(metavar="VIDEOS", help="a folder of videos, a run (RUN:PART), or one video")]
Reference = Annotated[str | None, typer.Option("--reference", help="videos to compare with, of the same names")]
PromptsFile = Annotated[
    Path | None,
    typer.Option("--prompts", metavar="FILE", help="what the videos show: JSON {name: prompt}, or a prompt per line"),
]


@takes(EvaluateConfig, has_prompts=False)
def command(
    asked: EvaluateConfig,
    *,
    videos: Videos,
    reference: Reference = None,
    prompts: PromptsFile = None,
    out: Out = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Videos are MP4, WebM, GIF or any other video files, or folders of frames; other files are named and left out.

    A video that cannot be read is left out too, and the exit status is then 1. Signs of damage are notes on its row;
    `--strict` leaves damaged videos out.

    The run folder gets one row per video (values.parquet), the means with their 95 % intervals (evaluation.json,
    table.md) and a report. Metrics whose weights are missing are listed with the command that brings them.

    Example: `ieadapt evaluate videos --reference originals --metrics psnr,ssim,flicker --out runs/evaluation`
    """
    folder = out or default_folder("evaluate")
    with shown_stages() as stages:
        found = run_evaluation(
            videos, folder, reference=reference, prompts=prompts, config=asked, overwrite=overwrite, stages=stages
        )
    show(found, folder, as_json=as_json)


def show(found: Evaluation, folder: Path, *, as_json: bool) -> None:
    """Print an evaluation as a table with its notes, or as JSON.

    Raises:
        FailureError: videos were left out; what was measured is printed all the same.
    """
    if as_json:
        rows = [dataclasses.asdict(row) for row in found.rows]
        notes = {"notes": list(found.notes), "left_out": found.batch.left_out}
        print_json({"folder": str(folder), "summary": rows, **notes})
    else:
        print(found.table.caption)
        print_table(found.table.headings, found.table.rows, found.table.numeric)
        print()
        print("\n".join([*found.notes, f"values: {spoken_folder(folder / 'values.parquet')}"]))
        print(f"report: {spoken_folder(folder / 'report.html')}")
    if found.batch.left_out:
        raise found.batch.shortfall()
