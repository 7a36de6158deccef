"""`ieadapt bench`: the benchmarks that papers use."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from ieadapt.cli.console import print_json, print_table, shown_stages
from ieadapt.cli.options import Json, Out, takes
from ieadapt.runs.evaluation_tables import summary_table
from ieadapt.runs.folder import default_folder
from ieadapt.runs.pipelines import spoken_folder
from ieadapt.runs.vbench import VBenchRun, run_vbench, summarise_results

group = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")

Resume = Annotated[bool, typer.Option("--resume", help="go on with an earlier run in that folder")]
Results = Annotated[Path | None, typer.Option("--results", help="only show a result file of VBench", metavar="FILE")]
Against = Annotated[Path | None, typer.Option("--against", help="another result file to compare with", metavar="FILE")]


@takes(VBenchRun, instead=("results",))
def vbench(
    asked: VBenchRun | None,
    *,
    out: Out = None,
    resume: Resume = False,
    results: Results = None,
    against: Against = None,
    as_json: Json = False,
) -> None:
    """Make VBench's videos, plain and enhanced from the same noise, under the names that it wants.

    `scripts/vbench.sh DIR/plain` then scores them in an environment of VBench's own; `--results` shows its file as a
    table, with `--against` beside another one.

    Example: `ieadapt bench vbench shapes --prompts prompts.txt --steps 8 --out runs/vbench`
    """
    if results is not None:
        rows = summarise_results(results, against)
        if as_json:
            print_json([dataclasses.asdict(row) for row in rows])
            return
        table = summary_table(rows, results.stem, None if against is None else against.stem)
        print_table(table.headings, table.rows, table.numeric)
    if asked is not None:
        folder = out or default_folder("vbench")
        with shown_stages() as stages:
            run_vbench(asked, folder, resume=resume, stages=stages)
        print_json({"folder": str(folder)}) if as_json else print(f"videos: {spoken_folder(folder)}")


group.command("vbench")(vbench)
