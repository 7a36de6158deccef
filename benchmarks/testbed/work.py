"""The work of the benchmark: rows made by workers, each kept in a file of its own as soon as it is there."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import DiffusionPipeline

from benchmarks.testbed.tracks import TRACKS, Place, Row, Track
from ieadapt.errors import IEAdaptError
from ieadapt.files import read_record
from ieadapt.runs.settings import GenerationConfig
from ieadapt.runs.shared_files import fingerprint, write_whole
from ieadapt.runs.workers import Task, Work, within_memory
from ieadapt.tasks.bench.vbench import PROFILE
from ieadapt.tasks.measure.profile import EntropyProfile

_UNSAFE = re.compile(r"[^\w.=-]+")


class RowName(NamedTuple):
    """One method on one scene of a track."""

    track: str
    method: str
    scene: str

    @property
    def key(self) -> str:
        """Under which the row is locked."""
        return fingerprint(self._asdict())


@dataclass(frozen=True)
class RowWork(Work):
    """What a worker has to know to make the rows, and how it makes them.

    Attributes:
        number: scenes of every track.
        settings: settings of plain generation, by track.
    """

    number: int
    settings: tuple[tuple[str, GenerationConfig], ...]

    def file(self, row: RowName) -> Path:
        """Where a row is kept."""
        return self.folder / "rows" / row.track / _UNSAFE.sub("_", row.method) / f"{row.scene}.json"

    def rows(self, track: Track, methods: Sequence[str]) -> list[RowName]:
        """Every row of some methods, method by method."""
        return [RowName(track.name, method, scene) for method in methods for scene in track.scenes(self.number)]

    def missing(self, track: Track, methods: Sequence[str], failed: Collection[str] = ()) -> dict[str, list[str]]:
        """Method -> scenes whose row is not there, and has not failed."""
        left: dict[str, list[str]] = {}
        for row in self.rows(track, methods):
            if row.key not in failed and not self.file(row).is_file():
                left.setdefault(row.method, []).append(row.scene)
        return left

    def kept(self, track: Track, methods: Sequence[str]) -> list[Row]:
        """The rows that are there, method by method."""
        files = [self.file(row) for row in self.rows(track, methods)]
        schema, what, remedy = {"scene": str}, "a row of the benchmark", "remove the file and go on with --resume"
        return [read_record(file, schema, what=what, remedy=remedy) for file in files if file.is_file()]

    def make(self, pipe: DiffusionPipeline, items: Mapping[str, RowName]) -> dict[str, IEAdaptError]:
        """Make rows of one track; a method that refuses costs no other one."""
        missing = {key: row for key, row in items.items() if not self.file(row).is_file()}
        failed: dict[str, IEAdaptError] = {}
        path = self.folder / PROFILE
        profile = EntropyProfile.load(path) if path.is_dir() else None
        for track, rows_of_track in groupby(missing.values(), key=lambda row: row.track):
            place = Place(pipe, dict(self.settings)[track], profile)
            for method, rows in groupby(rows_of_track, key=lambda row: row.method):
                scenes = [row.scene for row in rows]
                try:
                    with _whole_float32(), within_memory(len(scenes)):
                        made = TRACKS[track].rows(place, method, scenes, self.number)
                except IEAdaptError as error:
                    failed |= {RowName(track, method, scene).key: error for scene in scenes}
                    continue
                for row in made:
                    write_whole(self.file(RowName(track, method, row["scene"])), json.dumps(row).encode())
        return failed


def _whole_float32() -> AbstractContextManager[None]:
    """Convolutions keep all digits of float32 in the block; a GPU shortens them to TF32 otherwise."""
    return torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)


def row_tasks(missing: Mapping[str, Mapping[str, Sequence[str]]], size: int) -> list[Task]:
    """Track -> method -> scenes that are not done, as tasks of about so many rows."""
    shares = [(track, *share) for track, left in missing.items() for share in TRACKS[track].shares(left, size)]
    rows = [
        [RowName(track, method, scene) for method in methods for scene in scenes] for track, methods, scenes in shares
    ]
    return [Task(RowWork.make, {row.key: row for row in group}) for group in rows]
