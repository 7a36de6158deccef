"""The table of a study: all cells in one parquet file, and back."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import polars as pl

from ieadapt.runs.fingerprints import set_aside, write_whole
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.study.cells import IDENTITY, CellRow
from ieadapt.tasks.study.folder import StudyFolder

_TYPES: Mapping[str, Any] = {
    "format": pl.Int32,
    "seed": pl.Int64,
    "head": pl.Int32,
    "steps": pl.Int32,
    "guidance_scale": pl.Float64,
    "num_frames": pl.Int32,
    "height": pl.Int32,
    "width": pl.Int32,
}


def compact(folder: StudyFolder, expected: set[str] | None = None) -> pl.DataFrame:
    """Write every sound cell of a study into `study.parquet`, which then counts as all of these cells.

    One row per perturbed video: `key`, `digest`, what it depends on (`IDENTITY`), `ep` (mean over the perturbed sites,
    or of the one perturbed head), `energy` and `energy_share` (summed over them), and the measured values.

    Args:
        folder: the study.
        expected: only cells of these keys; None for all.
    """
    rows = table_rows(folder)
    sound, _ = folder.cells.read(folder.cells.keys())
    merged = {key: row for key, row in {**rows, **sound}.items() if expected is None or key in expected}
    table = as_table(merged, EntropyProfile.load(folder.path))
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
    found = [CellRow.of_table(row) for row in table.iter_rows(named=True)]
    return {row.key: row for row in found if row is not None}


def as_table(rows: Mapping[str, CellRow], profile: EntropyProfile) -> pl.DataFrame:
    """Cells as a table, with entropy and energy of what they perturb; in order of sites, perturbation, prompt, seed."""
    measured = _Measured(profile)
    names = list(dict.fromkeys(name for row in rows.values() for name in row.values))
    schema = {
        "key": pl.String,
        "digest": pl.String,
        **{name: _TYPES.get(name, pl.String) for name in IDENTITY},
        **dict.fromkeys(("ep", "energy", "energy_share"), pl.Float64),
        **dict.fromkeys(names, pl.Float64),
    }
    listed = [
        {"key": key, "digest": row.digest, **row.identity, **measured.of(row.identity), **row.values}
        for key, row in rows.items()
    ]
    table = pl.DataFrame(listed, schema=schema).with_columns(
        _order=pl.col("sites").map_elements(measured.order, return_dtype=pl.Int64)
    )
    by = ["_order", "sites", "head", "rank", "perturbation", "prompt", "seed"]
    return table.sort(by).drop("_order")


class _Measured:
    """Entropy and energy by site and head, looked up for sets of sites."""

    def __init__(self, profile: EntropyProfile) -> None:
        self._sites = {row["site"]: row for row in profile.by_site().iter_rows(named=True)}
        means = profile.table.group_by("site", "head").agg(pl.col("ep", "energy", "energy_share").mean())
        self._heads = {(row["site"], row["head"]): row for row in means.iter_rows(named=True)}

    def of(self, identity: Mapping[str, Any]) -> dict[str, float]:
        names, head = identity["sites"].split(","), identity["head"]
        rows = [self._sites[name] if head is None else self._heads[name, head] for name in names]
        summed = {name: sum(row[name] for row in rows) for name in ("ep", "energy", "energy_share")}
        return {**summed, "ep": summed["ep"] / len(rows)}

    def order(self, sites: str) -> int:
        return min(int(self._sites[name]["order"]) for name in sites.split(","))
