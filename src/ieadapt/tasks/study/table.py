"""The table of a study: all cells in one parquet file, and back; and how far a study is."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ieadapt.errors import UsageError
from ieadapt.runs.report import Table
from ieadapt.runs.shared_files import locked_keys, set_aside, write_whole
from ieadapt.runs.workers import LOCKS
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.study.folder import IDENTITY, STATISTICS, CellRow, StudyFolder, joined_digest
from ieadapt.tasks.study.grid import Setting


def compact(folder: StudyFolder, expected: Collection[str]) -> pl.DataFrame:
    """Write every sound cell of a study into `study.parquet`, which then counts as all of these cells.

    One row per perturbed video: `key`, `digest`, `joined_digest`, what it depends on (`IDENTITY`), `ep` (mean over the
    perturbed sites, or of the one perturbed head), `energy` and `energy_share` (summed over them), and the measured
    values.

    Args:
        folder: the study.
        expected: keys of the cells that belong to it.
    """
    rows = table_rows(folder)
    sound, _ = folder.cells.read(folder.cells.keys())
    rows = {key: row for key, row in {**rows, **sound}.items() if key in expected}
    table = as_table(rows, EntropyProfile.load(folder.path))
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    write_whole(folder.table_path, buffer.getvalue())
    return table


def table_rows(folder: StudyFolder) -> dict[str, CellRow]:
    """The cells that the table holds; rows whose digest is wrong are left out, a damaged file is set aside."""
    if not folder.table_path.exists():
        return {}
    try:
        table = pl.read_parquet(folder.table_path)
    except (OSError, pl.exceptions.PolarsError):
        set_aside(folder.table_path, folder.path)
        return {}
    rows = map(CellRow.of_table, table.iter_rows(named=True))
    return {row.key: row for row in rows if row is not None}


def as_table(rows: Mapping[str, CellRow], profile: EntropyProfile) -> pl.DataFrame:
    """Cells as a table, with entropy and energy of what they perturb; in order of sites, perturbation, prompt, seed."""
    by_site = {row["site"]: row for row in profile.by_site().iter_rows(named=True)}
    means = profile.table.group_by("site", "head").agg(pl.col("ep", "energy", "energy_share").mean())
    by_head = {(row["site"], row["head"]): row for row in means.iter_rows(named=True)}
    records = []
    for key, row in rows.items():
        names, head = row.identity["sites"].split(","), row.identity["head"]
        measured = [by_site[name] if head is None else by_head[name, head] for name in names]
        sums = {name: sum(each[name] for each in measured) for name in STATISTICS}
        joined = {"key": key, "digest": row.digest, **sums, "ep": sums["ep"] / len(names)}
        joined["joined_digest"] = joined_digest(joined)
        order = min(by_site[name]["order"] for name in names)
        records.append({"_order": order, **row.identity, **joined, **row.values})
    schema: dict[str, Any] = {
        "_order": pl.Int64,
        **dict.fromkeys(("key", "digest", "joined_digest"), pl.String),
        **IDENTITY,
        **dict.fromkeys(STATISTICS, pl.Float64),
        **{name: pl.Float64 for row in rows.values() for name in row.values},
    }
    by = ["_order", "sites", "head", "rank", "perturbation", "prompt", "seed"]
    return pl.DataFrame(records, schema=schema).sort(by).drop("_order")


@dataclass(frozen=True)
class StudyStatus:
    """What a study folder holds.

    Attributes:
        model: the model's name.
        cells: cells of the whole study; None while its grid is not settled.
        done: sound cells, in files or in the table.
        running: cells that a process is making.
        damaged: cells whose file is not what it says; a resumed study does them again.
        foreign: names of files among the cells that are none of this study; they are left alone.
        baselines: unperturbed videos that are there.
        pairs: unperturbed videos of the whole study.
    """

    model: str
    cells: int | None
    done: int
    running: int
    damaged: int
    foreign: tuple[str, ...]
    baselines: int
    pairs: int

    def sentences(self) -> list[str]:
        """The status in words, one line per fact."""
        if self.cells is None:
            return [f"{self.model}: the sites of this study are not settled yet"]
        lines = [f"{self.model}: {self.done} of {self.cells} cells done, {self.running} running"]
        lines += [f"unperturbed videos: {self.baselines} of {self.pairs}"]
        lines += [f"damaged cells: {self.damaged}, to be done again"] if self.damaged else []
        lines += [f"files of something else among the cells: {', '.join(self.foreign[:3])}"] if self.foreign else []
        return lines


def study_status(folder: str | Path) -> StudyStatus:
    """How far a study is.

    Raises:
        UsageError: the folder holds no study.
    """
    study = StudyFolder(folder)
    setting, prompts = Setting.recorded(study.record()["asked"])
    pairs = setting.pairs(prompts)
    baselines = sum(study.baselines.has(setting.baseline_key(*pair)) for pair in pairs)
    if not study.has_grid():
        return StudyStatus(setting.model, None, 0, 0, 0, (), baselines, len(pairs))
    expected = set(study.expected(setting, prompts))
    sound, damaged = study.cells.read(study.cells.keys() & expected)
    done = sound.keys() | (table_rows(study).keys() & expected)
    running = set(locked_keys(study.path / LOCKS)) & expected
    foreign = tuple(study.cells.foreign(expected))
    return StudyStatus(
        setting.model, len(expected), len(done), len(running), len(damaged), foreign, baselines, len(pairs)
    )


def compact_study(folder: str | Path) -> pl.DataFrame:
    """Write the finished cells of a study into its `study.parquet`, and give them as a table.

    Raises:
        UsageError: the folder holds no study, or one without a finished cell.
    """
    study = StudyFolder(folder)
    setting, prompts = Setting.recorded(study.record()["asked"])
    table = compact(study, study.expected(setting, prompts)) if study.has_grid() else pl.DataFrame()
    if table.is_empty():
        raise UsageError("this study has no finished cell", where=study.path, remedy="go on with --resume")
    return table


def means_by_condition(table: pl.DataFrame) -> pl.DataFrame:
    """One row per condition: the measured values averaged over prompts and seeds."""
    measured = table.columns[table.columns.index("energy_share") + 1 :]
    by = ["kind", "sites", "rank", "head", "perturbation", "ep", "energy", "energy_share"]
    return table.group_by(by, maintain_order=True).agg(pl.len().alias("videos"), pl.col(measured).mean())


def conditions_table(means: pl.DataFrame) -> Table:
    """The same for a reader: what was perturbed, its EP, and what moved."""
    shown = [name for name in ("psnr", "ssim", "testbed_accuracy_change") if name in means.columns]
    rows = []
    for row in means.iter_rows(named=True):
        names = row["sites"].split(",")
        where = names[0] if len(names) == 1 else f"{row['rank']} {len(names)}"
        head = "all" if row["head"] is None else str(row["head"])
        values = [f"{row['ep']:.1f}", *(f"{row[name]:.3f}" for name in shown)]
        rows.append([row["kind"], row["perturbation"], where, head, *values])
    headings = ["kind", "perturbation", "sites", "head", "EP %", *shown]
    return Table(headings, rows, numeric=range(3, len(headings)))
