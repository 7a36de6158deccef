"""`python -m benchmarks.testbed`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from benchmarks.testbed.run import BenchConfig, run_testbed
from ieadapt.cli.console import Summary, location, run_in
from ieadapt.cli.main import run_program
from ieadapt.cli.options import Out, Resume, takes


@takes(BenchConfig)
def main(
    config: BenchConfig,
    *,
    model: Annotated[str, typer.Option("--model", help="a bundled model: scenes, scenes-dit")] = "scenes",
    out: Out = None,
    resume: Resume = False,
) -> Summary:
    """Every method on the same held-out scenes of the bundled model, scored against ground truth.

    Generation (plain settings, the default enhancement, its random controls, PAG, SEG, STG, ...) and editing (controls,
    plain settings, the default, published ones). Each row: passes per step, every mark, and the paired difference to
    the best plain setting with its 95 % interval. Rows are kept as they are finished; a whole run is for a GPU.

    Example: `python -m benchmarks.testbed --scenes 4 --steps 4 --methods plain,default,inversion --out runs/testbed`
    """
    with run_in(out, "testbed") as (folder, stages):
        result = run_testbed(model, folder, config, resume=resume, stages=stages)
    content = {"rows": result.figures, "notes": list(result.notes)}
    return Summary(content, [*result.tables.values(), *result.notes, location("records", folder)], folder)


def _application(_first: str | None) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    app.command()(main)
    return app


if __name__ == "__main__":
    sys.exit(run_program(_application, name="python -m benchmarks.testbed"))
