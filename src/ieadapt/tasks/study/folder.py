"""A study's folder: opened by every process that works on it, for one configuration only."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ieadapt.errors import FailureError, UsageError
from ieadapt.files import is_leftover, read_record, record_text
from ieadapt.runs.fingerprints import write_whole
from ieadapt.runs.folder import versions
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.study.baselines import TwinStore
from ieadapt.tasks.study.cells import CellStore
from ieadapt.tasks.study.grid import Cell, Condition
from ieadapt.tasks.study.setting import FORMAT, Setting

ASKED, GRID, TABLE, CLAIMS = "study.json", "grid.json", "study.parquet", "claims"
_SCHEMA = {"format": int, "asked": dict[str, Any]}


class StudyFolder:
    """The places of a study.

    Args:
        path: the folder.

    Attributes:
        cells: the finished cells.
        twins: the unperturbed videos.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().absolute()
        self.cells = CellStore(self.path)
        self.twins = TwinStore(self.path)

    @property
    def claims_path(self) -> Path:
        """Where claims are."""
        return self.path / CLAIMS

    @property
    def table_path(self) -> Path:
        """The table of all cells, where it was written."""
        return self.path / TABLE

    def record(self) -> dict[str, Any]:
        """What was asked of this study, with versions and command line.

        Raises:
            UsageError: the folder holds no study, or one of another format.
        """
        path = self.path / ASKED
        remedy = "start again in a new folder"
        try:
            record = read_record(path, _SCHEMA, what="the record of this study", remedy=remedy)
        except FileNotFoundError as error:
            raise UsageError(f"no study in this folder: {ASKED} is missing", where=self.path) from error
        if record["format"] != FORMAT:
            raise UsageError(
                "a study of another format",
                expected=f"format {FORMAT}",
                got=record["format"],
                where=path,
                remedy=remedy,
            )
        return record

    def enter(self, setting: Setting, prompts: tuple[str, ...], *, command: str, resume: bool) -> None:
        """Begin the study here, or go on with it.

        Raises:
            UsageError: the folder holds something else, a study while `resume` is false, or a study of another
                configuration; the differences are given.
        """
        asked = setting.asked(prompts)
        if self._begin({"asked": asked, "command": command, "versions": versions()}):
            return
        earlier = self.record()["asked"]
        if earlier != json.loads(json.dumps(asked)):
            raise UsageError(
                "the folder holds a study of another configuration",
                got=_difference(earlier, asked),
                where=self.path,
                remedy="ask the same as before, or name another --out",
            )
        if not resume:
            done = len(self.cells.keys())
            raise UsageError(
                "the folder holds this study already",
                got=f"{done} finished cells",
                where=self.path,
                remedy="add --resume to go on with it",
            )

    def _begin(self, content: Mapping[str, Any]) -> bool:
        """Write the record of a new study; False if there is one, maybe from a process that began just now."""
        if (self.path / ASKED).exists():
            return False
        self._require_empty()
        record = {"format": FORMAT, "workflow": "study", **content}
        try:
            write_whole(self.path / ASKED, record_text(record).encode(), put=os.link)
        except FileExistsError:
            return False
        return True

    def _require_empty(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            holds = next((path.name for path in self.path.iterdir() if not is_leftover(path)), None)
        except OSError as error:
            raise UsageError("the output folder cannot be used", got=error.strerror, where=self.path) from error
        if holds is not None:
            raise UsageError(
                "the output folder holds files of something else",
                got=holds,
                where=self.path,
                remedy="name another --out",
            )

    def forget_if_unsettled(self) -> None:
        """Leave nothing of a study that was refused before its conditions were settled."""
        if self.has_grid():
            return
        (self.path / ASKED).unlink(missing_ok=True)
        for folder in (self.claims_path, self.path):
            with contextlib.suppress(OSError):  # not empty, or not there
                folder.rmdir()

    def has_grid(self) -> bool:
        """Whether the conditions are settled and the profile is there."""
        return (self.path / GRID).exists()

    def write_grid(self, conditions: Sequence[Condition], profile: EntropyProfile, notes: Mapping[str, Any]) -> None:
        """Settle the conditions of the study, and keep the profile that gave them."""
        profile.save(self.path)
        content = {"conditions": [dataclasses.asdict(condition) for condition in conditions], **notes}
        write_whole(self.path / GRID, record_text(content).encode())

    def grid(self) -> tuple[list[Condition], dict[str, Any]]:
        """The conditions, and what was noted with them: sites, number type, the step at which runs begin.

        Raises:
            FailureError: the file is damaged.
        """
        path = self.path / GRID
        try:
            content = read_record(
                path,
                {"conditions": list[Condition], "dtype": str, "scheduler": str, "runs_begin_at_step": int},
                what="the list of this study's conditions",
                remedy=f"remove {GRID} and go on with --resume",
                optional=("dtype", "scheduler", "runs_begin_at_step"),
            )
        except (FileNotFoundError, UsageError) as error:
            raise FailureError(
                "the conditions of this study cannot be read",
                got=getattr(error, "got", None) or error,
                where=path,
                remedy=f"remove {GRID} and go on with --resume",
            ) from error
        listed = content.pop("conditions")
        return [Condition(**{**each, "sites": tuple(each["sites"])}) for each in listed], content

    def expected(self, setting: Setting, prompts: tuple[str, ...]) -> dict[str, Cell]:
        """Every cell of the study by its key, condition by condition."""
        pairs = setting.pairs(prompts)
        listed = [Cell(condition, prompt, seed) for condition in self.grid()[0] for prompt, seed in pairs]
        return {setting.key(cell): cell for cell in listed}


def _difference(earlier: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """What differs, as `name: there X, asked Y`."""
    told = []
    for name in dict.fromkeys([*earlier, *asked]):
        there, here = earlier.get(name), asked.get(name)
        if isinstance(there, list) and isinstance(here, list) and there != here:
            there, here = f"{len(there)} {name}", _first_change(there, here)
        if there != here:
            told.append(f"{name}: there {there}, asked {here}")
    return "; ".join(told)


def _first_change(there: Sequence[Any], here: Sequence[Any]) -> str:
    place = next((i for i, (a, b) in enumerate(zip(there, here, strict=False)) if a != b), min(len(there), len(here)))
    told = repr(here[place]) if place < len(here) else "nothing"
    return f"{len(here)}, number {place + 1} being {told}"
