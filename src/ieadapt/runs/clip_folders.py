"""Folders of videos: which files of a folder are videos, under which names, and what was left out and why."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ieadapt.errors import FailureError, UsageError, raised_as
from ieadapt.files import fits
from ieadapt.notation import counted
from ieadapt.runs.folder import CONFIG, problem_of, read_run

VIDEO_SUFFIXES = frozenset({".mp4", ".webm", ".gif", ".mkv", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".y4m", ".ts"})
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
# Part of a run -> the part that it is compared with.
REFERENCES: Mapping[str, str] = {"enhanced": "plain", "edit": "source", "perturbed": "original"}
SHARED = ("source", "reconstruction")
"""Videos of a run that stand beside several numbered ones in their folder."""
NO_PART = ("side-by-side", "mask")
_PART = re.compile(r"(?P<name>\d+)-(?P<part>[a-z][a-z-]*)")
_CHUNKS = re.compile(r"\d+|\D+")


@dataclass(frozen=True)
class ClipFolder:
    """The videos of a folder.

    Attributes:
        label: of the folder, in tables.
        clips: name -> a video file, or a folder of frames; in natural order of the names (2 before 10).
        left_out: files that are no video, each with the reason.
        prompts: name of a video -> what it shows, where the folder says so.
    """

    label: str
    clips: Mapping[str, Path]
    left_out: tuple[str, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)


def find_clips(location: str | Path) -> ClipFolder:
    """The videos of a location.

    Args:
        location: a folder of videos (files, or folders of frames), one video file, one folder of frames, or a run
            folder; `RUN:PART` takes one part of a run, such as `runs/a:enhanced`.

    Raises:
        UsageError: no such location, no video in it, two videos of one name, or a run of several parts and none named.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("clip10.mp4", "clip2.mp4", "notes.txt"):
        ...     (folder / name).touch()
        >>> videos = find_clips(folder)
        >>> list(videos.clips), videos.left_out
        (['clip2', 'clip10'], ('notes.txt: no video',))
    """
    path, part = _split(location)
    if path.is_file():
        return ClipFolder(path.stem, {path.stem: path})
    if not path.is_dir():
        raise UsageError("there is no such folder of videos", where=location, remedy="name a folder, a run or a video")
    if (path / CONFIG).is_file():
        return _of_run(path, part)
    if part:
        raise UsageError("only run folders have parts", got=part, where=path, remedy=f"name {path} alone")
    return _of_folder(path)


def parts_of(location: str | Path) -> list[str]:
    """The parts of a run folder, such as `plain` and `enhanced`; none for any other location."""
    path, part = _split(location)
    return [] if part or not (path / CONFIG).is_file() else list(_parts(path, read_run(path)["files"]))


def read_prompts_of(file: Path, names: Collection[str]) -> Mapping[str, str]:
    """The prompts of some videos.

    Args:
        file: JSON (an object, name -> prompt), or text with one prompt per line in the order of the videos.
        names: of the videos.

    Raises:
        UsageError: the file cannot be read, lacks the prompt of a video, or has another number of lines than there
            are videos.
    """
    text = prompts_text(file)
    if file.suffix == ".json":
        problem, causes = "the prompts file cannot be read", (ValueError, TypeError)
        with raised_as(UsageError, problem, causes, got="no JSON object", where=file):
            given = {**json.loads(text)}
        lacking = [name for name in names if name not in given]
        if lacking:
            raise UsageError("a video has no prompt", got=lacking[0], where=file)
        return {name: str(given[name]) for name in names}
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) != len(names):
        raise UsageError(
            "the prompts do not fit the videos",
            expected=f"{counted(len(names), 'prompt')}, one per video, in the order of their names",
            got=f"{counted(len(lines), 'prompt')}",
            where=file,
            remedy="or give a JSON file: {name of the video: prompt}",
        )
    return dict(zip(names, lines, strict=True))


def prompts_text(file: Path) -> str:
    """The text of a file of prompts.

    Raises:
        UsageError: it cannot be read.
    """
    with raised_as(UsageError, "the prompts file cannot be read", (OSError, UnicodeDecodeError), where=file):
        return file.expanduser().read_text(encoding="utf-8")


def _of_folder(path: Path) -> ClipFolder:
    label = path.name or path.resolve().name
    clips, left_out = dict[str, Path](), list[str]()
    for entry in sorted((entry for entry in path.iterdir() if not entry.name.startswith(".")), key=natural):
        name = entry.name if entry.is_dir() else entry.stem
        problem = _problem_as_video(entry)
        if problem:
            left_out.append(f"{entry.name}: {problem}")
        elif name in clips:
            raise UsageError("two videos have one name", got=f"{clips[name].name} and {entry.name}", where=path)
        else:
            clips[name] = entry
    if not clips and any(frames_of(path)):
        return ClipFolder(label, {label: path})
    if not clips:
        raise UsageError(
            "there is no video in this folder",
            expected=f"{', '.join(sorted(VIDEO_SUFFIXES))} files, or folders of pictures",
            got="; ".join(left_out[:3]) or "an empty folder",
            where=path,
        )
    return ClipFolder(label, clips, tuple(left_out))


def _problem_as_video(entry: Path) -> str:
    if entry.is_dir():
        return "" if any(frames_of(entry)) else "a folder without pictures"
    if entry.suffix.lower() in PICTURE_SUFFIXES:
        return "a picture, not a video"
    return "" if entry.suffix.lower() in VIDEO_SUFFIXES and entry.is_file() else "no video"


def _of_run(path: Path, part: str) -> ClipFolder:
    record = read_run(path)
    parts = _parts(path, record["files"])
    if not part and len(parts) == 1:
        part = next(iter(parts))
    if part not in parts:
        raise UsageError(
            "this run holds several parts" if parts and not part else "the run has no such part of videos",
            expected=", ".join(parts) or "a run that made videos",
            got=part or None,
            where=path,
            remedy=f"name one: {path}:{next(iter(parts))}" if parts else None,
        )
    left_out = []
    if record["status"] != "complete":
        reason = f" ({record['error']})" if record.get("error") else ""
        left_out.append(f"what a {record['status']} run has not made{reason}")
    if "sha256" not in record:
        left_out.append("no video, but an earlier version wrote this run, without the hashes that show damage")
    sound = {}
    for name, file in parts[part].items():
        problem = problem_of(path, record, str(file.relative_to(path)))
        if problem:
            left_out.append(f"{file.relative_to(path)}: {problem}")
        else:
            sound[name] = file
    if not sound:
        raise FailureError(
            "no video of this run is as the run wrote it",
            got="; ".join(left_out[:3]),
            where=path,
            remedy="make them again with --resume",
        )
    return ClipFolder(f"{path.name}:{part}", sound, tuple(left_out), _prompts_of_run(path, record["config"]))


def _prompts_of_run(path: Path, config: Mapping[str, Any]) -> dict[str, str]:
    prompts, seeds = config.get("prompts") or [], config.get("seeds") or 1
    if not fits(prompts, list[str]) or not fits(seeds, int):
        got = f"prompts {prompts!r:.60} and seeds {seeds!r:.60}"
        raise UsageError("the record of this run cannot be read", got=got, where=path / CONFIG)
    named = (prompt for prompt in prompts for _ in range(seeds))
    return {f"{index:02d}": prompt for index, prompt in enumerate(named)}


def _parts(path: Path, files: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Part -> its videos by name; those that a folder's numbered videos share stand beside each of them."""
    parts, numbered = dict[str, dict[str, Path]](), dict[Path, dict[str, None]]()
    videos = [file for file in sorted(map(Path, files), key=natural) if file.suffix in VIDEO_SUFFIXES]
    for file in videos:
        match = _PART.fullmatch(file.stem)
        if match and match["part"] not in NO_PART:
            name = match["name"] if file.parent == Path() else f"{file.parent}-{match['name']}"
            parts.setdefault(match["part"], {})[name] = path / file
            numbered.setdefault(file.parent, {})[name] = None
    for file in videos:
        for name in numbered.get(file.parent, {}) if file.stem in SHARED else ():
            parts.setdefault(file.stem, {})[name] = path / file
    return parts


def _split(location: str | Path) -> tuple[Path, str]:
    """`runs/a:enhanced` as path and part; a path that exists as it stands has no part."""
    whole = Path(location).expanduser()
    if whole.exists() or ":" not in str(location):
        return whole, ""
    head, _, part = str(location).rpartition(":")
    return Path(head).expanduser(), part


def frames_of(folder: Path) -> Iterator[Path]:
    """The pictures of a folder of frames, in natural order."""
    pictures = (entry for entry in folder.iterdir() if entry.suffix.lower() in PICTURE_SUFFIXES and entry.is_file())
    yield from sorted(pictures, key=natural)


def natural(path: Path) -> list[tuple[bool, int, str]]:
    """A key that sorts names as people count: clip2 before clip10."""
    return [(not chunk.isdigit(), int(chunk) if chunk.isdigit() else 0, chunk) for chunk in _CHUNKS.findall(path.name)]
