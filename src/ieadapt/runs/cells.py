"""Cells: small results that workers make for one folder, each in a file named by the hash of all that it depends on."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ieadapt.errors import FailureError, IEAdaptError
from ieadapt.files import is_leftover
from ieadapt.runs.folder import Stages
from ieadapt.runs.shared_files import fingerprint, set_aside, write_whole
from ieadapt.runs.workers import RunTasks, Task, Work, make_all, tasks_of

Item = TypeVar("Item")
_NAME = re.compile(r"(?P<key>[0-9a-f]{32})\.json")


@dataclass(frozen=True)
class CellRow:
    """A finished cell.

    Attributes:
        identity: what its numbers depend on.
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


class CellStore:
    """The files of a folder's cells.

    Args:
        folder: of the work; cells are in `cells` below it.
    """

    def __init__(self, folder: Path) -> None:
        self._work, self._folder = folder, folder / "cells"

    def write(self, row: CellRow) -> None:
        """Store a finished cell, whole or not at all."""
        write_whole(self._path(row.key), row.written())

    def missing(self, items: Mapping[str, Item]) -> dict[str, Item]:
        """Those whose cells have no file; files that are damaged count until `make` has set them aside."""
        return {key: item for key, item in items.items() if not self._path(key).exists()}

    def keys(self) -> set[str]:
        """The keys of all files that are named as cells are."""
        return {match["key"] for path in self._folder.glob("*") if (match := _NAME.fullmatch(path.name))}

    def read(self, keys: Iterable[str]) -> tuple[dict[str, CellRow], list[str]]:
        """The sound ones among these cells, and the keys of those that are damaged."""
        rows = {key: CellRow.read(self._path(key).read_bytes()) for key in sorted(keys)}
        sound = {key: row for key, row in rows.items() if row is not None and row.key == key}
        return sound, [key for key in rows if key not in sound]

    def foreign(self, expected: Collection[str]) -> list[str]:
        """Names of files among the cells that are none of these."""
        names = sorted(path.name for path in self._folder.glob("*") if not is_leftover(path))
        return [name for name in names if not (match := _NAME.fullmatch(name)) or match["key"] not in expected]

    def set_damaged_aside(self, expected: Collection[str]) -> list[str]:
        """Move the damaged ones among these cells out of the way, so that they are done again; their keys."""
        damaged = self.read(self.keys().intersection(expected))[1]
        for key in damaged:
            set_aside(self._path(key), self._work)
        return damaged

    def make(
        self,
        run: RunTasks,
        make: Callable[..., None],
        wanted: Mapping[str, Item],
        size: int,
        *,
        together: Callable[[Item], Hashable],
        stages: Stages,
        stage: str,
    ) -> dict[str, IEAdaptError]:
        """Let workers make the cells that have no file.

        Args:
            run: the workers.
            make: of the work; stores the cells of some items.
            wanted: what `make` needs to know of each cell, by key; those that may share a task side by side.
            size: cells of a task.
            together: items for which it gives the same may share a task.
            stages: told how far it is.
            stage: its name.

        Returns:
            Why some cells could not be made, by key.
        """

        def pending(failed: Collection[str]) -> list[Task]:
            left = [(key, item) for key, item in self.missing(wanted).items() if key not in failed]
            groups = itertools.groupby(left, key=lambda entry: together(entry[1]))
            return [task for _, group in groups for task in tasks_of(make, dict(group), size)]

        return make_all(run, pending, stages, stage)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


@dataclass(frozen=True)
class CellWork(Work):
    """Work whose results are cells."""

    @cached_property
    def cells(self) -> CellStore:
        """The finished ones."""
        return CellStore(self.folder)


def require_made(failed: Mapping[str, IEAdaptError], problem: str, folder: Path, remedy: str) -> None:
    """Refuse to go on where some cells could not be made.

    Raises:
        FailureError: with the reason of the first of them.
    """
    for reason in failed.values():
        raise FailureError(problem, got=reason, where=folder, remedy=remedy)
