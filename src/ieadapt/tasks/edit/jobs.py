"""What is to be edited, and what became of it: a job is one source with its target prompts."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from ieadapt.errors import UsageError, raised_as
from ieadapt.files import read_record, sha256_of
from ieadapt.runs.clip_folders import frames_of
from ieadapt.runs.folder import RunFolder, versions
from ieadapt.runs.settings import check_seeds

KEYS = ("video", "seed", "source", "targets", "active", "name")
"""What a row of a file of jobs may say."""
RECORD, MASKED = "job.json", "outside_mask"
_ACTIVE = {"true": True, "yes": True, "1": True, "": True, "false": False, "no": False, "0": False}
_BETWEEN_TARGETS = "|"


@dataclass(frozen=True)
class EditJob:
    """One source and what it should become.

    Attributes:
        name: in file names and tables.
        prompts: one edit each.
        source_prompt: what the source shows; may be empty for a file.
        video: the source's file, or folder of frames; None for a generated source.
        seed: of the generated source's noise; None for a file.

    Raises:
        UsageError: no target, a blank one, one that is the source's own prompt, or not exactly one source.

    Example:
        >>> EditJob("ball", ("a red ball",), "a blue ball", seed=3).seed
        3
    """

    name: str
    prompts: tuple[str, ...]
    source_prompt: str = ""
    video: Path | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        where = f"job {self.name!r}"
        if (self.video is None) == (self.seed is None):
            got = "neither" if self.video is None else "both"
            raise UsageError("an edit has one source", expected="a video file, or a seed", got=got, where=where)
        check_targets(self.prompts, self.source_prompt, where)
        check_seeds(self.seed or 0)
        if self.seed is not None and not self.source_prompt.strip():
            raise UsageError("a generated source needs its prompt", remedy="pass --source-prompt", where=where)

    @property
    def source_label(self) -> str:
        """The source in a few words."""
        return self.video.name if self.video is not None else f"generated, seed {self.seed}"


def check_targets(prompts: Sequence[str], source_prompt: str, where: str | None = None) -> None:
    """Refuse target prompts that no edit can be made from.

    Raises:
        UsageError: no prompt, a blank one, or one equal to the source prompt.
    """
    if not prompts or not all(prompt.strip() for prompt in prompts):
        expected = "at least one target prompt with text in it"
        remedy = "pass --prompt TEXT, or --jobs FILE with targets"
        raise UsageError("an edit needs a prompt", expected=expected, got=list(prompts), where=where, remedy=remedy)
    for prompt in prompts:
        if " ".join(prompt.split()).lower() == " ".join(source_prompt.split()).lower():
            raise UsageError(
                "source and target prompt are the same, so nothing would change",
                got=repr(prompt),
                where=where,
                remedy="say in the target what should be different",
            )


def read_jobs(path: Path) -> list[EditJob]:
    r"""The active jobs of a YAML or CSV file.

    A YAML file is a list of mappings; a CSV file has a line of headings, and `|` between several targets. Known keys:
    `video` (a path, from the file's own folder) or `seed` (a generated source), `source` (its prompt), `targets` (one
    prompt or several), `active` (false leaves the row out), `name`.

    Raises:
        UsageError: the file cannot be read, a row is not a job (its number is given), or no row is active.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "jobs.csv")
        >>> _ = file.write_text("video,source,targets\nclip.mp4,a red ball,a blue ball | a green ball\n")
        >>> read_jobs(file)[0].prompts
        ('a blue ball', 'a green ball')
    """
    rows = _rows(path)
    numbered = [(row, number, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]
    folder = path.expanduser().parent
    jobs = [_job(row, number, folder, where) for row, number, where in numbered if _is_active(row, where)]
    if not jobs:
        raise UsageError("the file of jobs has no active job", got=f"{len(rows)} rows", where=path)
    return jobs


def _rows(path: Path) -> list[dict[str, Any]]:
    causes = (OSError, UnicodeDecodeError, yaml.YAMLError, csv.Error)
    with raised_as(UsageError, "the file of jobs cannot be read", causes, where=path):
        text = path.expanduser().read_text(encoding="utf-8")
        rows = list(csv.DictReader(text.splitlines())) if path.suffix.lower() == ".csv" else yaml.safe_load(text)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise UsageError("the file of jobs is no list of jobs", expected="rows with video, source, targets", where=path)
    return rows


def _is_active(row: Mapping[str, Any], where: str) -> bool:
    unknown = [key for key in row if key not in KEYS]
    if unknown:
        raise UsageError("unknown key of a job", expected=", ".join(KEYS), got=unknown[0], where=where)
    active = str(row.get("active", "")).strip().lower()
    if active not in _ACTIVE:
        raise UsageError("`active` is yes or no", got=repr(row["active"]), where=where)
    return _ACTIVE[active]


def _job(row: Mapping[str, Any], number: int, folder: Path, where: str) -> EditJob:
    video, seed = str(row.get("video") or "").strip(), row.get("seed")
    try:
        return EditJob(
            name=f"{number:02d}-{_plain(str(row.get('name') or '') or Path(video).stem or f'seed-{seed}')}",
            prompts=_targets(row.get("targets")),
            source_prompt=str(row.get("source") or "").strip(),
            video=folder / Path(video).expanduser() if video else None,
            seed=None if seed in (None, "") else int(str(seed)),
        )
    except UsageError as error:
        raise UsageError(error.problem, expected=error.expected, got=error.got, where=where) from error
    except ValueError as error:
        raise UsageError("a seed is a whole number", got=repr(seed), where=where) from error


def _targets(value: Any) -> tuple[str, ...]:
    listed: Sequence[Any] = value if isinstance(value, list) else str(value or "").split(_BETWEEN_TARGETS)
    return tuple(str(each).strip() for each in listed if str(each).strip())


def _plain(text: str) -> str:
    """A name that is safe in a path."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")[:60] or "job"


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
    described = dataclasses.asdict(job)
    if job.video is not None and job.video.exists():
        files = frames_of(job.video) if job.video.is_dir() else [job.video]
        described["video"] = " ".join(sha256_of(file) for file in files)
    content = json.dumps([described, settings, versions()], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
