"""The one reader of clips, video files and folders of frames; and whole videos for metrics, made alike on request."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Num
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ieadapt.errors import UsageError, raised_as
from ieadapt.metrics.metric import USUAL_RATE, ClipSize
from ieadapt.models.memory import GIB, free_memory
from ieadapt.runs.clip_folders import PICTURE_SUFFIXES, frames_of
from ieadapt.runs.decoding import DecodedFrame, Header, Picture, VideoFile, damaged, open_video, unequal_frames
from ieadapt.runs.settings import ReadConfig
from ieadapt.runs.videos import Video

SAME_SHAPE = 0.01
COPIES = 4
"""How often the frames of a video are in memory at once while it is measured or edited."""
REFERENCES = 20
"""Pictures that a decoder may hold at once (H.264 refers to up to 16 others)."""
SHARE = 0.5
"""Share of the free memory that a video may take."""


@contextlib.contextmanager
def open_clip(path: Path, *, strict: bool = False) -> Iterator[VideoFile | FrameFolder]:
    """A clip, open for reading: a video file, or a folder of frames.

    Args:
        path: where it is.
        strict: refuse a clip in which signs of damage were found while the block ran.

    Raises:
        UsageError: no video (see `open_video`), a folder without pictures, or with `strict` a damaged clip.
    """
    with contextlib.nullcontext(FrameFolder(path)) if path.is_dir() else open_video(path) as clip:
        yield clip
        if strict and clip.damage:
            raise damaged(path, "; ".join(clip.damage), "use another copy of the file, or leave --strict away")


class FrameFolder:
    """A folder of pictures, as a clip of `USUAL_RATE` frames per second; made by `open_clip`.

    Attributes:
        header: size of the first picture, number of pictures.
        count: number of pictures.
        ends: length in seconds.
        rate: frames per second.
        damage: none: a picture that cannot be read is refused.

    Raises:
        UsageError: there is no picture in it, or the first cannot be read.
    """

    rate = USUAL_RATE
    damage: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self._path, self._files, self._notes = path, tuple(frames_of(path)), dict[str, None]()
        if not self._files:
            expected = ", ".join(sorted(PICTURE_SUFFIXES))
            raise UsageError("there is no picture in this folder of frames", expected=expected, where=path)
        with open_picture(self._files[0]) as picture:
            size = picture.size
        self.count, self.ends = len(self._files), len(self._files) / USUAL_RATE
        self.header = Header(size, Fraction(USUAL_RATE), self.ends, frames=self.count)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to the colours of the pictures read so far."""
        return tuple(self._notes)

    def pictures(self) -> Iterator[DecodedFrame]:
        """All pictures in natural order of their names.

        Raises:
            UsageError: a picture cannot be read, or is of another size than the first.
        """
        return self.pictures_at([index / USUAL_RATE for index in range(self.count)])

    def pictures_at(self, times: Sequence[float]) -> Iterator[DecodedFrame]:
        """The picture of each time, in seconds from the first; fewer where the folder ends before the last of them.

        Raises:
            UsageError: as `pictures` does.
        """
        for index in (int(time * USUAL_RATE + 1e-6) for time in times):
            if index < self.count:
                yield DecodedFrame(self._picture(index), time=index / USUAL_RATE)

    def _picture(self, index: int) -> Picture:
        with open_picture(self._files[index]) as opened:
            if opened.size != self.header.size:
                raise unequal_frames(self._path, index, self.header.size, opened.size)
            picture: Image.Image = opened
            if picture.mode.startswith("I"):
                scaled = np.asarray(picture, dtype=np.float64) / 257
                picture = Image.fromarray(scaled.round().astype(np.uint8))
                self._notes["read in 8 bits per channel"] = None
            if picture.has_transparency_data:
                black = Image.new("RGBA", picture.size, "black")
                picture = Image.alpha_composite(black, picture.convert("RGBA"))
                self._notes["transparent parts on black"] = None
            return np.asarray(picture.convert("RGB"))


@contextlib.contextmanager
def open_picture(file: Path) -> Iterator[Image.Image]:
    """A picture file, open for reading while the block runs.

    Raises:
        UsageError: it cannot be read.
    """
    causes, remedy = (OSError, Image.DecompressionBombError, SyntaxError, ValueError), "make it again, or remove it"
    with (
        raised_as(UsageError, "a picture cannot be read", causes, where=file, remedy=remedy),
        Image.open(file) as opened,
    ):
        yield opened


@dataclass(frozen=True)
class ReadClip:
    """A video in memory.

    Attributes:
        path: where it lies.
        frames: in [0, 1].
        notes: what a reader must know: colours, rate, signs of damage.
        rate: frames per second; the usual one where the file does not say.
    """

    path: Path
    frames: Video
    notes: tuple[str, ...] = ()
    rate: float = USUAL_RATE

    @property
    def size(self) -> ClipSize:
        """Frames, height, width."""
        return ClipSize(self.frames.shape[0], self.frames.shape[2], self.frames.shape[3])


