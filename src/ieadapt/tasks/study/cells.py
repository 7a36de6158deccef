"""The cells of a study: one small file each, believed only if it proves what it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ieadapt.runs.fingerprints import fingerprint, set_aside, write_whole

_NAME = re.compile(r"(?P<key>[0-9a-f]{32})\.json")
# Of a row of the table, all but these are the measured values of a cell.
IDENTITY = (
    "format",
    "model",
    "weights_hash",
    "prompt",
    "seed",
    "sites",
    "kind",
    "perturbation",
    "head",
    "rank",
    "window",
    "branch",
    "metrics",
    "steps",
    "guidance_scale",
    "num_frames",
    "height",
    "width",
    "negative_prompt",
)
JOINED = ("key", "digest", "ep", "energy", "energy_share")


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
            found = json.loads(content)
            row = cls(found["identity"], {name: float(value) for name, value in found["values"].items()})
            return row if row.digest == found["digest"] else None
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    @classmethod
    def of_table(cls, row: Mapping[str, Any]) -> CellRow | None:
        """A cell from a row of the table, or None where its digest says otherwise."""
        identity = {name: row[name] for name in IDENTITY if name in row}
        values = {name: value for name, value in row.items() if name not in (*IDENTITY, *JOINED) and value is not None}
        cell = cls(identity, values)
        return cell if (cell.key, cell.digest) == (row.get("key"), row.get("digest")) else None


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
        if not self._folder.is_dir():
            return set()
        return {found["key"] for path in self._folder.iterdir() if (found := _NAME.fullmatch(path.name))}

    def read(self, keys: Iterable[str]) -> tuple[dict[str, CellRow], list[str]]:
        """The sound ones among these cells, and the keys of those that are damaged."""
        found = {key: CellRow.read(self._path(key).read_bytes()) for key in sorted(keys)}
        sound = {key: row for key, row in found.items() if row is not None and row.key == key}
        return sound, [key for key in found if key not in sound]

    def foreign(self, expected: set[str]) -> list[str]:
        """Names of files among the cells that are none of this study."""
        if not self._folder.is_dir():
            return []
        names = sorted(path.name for path in self._folder.iterdir() if not path.name.endswith(".part"))
        return [name for name in names if not (found := _NAME.fullmatch(name)) or found["key"] not in expected]

    def set_aside(self, keys: Iterable[str]) -> None:
        """Move damaged cells out of the way, so that they are done again."""
        for key in keys:
            set_aside(self._path(key), self._study)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"
