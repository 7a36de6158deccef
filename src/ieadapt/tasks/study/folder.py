"""A study's folder: opened by every process that works on it, for one configuration only; and the cells in it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ieadapt.errors import FailureError, UsageError
from ieadapt.files import is_leftover, read_record, record_text
from ieadapt.runs.folder import versions
from ieadapt.runs.shared_files import fingerprint, set_aside, write_whole
from ieadapt.runs.workers import LOCKS
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.study.grid import FORMAT, Cell, Condition, Setting
from ieadapt.tasks.study.videos import BaselineStore

REQUEST, GRID, TABLE, NOTES = "study.json", "grid.json", "study.parquet", "notes"
_SCHEMA = {"format": int, "asked": dict[str, Any]}
_NAME = re.compile(r"(?P<key>[0-9a-f]{32})\.json")
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
    "negative_prompt": pl.String,
}
"""What a cell depends on, as columns of the table; all but these and `JOINED` are its measured values."""
STATISTICS = ("ep", "energy", "energy_share")
"""What is joined from the profile."""
JOINED = ("key", "digest", "joined_digest", *STATISTICS)


@dataclass(frozen=True)
class CellRow:
    """A finished cell.

    Attributes:
        identity: what its numbers depend on, see `Setting.identity`.
        values: the measured numbers by name.

    Example:
        >>> row = CellRow({"format": 1, "prompt": "a red ball", "head": None}, {"psnr": 20.0})
        >>> CellRow.read(row.written()) == row
        True
    """

    identity: Mapping[str, Any]
    values: Mapping[str, float]

    @property
    def key(self) -> str:
        """The name of its file."""
        return fingerprint(self.identity)

    @property
    def digest(self) -> str:
        """The hash of identity and values: a changed number does not go unseen."""
        return fingerprint({"identity": dict(self.identity), "values": dict(self.values)})

    def written(self) -> bytes:
        """The content of its file."""
        content = {"identity": dict(self.identity), "values": dict(self.values), "digest": self.digest}
        return json.dumps(content, ensure_ascii=False, indent=1).encode() + b"\n"

    @classmethod
    def read(cls, content: bytes) -> CellRow | None:
        """A cell from its file's content, or None where that is damaged or something else."""
        try:
            record = json.loads(content)
            row = cls(record["identity"], {name: float(value) for name, value in record["values"].items()})
            return row if row.digest == record["digest"] else None
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    @classmethod
    def of_table(cls, row: Mapping[str, Any]) -> CellRow | None:
        """A cell from a row of the table, or None where its digest says otherwise."""
        identity = {name: row[name] for name in IDENTITY if name in row}
        values = {name: value for name, value in row.items() if name not in (*IDENTITY, *JOINED) and value is not None}
        cell = cls(identity, values)
        return cell if (cell.key, cell.digest) == (row.get("key"), row.get("digest")) else None


def joined_digest(row: Mapping[str, Any]) -> str:
    """The hash of what is joined to a cell in the table: a changed EP does not go unseen either."""
    return fingerprint({name: row[name] for name in ("key", *STATISTICS)})


class CellStore:
    """The files of a study's cells.

    Args:
        folder: the study folder; cells are in `cells` below it.
    """

    def __init__(self, folder: Path) -> None:
        self._study, self._folder = folder, folder / "cells"

    def write(self, row: CellRow) -> None:
        """Store a finished cell, whole or not at all."""
        write_whole(self._path(row.key), row.written())

    def has(self, key: str) -> bool:
        """Whether a cell has a file; `sort_out` makes sure that files are what they say."""
        return self._path(key).exists()

    def keys(self) -> set[str]:
        """The keys of all files that are named as cells are."""
        return {match["key"] for path in self._folder.glob("*") if (match := _NAME.fullmatch(path.name))}

    def read(self, keys: Iterable[str]) -> tuple[dict[str, CellRow], list[str]]:
        """The sound ones among these cells, and the keys of those that are damaged."""
        rows = {key: CellRow.read(self._path(key).read_bytes()) for key in sorted(keys)}
        sound = {key: row for key, row in rows.items() if row is not None and row.key == key}
        return sound, [key for key in rows if key not in sound]

    def foreign(self, expected: set[str]) -> list[str]:
        """Names of files among the cells that are none of this study."""
        names = sorted(path.name for path in self._folder.glob("*") if not is_leftover(path))
        return [name for name in names if not (match := _NAME.fullmatch(name)) or match["key"] not in expected]

    def set_aside(self, keys: Iterable[str]) -> None:
        """Move damaged cells out of the way, so that they are done again."""
        for key in keys:
            set_aside(self._path(key), self._study)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


