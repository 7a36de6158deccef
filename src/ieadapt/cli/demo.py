"""`ieadapt demo`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ieadapt.cli.console import print_json, print_table, shown_stages
from ieadapt.cli.options import Json, Out, takes
from ieadapt.runs.pipelines import spoken_folder
from ieadapt.runs.report import Table
from ieadapt.tasks.demo.run import DemoRun, recorded_table, run_demo
from ieadapt.tasks.evaluate.tables import comparison_table, verdict
from ieadapt.tasks.measure.run import describe_profile


@takes(DemoRun, has_prompts=False)
def command(asked: DemoRun, *, out: Out = None, as_json: Json = False) -> None:
    """Captions are generated plain and enhanced and scored, one clip is edited; an earlier demo there is replaced.

    Example: `ieadapt demo --captions 2 --out demo`
    """
    folder = out or Path("demo")
    with shown_stages() as stages:
        result = run_demo(asked, folder, overwrite=True, stages=stages)
    if as_json:
        rows = [dataclasses.asdict(row) for row in result.comparison]
        pair = result.edit.pair
        edited = {"source": pair.source_prompt, "prompt": pair.prompt, **result.edit.marks.as_dict()}
        content = {"folder": str(folder), "sites": result.profile.by_site().to_dicts(), "comparison": rows}
        print_json({**content, "edit": edited})
        return
    _print(result.choice)
    print("\n".join(describe_profile(result.profile)), end="\n\n")
    _print(dataclasses.replace(comparison_table(result.comparison, ""), caption="Plain against enhanced, this run:"))
    print("\n".join(verdict(row) for row in result.comparison if row.measure == "fidelity"), end="\n\n")
    print("\n".join(result.edit.sentences()), end="\n\n")
    if result.recorded is not None:
        _print(recorded_table(result.recorded))
    print(f"report: {spoken_folder(folder / 'report.html')}")


def _print(table: Table) -> None:
    print(table.caption)
    print_table(table.headings, table.rows, table.numeric)
    print()
