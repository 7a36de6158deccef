"""What a finished job of an edit run leaves: its files, its measures, and a record by which a later run knows it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, get_type_hints

from jaxtyping import Bool, Float
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.files import read_record, record_text, sha256_of
from ieadapt.metrics import evaluate, select_metrics
from ieadapt.runs.clip_folders import frames_of
from ieadapt.runs.folder import RunFolder, versions
from ieadapt.runs.sources import Source
from ieadapt.runs.videos import Sound, encode_video, side_by_side
from ieadapt.tasks.edit.jobs import EditJob
from ieadapt.tasks.edit.marks import region_psnr
from ieadapt.tasks.edit.method import EditResult
from ieadapt.tasks.edit.pictures import rows_of_frames

RECORD, MASKED = "job.json", "outside_mask"
Video = Float[Tensor, "frame channel height width"]


@dataclass(frozen=True)
class EditRecord:
    """One edit of a job.

    Attributes:
        prompt: the target.
        name: before the names of its files.
        measures: the edit against the source, by metric; `outside_mask` is the PSNR where the mask forbids change.
    """

    prompt: str
    name: str
    measures: dict[str, float]


@dataclass(frozen=True)
class JobRecord:
    """One finished job.

    Attributes:
        name: of the job.
        folder: of its files within the run; empty for the run's own folder.
        key: what the result depends on, as a hash.
        source: what was taken of the source, in words.
        source_prompt: what the source shows.
        frames: how many, their height and their width.
        inversion: PSNR and SSIM of the reconstruction, and the key of the kept inversion.
        edits: one for each target.
        sites: names of the sites whose maps were injected.
        notes: what a reader should know.
        seconds: time of inversion and editing.
    """

    name: str
    folder: str
    key: str
    source: str
    source_prompt: str
    frames: list[int]
    inversion: dict[str, Any]
    edits: list[EditRecord]
    sites: list[str]
    notes: list[str]
    seconds: dict[str, float] = field(default_factory=dict)

    def file(self, edit: EditRecord, what: str) -> str:
        """The name of a file of an edit, within the run."""
        return f"{self.folder}{edit.name}-{what}"

    @property
    def files(self) -> list[str]:
        """The names of all files of the job, within the run."""
        parts = ("edit.mp4", "side-by-side.mp4", "strip.png")
        masked = [self.file(edit, "mask.mp4") for edit in self.edits if MASKED in edit.measures]
        edits = [self.file(edit, part) for edit in self.edits for part in parts]
        return [*(f"{self.folder}{name}" for name in ("source.mp4", "reconstruction.mp4", RECORD)), *edits, *masked]

    @classmethod
    def read(cls, path: Path) -> JobRecord | None:
        """The record in a file; None where there is none, or it is damaged."""
        try:
            content = read_record(path, get_type_hints(cls), what="the record of a job", remedy="edit again")
        except (FileNotFoundError, UsageError):
            return None
        return cls(**{**content, "edits": [EditRecord(**each) for each in content["edits"]]})

    @classmethod
    def finished(cls, run: RunFolder, folder: str, key: str) -> JobRecord | None:
        """The record of a job that an earlier run has finished.

        None where the job must be done: there is no record of it, or a file of it is gone or was changed.
        """
        record = cls.read(run.path / folder / RECORD)
        whole = record is not None and (record.folder, record.key) == (folder, key) and run.holds(*record.files)
        return record if whole else None


def job_key(job: EditJob, settings: Mapping[str, Any]) -> str:
    """A hash of all that decides about a job's result: the job, its file's content, settings, and versions."""
    said = dataclasses.asdict(job)
    if job.video is not None and job.video.exists():
        files = frames_of(job.video) if job.video.is_dir() else [job.video]
        said["video"] = " ".join(sha256_of(file) for file in files)
    content = json.dumps([said, settings, versions()], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def write_job(
    run: RunFolder, record: JobRecord, source: Source, result: EditResult, *, frames_in_a_row: int = 8
) -> JobRecord:
    """Write the videos and pictures of a job, measure its edits, and last its record; returns it with the measures."""

    def put(name: str, frames: Video, sound: Sound | None = source.sound, rate: Fraction = source.rate) -> None:
        run.write(name, encode_video(frames, rate, sound))

    put(f"{record.folder}source.mp4", result.source)
    put(f"{record.folder}reconstruction.mp4", result.reconstruction)
    edits = []
    for index, prompt in enumerate(result.prompts):
        frames = result.edited[index]
        mask = None if result.mask is None else result.mask[index]
        edit = EditRecord(prompt, f"{index:02d}", edit_measures(frames, result.source, mask))
        put(record.file(edit, "edit.mp4"), frames)
        clips = {"source": result.source, "reconstruction": result.reconstruction, "edit": frames}
        put(record.file(edit, "side-by-side.mp4"), side_by_side(clips))
        rows = {f"source: {record.source_prompt}".rstrip(": "): result.source, f"edit: {prompt}": frames}
        run.write(record.file(edit, "strip.png"), rows_of_frames(rows, frames_in_a_row))
        if mask is not None:
            put(record.file(edit, "mask.mp4"), mask.float()[:, None].expand(-1, 3, -1, -1), None)
        edits.append(edit)
    full = dataclasses.replace(record, edits=edits)
    run.write(f"{record.folder}{RECORD}", record_text(dataclasses.asdict(full)))
    return full


def edit_measures(
    frames: Video, source: Video, mask: Float[Tensor, "frame height width"] | None = None
) -> dict[str, float]:
    """Every metric of the edit against its source; those that refuse clips of this size are left out."""
    values: dict[str, float] = {}
    for metric in select_metrics():
        try:
            values |= evaluate(frames, source, [metric])
        except UsageError:
            continue
    if mask is not None:
        outside: Bool[Tensor, "frame height width"] = mask < 0.5
        values[MASKED] = region_psnr(frames, source, outside)
    return values