class StudyFolder:
    """The files of a study.

    Args:
        path: the folder.

    Attributes:
        cells: the finished cells.
        baselines: the unperturbed videos.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().absolute()
        self.cells = CellStore(self.path)
        self.baselines = BaselineStore(self.path)

    @property
    def table_path(self) -> Path:
        """The table of all cells, where it was written."""
        return self.path / TABLE

    def record(self) -> dict[str, Any]:
        """The request of this study, with versions and command line.

        Raises:
            UsageError: the folder holds no study, or one of another format.
        """
        path = self.path / REQUEST
        remedy = "start again in a new folder"
        try:
            record = read_record(path, _SCHEMA, what="the record of this study", remedy=remedy)
        except FileNotFoundError as error:
            raise UsageError(f"no study in this folder: {REQUEST} is missing", where=self.path) from error
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
        request = setting.request(prompts)
        if self._begin({"asked": request, "command": command, "versions": versions()}):
            return
        earlier = self.record()["asked"]
        if earlier != json.loads(json.dumps(request)):
            raise UsageError(
                "the folder holds a study of another configuration",
                got=_difference(earlier, request),
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
        if (self.path / REQUEST).exists():
            return False
        self._require_empty()
        record = {"format": FORMAT, "workflow": "study", **content}
        try:
            write_whole(self.path / REQUEST, record_text(record).encode(), put=os.link)
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
        (self.path / REQUEST).unlink(missing_ok=True)
        for folder in (self.path / LOCKS, self.path):
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

    def keep_notes(self, notes: Iterable[str]) -> None:
        """Keep what came up while a process worked on the study, each note in a file named by its content."""
        for note in notes:
            write_whole(self.path / NOTES / f"{fingerprint({'note': note})}.txt", note.encode())

    def notes(self) -> list[str]:
        """What came up in any process that worked on the study; a damaged note names itself."""
        files = sorted((self.path / NOTES).glob("*.txt"))
        read = {file: file.read_bytes().decode(errors="replace") for file in files}
        return [
            note if file.stem == fingerprint({"note": note}) else f"this note is damaged: {NOTES}/{file.name}"
            for file, note in read.items()
        ]

    def expected(self, setting: Setting, prompts: tuple[str, ...]) -> dict[str, Cell]:
        """Every cell of the study by its key, condition by condition."""
        pairs = setting.pairs(prompts)
        listed = [Cell(condition, prompt, seed) for condition in self.grid()[0] for prompt, seed in pairs]
        return {setting.key(cell): cell for cell in listed}


def _difference(earlier: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    """What differs, as `name: there X, asked Y`."""
    differences = []
    for name in dict.fromkeys([*earlier, *request]):
        there, here = earlier.get(name), request.get(name)
        if isinstance(there, list) and isinstance(here, list) and there != here:
            there, here = f"{len(there)} {name}", _first_change(there, here)
        if there != here:
            differences.append(f"{name}: there {there}, asked {here}")
    return "; ".join(differences)


def _first_change(there: Sequence[Any], here: Sequence[Any]) -> str:
    index = next((i for i, (a, b) in enumerate(zip(there, here, strict=False)) if a != b), min(len(there), len(here)))
    changed = repr(here[index]) if index < len(here) else "nothing"
    return f"{len(here)}, number {index + 1} being {changed}"
