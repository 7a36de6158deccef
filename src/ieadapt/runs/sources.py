"""Sources of an edit: any video file, or folder of frames, as the frames that a model takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import psutil
import torch
from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.metrics.clips import ClipSize
from ieadapt.runs.decoding import DecodedFrame, Header, only_a_picture
from ieadapt.runs.framing import FITTINGS, Fitting, Framing
from ieadapt.runs.open_clips import open_clip
from ieadapt.runs.soundtrack import SOUND_RATE, Sound

REFERENCES = 20
"""Pictures that a decoder may hold at once (H.264 refers to up to 16 others)."""
SHARE = 0.5
"""Share of the free memory that a source may take."""
GIB = 2**30


@dataclass(frozen=True)
class SourceConfig:
    """Which frames of a video file are taken.

    Attributes:
        start: of the span, in seconds from the first picture.
        fps: frames taken per second, at which the output plays too; None for the file's own rate.
        size: `crop` fills the frame and cuts the overhang, `fit` shows all with black bars.
        strict: refuse a video with signs of damage in the span; without it they are notes.

    Raises:
        UsageError: a value out of range.

    Example:
        >>> SourceConfig(start=1.5, fps=8).size
        'crop'
    """

    start: int | float = field(default=0.0, metadata={"help": "where the span of the video begins, in seconds"})
    fps: int | float | None = field(
        default=None, metadata={"help": "frames taken per second of the video; by default all of them"}
    )
    size: str = field(
        default="crop",
        metadata={"help": "crop (fill the frame) or fit (all of it, with black bars)", "choices": tuple(FITTINGS)},
    )
    strict: bool = field(default=False, metadata={"help": "refuse a video with signs of damage"})

    def __post_init__(self) -> None:
        if not self.start >= 0:
            raise UsageError("a span begins in the video", expected="--start 0 or more", got=self.start)
        if self.fps is not None and not 0.1 <= self.fps <= 240:
            raise UsageError("frames per second out of range", expected="--fps 0.1..240", got=self.fps)
        if self.size not in FITTINGS:
            raise UsageError("unknown fitting", expected=", ".join(FITTINGS), got=self.size, where="--size")

    def as_key(self) -> dict[str, Any]:
        """What decides about the frames; a run that was begun without `strict` is known by the same key as ever."""
        return {name: value for name, value in vars(self).items() if name != "strict" or value}

    @property
    def fitting(self) -> Fitting:
        """`size`, as one of the known fittings."""
        return next(known for known in FITTINGS if known == self.size)


@dataclass(frozen=True)
class Frames:
    """How many frames of which size a model takes.

    Raises:
        UsageError: fewer than two frames, or an empty one.
    """

    number: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.number < 2:
            raise UsageError("a video has two frames or more", expected="--frames 2 or more", got=self.number)
        if self.height < 1 or self.width < 1:
            raise UsageError("a frame has a size", expected="1x1 or more", got=f"{self.width}x{self.height}")


@dataclass(frozen=True)
class Source:
    """The frames that an edit begins from.

    Attributes:
        frames: RGB in [0, 1], float32 on the CPU.
        rate: frames per second.
        sound: of the same span; None where there is none.
        chosen: what was taken of the file, as a message.
        damage: signs of damage in the span; `chosen` names them too.
    """

    frames: Float[Tensor, "frame 3 height width"]
    rate: Fraction
    sound: Sound | None
    chosen: str
    damage: tuple[str, ...] = ()


def read_source(
    path: str | Path, wanted: Frames, config: SourceConfig | None = None, *, memory: int | None = None
) -> Source:
    """Read from a video file, or a folder of frames, the frames that a model takes.

    Frames are taken at even times, so that the output plays at the speed of the file and its sound still fits. Rotation
    and pixel shape that the file states are applied; transparent parts become black. A folder of frames counts as 8
    frames per second.

    Args:
        path: any file that PyAV can decode, or a folder of pictures.
        wanted: number and size of the frames.
        config: the span, the rate, crop or fit.
        memory: bytes that decoding may take; by default half of what is free.

    Raises:
        UsageError: no video, one picture only, too short for the span, undecodable, too large for the memory, or, if
            that is asked for, damaged.

    Example:
        >>> import tempfile, torch
        >>> from ieadapt.runs.videos import encode_video
        >>> path = Path(tempfile.mkdtemp(), "clip.mp4")
        >>> _ = path.write_bytes(encode_video(torch.rand(12, 3, 48, 64)))
        >>> source = read_source(path, Frames(8, 32, 32))
        >>> source.frames.shape
        torch.Size([8, 3, 32, 32])
        >>> source.chosen
        '8 frames, 0.00–1.00 s at 8 per second; middle 48x48 of 64x48 as 32x32; no sound'
    """
    config, path = config or SourceConfig(), Path(path).expanduser()
    with open_clip(path, strict=config.strict) as clip:
        if clip.header.frames == 1:
            raise only_a_picture(path)
        rate = clip.header.rate if config.fps is None else Fraction(config.fps).limit_denominator(1001)
        seconds = float(wanted.number / rate)
        remedy = "make a smaller copy of the video, or lower --frames, --height or --width"
        kept = ClipSize(wanted.number, wanted.height, wanted.width)
        check_memory(clip.header, kept, path, remedy=remedy, sound=seconds, memory=memory)
        _check_length(clip.header, wanted, config, rate, path)
        frames: list[Tensor] = []
        framing: Framing | None = None
        last: DecodedFrame | None = None
        for decoded in clip.pictures_at([config.start + float(index / rate) for index in range(wanted.number)]):
            if framing is None:
                size = decoded.picture.shape[1], decoded.picture.shape[0]
                framing = Framing.of(size, (wanted.width, wanted.height), config.fitting, decoded.pixel_aspect)
            frames.append(frames[-1] if decoded is last else framing.apply(decoded.picture))
            last = decoded
        sound = clip.sound(config.start, seconds)
    span = f"{config.start:.2f}–{config.start + seconds:.2f} s at {float(rate):g} per second"
    parts = [f"{wanted.number} frames, {span}", str(framing), *clip.notes, "with its sound" if sound else "no sound"]
    return Source(torch.stack(frames), rate, sound, "; ".join(parts), clip.damage)


def check_memory(
    header: Header,
    kept: ClipSize,
    path: Path,
    *,
    remedy: str,
    copies: int = 4,
    sound: float = 0.0,
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
        copies: how often the kept frames are in memory at once.
        sound: seconds of it that are read.
        memory: bytes that may be taken; by default half of what is free.

    Raises:
        UsageError: the estimate is more than `memory` bytes.
    """
    width, height = header.size
    decoder = width * height * (3 * REFERENCES + 4 * 3)
    heard = int(sound * SOUND_RATE * 2 * 4 * 2) if header.has_sound else 0
    needed = decoder + kept.frames * kept.height * kept.width * 3 * 4 * copies + heard
    allowed = int(free_memory() * SHARE) if memory is None else memory
    if needed > allowed:
        got = f"an estimated {needed / GIB:.1f} GiB for {width}x{height} pictures and {kept}"
        expected = f"at most {allowed / GIB:.1f} GiB"
        raise UsageError("the video is too large for the memory", expected=expected, got=got, where=path, remedy=remedy)


