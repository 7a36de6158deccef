"""How far a study is, read from its folder alone; no model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ieadapt.errors import UsageError
from ieadapt.runs.leases import Claims
from ieadapt.tasks.study.folder import StudyFolder
from ieadapt.tasks.study.setting import Setting
from ieadapt.tasks.study.table import compact, table_rows


@dataclass(frozen=True)
class StudyStatus:
    """What a study folder holds.

    Attributes:
        model: the model's name.
        cells: cells of the whole study; None while its grid is not settled.
        done: sound cells, in files or in the table.
        running: cells that a live process has claimed.
        damaged: cells whose file is not what it says; a resumed study does them again.
        foreign: names of files among the cells that are none of this study; they are left alone.
        twins: unperturbed videos that are there.
        pairs: unperturbed videos of the whole study.
    """

    model: str
    cells: int | None
    done: int
    running: int
    damaged: int
    foreign: tuple[str, ...]
    twins: int
    pairs: int

    def sentences(self) -> list[str]:
        """The status in words, one line per fact."""
        if self.cells is None:
            return [f"{self.model}: the sites of this study are not settled yet"]
        told = [f"{self.model}: {self.done} of {self.cells} cells done, {self.running} running"]
        told += [f"unperturbed videos: {self.twins} of {self.pairs}"]
        told += [f"damaged cells: {self.damaged}, to be done again"] if self.damaged else []
        told += [f"files of something else among the cells: {', '.join(self.foreign[:3])}"] if self.foreign else []
        return told


def study_status(folder: str | Path) -> StudyStatus:
    """How far a study is.

    Raises:
        UsageError: the folder holds no study.
    """
    study = StudyFolder(folder)
    setting, prompts = Setting.recorded(study.record()["asked"])
    pairs = setting.pairs(prompts)
    twins = sum(study.twins.has(setting.twin_key(*pair)) for pair in pairs)
    if not study.has_grid():
        return StudyStatus(setting.model, None, 0, 0, 0, (), twins, len(pairs))
    expected = set(study.expected(setting, prompts))
    sound, damaged = study.cells.read(study.cells.keys() & expected)
    done = sound.keys() | (table_rows(study).keys() & expected)
    live = set(Claims(study.claims_path).live()) & expected
    foreign = tuple(study.cells.foreign(expected))
    return StudyStatus(setting.model, len(expected), len(done), len(live), len(damaged), foreign, twins, len(pairs))


def compact_study(folder: str | Path) -> pl.DataFrame:
    """Write the finished cells of a study into its `study.parquet`, and give them as a table.

    Raises:
        UsageError: the folder holds no study, or one without a finished cell.
    """
    study = StudyFolder(folder)
    setting, prompts = Setting.recorded(study.record()["asked"])
    table = compact(study, set(study.expected(setting, prompts))) if study.has_grid() else pl.DataFrame()
    if table.is_empty():
        raise UsageError("this study has no finished cell", where=study.path, remedy="go on with --resume")
    return table