def check_readable(path: Path, config: ReadConfig | None = None) -> None:
    """Refuse a clip by its header alone, before anything is measured.

    Raises:
        UsageError: no video that can be decoded, or one that is too large for the memory.
    """
    with open_clip(path) as video:
        _check_memory(video.header, path, config or ReadConfig())


def read_clip(path: Path, config: ReadConfig | None = None) -> ReadClip:
    """All frames of a video, in the order in which they are shown.

    Transparent parts become black, deeper colours are read in 8 bits, and the frames of a variable rate are taken one
    by one; notes say so. Signs of damage are notes too.

    Raises:
        UsageError: it cannot be read, its frames differ in size, it is too large for the memory, or, if that is
            asked for, it is damaged.
    """
    config = config or ReadConfig()
    with open_clip(path, strict=config.strict) as video:
        _check_memory(video.header, path, config)
        frames = list[Tensor]()
        for decoded in itertools.islice(video.pictures(), config.frames):
            frames.append(_shrunk(decoded.picture, config.side))
            if len(frames) > (video.header.frames or 0):
                _check_memory(video.header, path, config, len(frames))
    stacked = torch.stack(frames)
    return ReadClip(path, stacked if stacked.is_floating_point() else stacked.float() / 255, video.notes, video.rate)


def aligned(ours: ReadClip, theirs: ReadClip, config: ReadConfig) -> tuple[Video, Video, tuple[str, ...]]:
    """Two videos of one length and size, and what was done for it.

    With `align` both are trimmed to the shorter and resized to the smaller height and width of the two.

    Raises:
        UsageError: they differ and `align` was not asked for, or their shapes are not alike.
    """
    if ours.size == theirs.size:
        return ours.frames, theirs.frames, ()
    got = f"{ours.path}: {ours.size}; {theirs.path}: {theirs.size}"
    if not config.align:
        raise UsageError("two videos to compare differ", got=got, remedy="add --align to resize and trim them")
    first, second = (read.size.width / read.size.height for read in (ours, theirs))
    if abs(first / second - 1) > SAME_SHAPE:
        raise UsageError("two videos to compare are of different shapes", got=got, remedy="crop one of them first")
    size = ClipSize(*(min(pair) for pair in zip(ours.size, theirs.size, strict=True)))
    frames, reference = (_resized(read.frames[: size.frames], *size[1:]) for read in (ours, theirs))
    return frames, reference, (f"aligned to {size}",)


def _check_memory(header: Header, path: Path, config: ReadConfig, count: int = 1) -> None:
    """Refuse what would not fit, for the frames that the header states, or for so many."""
    scale = min(1.0, (config.side or min(header.size)) / min(header.size))
    width, height = (round(length * scale) for length in header.size)
    stated = max(header.frames or 1, count)
    number = min(config.frames or stated, stated)
    remedy = "add --frames N or --side N"
    check_memory(header, ClipSize(number, height, width), path, remedy=remedy)


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


def check_memory(
    header: Header,
    kept: ClipSize,
    path: Path,
    *,
    remedy: str,
    sound: int = 0,
    memory: int | None = None,
) -> None:
    """Refuse what would not fit into memory, by the header alone, before anything is decoded.

    The estimate counts the pictures that a decoder holds, the one that is converted, the frames that are kept with
    their copies, and the sound.

    Args:
        header: of the clip.
        kept: the frames that are kept.
        path: of the clip, for the message.
        remedy: for the message.
        sound: bytes that it takes.
        memory: bytes that may be taken; by default half of what is free.

    Raises:
        UsageError: the estimate is more than `memory` bytes.
    """
    width, height = header.size
    decoder = width * height * (3 * REFERENCES + 4 * 3)
    needed = decoder + kept.frames * kept.height * kept.width * 3 * 4 * COPIES + sound
    allowed = int(free_memory(torch.device("cpu")) * SHARE) if memory is None else memory
    if needed > allowed:
        got = f"an estimated {needed / GIB:.1f} GiB for {width}x{height} pictures and {kept}"
        expected = f"at most {allowed / GIB:.1f} GiB"
        raise UsageError("the video is too large for the memory", expected=expected, got=got, where=path, remedy=remedy)


def read_media(path: Path) -> Any:
    """A file as a pipeline takes it: a picture, or the pictures of a video as a list."""
    if path.suffix.lower() in PICTURE_SUFFIXES:
        with open_picture(path) as picture:
            return picture.convert("RGB")
    with open_clip(path) as clip:
        width, height = clip.header.size
        kept = ClipSize(clip.header.frames or 1, height, width)
        check_memory(clip.header, kept, path, remedy="make a shorter or smaller copy of the video")
        return [Image.fromarray(decoded.picture) for decoded in clip.pictures()]


def digest_of(value: Any) -> str:
    """The hash of what a picture, a tensor, a list of them or another object holds."""
    if isinstance(value, list | tuple):
        content = "".join(map(digest_of, value)).encode()
    elif isinstance(value, Image.Image | torch.Tensor | np.ndarray):
        array = np.ascontiguousarray(value.detach().cpu().float() if isinstance(value, torch.Tensor) else value)
        content = f"{array.dtype}{array.shape}".encode() + array.tobytes()
    else:
        content = pickle.dumps(value)
    return hashlib.sha256(content).hexdigest()
