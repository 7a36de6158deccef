"""Folders of videos: which files of a folder are videos, under which names, and what was left out and why."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ieadapt.errors import FailureError, UsageError
from ieadapt.files import fits
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
class ClipFile:
    """A video on disk.

    Attributes:
        name: by which it is paired with the video of another folder.
        path: a video file, or a folder of frames.
    """

    name: str
    path: Path


@dataclass(frozen=True)
class ClipFolder:
    """The videos of a folder.

    Attributes:
        label: of the folder, in tables.
        clips: in natural order of their names (2 before 10).
        left_out: files that are no video, each with the reason.
        prompts: name of a video -> what it shows, where the folder says so.
    """

    label: str
    clips: tuple[ClipFile, ...]
    left_out: tuple[str, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)

    def with_prompts(self, file: Path | None) -> ClipFolder:
        """The same videos with the prompts of a file; without one as they are.

        Raises:
            UsageError: the file cannot be read, or does not fit the videos.
        """
        return self if file is None else replace(self, prompts=read_prompts_of(file, self.clips))


def find_clips(place: str | Path) -> ClipFolder:
    """The videos of a place.

    Args:
        place: a folder of videos (files, or folders of frames), one video file, one folder of frames, or a run folder;
            `RUN:PART` takes one part of a run, such as `runs/a:enhanced`.

    Raises:
        UsageError: no such place, no video in it, two videos of one name, or a run of several parts and none named.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("clip10.mp4", "clip2.mp4", "notes.txt"):
        ...     (folder / name).touch()
        >>> found = find_clips(folder)
        >>> [clip.name for clip in found.clips], found.left_out
        (['clip2', 'clip10'], ('notes.txt: no video',))
    """
    path, part = _split(place)
    if path.is_file():
        return ClipFolder(path.stem, (ClipFile(path.stem, path),))
    if not path.is_dir():
        raise UsageError("there is no such folder of videos", where=place, remedy="name a folder, a run or a video")
    if (path / CONFIG).is_file():
        return _of_run(path, part)
    if part:
        raise UsageError("only run folders have parts", got=part, where=path, remedy=f"name {path} alone")
    return _of_folder(path)


def parts_of(place: str | Path) -> list[str]:
    """The parts of a run folder, such as `plain` and `enhanced`; none for any other place."""
    path, part = _split(place)
    return [] if part or not (path / CONFIG).is_file() else list(_parts(path, read_run(path)["files"]))


def read_prompts_of(file: Path, clips: Sequence[ClipFile]) -> Mapping[str, str]:
    """The prompts of some videos.

    Args:
        file: JSON (an object, name -> prompt), or text with one prompt per line in the order of the videos.
        clips: the videos.

    Raises:
        UsageError: the file cannot be read, lacks the prompt of a video, or has another number of lines than there
            are videos.
    """
    try:
        text = file.expanduser().read_text(encoding="utf-8")
        if file.suffix == ".json":
            given = json.loads(text)
            return {clip.name: str(given[clip.name]) for clip in clips}
    except KeyError as error:
        raise UsageError("a video has no prompt", got=error.args[0], where=file) from error
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or "no text, or no JSON object"
        raise UsageError("the prompts file cannot be read", got=reason, where=file) from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) != len(clips):
        raise UsageError(
            "the prompts do not fit the videos",
            expected=f"{len(clips)} prompts, one per video, in the order of their names",
            got=f"{len(lines)} prompts",
            where=file,
            remedy="or give a JSON file: {name of the video: prompt}",
        )
    return {clip.name: line for clip, line in zip(clips, lines, strict=True)}


def _of_folder(path: Path) -> ClipFolder:
    label = path.name or path.resolve().name
    entries = sorted((entry for entry in path.iterdir() if not entry.name.startswith(".")), key=natural)
    pictures = [entry for entry in entries if entry.suffix.lower() in PICTURE_SUFFIXES]
    clips = [ClipFile(entry.stem, entry) for entry in entries if _is_video(entry)]
    clips += [ClipFile(entry.name, entry) for entry in entries if _is_frames(entry)]
    if not clips and pictures:
        return ClipFolder(label, (ClipFile(label, path),))
    taken = {clip.path for clip in clips}
    left_out = [f"{entry.name}: {_why_not(entry)}" for entry in entries if entry not in taken]
    if not clips:
        raise UsageError(
            "there is no video in this folder",
            expected=f"{', '.join(sorted(VIDEO_SUFFIXES))} files, or folders of pictures",
            got="; ".join(left_out[:3]) or "an empty folder",
            where=path,
        )
    _refuse_twins(clips, path)
    return ClipFolder(label, tuple(sorted(clips, key=lambda clip: natural(clip.path))), tuple(left_out))


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
    problems = {clip: problem_of(path, record, str(clip.path.relative_to(path))) for clip in parts[part]}
    left_out += [f"{clip.path.relative_to(path)}: {problem}" for clip, problem in problems.items() if problem]
    sound = tuple(clip for clip, problem in problems.items() if not problem)
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


def _parts(path: Path, files: Sequence[str]) -> dict[str, list[ClipFile]]:
    """Part -> its videos; those that a folder's numbered videos share stand beside each of them."""
    parts: dict[str, list[ClipFile]] = {}
    shared: dict[str, list[tuple[Path, str]]] = {}
    numbered: dict[Path, dict[str, None]] = {}
    for name in sorted(files, key=lambda name: natural(Path(name))):
        file = Path(name)
        if file.suffix not in VIDEO_SUFFIXES:
            continue
        found = _PART.fullmatch(file.stem)
        if found and found["part"] not in NO_PART:
            number = found["name"] if file.parent == Path() else f"{file.parent}-{found['name']}"
            parts.setdefault(found["part"], []).append(ClipFile(number, path / name))
            numbered.setdefault(file.parent, {})[number] = None
        elif file.stem in SHARED:
            shared.setdefault(file.stem, []).append((file.parent, name))
    for part, beside in shared.items():
        each = [ClipFile(number, path / name) for folder, name in beside for number in numbered.get(folder, {})]
        parts |= {part: each} if each else {}
    return parts


