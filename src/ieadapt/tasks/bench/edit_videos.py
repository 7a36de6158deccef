"""The videos of an editing benchmark: every edit by every method, beside the copied source and the reconstruction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffusers import DiffusionPipeline

from ieadapt.errors import UsageError
from ieadapt.runs.settings import GenerationConfig, SourceConfig
from ieadapt.runs.shared_files import FileRecord, fingerprint
from ieadapt.runs.sources import read_source
from ieadapt.runs.videos import Video, encode_video
from ieadapt.runs.workers import Work
from ieadapt.tasks.edit.config import edit_preset
from ieadapt.tasks.edit.inversion import cached_inversion
from ieadapt.tasks.edit.jobs import EditJob
from ieadapt.tasks.edit.method import edit
from ieadapt.tasks.edit.run import frames_for

SOURCE, COPY, RECONSTRUCTION = "source", "copy", "reconstruction"
INVERTING = "inversion"
"""The preset whose inversion the reconstruction row shows."""


@dataclass(frozen=True)
class EditWork(Work):
    """What a worker has to know to make the edits, and how it makes them.

    Attributes:
        methods: names of presets of the editor.
        generation: steps, size, batch.
        source: which frames of the videos are taken.
        cache: folder in which inversions are kept.
    """

    methods: tuple[str, ...]
    generation: GenerationConfig
    source: SourceConfig
    cache: Path

    @property
    def rows(self) -> tuple[str, ...]:
        """The folders of edits: the two that edit nothing, and the methods."""
        return (COPY, RECONSTRUCTION, *self.methods)

    def file(self, row: str, job: EditJob, index: int) -> Path:
        """Where V2VBench wants an edit: METHOD/VIDEO/INDEX.mp4."""
        return self.folder / row / job.name / f"{index}.mp4"

    def source_file(self, job: EditJob) -> Path:
        """The source as the model took it."""
        return self.folder / SOURCE / f"{job.name}.mp4"

    def record(self, job: EditJob) -> FileRecord:
        """What was written of a job; its notes are the signs of damage in the source."""
        return FileRecord(self.folder, self.key(job))

    def missing(self, job: EditJob) -> list[str]:
        """The rows of a job of which a file is gone or is not what was written."""
        return [row for row in self.rows if not self.record(job).holds(*self._files(row, job))]

    def _files(self, row: str, job: EditJob) -> list[Path]:
        edits = [self.file(row, job, index) for index in range(len(job.prompts))]
        return [self.source_file(job), *edits] if row == COPY else edits

    def key(self, job: EditJob) -> str:
        """Under which a job is locked."""
        return fingerprint({"job": job.name})

    def make(self, pipe: DiffusionPipeline, items: Mapping[str, EditJob]) -> None:
        """Make what is missing of some jobs."""
        for job in items.values():
            if missing := self.missing(job):
                self._make_rows(pipe, job, missing)

    def _make_rows(self, pipe: DiffusionPipeline, job: EditJob, rows: list[str]) -> None:
        size = frames_for(pipe, self.generation)
        if job.video is None:
            raise UsageError("a benchmark edits videos from files", where=f"job {job.name!r}")
        source = read_source(job.video, size, self.source)
        for row in rows:
            files = self._files(row, job)
            copies = [encode_video(source.frames)] * len(files) if row == COPY else None
            contents = copies or self._edited(pipe, row, job, source.frames)
            self.record(job).write(dict(zip(files, contents, strict=True)), source.damage)

    def _edited(self, pipe: DiffusionPipeline, row: str, job: EditJob, frames: Video) -> list[bytes]:
        config = edit_preset(INVERTING if row == RECONSTRUCTION else row)
        generation = self.generation
        inversion, _ = cached_inversion(self.cache, pipe, frames, job.source_prompt, config, generation)
        if row == RECONSTRUCTION:
            return [encode_video(inversion.reconstruction)] * len(job.prompts)
        result = edit(
            pipe,
            frames,
            list(job.prompts),
            source_prompt=job.source_prompt,
            config=config,
            generation=generation,
            inversion=inversion,
        )
        return [encode_video(video) for video in result.edited]
