"""Decoding: pictures of a video file at given times, and its sound, whatever the container and the codec."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import Float, UInt8

from ieadapt.errors import UsageError
from ieadapt.runs.soundtrack import SOUND_RATE

Picture = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class Header:
    """What the header of a video file says; nothing is decoded for it.

    Attributes:
        size: (width, height) as stored, before rotation.
        rate: pictures per second; of a file with a variable rate the mean.
        seconds: length, where the header says it.
        pixel_aspect: width of a pixel over its height, before rotation.
        has_sound: whether there is a sound track that can be decoded.
        codec: name of the video's codec.
    """

    size: tuple[int, int]
    rate: Fraction
    seconds: float | None
    pixel_aspect: float
    has_sound: bool
    codec: str


@dataclass(frozen=True)
class Shown:
    """A picture that was asked for: RGB, upright.

    Attributes:
        picture: its pixels.
        pixel_aspect: width of a pixel over its height, after rotation.
        notes: what was done to its colours, in words.
    """

    picture: Picture
    pixel_aspect: float
    notes: tuple[str, ...] = ()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file as an open container with a video stream.

    Raises:
        UsageError: no such file, not a video, or a video in a codec that PyAV cannot read.
    """
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        raise UsageError("the video cannot be read", expected="a video file", got=got, where=path)
    try:
        container = av.open(path)
    except (av.FFmpegError, OSError) as error:
        raise _not_a_video(path, _reason(error)) from error
    with container:
        _video(container, path)
        yield container


def read_header(path: Path) -> Header:
    """What the header says.

    Raises:
        UsageError: as `opened` does, or a file of one picture.
    """
    with opened(path) as container:
        stream = _video(container, path)
        if stream.frames == 1:
            raise _only_a_picture(path)
        length = stream.duration * stream.time_base if stream.duration else None
        if length is None and container.duration:
            length = container.duration / av.time_base
        return Header(
            size=(stream.codec_context.width, stream.codec_context.height),
            rate=_rate(stream),
            seconds=None if length is None else float(length),
            pixel_aspect=float(stream.sample_aspect_ratio or 1),
            has_sound=any(each.codec_context is not None for each in container.streams.audio),
            codec=stream.codec_context.name,
        )


def pictures_at(path: Path, times: Sequence[float]) -> Iterator[Shown]:
    """The picture that is on screen at each time.

    Args:
        path: the file.
        times: seconds from the first picture, rising.

    Raises:
        UsageError: as `opened` does; a file of one picture; a video that ends, or cannot be decoded, before the last
            time.
    """
    with opened(path) as container:
        stream = _video(container, path)
        stream.thread_type = "AUTO"
        ends, count, wanted = 0.0, 0, list(times)
        damage: Exception | None = None
        try:
            for until, frame in _on_screen(container, stream, times[0], _tolerance(times, _rate(stream))):
                ends, count = until, count + 1
                due = [time for time in wanted if time < until]
                if due:
                    yield from [_shown(frame, stream)] * len(due)
                    wanted = wanted[len(due) :]
                if not wanted:
                    return
        except (av.FFmpegError, OSError) as error:
            damage = error
    _refuse_short(path, times, ends, count, damage)


def every_picture(path: Path) -> Iterator[tuple[Shown, float | None]]:
    """All pictures of a file in the order in which they are shown, each with its time in seconds where it states one.

    Raises:
        UsageError: as `opened` does; a file without a picture, or one that cannot be decoded to its end.
    """
    with opened(path) as container:
        stream = _video(container, path)
        stream.thread_type = "AUTO"
        count, damage = 0, None
        try:
            for count, frame in enumerate(container.decode(stream), start=1):  # noqa: B007
                yield _shown(frame, stream), frame.time
        except (av.FFmpegError, OSError) as error:
            damage = error
    if damage is not None or count == 0:
        raise UsageError(
            "the video is damaged or cut off",
            got=f"{count} pictures, then {_reason(damage)}" if damage else "no picture can be decoded",
            where=path,
            remedy="use another copy of the file",
        ) from damage


def sound_of(path: Path, start: float, seconds: float) -> Float[np.ndarray, "2 sample"] | None:
    """The sound of a span in two channels at `SOUND_RATE`, silence where there is none.

    Args:
        path: the file.
        start: seconds from the first picture.
        seconds: length of the span.

    Returns:
        Samples in [-1, 1]; None where the file has no sound track, or one that cannot be decoded.
    """
    with opened(path) as container:
        stream = next((each for each in container.streams.audio if each.codec_context is not None), None)
        if stream is None:
            return None
        begin = _beginning(_video(container, path)) + start
        samples = np.zeros((2, round(seconds * SOUND_RATE)), dtype=np.float32)
        layout = "mono" if stream.layout.nb_channels == 1 else "stereo"  # FFmpeg would make both sides of mono softer
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=SOUND_RATE)
        heard = False
        with contextlib.suppress(av.FFmpegError, OSError):
            _seek(container, stream, begin)
            place: int | None = None
            for frame in container.decode(stream):
                if frame.time is not None and (place is None or frame.time > begin + seconds):
                    if frame.time > begin + seconds:
                        break
                    place = round((frame.time - begin) * SOUND_RATE)
                for part in resampler.resample(frame):
                    place = _lay(samples, part.to_ndarray(), place or 0)
                    heard = True
        return samples if heard else None


