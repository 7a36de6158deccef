"""`ieadapt bench`: the benchmarks that papers use."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from ieadapt.cli.console import print_json, print_table, shown_stages
from ieadapt.cli.options import Json, Model, Out, takes
from ieadapt.runs.folder import default_folder
from ieadapt.runs.pipelines import spoken_folder
from ieadapt.tasks.bench.v2v import V2VConfig, run_v2v
from ieadapt.tasks.bench.vbench import VBenchRun, run_vbench, summarise_results
from ieadapt.tasks.evaluate.tables import summary_table

EXAMPLE = "Example: `ieadapt bench vbench shapes --prompts prompts.txt --out runs/vbench`"
group = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")

Resume = Annotated[bool, typer.Option("--resume", help="go on with an earlier run in that folder")]
Results = Annotated[
    Path | None, typer.Option("--results", help="only show results of VBench: a file, or a folder", metavar="PLACE")
]
Against = Annotated[Path | None, typer.Option("--against", help="other results to compare with", metavar="PLACE")]


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

    `scripts/vbench.sh DIR/plain` then scores them in an environment of VBench's own; `--results` shows its files as a
    table, with `--against` beside others.

    Example: `ieadapt bench vbench shapes --prompts prompts.txt --steps 8 --out runs/vbench`
    """
    if results is not None:
        rows = summarise_results(results, against)
        if as_json:
            print_json([dataclasses.asdict(row) for row in rows])
            return
        table = summary_table(rows, *_labels(results, against))
        print_table(table.headings, table.rows, table.numeric)
    if asked is not None:
        folder = out or default_folder("vbench")
        with shown_stages() as stages:
            run_vbench(asked, folder, resume=resume, stages=stages)
        print_json({"folder": str(folder)}) if as_json else print(f"videos: {spoken_folder(folder)}")


def _labels(ours: Path, theirs: Path | None) -> tuple[str, str | None]:
    """What two places are called in a table: by their own names, or with their folders where these are alike."""
    if theirs is None or ours.stem != theirs.stem:
        return ours.stem, None if theirs is None else theirs.stem
    return f"{ours.parent.name}/{ours.stem}", f"{theirs.parent.name}/{theirs.stem}"


@takes(V2VConfig, has_prompts=False)
def v2v(
    asked: V2VConfig,
    *,
    model: Model,
    edits: Annotated[Path, typer.Argument(metavar="LIST", help="V2VBench's YAML, LOVEU-TGVE's CSV, or a file of jobs")],
    out: Out = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Edit every video of a list by every method, in V2VBench's layout, and measure them in one table.

    The rows `copy` (the source itself) and `reconstruction` are always there: consistency alone rewards not editing.

    Example: `ieadapt bench v2v shapes set.yaml --videos videos --methods default,sdedit-0.6 --out runs/v2v`
    """
    folder = out or default_folder("v2v")
    with shown_stages() as stages:
        found = run_v2v(model, edits, folder, asked, resume=resume, stages=stages)
    if as_json:
        rows = {name: [dataclasses.asdict(row) for row in each] for name, each in found.rows.items()}
        print_json({"folder": str(folder), "rows": rows, "notes": list(found.notes)})
        return
    print(found.table.caption)
    print_table(found.table.headings, found.table.rows, found.table.numeric)
    print("\n".join(["", *found.notes, f"videos and values: {spoken_folder(folder)}"]))


group.command("vbench")(vbench)
group.command("v2v")(v2v)
