"""The table of a study: all cells in one parquet file, and back; and how far a study is."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ieadapt.errors import UsageError
from ieadapt.runs.cells import CellRow
from ieadapt.runs.report import Table
from ieadapt.runs.shared_files import fingerprint, locked_keys, set_aside, write_whole
from ieadapt.runs.workers import LOCKS
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.study.folder import StudyFolder

TABLE = "study.parquet"
IDENTITY: Mapping[str, type[pl.DataType]] = {
    "format": pl.Int32,
    **dict.fromkeys(("model", "weights_hash", "prompt"), pl.String),
    "seed": pl.Int64,
    **dict.fromkeys(("sites", "kind", "perturbation"), pl.String),
    "head": pl.Int32,
    **dict.fromkeys(("rank", "window", "branch", "metrics"), pl.String),
    "steps": pl.Int32,
    "guidance_scale": pl.Float64,
    **dict.fromkeys(("num_frames", "height", "width"), pl.Int32),
    **dict.fromkeys(("negative_prompt", "call"), pl.String),
}
"""What a cell depends on, as columns of the table; all but these and `JOINED` are its measured values.

There is `call` only where the pipeline was given further inputs.
"""
STATISTICS = ("ep", "energy", "energy_share")
"""What is joined from the profile."""
JOINED = ("key", "digest", "joined_digest", *STATISTICS)


def read_table(path: Path) -> pl.DataFrame:
    """The table of a study, every row as it was written.

    Raises:
        UsageError: there is none, it is not readable, or a row holds other values than were measured.
    """
    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        remedy = "`ieadapt study MODEL --out DIR` makes it; --compact renews it"
        raise UsageError("no table of a study", where=path, remedy=remedy) from error
    if not all(map(_is_sound, table.iter_rows(named=True))):
        got = "values that the digest of their row does not fit"
        remedy = "`ieadapt study --compact DIR` renews it from the cells"
        raise UsageError("the table of this study is damaged", got=got, where=path, remedy=remedy)
    return table


def _is_sound(row: Mapping[str, Any]) -> bool:
    """Whether a row holds what was measured and what was joined to it; of earlier versions there is no digest."""
    cell = "digest" not in row or _cell_of(row) is not None
    return cell and ("joined_digest" not in row or _joined_digest(row) == row["joined_digest"])


def _cell_of(row: Mapping[str, Any]) -> CellRow | None:
    """A cell from a row of the table, or None where its digest says otherwise."""
    identity = {name: row[name] for name in IDENTITY if name in row}
    values = {name: value for name, value in row.items() if name not in (*IDENTITY, *JOINED) and value is not None}
    cell = CellRow(identity, values)
    return cell if (cell.key, cell.digest) == (row.get("key"), row.get("digest")) else None


def _joined_digest(row: Mapping[str, Any]) -> str:
    """The hash of what is joined to a cell in the table: a changed EP does not go unseen either."""
    return fingerprint({name: row[name] for name in ("key", *STATISTICS)})


def compact(folder: StudyFolder, expected: Collection[str]) -> pl.DataFrame:
    """Write every sound cell of a study into `study.parquet`, which then counts as all of these cells.

    One row per perturbed video: `key`, `digest`, `joined_digest`, what it depends on (`IDENTITY`), `ep` (mean over the
    perturbed sites, or of the one perturbed head), `energy` and `energy_share` (summed over them), and the measured
    values.

    Args:
        folder: the study.
        expected: keys of the cells that belong to it.
    """
    rows = {**table_rows(folder), **folder.cells.read(folder.cells.keys())[0]}
    rows = {key: row for key, row in rows.items() if key in expected}
    table, buffer = as_table(rows, EntropyProfile.load(folder.path)), io.BytesIO()
    table.write_parquet(buffer)
    write_whole(folder.path / TABLE, buffer.getvalue())
    return table


def table_rows(folder: StudyFolder) -> dict[str, CellRow]:
    """The cells that the table holds; rows whose digest is wrong are left out, a damaged file is set aside."""
    path = folder.path / TABLE
    if not path.exists():
        return {}
    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError):
        set_aside(path, folder.path)
        return {}
    rows = map(_cell_of, table.iter_rows(named=True))
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
        joined["joined_digest"] = _joined_digest(joined)
        order = min(by_site[name]["order"] for name in names)
        records.append({"_order": order, **row.identity, **joined, **row.values})
    given = any("call" in row.identity for row in rows.values())
    schema: dict[str, Any] = {
        "_order": pl.Int64,
        **dict.fromkeys(("key", "digest", "joined_digest"), pl.String),
        **{name: kind for name, kind in IDENTITY.items() if name != "call" or given},
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
    setting = study.setting()
    baselines = sum(study.baseline_path(key).exists() for key in setting.pairs)
    if not study.has_grid():
        return StudyStatus(setting.model, None, 0, 0, 0, (), baselines, len(setting.pairs))
    expected = study.expected(setting).keys()
    sound, damaged = study.cells.read(study.cells.keys() & expected)
    done = sound.keys() | (table_rows(study).keys() & expected)
    running = expected & set(locked_keys(study.path / LOCKS))
    counts = len(expected), len(done), len(running), len(damaged)
    return StudyStatus(setting.model, *counts, tuple(study.cells.foreign(expected)), baselines, len(setting.pairs))


def compact_study(folder: str | Path) -> pl.DataFrame:
    """Write the finished cells of a study into its `study.parquet`, and give them as a table.

    Raises:
        UsageError: the folder holds no study, or one without a finished cell.
    """
    study = StudyFolder(folder)
    setting = study.setting()
    table = compact(study, study.expected(setting)) if study.has_grid() else pl.DataFrame()
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