def _lay(samples: np.ndarray, part: np.ndarray, place: int) -> int:
    """Copy what of a part falls into the span; returns where the next part goes."""
    first, last = max(place, 0), min(place + part.shape[1], samples.shape[1])
    if first < last:
        samples[:, first:last] = part[:, first - place : last - place]
    return place + part.shape[1]


def _video(container: Any, path: Path) -> Any:
    """The video stream, not the cover picture of a song."""
    found = [each for each in container.streams.video if not each.disposition & av.stream.Disposition.attached_pic]
    if not found:
        raise _not_a_video(path, "no video track in it")
    if found[0].codec_context is None or not found[0].codec_context.width:
        raise _not_a_video(path, "a video track that PyAV cannot decode")
    return found[0]


def _rate(stream: Any) -> Fraction:
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return Fraction(rate) if rate else Fraction(25)


def _beginning(stream: Any) -> float:
    return float((stream.start_time or 0) * stream.time_base)


def _seek(container: Any, stream: Any, time: float) -> None:
    """Go to a point from which everything after `time` can be decoded; stay at the beginning where that fails."""
    if time > 1:
        with contextlib.suppress(av.FFmpegError, OSError):
            container.seek(int(time / stream.time_base), stream=stream, backward=True)


def _tolerance(times: Sequence[float], rate: Fraction) -> float:
    """How long after a time a picture may begin and still be the one on screen: the clocks of some containers round."""
    steps = (later - earlier for earlier, later in itertools.pairwise(times))
    return min([*steps, float(1 / rate)]) / 4


def _on_screen(container: Any, stream: Any, first: float, tolerance: float) -> Iterator[tuple[float, Any]]:
    """Pictures from `first` on, each with the time up to which it is taken, in seconds from the file's first picture.

    That is until shortly before the next one begins, or to the end of the last one.
    """
    begin, length = _beginning(stream), float(1 / _rate(stream))
    _seek(container, stream, begin + first)
    held: tuple[float, Any] | None = None
    for count, frame in enumerate(container.decode(stream)):
        begins = frame.time - begin if frame.time is not None else count * length
        if held is None and begins > first + length and first > 0:  # the file's index led past the time: read it all
            container.seek(0)
            yield from _on_screen(container, stream, 0.0, tolerance)
            return
        if held is not None:
            yield begins - tolerance, held[1]
        lasts = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else length
        held = begins + lasts, frame
    if held is not None:
        yield held


def _shown(frame: Any, stream: Any) -> Shown:
    """A frame as RGB, upright, transparent parts on black."""
    aspect, notes = float(stream.sample_aspect_ratio or 1), []
    if any(component.is_alpha for component in frame.format.components):
        pixels = frame.to_ndarray(format="rgba")
        share = pixels[..., 3:].astype(np.uint16)
        picture = ((pixels[..., :3] * share + 127) // 255).astype(np.uint8)
        notes += ["transparent parts on black"] if share.min() < 255 else []
    else:
        picture = frame.to_ndarray(format="rgb24")
    if any(component.bits > 8 for component in frame.format.components):
        notes.append("read in 8 bits per channel")
    turns = round(frame.rotation / 90) % 4
    if turns:
        picture = np.ascontiguousarray(np.rot90(picture, turns))
        notes.append(f"turned by {frame.rotation % 360} degrees")
    return Shown(picture, 1 / aspect if turns % 2 else aspect, tuple(notes))


def _refuse_short(path: Path, times: Sequence[float], ends: float, count: int, damage: Exception | None) -> None:
    if damage is not None or count == 0:
        reason = "no picture can be decoded" if count == 0 else f"decoding fails after {ends:.2f} s"
        raise UsageError(
            "the video is damaged or cut off",
            expected=f"pictures up to {times[-1]:.2f} s",
            got=f"{reason} ({_reason(damage)})" if damage else reason,
            where=path,
            remedy="use another copy of the file, or a span before the damage",
        )
    if count == 1 and times[0] < ends:
        raise _only_a_picture(path)
    raise UsageError(
        "the video is too short",
        expected=f"{len(times)} frames, up to {times[-1]:.2f} s",
        got=f"a video of {ends:.2f} s",
        where=path,
        remedy="lower --start or --frames, or raise --fps",
    )


def _only_a_picture(path: Path) -> UsageError:
    return UsageError("this is a picture, not a video", expected="2 frames or more", got="1 frame", where=path)


def _not_a_video(path: Path, reason: str) -> UsageError:
    return UsageError(
        "this is no video that can be read", got=reason, where=path, remedy="convert it to MP4 (H.264) and try again"
    )


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)
