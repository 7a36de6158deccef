"""The work of the benchmark: rows made by workers, each kept in a file of its own as soon as it is there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from benchmarks.testbed.tracks import TRACKS, Place, Row, Track
from ieadapt.errors import IEAdaptError
from ieadapt.files import read_record
from ieadapt.runs.fingerprints import StorageError, fingerprint, write_whole
from ieadapt.runs.leases import Claims
from ieadapt.tasks.bench.layout_videos import PROFILE
from ieadapt.tasks.generate import GenerationConfig
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.study.folder import StudyFolder
from ieadapt.tasks.study.worker import Outcome, WorkPlan, within_memory

_UNSAFE = re.compile(r"[^\w.=-]+")


@dataclass(frozen=True)
class BenchPlan(WorkPlan):
    """What a worker has to know.

    Attributes:
        number: scenes of every track.
        settings: settings of plain generation, by track.
    """

    number: int
    settings: tuple[tuple[str, GenerationConfig], ...]

    def bench(self, owner: str | None = None, pipe: DiffusionPipeline | None = None) -> RowBench:
        """A bench that makes rows."""
        return RowBench(self, owner, pipe)

    def file(self, track: str, method: str, scene: str) -> Path:
        """Where a row is kept."""
        return self.folder / "rows" / track / _UNSAFE.sub("_", method) / f"{scene}.json"

    def missing(self, track: Track, methods: Sequence[str]) -> dict[str, list[str]]:
        """Method -> scenes whose row is not there."""
        scenes = track.scenes(self.number)
        found = {
            method: [scene for scene in scenes if not self.file(track.name, method, scene).is_file()]
            for method in methods
        }
        return {method: left for method, left in found.items() if left}

    def kept(self, track: Track, methods: Sequence[str]) -> list[Row]:
        """The rows that are there, method by method."""
        files = (self.file(track.name, method, scene) for method in methods for scene in track.scenes(self.number))
        schema, what, remedy = {"scene": str}, "a row of the benchmark", "remove the file and go on with --resume"
        return [read_record(file, schema, what=what, remedy=remedy) for file in files if file.is_file()]


class RowBench:
    """A pipeline and a folder of rows.

    Args:
        plan: what to work on.
        owner: the name under which work is claimed.
        pipe: the pipeline, where it is at hand; else it is loaded when it is first needed.
    """

    def __init__(self, plan: BenchPlan, owner: str | None, pipe: DiffusionPipeline | None) -> None:
        self.plan, self._given = plan, pipe
        self.claims = Claims(StudyFolder(plan.folder).claims_path, owner)

    @contextmanager
    def open(self) -> Iterator[RowBench]:
        """Keep claims alive while the block is open, and give them back at its end; float32 is not shortened there."""
        if self.plan.threads:
            torch.set_num_threads(self.plan.threads)
        whole = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
        with whole, self.claims.kept_alive():
            yield self

    @cached_property
    def pipe(self) -> DiffusionPipeline:
        """The pipeline."""
        return self._given if self._given is not None else self.plan.hardware.load(self.plan.load_from)

    @cached_property
    def places(self) -> dict[str, Place]:
        """What the methods run on, by track."""
        kept = self.plan.folder / PROFILE
        profile = EntropyProfile.load(kept) if kept.is_dir() else None
        return {track: Place(self.pipe, generation, profile) for track, generation in self.plan.settings}


@dataclass(frozen=True)
class MakeRows:
    """Some methods on some scenes of a track."""

    track: str
    methods: tuple[str, ...]
    scenes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.methods) * len(self.scenes)

    def run(self, bench: RowBench) -> Outcome:
        """Make the rows, unless another process does; a method that refuses costs no other one."""
        key = fingerprint({"track": self.track, "methods": self.methods, "scenes": self.scenes})
        if not bench.claims.take(key):
            return Outcome(elsewhere=self.size)
        done, failed = 0, list[tuple[str, str]]()
        try:
            for method in self.methods:
                try:
                    done += self._made(bench, method)
                except StorageError:
                    raise
                except IEAdaptError as error:
                    failed.append((f"{self.track}, {method}", str(error)))
        finally:
            bench.claims.release(key)
        return Outcome(done, 0, tuple(failed))

    def _made(self, bench: RowBench, method: str) -> int:
        plan, track = bench.plan, TRACKS[self.track]
        with within_memory(len(self.scenes)):
            rows = track.rows(bench.places[self.track], method, self.scenes, plan.number)
        for row in rows:
            write_whole(plan.file(self.track, method, row["scene"]), json.dumps(row).encode())
        return len(rows)


def tasks_of(missing: Mapping[str, Mapping[str, Sequence[str]]], size: int) -> list[MakeRows]:
    """Track -> method -> scenes that are not done, as tasks."""
    return [MakeRows(name, *share) for name, left in missing.items() for share in TRACKS[name].shares(left, size)]
