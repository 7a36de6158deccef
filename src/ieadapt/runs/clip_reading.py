"""Reading whole videos for metrics: every frame as it is stored, and two videos made alike only on request."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import torch
from einops import rearrange
from jaxtyping import Float, Num
from torch import Tensor
from torch.nn import functional as F

from ieadapt.errors import UsageError
from ieadapt.metrics.clips import USUAL_RATE, ClipSize
from ieadapt.runs.clip_folders import ClipFile
from ieadapt.runs.decoding import Header, Picture
from ieadapt.runs.open_clips import open_clip
from ieadapt.runs.sources import check_memory

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
        strict: refuse a video with signs of damage; without it they are notes.

    Raises:
        UsageError: a number is not positive.
    """

    align: bool = field(default=False, metadata={"help": "resize and trim videos that differ from their reference"})
    frames: int | None = field(
        default=None, metadata={"help": "measure only so many frames from the beginning; by default all"}
    )
    side: int | None = field(default=None, metadata={"help": "shrink videos first, to this shorter side in pixels"})
    strict: bool = field(default=False, metadata={"help": "leave out videos with signs of damage"})

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
        notes: what a reader must know: colours, rate, signs of damage.
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


def check_readable(clip: ClipFile, config: ReadConfig | None = None) -> None:
    """Refuse a clip by its header alone, before anything is measured.

    Raises:
        UsageError: no video that can be decoded, or one that is too large for the memory.
    """
    with open_clip(clip.path) as video:
        _check_memory(video.header, clip, config or ReadConfig())


def read_clip(clip: ClipFile, config: ReadConfig | None = None) -> ReadClip:
    """All frames of a video, in the order in which they are shown.

    Transparent parts become black, deeper colours are read in 8 bits, and the frames of a variable rate are taken one
    by one; notes say so. Signs of damage are notes too.

    Raises:
        UsageError: it cannot be read, its frames differ in size, it is too large for the memory, or, if that is
            asked for, it is damaged.
    """
    config = config or ReadConfig()
    with open_clip(clip.path, strict=config.strict) as video:
        _check_memory(video.header, clip, config)
        frames = list[Tensor]()
        for decoded in itertools.islice(video.pictures(), config.frames):
            frames.append(_shrunk(decoded.picture, config.side))
            if len(frames) > (video.header.frames or 0):
                _check_memory(video.header, clip, config, len(frames))
    stacked = torch.stack(frames)
    return ReadClip(clip, stacked if stacked.is_floating_point() else stacked.float() / 255, video.notes, video.rate)


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
    return frames, reference, (f"aligned to {size}",)


def _check_memory(header: Header, clip: ClipFile, config: ReadConfig, count: int = 1) -> None:
    """Refuse what would not fit, for the frames that the header states, or for so many."""
    scale = min(1.0, (config.side or min(header.size)) / min(header.size))
    width, height = (round(length * scale) for length in header.size)
    stated = max(header.frames or 1, count)
    number = min(config.frames or stated, stated)
    remedy = "add --frames N or --side N"
    check_memory(header, ClipSize(number, height, width), clip.path, remedy=remedy, copies=COPIES)


def _shrunk(picture: Picture, side: int | None) -> Num[Tensor, "channel shrunk_height shrunk_width"]:
    """A frame: bytes as they are stored, or where it was shrunk floats in [0, 1]."""
    pixels = rearrange(torch.from_numpy(picture.copy()), "height width channel -> channel height width")
    if side is None or side >= min(pixels.shape[1:]):
        return pixels
    scale = side / min(pixels.shape[1:])
    return _resized(pixels[None].float() / 255, *(round(length * scale) for length in pixels.shape[1:]))[0]


def _resized(frames: Video, height: int, width: int) -> Float[Tensor, "frame channel resized_height resized_width"]:
    if tuple(frames.shape[2:]) == (height, width):
        return frames
    return F.interpolate(frames, (height, width), mode="bilinear", antialias=True).clamp(0, 1)