def free_memory() -> int:
    """Bytes of the machine's memory that a program can still have."""
    return int(psutil.virtual_memory().available)


def _check_length(header: Header, wanted: Frames, config: SourceConfig, rate: Fraction, path: Path) -> None:
    """Refuse a span that the header already says is not there, rather than decode up to its end first."""
    if header.seconds is None:
        return
    slack = 1 / float(header.rate)
    if config.start >= header.seconds + slack:
        raise UsageError(
            "the span begins after the video's end",
            expected=f"--start below {header.seconds:.2f}",
            got=config.start,
            where=path,
        )
    needed = config.start + float((wanted.number - 1) / rate)
    if needed >= header.seconds + slack:
        raise UsageError(
            "the video is too short",
            expected=f"{wanted.number} frames at {float(rate):g} per second, up to {needed:.2f} s",
            got=f"a video of {header.seconds:.2f} s",
            where=path,
            remedy=_shorter(header, wanted, config),
        )


def _shorter(header: Header, wanted: Frames, config: SourceConfig) -> str:
    """What would make the span fit."""
    left = max(float(header.seconds or 0) - config.start, 0.0)
    denser = (wanted.number - 1) / left if left else float("inf")
    words = ["lower --start"] if config.start else []
    words += [f"raise --fps to {denser + 0.05:.1f} or more"] if denser < 240 else []
    return " or ".join([*words, "lower --frames where the model allows it"])
