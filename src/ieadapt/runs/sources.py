"""Sources of an edit: any video file, or folder of frames, as the frames that a model takes, with their sound."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.metrics.metric import ClipSize
from ieadapt.runs.clip_reading import check_memory, open_clip
from ieadapt.runs.decoding import Header, damaged, only_a_picture, open_video, played_track
from ieadapt.runs.settings import SourceConfig
from ieadapt.runs.videos import SOUND_RATE, Sound


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
    path: str | Path, request: Frames, config: SourceConfig | None = None, *, memory: int | None = None
) -> Source:
    """Read from a video file, or a folder of frames, the frames that a model takes.

    Frames are taken at even times, so that the output plays at the speed of the file and its sound still fits. Rotation
    and pixel shape that the file states are applied; transparent parts become black. A folder of frames counts as 8
    frames per second.

    Args:
        path: any file that PyAV can decode, or a folder of pictures.
        request: number and size of the frames.
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
        seconds = float(request.number / rate)
        kept = ClipSize(request.number, request.height, request.width)
        remedy = "make a smaller copy of the video, or lower --frames, --height or --width"
        heard = int(seconds * SOUND_RATE * 2 * 4 * 2) if clip.header.has_sound else 0
        check_memory(clip.header, kept, path, remedy=remedy, sound=heard, memory=memory)
        _check_length(clip.header, request, config, rate, path)
        frames, last = list[Tensor](), None
        for decoded in clip.pictures_at([config.start + float(index / rate) for index in range(request.number)]):
            if decoded is not last:  # a picture that stays on screen is framed once
                size, last = (decoded.picture.shape[1], decoded.picture.shape[0]), decoded
                framing = Framing.of(size, (request.width, request.height), config.size, decoded.pixel_aspect)
                frame = framing.apply(decoded.picture)
            frames.append(frame)
        if len(frames) < request.number:
            if clip.count == 1:
                raise only_a_picture(path)
            if clip.damage:
                got = f"decoding ends after {clip.ends:.2f} s; {'; '.join(clip.damage)}"
                raise damaged(path, got, "use another copy of the file, or a span before the damage")
            raise _too_short(request, config, rate, clip.ends, path)
        sound = read_sound(path, config.start, seconds) if clip.header.has_sound else None
    span = f"{config.start:.2f}–{config.start + seconds:.2f} s at {float(rate):g} per second"
    parts = [f"{request.number} frames, {span}", str(framing), *clip.notes, "with its sound" if sound else "no sound"]
    return Source(torch.stack(frames), rate, sound, "; ".join(parts), clip.damage)


def _check_length(header: Header, request: Frames, config: SourceConfig, rate: Fraction, path: Path) -> None:
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
    if config.start + float((request.number - 1) / rate) >= header.seconds + slack:
        raise _too_short(request, config, rate, header.seconds, path)


def _too_short(request: Frames, config: SourceConfig, rate: Fraction, seconds: float, path: Path) -> UsageError:
    """The error for a clip of so many seconds, and what would make the span fit."""
    last, left = config.start + float((request.number - 1) / rate), max(seconds - config.start, 0.0)
    denser = (request.number - 1) / left if left else float("inf")
    remedies = ["lower --start"] if config.start else []
    remedies += [f"raise --fps to {denser + 0.05:.1f} or more"] if denser < 240 else []
    return UsageError(
        "the video is too short",
        expected=f"{request.number} frames at {float(rate):g} per second, up to {last:.2f} s",
        got=f"a video of {seconds:.2f} s",
        where=path,
        remedy=" or ".join([*remedies, "lower --frames where the model allows it"]),
    )


