"""Reading whole videos for metrics: every frame as it is stored, and two videos made alike only on request."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from ieadapt.errors import UsageError
from ieadapt.metrics.clips import USUAL_RATE, ClipSize
from ieadapt.runs.clip_folders import ClipFile, frames_of
from ieadapt.runs.decoding import Shown, every_picture, opened
from ieadapt.runs.sources import GIB, SHARE, free_memory

VARIABLE = 0.25
"""Share of the usual time between pictures that their times may differ before the rate counts as variable."""
SAME_SHAPE = 0.01
COPIES = 4
"""How often the frames of a video are in memory at once while it is measured."""
Video = Float[Tensor, "frame channel height width"]


@dataclass(frozen=True)
class ReadConfig:
    """How videos are read.

    Attributes:
        align: make two videos alike that differ in length or size.
        frames: read only so many frames from the beginning.
        side: shrink to this shorter side.

    Raises:
        UsageError: a number is not positive.
    """

    align: bool = field(default=False, metadata={"help": "resize and trim videos that differ from their reference"})
    frames: int | None = field(
        default=None, metadata={"help": "measure only so many frames from the beginning; by default all"}
    )
    side: int | None = field(default=None, metadata={"help": "shrink videos first, to this shorter side in pixels"})

    def __post_init__(self) -> None:
        for name in ("frames", "side"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name} must be positive", expected=">= 1", got=value)


@dataclass(frozen=True)
class ReadClip:
    """A video in memory.

    Attributes:
        clip: which it is.
        frames: in [0, 1].
        notes: what a reader must know: colours, rate, frames that were not taken.
        rate: frames per second; the usual one where the file does not say.
    """

    clip: ClipFile
    frames: Video
    notes: tuple[str, ...] = ()
    rate: float = USUAL_RATE

    @property
    def size(self) -> ClipSize:
        """Frames, height, width."""
        return ClipSize(self.frames.shape[0], self.frames.shape[2], self.frames.shape[3])


def check_readable(clip: ClipFile) -> None:
    """Refuse, before anything is measured, a file that is no video.

    Raises:
        UsageError: the file is empty, or holds no video that can be decoded.
    """
    if clip.path.is_dir():
        return
    if clip.path.stat().st_size == 0:
        raise UsageError("the video is empty", got="0 bytes", where=clip.path, remedy="make it again, or remove it")
    with opened(clip.path):
        pass


def read_clip(clip: ClipFile, config: ReadConfig | None = None) -> ReadClip:
    """All frames of a video, in the order in which they are shown.

    Transparent parts become black, deeper colours are read in 8 bits, and the frames of a variable rate are taken one
    by one; notes say so.

    Raises:
        UsageError: it cannot be read, its frames differ in size, or it is too large for the memory.
    """
    config = config or ReadConfig()
    shown = _pictures(clip.path)
    taken = shown if config.frames is None else itertools.islice(shown, config.frames)
    frames, times = list[Tensor](), list[float | None]()
    notes, first = dict[str, None](), (0, 0)
    allowed = free_memory() * SHARE / COPIES
    for picture, time in taken:
        size = picture.picture.shape[:2]
        first = first if frames else size
        if size != first:
            raise _unequal_frames(clip, len(frames), first, size)
        frames.append(_shrunk(picture, config.side))
        times.append(time)
        notes |= dict.fromkeys(picture.notes)
        if frames[0].nbytes * len(frames) > allowed:
            raise UsageError(
                "the video is too large for the memory",
                expected=f"at most {allowed / GIB:.1f} GiB of frames",
                got=f"more than {len(frames)} frames of {ClipSize(1, *frames[0].shape[1:])}",
                where=clip.path,
                remedy="add --frames N or --side N",
            )
    if _varies(times):
        notes["variable frame rate: frames taken one by one"] = None
    return ReadClip(clip, torch.stack(frames), tuple(notes), _rate(times))


def aligned(ours: ReadClip, theirs: ReadClip, config: ReadConfig) -> tuple[Video, Video, tuple[str, ...]]:
    """Two videos of one length and size, and what was done for it.

    With `align` both are trimmed to the shorter and resized to the smaller height and width of the two.

    Raises:
        UsageError: they differ and `align` was not asked for, or their shapes are not alike.
    """
    if ours.size == theirs.size:
        return ours.frames, theirs.frames, ()
    got = f"{ours.clip.path}: {ours.size}; {theirs.clip.path}: {theirs.size}"
    if not config.align:
        raise UsageError("two videos to compare differ", got=got, remedy="add --align to resize and trim them")
    first, second = (read.size.width / read.size.height for read in (ours, theirs))
    if abs(first / second - 1) > SAME_SHAPE:
        raise UsageError("two videos to compare are of different shapes", got=got, remedy="crop one of them first")
    size = ClipSize(*(min(pair) for pair in zip(ours.size, theirs.size, strict=True)))
    frames, reference = (_resized(read.frames[: size.frames], *size[1:]) for read in (ours, theirs))
    return frames, reference, (f"{ours.clip.name}: aligned to {size}",)


def _pictures(path: Path) -> Iterator[tuple[Shown, float | None]]:
    return ((still(file), None) for file in frames_of(path)) if path.is_dir() else every_picture(path)


def still(file: Path) -> Shown:
    """A picture file as a frame; notes as of `read_clip`.

    Raises:
        UsageError: it cannot be read.
    """
    notes: tuple[str, ...] = ()
    try:
        with Image.open(file) as opened_file:
            picture: Image.Image = opened_file
            if picture.mode.startswith("I"):
                scaled = np.asarray(picture, dtype=np.float64) / 257
                picture, notes = Image.fromarray(scaled.round().astype(np.uint8)), ("read in 8 bits per channel",)
            if picture.has_transparency_data:
                notes = ("transparent parts on black",)
                black = Image.new("RGBA", picture.size, "black")
                picture = Image.alpha_composite(black, picture.convert("RGBA"))
            return Shown(np.asarray(picture.convert("RGB")), 1.0, notes)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise UsageError(
            "a frame cannot be read", got=error, where=file, remedy="make it again, or remove it"
        ) from error


def _shrunk(shown: Shown, side: int | None) -> Float[Tensor, "channel height width"]:
    pixels = rearrange(
        torch.from_numpy(shown.picture.copy()).float() / 255, "height width channel -> channel height width"
    )
    if side is None or side >= min(pixels.shape[1:]):
        return pixels
    scale = side / min(pixels.shape[1:])
    return _resized(pixels[None], *(round(length * scale) for length in pixels.shape[1:]))[0]


def _resized(frames: Video, height: int, width: int) -> Float[Tensor, "frame channel resized_height resized_width"]:
    if tuple(frames.shape[2:]) == (height, width):
        return frames
    return F.interpolate(frames, (height, width), mode="bilinear", antialias=True).clamp(0, 1)


def _steps(times: list[float | None]) -> list[float]:
    stated = [time for time in times if time is not None]
    return [later - earlier for earlier, later in itertools.pairwise(stated)]


def _rate(times: list[float | None]) -> float:
    usual = float(np.median(steps)) if (steps := _steps(times)) else 0.0
    return 1 / usual if usual > 0 else USUAL_RATE


def _varies(times: list[float | None]) -> bool:
    steps = _steps(times)
    return len(steps) > 1 and max(steps) - min(steps) > VARIABLE * float(np.median(steps))


def _unequal_frames(clip: ClipFile, index: int, first: tuple[int, ...], other: tuple[int, ...]) -> UsageError:
    return UsageError(
        "the frames of a video differ in size",
        got=f"frame 0 of {first[0]}x{first[1]} and frame {index} of {other[0]}x{other[1]} pixels",
        where=clip.path,
    )
