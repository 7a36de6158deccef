"""What is to be edited: one source with its target prompts is a job; a file of jobs is a batch."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ieadapt.errors import UsageError
from ieadapt.runs.pipelines import check_seeds

KEYS = ("video", "seed", "source", "targets", "active", "name")
"""What a row of a file of jobs may say."""
_WORDS = {"true": True, "yes": True, "1": True, "": True, "false": False, "no": False, "0": False}
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
        if not self.prompts or any(not prompt.strip() for prompt in self.prompts):
            raise UsageError("an edit needs a target prompt with words in it", got=list(self.prompts), where=where)
        check_seeds(self.seed or 0)
        if self.seed is not None and not self.source_prompt.strip():
            raise UsageError("a generated source needs its prompt", remedy="pass --source-prompt", where=where)
        same = [prompt for prompt in self.prompts if prompt.strip() == self.source_prompt.strip()]
        if same:
            raise UsageError(
                "source and target prompt are the same, so nothing would change",
                got=repr(same[0]),
                where=where,
                remedy="say in the target what should be different",
            )

    @property
    def spoken_source(self) -> str:
        """The source in a few words."""
        return self.video.name if self.video is not None else f"generated, seed {self.seed}"


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
    jobs = [_job(row, number, path) for number, row in enumerate(rows, start=1) if _is_active(row, number, path)]
    if not jobs:
        raise UsageError("the file of jobs has no active job", got=f"{len(rows)} rows", where=path)
    return jobs


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.expanduser().read_text(encoding="utf-8")
        rows = list(csv.DictReader(text.splitlines())) if path.suffix.lower() == ".csv" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise UsageError("the file of jobs cannot be read", got=reason, where=path) from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise UsageError("the file of jobs is no list of jobs", expected="rows with video, source, targets", where=path)
    return rows


def _is_active(row: Mapping[str, Any], number: int, path: Path) -> bool:
    unknown = [key for key in row if key not in KEYS]
    if unknown:
        raise UsageError(
            "unknown key of a job", expected=", ".join(KEYS), got=unknown[0], where=f"{path}, row {number}"
        )
    said = str(row.get("active", "")).strip().lower()
    if said not in _WORDS:
        raise UsageError("`active` is yes or no", got=repr(row["active"]), where=f"{path}, row {number}")
    return _WORDS[said]


def _job(row: Mapping[str, Any], number: int, path: Path) -> EditJob:
    video, seed = str(row.get("video") or "").strip(), row.get("seed")
    try:
        job = EditJob(
            name=f"{number:02d}-{_plain(str(row.get('name') or '') or Path(video).stem or f'seed-{seed}')}",
            prompts=_targets(row.get("targets")),
            source_prompt=str(row.get("source") or "").strip(),
            video=path.expanduser().parent / Path(video).expanduser() if video else None,
            seed=None if seed in (None, "") else int(str(seed)),
        )
    except UsageError as error:
        raise UsageError(
            error.problem, expected=error.expected, got=error.got, where=f"{path}, row {number}"
        ) from error
    except ValueError as error:
        raise UsageError("a seed is a whole number", got=repr(seed), where=f"{path}, row {number}") from error
    return job


def _targets(given: Any) -> tuple[str, ...]:
    listed: Sequence[Any] = given if isinstance(given, list) else str(given or "").split(_BETWEEN_TARGETS)
    return tuple(str(each).strip() for each in listed if str(each).strip())


def _plain(text: str) -> str:
    """A name that is safe in a path."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")[:60] or "job"