def _split(place: str | Path) -> tuple[Path, str]:
    """`runs/a:enhanced` as path and part; a path that exists as it stands has no part."""
    whole = Path(place).expanduser()
    if whole.exists() or ":" not in str(place):
        return whole, ""
    head, _, part = str(place).rpartition(":")
    return Path(head).expanduser(), part


def _is_video(entry: Path) -> bool:
    return entry.is_file() and entry.suffix.lower() in VIDEO_SUFFIXES


def _is_frames(entry: Path) -> bool:
    return entry.is_dir() and next(frames_of(entry), None) is not None


def frames_of(folder: Path) -> Iterator[Path]:
    """The pictures of a folder of frames, in natural order."""
    found = (entry for entry in folder.iterdir() if entry.suffix.lower() in PICTURE_SUFFIXES and entry.is_file())
    yield from sorted(found, key=natural)


def _why_not(entry: Path) -> str:
    if entry.is_dir():
        return "a folder without pictures"
    return "a picture, not a video" if entry.suffix.lower() in PICTURE_SUFFIXES else "no video"


def _refuse_twins(clips: Sequence[ClipFile], path: Path) -> None:
    seen: dict[str, Path] = {}
    for clip in clips:
        if clip.name in seen:
            raise UsageError("two videos have one name", got=f"{seen[clip.name].name} and {clip.path.name}", where=path)
        seen[clip.name] = clip.path


def natural(path: Path) -> list[tuple[bool, int, str]]:
    """A key that sorts names as people count: clip2 before clip10."""
    return [(not chunk.isdigit(), int(chunk) if chunk.isdigit() else 0, chunk) for chunk in _CHUNKS.findall(path.name)]
