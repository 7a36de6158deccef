"""The videos of an editing benchmark: every edit by every method, beside the copied source and the reconstruction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import IEAdaptError, UsageError
from ieadapt.runs.fingerprints import StorageError, fingerprint, write_whole
from ieadapt.runs.leases import Claims
from ieadapt.runs.sources import SourceConfig, read_source
from ieadapt.runs.videos import encode_video
from ieadapt.tasks.edit.inversions import InversionCache
from ieadapt.tasks.edit.jobs import EditJob
from ieadapt.tasks.edit.method import edit
from ieadapt.tasks.edit.model_size import frames_for
from ieadapt.tasks.edit.presets import edit_preset
from ieadapt.tasks.generate import GenerationConfig
from ieadapt.tasks.study.folder import StudyFolder
from ieadapt.tasks.study.worker import Outcome, WorkPlan, within_memory

SOURCE, COPY, RECONSTRUCTION = "source", "copy", "reconstruction"
INVERTING = "inversion"
"""The preset whose inversion the reconstruction row shows."""

Video = Float[Tensor, "frame channel height width"]


@dataclass(frozen=True)
class EditPlan(WorkPlan):
    """What a worker has to know to make the edits.

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

    def missing(self, job: EditJob) -> list[str]:
        """The rows of a job that are not whole."""
        numbers = range(len(job.prompts))
        return [row for row in self.rows if not all(self.file(row, job, index).is_file() for index in numbers)]

    def bench(self, owner: str | None = None, pipe: DiffusionPipeline | None = None) -> EditBench:
        """A bench that makes them."""
        return EditBench(self, owner, pipe)


class EditBench:
    """A pipeline and a folder of edits.

    Args:
        plan: what to work on.
        owner: the name under which work is claimed.
        pipe: the pipeline, where it is at hand; else it is loaded when it is first needed.
    """

    def __init__(self, plan: EditPlan, owner: str | None, pipe: DiffusionPipeline | None) -> None:
        self.plan, self._given = plan, pipe
        self.claims = Claims(StudyFolder(plan.folder).claims_path, owner)

    @contextmanager
    def open(self) -> Iterator[EditBench]:
        """Keep claims alive while the block is open, and give them back at its end."""
        if self.plan.threads:
            torch.set_num_threads(self.plan.threads)
        with self.claims.kept_alive():
            yield self

    @cached_property
    def pipe(self) -> DiffusionPipeline:
        """The pipeline."""
        return self._given if self._given is not None else self.plan.hardware.load(self.plan.load_from)

    def make(self, job: EditJob) -> None:
        """Make what is missing of a job."""
        lacking = self.plan.missing(job)
        if not lacking:
            return
        wanted = frames_for(self.pipe, self.plan.generation)
        if job.video is None:
            raise UsageError("a benchmark edits videos from files", where=f"job {job.name!r}")
        frames = read_source(job.video, wanted, self.plan.source).frames
        content = encode_video(frames)
        write_whole(self.plan.source_file(job), content)
        for row in lacking:
            with within_memory(self.plan.generation.batch_size):
                contents = [content] * len(job.prompts) if row == COPY else self._made(row, job, frames)
            for index, each in enumerate(contents):
                write_whole(self.plan.file(row, job, index), each)

    def _made(self, row: str, job: EditJob, frames: Video) -> list[bytes]:
        config = edit_preset(INVERTING if row == RECONSTRUCTION else row)
        generation, cache = self.plan.generation, InversionCache(self.plan.cache)
        inversion, _ = cache.invert(self.pipe, frames, job.source_prompt, config, generation)
        if row == RECONSTRUCTION:
            return [encode_video(inversion.reconstruction)] * len(job.prompts)
        result = edit(
            self.pipe,
            frames,
            list(job.prompts),
            source_prompt=job.source_prompt,
            config=config,
            generation=generation,
            inversion=inversion,
        )
        return [encode_video(video) for video in result.edited]


@dataclass(frozen=True)
class MakeEdits:
    """Make every row of one job."""

    job: EditJob

    def run(self, bench: EditBench) -> Outcome:
        """Make what is missing, unless another process does."""
        key = fingerprint({"job": self.job.name})
        if not bench.claims.take(key):
            return Outcome(elsewhere=1)
        try:
            bench.make(self.job)
        except StorageError:
            raise
        except IEAdaptError as error:
            return Outcome(failed=((self.job.name, str(error)),))
        finally:
            bench.claims.release(key)
        return Outcome(done=1)
