"""The commands that score videos: `evaluate`, `compare`, and the benchmarks that papers use."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, cast

import typer

from ieadapt.cli.console import Summary, location, mend_and_resume, run_in
from ieadapt.cli.options import Model, Out, Overwrite, Resume, takes
from ieadapt.runs.report import Table
from ieadapt.tasks.bench.config import V2VConfig, VBenchRun
from ieadapt.tasks.evaluate.config import EvaluateConfig

PromptsFile = Annotated[
    Path | None,
    typer.Option("--prompts", metavar="FILE", help="what the videos show: JSON {name: prompt}, or a prompt per line"),
]


@takes(EvaluateConfig)
def evaluate(
    config: EvaluateConfig,
    *,
    videos: Annotated[str, typer.Argument(metavar="VIDEOS", help="a folder of videos, a run (RUN:PART), or one video")],
    reference: Annotated[str | None, typer.Option(help="videos to compare with, of the same names")] = None,
    prompts: PromptsFile = None,
    out: Out = None,
    overwrite: Overwrite = False,
) -> Summary:
    """Videos are MP4, WebM, GIF or any other video files, or folders of frames; other files are named and left out.

    A video that cannot be read is left out too, and the exit status is then 1. Signs of damage are notes on its row;
    `--strict` leaves damaged videos out.

    The run folder gets one row per video (values.parquet), the means with their 95 % intervals (evaluation.json,
    table.md) and a report. Metrics whose weights are missing are listed with the command that brings them.

    Example: `ieadapt evaluate videos --reference originals --metrics psnr,ssim,flicker --out runs/evaluation`
    """
    return _evaluate("evaluate", out, videos, reference, prompts, config, overwrite=overwrite)


@takes(EvaluateConfig)
def compare(
    config: EvaluateConfig,
    *,
    first: Annotated[str, typer.Argument(metavar="A", help="videos to compare with: a folder, or a run (RUN:PART)")],
    second: Annotated[
        str, typer.Argument(metavar="B", help="the videos that are compared with those, of the same names")
    ],
    prompts: PromptsFile = None,
    out: Out = None,
    overwrite: Overwrite = False,
) -> Summary:
    """Videos are paired by name. Per metric: both means, and the mean difference B - A with its 95 % interval.

    Example: `ieadapt compare runs/enhanced:plain runs/enhanced:enhanced --out runs/comparison`
    """
    return _evaluate("compare", out, second, first, prompts, config, overwrite=overwrite)


def _evaluate(
    command: str,
    out: Path | None,
    videos: str,
    reference: str | None,
    prompts: Path | None,
    config: EvaluateConfig,
    *,
    overwrite: bool,
) -> Summary:
    from ieadapt.tasks.evaluate.run import run_evaluation

    with run_in(out, command) as (folder, stages):
        result = run_evaluation(
            videos, folder, reference=reference, prompts=prompts, config=config, overwrite=overwrite, stages=stages
        )
    content = {"summary": [dataclasses.asdict(row) for row in result.rows], "notes": list(result.notes)}
    parts: list[Table | str] = [result.table, *result.notes, location("values", folder / "values.parquet")]
    return Summary(content, parts, folder, result.batch)


@takes(VBenchRun, instead=("results",))
def vbench(
    config: VBenchRun | None,
    *,
    out: Out = None,
    resume: Resume = False,
    results: Annotated[
        Path | None, typer.Option(help="only show results of VBench: a file, or a folder", metavar="PLACE")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="other results to compare with", metavar="PLACE")] = None,
) -> Summary:
    """Make VBench's videos, plain and enhanced from the same noise, under the names that it wants.

    `scripts/vbench.sh DIR/plain` then scores them in an environment of VBench's own; `--results` shows its files as a
    table, with `--against` beside others.

    Example: `ieadapt bench vbench scenes --prompts prompts.txt --steps 8 --out runs/vbench`
    """
    from ieadapt.tasks.bench.vbench import run_vbench

    if config is None:  # then there are results
        return _vbench_results(cast("Path", results), against)
    with run_in(out, "vbench") as (folder, stages):
        run_vbench(config, folder, resume=resume, stages=stages)
    return Summary({}, [location("videos", folder)], folder)


def _vbench_results(ours: Path, theirs: Path | None) -> Summary:
    """Results of VBench, beside others by name, or with their folders where the names are alike."""
    from ieadapt.tasks.bench.vbench import summarise_results
    from ieadapt.tasks.evaluate.tables import summary_table

    rows = summarise_results(ours, theirs)
    first, second = ours.stem, None if theirs is None else theirs.stem
    if theirs is not None and first == second:
        first, second = f"{ours.parent.name}/{first}", f"{theirs.parent.name}/{second}"
    return Summary([dataclasses.asdict(row) for row in rows], [summary_table(rows, first, second)])


@takes(V2VConfig)
def v2v(
    config: V2VConfig,
    *,
    model: Model,
    edits: Annotated[Path, typer.Argument(metavar="LIST", help="V2VBench's YAML, LOVEU-TGVE's CSV, or a file of jobs")],
    out: Out = None,
    resume: Resume = False,
) -> Summary:
    """Edit every video of a list by every method, in V2VBench's layout, and measure them in one table.

    The rows `copy` (the source itself) and `reconstruction` are always there: consistency alone rewards not editing.

    Signs of damage in a source are notes on its rows; `--strict` leaves damaged videos out. A video that cannot be read
    or edited is left out too, and the exit status is then 1.

    Example: `ieadapt bench v2v scenes set.yaml --videos videos --methods default,sdedit-0.6 --out runs/v2v`
    """
    from ieadapt.tasks.bench.v2v import run_v2v

    with run_in(out, "v2v") as (folder, stages):
        result = run_v2v(model, edits, folder, config, resume=resume, stages=stages)
    rows = {name: [dataclasses.asdict(row) for row in each] for name, each in result.rows.items()}
    content = {"rows": rows, "notes": list(result.notes)}
    parts: list[Table | str] = [result.table, *result.notes, location("videos and values", folder)]
    return Summary(content, parts, folder, result.batch, mend_and_resume(folder))


bench = typer.Typer(
    help="Example: `ieadapt bench vbench scenes --prompts prompts.txt --out runs/vbench`",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)
bench.command("vbench")(vbench)
bench.command("v2v")(v2v)
