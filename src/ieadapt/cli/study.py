"""`ieadapt study`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from ieadapt.cli.console import print_json, print_table, shown_stages
from ieadapt.cli.options import Json, Out, takes
from ieadapt.runs.folder import default_folder
from ieadapt.runs.pipelines import spoken_folder
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.study.report import study_maps, write_study_report
from ieadapt.tasks.study.run import StudyRun, run_study
from ieadapt.tasks.study.status import compact_study, study_status

_SHOWN = ("psnr", "ssim", "testbed_fidelity_change")


@takes(StudyRun, instead=("status", "compact"))
def command(
    asked: StudyRun | None,
    *,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the study in that folder")] = False,
    status: Annotated[Path | None, typer.Option("--status", help="only say how far a study is", metavar="DIR")] = None,
    compact: Annotated[Path | None, typer.Option("--compact", help="only write a study's table", metavar="DIR")] = None,
    as_json: Json = False,
) -> None:
    """Each perturbed video is compared with its twin, made from the same noise with nothing replaced.

    Every finished video is kept at once: stop the study, or kill it, and go on with `--resume`; several processes may
    work on one folder.

    Example: `ieadapt study shapes --prompts prompts.txt --perturb identity,uniform --sites temporal --out runs/study`
    """
    if status is not None:
        found = study_status(status)
        print_json(dataclasses.asdict(found)) if as_json else print("\n".join(found.sentences()))
    if compact is not None:
        table = compact_study(compact)
        print(f"{table.height} cells in {spoken_folder(compact / 'study.parquet')}")
    if asked is not None:
        _study(asked, out or default_folder("study"), resume=resume, as_json=as_json)


def _study(asked: StudyRun, folder: Path, *, resume: bool, as_json: bool) -> None:
    with shown_stages() as stages:
        result = run_study(asked, folder, resume=resume, stages=stages)
        stages("drawing the report")
        maps = study_maps(asked.hardware.load(asked.model), result.table, EntropyProfile.load(folder))
        report = write_study_report(folder, maps=maps)
    means = _by_condition(result.table)
    if as_json:
        print_json({"folder": str(folder), "notes": result.notes, "conditions": means.to_dicts()})
        return
    shown = [name for name in _SHOWN if name in means.columns]
    headings = ["kind", "perturbation", "sites", "head", "EP %", *shown]
    rows = [[*_told(row), *(f"{row[name]:.3f}" for name in shown)] for row in means.iter_rows(named=True)]
    print_table(headings, rows, numeric=range(3, len(headings)))
    print()
    print("\n".join([*result.notes, f"table: {spoken_folder(folder / 'study.parquet')}"]))
    print(f"report: {spoken_folder(report)}")


def _by_condition(table: pl.DataFrame) -> pl.DataFrame:
    """One row per condition: the measured values averaged over prompts and seeds."""
    measured = table.columns[table.columns.index("energy_share") + 1 :]
    by = ["kind", "sites", "rank", "head", "perturbation", "ep", "energy", "energy_share"]
    return table.group_by(by, maintain_order=True).agg(pl.len().alias("videos"), pl.col(measured).mean())


def _told(row: dict[str, Any]) -> list[str]:
    names = row["sites"].split(",")
    sites = names[0] if len(names) == 1 else f"{row['rank']} {len(names)}"
    head = "all" if row["head"] is None else str(row["head"])
    return [row["kind"], row["perturbation"], sites, head, f"{row['ep']:.1f}"]
