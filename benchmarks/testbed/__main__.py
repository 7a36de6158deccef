"""`python -m benchmarks.testbed`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from benchmarks.testbed.run import BenchConfig, run_testbed
from ieadapt.cli.console import print_json, print_table, shown_stages
from ieadapt.cli.main import run_program
from ieadapt.cli.options import Json, Out, takes
from ieadapt.runs.folder import default_folder
from ieadapt.runs.pipelines import spoken_folder

Resume = Annotated[bool, typer.Option("--resume", help="go on with an earlier run in that folder")]


@takes(BenchConfig, has_prompts=False)
def main(
    asked: BenchConfig,
    *,
    model: Annotated[str, typer.Option("--model", help="a bundled model with ground truth: shapes")] = "shapes",
    out: Out = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Every method on the same held-out scenes of the bundled model, scored against ground truth.

    Generation (plain settings, the default enhancement, its random controls, PAG, SEG, STG, ...) and editing (controls,
    plain settings, the default, published ones). Each row: passes per step, every mark, and the paired difference to
    the best plain setting with its 95 % interval. Rows are kept as they are finished; a whole run is for a GPU.

    Example: `python -m benchmarks.testbed --scenes 4 --steps 4 --methods plain,default,inversion --out runs/testbed`
    """
    folder = out or default_folder("testbed")
    with shown_stages() as stages:
        found = run_testbed(model, folder, asked, resume=resume, stages=stages)
    if as_json:
        print_json({"folder": str(folder), "rows": found.figures, "notes": list(found.notes)})
        return
    for table in found.tables.values():
        print(table.caption)
        print_table(table.headings, table.rows, table.numeric)
        print()
    print("\n".join([*found.notes, f"records: {spoken_folder(folder)}"]))


def _application(_first: str | None) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    app.command()(main)
    return app


if __name__ == "__main__":
    sys.exit(run_program(_application, name="python -m benchmarks.testbed"))
