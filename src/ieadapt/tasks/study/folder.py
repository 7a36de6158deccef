"""A study's folder: opened by every process that works on it, for one configuration only."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ieadapt.errors import UsageError
from ieadapt.files import is_leftover, read_record, record_text
from ieadapt.runs.cells import CellStore
from ieadapt.runs.folder import versions
from ieadapt.runs.shared_files import fingerprint, set_aside, write_whole
from ieadapt.runs.workers import LOCKS
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.study.grid import FORMAT, Cell, Condition, Setting
from ieadapt.tasks.study.videos import Baseline, read_baseline

REQUEST, GRID, NOTES = "study.json", "grid.json", "notes"
_SCHEMA = {"format": int, "asked": dict[str, Any]}
_NOTED = {"dtype": str, "scheduler": str, "runs_begin_at_step": int}


class StudyFolder:
    """The files of a study.

    Args:
        path: the folder.

    Attributes:
        cells: the finished cells.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().absolute()
        self.cells = CellStore(self.path)

    def record(self) -> dict[str, Any]:
        """The request of this study, with versions and command line.

        Raises:
            UsageError: the folder holds no study, or one of another format.
        """
        path, remedy = self.path / REQUEST, "start again in a new folder"
        try:
            record = read_record(path, _SCHEMA, what="the record of this study", remedy=remedy)
        except FileNotFoundError as error:
            raise UsageError(f"no study in this folder: {REQUEST} is missing", where=self.path) from error
        if record["format"] != FORMAT:
            expected, got = f"format {FORMAT}", record["format"]
            raise UsageError("a study of another format", expected=expected, got=got, where=path, remedy=remedy)
        return record

    def setting(self) -> Setting:
        """What this study is of.

        Raises:
            UsageError: as `record`.
        """
        return Setting.recorded(self.record()["asked"])

    def enter(self, setting: Setting, *, command: str, resume: bool) -> None:
        """Begin the study here, or go on with it.

        Raises:
            UsageError: the folder holds something else, a study while `resume` is false, or a study of another
                configuration; the differences are given.
        """
        request = setting.request
        if not (self.path / REQUEST).exists():
            self._require_empty()
            record = {"format": FORMAT, "workflow": "study", "asked": request, "command": command}
            with contextlib.suppress(FileExistsError):  # of a process that began just now
                content = record_text({**record, "versions": versions()})
                write_whole(self.path / REQUEST, content.encode(), put=os.link)
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
            raise UsageError(
                "the folder holds this study already",
                got=f"{len(self.cells.keys())} finished cells",
                where=self.path,
                remedy="add --resume to go on with it",
            )

    def _require_empty(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            holds = next((path.name for path in self.path.iterdir() if not is_leftover(path)), None)
        except OSError as error:
            raise UsageError("the output folder cannot be used", got=error.strerror, where=self.path) from error
        if holds is not None:
            problem, remedy = "the output folder holds files of something else", "name another --out"
            raise UsageError(problem, got=holds, where=self.path, remedy=remedy)

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
        """The conditions, and what was noted with them: number type, scheduler, the step at which runs begin.

        Raises:
            UsageError: the file is damaged.
        """
        what, remedy = "the conditions of this study", f"remove {GRID} and go on with --resume"
        schema = {"conditions": list[Condition], **_NOTED}
        content = read_record(self.path / GRID, schema, what=what, remedy=remedy, optional=tuple(_NOTED))
        listed = content.pop("conditions")
        return [Condition(**{**each, "sites": tuple(each["sites"])}) for each in listed], content

    def expected(self, setting: Setting) -> dict[str, Cell]:
        """Every cell of the study by its key, condition by condition."""
        return setting.cells(self.grid()[0])

    def baseline_path(self, key: str) -> Path:
        """The file of an unperturbed video."""
        return self.path / "twins" / f"{key}.safetensors"

    def baseline(self, key: str) -> Baseline | None:
        """An unperturbed video, or None where there is none; a damaged one is set aside."""
        path = self.baseline_path(key)
        baseline = read_baseline(path) if path.exists() else None
        if baseline is None and path.exists():
            set_aside(path, self.path)
        return baseline

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
