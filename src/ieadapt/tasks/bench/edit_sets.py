"""Editing benchmarks' lists of edits: V2VBench's YAML, LOVEU-TGVE's CSV, or a file of jobs of our own."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ieadapt.errors import UsageError
from ieadapt.runs.clip_folders import VIDEO_SUFFIXES, frames_of
from ieadapt.tasks.edit.jobs import EditJob, read_jobs

TGVE_VIDEO, TGVE_SOURCE = "Video name", "Our GT caption"
TGVE_TARGETS = (
    "Style Change Caption",
    "Object Change Caption",
    "Background Change Caption",
    "Multiple Changes Caption",
)


def read_edit_set(file: Path, videos: Path | None = None) -> list[EditJob]:
    """The edits that a benchmark asks for.

    Args:
        file: V2VBench's YAML (`data`: a list of `video_id`, `prompt` and `edit`, a list of prompts), LOVEU-TGVE's CSV
            (`Video name`, `Our GT caption`, four columns of changed captions), or a file of jobs (see `read_jobs`).
        videos: the folder of the source videos, for the first two: files, or folders of frames, named by the list;
            by default the folder of the list.

    Raises:
        UsageError: the list cannot be read, is none of the three, or a video is not there.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "hike.mp4").touch()
        >>> text = "data: [{video_id: hike, edit: [{prompt: pixel art}, {prompt: snow}]}]"
        >>> _ = (folder / "set.yaml").write_text(text)
        >>> read_edit_set(folder / "set.yaml")[0].prompts
        ('pixel art', 'snow')
    """
    place = file.expanduser().parent if videos is None else videos.expanduser()
    entries = _v2vbench(file) if file.suffix.lower() in (".yaml", ".yml") else _tgve(file)
    if entries is None:
        jobs = read_jobs(file)
        if any(job.video is None for job in jobs):
            raise UsageError("a benchmark edits videos from files", got="a job with a seed", where=file)
        return jobs
    if not entries:
        raise UsageError("the list of edits is empty", where=file)
    return [EditJob(name, tuple(targets), source, _video(place, name)) for name, source, targets in entries]


def as_v2vbench(jobs: list[EditJob]) -> str:
    """The list in V2VBench's form, which its evaluation takes as `index_file`."""
    entries = [
        {"video_id": job.name, "prompt": job.source_prompt, "edit": [{"prompt": prompt} for prompt in job.prompts]}
        for job in jobs
    ]
    return yaml.safe_dump({"data": entries}, sort_keys=False, allow_unicode=True)


Entries = list[tuple[str, str, list[str]]]


def _v2vbench(file: Path) -> Entries | None:
    try:
        content = yaml.safe_load(file.expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _unreadable(file, error) from error
    rows = content.get("data") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "video_id" in row for row in rows):
        return None
    try:
        return [(str(row["video_id"]), str(row.get("prompt") or ""), _targets(row)) for row in rows]
    except (KeyError, TypeError) as error:
        raise UsageError("an entry of the list has no edits", expected="edit: [{prompt: ...}]", where=file) from error


def _targets(row: Mapping[str, Any]) -> list[str]:
    return [str(edit["prompt"]) for edit in row["edit"]]


def _tgve(file: Path) -> Entries | None:
    try:
        rows = list(csv.DictReader(file.expanduser().read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(file, error) from error
    if not rows or TGVE_VIDEO not in rows[0] or not any(name in rows[0] for name in TGVE_TARGETS):
        return None
    named = [
        row
        for row in rows
        if (row[TGVE_VIDEO] or "").strip() and any((row.get(name) or "").strip() for name in TGVE_TARGETS)
    ]
    return [
        (
            row[TGVE_VIDEO].strip(),
            (row.get(TGVE_SOURCE) or "").strip(),
            [target for name in TGVE_TARGETS if (target := (row.get(name) or "").strip())],
        )
        for row in named
    ]


def _video(folder: Path, name: str) -> Path:
    """The file or folder of frames of this name."""
    if (folder / name).is_dir() and next(frames_of(folder / name), None) is not None:
        return folder / name
    found = [folder / f"{name}{suffix}" for suffix in sorted(VIDEO_SUFFIXES) if (folder / f"{name}{suffix}").is_file()]
    if not found:
        raise UsageError(
            "a video of the list is not there",
            expected=f"{name}.mp4 or a folder of frames",
            where=folder,
            remedy="name the folder of the source videos with --videos",
        )
    return found[0]


def _unreadable(file: Path, error: Exception) -> UsageError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    return UsageError("the list of edits cannot be read", got=reason, where=file)