@dataclass(frozen=True)
class Framing:
    """Which part of a picture goes where in a frame.

    Attributes:
        picture: (width, height) of the picture as it is stored.
        frame: (width, height) of the frame.
        kept: the part of the picture that is shown: left, upper, right, lower, in its pixels.
        shown: (width, height) that this part takes in the frame, centred; the rest is black.

    Example:
        >>> Framing.of((1920, 1080), (128, 128), "crop").kept
        (420.0, 0.0, 1500.0, 1080.0)
        >>> Framing.of((1920, 1080), (128, 128), "fit").shown
        (128, 72)
    """

    picture: tuple[int, int]
    frame: tuple[int, int]
    kept: tuple[float, float, float, float]
    shown: tuple[int, int]

    @classmethod
    def of(cls, picture: tuple[int, int], frame: tuple[int, int], fitting: str, pixel_aspect: float = 1.0) -> Framing:
        """The framing of a picture whose pixels are `pixel_aspect` times as wide as high."""
        wide, high = picture[0] * pixel_aspect, float(picture[1])
        if fitting == "crop":
            scale = max(frame[0] / wide, frame[1] / high)
            width, height = frame[0] / scale / pixel_aspect, frame[1] / scale
            left, upper = (picture[0] - width) / 2, (picture[1] - height) / 2
            kept = (max(left, 0.0), max(upper, 0.0), min(left + width, picture[0]), min(upper + height, picture[1]))
            return cls(picture, frame, kept, frame)
        scale = min(frame[0] / wide, frame[1] / high)
        shown = max(1, min(frame[0], round(wide * scale))), max(1, min(frame[1], round(high * scale)))
        return cls(picture, frame, (0.0, 0.0, float(picture[0]), float(picture[1])), shown)

    def __str__(self) -> str:
        """In words: what is kept of the picture, and the size of the frame."""
        left, upper, right, lower = self.kept
        width, height = round(right - left), round(lower - upper)
        part = "whole picture" if (width, height) == self.picture else f"middle {width}x{height}"
        bars = "" if self.shown == self.frame else " with black bars"
        return f"{part} of {self.picture[0]}x{self.picture[1]} as {self.frame[0]}x{self.frame[1]}{bars}"

    def apply(
        self, picture: UInt8[np.ndarray, "picture_height picture_width 3"]
    ) -> Float[Tensor, "channel height width"]:
        """The frame, in [0, 1]; a picture that already has its size is not touched."""
        if self.picture == self.frame:
            return _tensor(picture)
        part = Image.fromarray(picture).resize(self.shown, Image.Resampling.LANCZOS, box=self.kept)
        if self.shown == self.frame:
            return _tensor(np.asarray(part))
        board = Image.new("RGB", self.frame)
        board.paste(part, ((self.frame[0] - self.shown[0]) // 2, (self.frame[1] - self.shown[1]) // 2))
        return _tensor(np.asarray(board))


def _tensor(picture: UInt8[np.ndarray, "height width 3"]) -> Float[Tensor, "channel height width"]:
    return rearrange(torch.from_numpy(picture.copy()).float() / 255, "height width channel -> channel height width")


def read_sound(path: Path, start: float, seconds: float) -> Sound | None:
    """The sound of a span of a video file, silence where there is none.

    Args:
        path: the file.
        start: of the span, in seconds from the first picture.
        seconds: length of the span.

    Returns:
        None where nothing of its sound track can be decoded.

    Raises:
        UsageError: no video, or no sound track in it.
    """
    samples, heard = np.zeros((2, round(seconds * SOUND_RATE)), dtype=np.float32), False
    with open_video(path) as video, contextlib.suppress(av.FFmpegError, OSError):
        stream, _ = played_track(video.container.streams.audio, path)
        layout = "mono" if stream.layout.nb_channels == 1 else "stereo"  # FFmpeg would make both sides of mono softer
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=SOUND_RATE)
        begin, offset = video.beginning + start, None
        video.container.seek(max(int(begin / stream.time_base), 0) if begin > 1 else 0, stream=stream, backward=True)
        for frame in video.container.decode(stream):
            if frame.time is not None and frame.time > begin + seconds:
                break
            if frame.time is not None and offset is None:
                offset = round((frame.time - begin) * SOUND_RATE)
            for part in resampler.resample(frame):
                offset = _lay(samples, part.to_ndarray(), offset or 0)
                heard = True
    return Sound(samples) if heard else None


def _lay(samples: np.ndarray, part: np.ndarray, offset: int) -> int:
    """Copy what of a part falls into the span; returns where the next part goes."""
    first, last = max(offset, 0), min(offset + part.shape[1], samples.shape[1])
    if first < last:
        samples[:, first:last] = part[:, first - offset : last - offset]
    return offset + part.shape[1]
