"""Video files: header, pictures one by one or at given times, and signs of damage, whatever the container.

A damaged file seldom fails to decode: FFmpeg fills the gaps and goes on. Three signs are left: frames with the corrupt
flag, errors in the decoder's log, and an end before the one that the header states. Damage that a codec has no means to
notice, such as a changed bit in VP9, cannot be told from a picture that was meant. Nothing here imports torch: the
process that decodes uploads has little memory.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import itertools
import statistics
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.stream import Disposition
from jaxtyping import UInt8

from ieadapt.errors import UsageError, reason_of
from ieadapt.runs.clip_folders import PICTURE_SUFFIXES

Picture = UInt8[np.ndarray, "height width 3"]
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,apng,mpeg,mpegts,mpegvideo,"
    "yuv4mpegpipe,h264,hevc,m4v,ivf,flv,asf,ogg,mxf,dv,nut"
)
"""FFmpeg's names of the containers that are read. None of them names other files or addresses, as a playlist does."""
USUAL_RATE = 8
"""Frames per second where nothing is stated; that of most video models, and VBench's."""
VARIABLE = 0.25
"""Share of the usual time between pictures that their times may differ before the rate counts as variable."""
_NOT_THE_FILM = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_LOG_LOCK = threading.Lock()


@dataclass(frozen=True)
class Header:
    """What the header of a clip says; nothing is decoded for it.

    Attributes:
        size: (width, height) as stored, before rotation.
        rate: pictures per second; of a file with a variable rate the mean.
        seconds: length, where the header says it.
        has_sound: whether there is a sound track that can be decoded.
        frames: number of pictures, where the header says it.
    """

    size: tuple[int, int]
    rate: Fraction
    seconds: float | None
    has_sound: bool = False
    frames: int | None = None


@dataclass(frozen=True)
class DecodedFrame:
    """A picture of a clip: RGB, upright.

    Attributes:
        picture: its pixels.
        pixel_aspect: width of a pixel over its height, after rotation.
        time: seconds from the first picture.
    """

    picture: Picture
    pixel_aspect: float = 1.0
    time: float = 0.0


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[VideoFile]:
    """A file, opened as nothing but a video: no playlist, no address, and it opens no other file.

    Raises:
        UsageError: no such file, an empty one, no video, or a video in a codec that PyAV cannot read.
    """
    if not path.is_file():
        raise UsageError("the video cannot be read", expected="a video file", got="no such file", where=path)
    if path.suffix.lower() in PICTURE_SUFFIXES:
        raise only_a_picture(path)
    if path.stat().st_size == 0:
        raise UsageError("the video is empty", got="0 bytes", where=path, remedy="make it again, or remove it")
    allowed, logged = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}, list[str]()
    try:
        with _logged_to(logged, path):  # a tag that is no UTF-8 does not make pictures unreadable
            container = av.open(f"file:{path}", container_options=allowed, metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        # EINVAL is how FFmpeg says that a format is not on the list.
        foreign = "no container of a video, such as MP4, WebM or GIF"
        raise _not_a_video(path, foreign if error.errno == errno.EINVAL else reason_of(error)) from error
    with container:
        yield VideoFile(path, container, logged)


class VideoFile:
    """An open video file; made by `open_video`.

    It is decoded in one thread: FFmpeg's messages then belong to this file, and a damaged file gives the same frames
    each time.

    Attributes:
        header: what its header says.
        container: the file, opened by PyAV.
        beginning: time of the first picture, by the clock of the file.
        count: pictures read so far.
        ends: seconds from the first picture to the end of the last one that was read.
    """

    def __init__(self, path: Path, container: Any, logged: list[str]) -> None:
        self.container, self._path = container, path
        self._errors, self._corrupt, self._cut_off = logged, list[float](), ""
        self._stream, track = played_track(container.streams.video, path)
        self._stream.thread_type = "NONE"
        self._stream.codec_context.thread_count = 1
        self._notes = dict.fromkeys([track] if track else [])
        self.count, self.ends, self._times = 0, 0.0, list[float]()
        self.beginning = float((self._stream.start_time or 0) * self._stream.time_base)
        self.header = _read_header(container, self._stream)

    @property
    def rate(self) -> float:
        """Frames per second at which the pictures read so far are shown; the usual rate where they state no times."""
        usual = statistics.median(self._steps) if self._steps else 0.0
        return 1 / usual if usual > 0 else float(USUAL_RATE)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of the pictures read so far: track, colours, rotation, timing, damage."""
        return (*self._notes, *self.damage)

    @property
    def damage(self) -> tuple[str, ...]:
        """Signs of damage in what was read so far, a sentence for each kind."""
        signs = [self._cut_off] if self._cut_off else []
        if self._corrupt:
            number = f"{len(self._corrupt)} corrupt frame{'s' * (len(self._corrupt) > 1)}"
            signs.append(f"damaged: {number}, the first at {self._corrupt[0]:.2f} s")
        if self._errors:
            number = f"{len(self._errors)} error{'s' * (len(self._errors) > 1)}"
            signs.append(f"damaged: the decoder reports {number}, first: {self._errors[0]}")
        return tuple(signs)

    def pictures(self) -> Iterator[DecodedFrame]:
        """All pictures in the order in which they are shown.

        Raises:
            UsageError: no picture can be decoded, or there are pictures of several sizes.
        """
        for time, frame in self._decoded():
            yield self._upright(time, frame)
            if self._varies:
                self._notes["variable frame rate: frames taken one by one"] = None

    def pictures_at(self, times: Sequence[float]) -> Iterator[DecodedFrame]:
        """The picture that is on screen at each time; fewer where the video ends before the last of them.

        Args:
            times: seconds from the first picture, rising.

        Raises:
            UsageError: as `pictures` does.
        """
        due = list(times)
        steps = (later - earlier for earlier, later in itertools.pairwise(times))
        tolerance = min([*steps, float(1 / self.header.rate)]) / 4  # the clocks of some containers round
        for until, time, frame in self._on_screen(times[0], tolerance):
            shown = bisect.bisect_left(due, until)
            if shown:
                yield from [self._upright(time, frame)] * shown
            due = due[shown:]
            if not due:
                break
        if self._varies:
            self._notes["variable frame rate: frames taken at even times"] = None

    @property
    def _steps(self) -> list[float]:
        return [later - earlier for earlier, later in itertools.pairwise(self._times)]

    @property
    def _varies(self) -> bool:
        steps = self._steps
        return len(steps) > 1 and max(steps) - min(steps) > VARIABLE * statistics.median(steps)

    def _decoded(self, start: float = 0.0) -> Iterator[tuple[float, Any]]:
        """Frames with their times, from the last one at or before `start` that can be decoded alone."""
        jumped = self._jump_to(start)
        self.count, self._times, self.ends = 0, [], 0.0
        size = (0, 0)
        for frame in itertools.chain.from_iterable(self._packets()):
            if jumped:
                self._forget_damage()  # the frames before the first key frame lack those that they refer to
                jumped = not frame.key_frame
            time = self.ends if frame.time is None else frame.time - self.beginning
            if frame.is_corrupt and not jumped:
                self._corrupt.append(time)
            size = size if self.count else (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise unequal_frames(self._path, self.count, size, (frame.width, frame.height))
            self._times += [] if frame.time is None else [frame.time]
            lasts = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
            self.count, self.ends = self.count + 1, time + (lasts or float(1 / self.header.rate))
            yield time, frame
        if self.count == 0 and start == 0:
            got = "; ".join(["no picture can be decoded", *self.damage])
            raise damaged(self._path, got, "use another copy of the file")
        self._cut_off = self._missing_at_the_end(from_the_beginning=start == 0)

    def _packets(self) -> Iterator[list[Any]]:
        """The frames that each packet brings; one that cannot be decoded is damage, and as in a player brings none."""
        packets, packet = self.container.demux(self._stream), None
        while True:
            frames = list[Any]()
            with _logged_to(self._errors, self._path):
                try:
                    packet = next(packets, None)
                    frames = [] if packet is None else packet.decode()
                except MemoryError as error:
                    got = f"{reason_of(error)}, for pictures of {self.header.size[0]}x{self.header.size[1]}"
                    raise UsageError("the video is too large for the memory", got=got, where=self._path) from error
                except (av.FFmpegError, OSError) as error:
                    self._errors.append(reason_of(error))
            if packet is None:
                return
            if packet.is_corrupt:
                self._errors.append("a corrupt packet")
            yield frames

    def _jump_to(self, time: float) -> bool:
        """Go to a point from which all after `time` can be decoded; False if it stays at the beginning."""
        if time > 1:
            with contextlib.suppress(av.FFmpegError, OSError):
                offset = int((self.beginning + time) / self._stream.time_base)
                self.container.seek(offset, stream=self._stream, backward=True)
                return True
        return False

    def _forget_damage(self) -> None:
        self._errors.clear()
        self._corrupt.clear()

    def _missing_at_the_end(self, *, from_the_beginning: bool) -> str:
        """What of that which the header states was not there."""
        header, container = self.header, self.container.format.name
        read = f"cut off: {self.count} frames in {self.ends:.2f} s"
        if header.frames is not None and from_the_beginning and self.count < header.frames:
            return f"{read}, of {header.frames} that its header states"
        if "matroska" in container and header.seconds is not None:  # elsewhere FFmpeg estimates the length
            lacks = header.seconds - self.ends
            if lacks > (VARIABLE * header.seconds if self._varies else 0.5 / self.rate):
                return f"{read}, of {header.seconds:.2f} s that its header states"
        return f"{read}, then the file ends within a block" if _ends_within_a_block(self._path, container) else ""

    def _on_screen(self, first: float, tolerance: float) -> Iterator[tuple[float, float, Any]]:
        """Frames from `first` on with their times, each after the time up to which it is taken.

        That is until shortly before the next one begins, or to the end of the last one.
        """
        held: tuple[float, Any] | None = None
        for begins, frame in self._decoded(first):
            if held is None and first > 0 and begins > first + float(1 / self.header.rate):
                break
            if held is not None:
                yield begins - tolerance, *held
            held = begins, frame
        if held is not None:
            yield self.ends, *held
        else:  # the file's index led past the time, or to where no picture can be decoded: read it all
            self.container.seek(0)
            self._forget_damage()
            yield from self._on_screen(0.0, tolerance)

    def _upright(self, time: float, frame: Any) -> DecodedFrame:
        """A frame as RGB, upright, transparent parts on black."""
        aspect = float(self._stream.sample_aspect_ratio or 1)
        if any(component.is_alpha for component in frame.format.components):
            pixels = frame.to_ndarray(format="rgba")
            share = pixels[..., 3:].astype(np.uint16)
            picture = ((pixels[..., :3] * share + 127) // 255).astype(np.uint8)
            self._notes |= {"transparent parts on black": None} if share.min() < 255 else {}
        else:
            picture = frame.to_ndarray(format="rgb24")
        if any(component.bits > 8 for component in frame.format.components):
            self._notes["read in 8 bits per channel"] = None
        turns = round(frame.rotation / 90) % 4
        if turns:
            picture = np.ascontiguousarray(np.rot90(picture, turns))
            self._notes[f"turned by {frame.rotation % 360} degrees"] = None
        return DecodedFrame(picture, 1 / aspect if turns % 2 else aspect, time)


def _read_header(container: Any, stream: Any) -> Header:
    seconds = _seconds(container, stream)
    rate = Fraction(stream.average_rate or stream.guessed_rate or stream.base_rate or 25)
    # Samples outside the edit list of a file are stored and counted, but not shown.
    shown = stream.frames if seconds is None else min(stream.frames, round(seconds * rate))
    has_sound = any(each.codec_context is not None for each in container.streams.audio)
    return Header((stream.codec_context.width, stream.codec_context.height), rate, seconds, has_sound, shown or None)


def _seconds(container: Any, stream: Any) -> float | None:
    """The length of a track, where it is stated; of a file of one track, that of the file."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    parts = str(stream.metadata.get("DURATION", "")).split(":")  # writers of Matroska note it in a tag
    with contextlib.suppress(ValueError):
        hours, minutes, seconds = (float(part) for part in parts)
        return hours * 3600 + minutes * 60 + seconds
    alone = len(container.streams) == 1
    return container.duration / av.time_base if container.duration and alone else None


def played_track(streams: Sequence[Any], path: Path) -> tuple[Any, str]:
    """The track that a player shows, and which that is of several: the one marked as default, else the first."""
    tracks = [each for each in streams if not each.disposition & _NOT_THE_FILM]
    if not tracks:
        raise _not_a_video(path, "no video track in it")
    best = max(tracks, key=lambda each: (_decodes(each), bool(each.disposition & Disposition.default)))
    if not _decodes(best):
        raise _not_a_video(path, "a video track that PyAV cannot decode")
    return best, f"video track {tracks.index(best) + 1} of {len(tracks)}" if len(tracks) > 1 else ""


def _decodes(stream: Any) -> bool:
    return stream.codec_context is not None and bool(stream.type != "video" or stream.codec_context.width)


def damaged(path: Path, got: str, remedy: str) -> UsageError:
    """The error for a clip that cannot be read to its end, or not without changed frames."""
    return UsageError("the video is damaged or cut off", got=got, where=path, remedy=remedy)


def unequal_frames(path: Path, index: int, first: tuple[int, int], other: tuple[int, int]) -> UsageError:
    """The error for a clip whose frames are of several sizes; a size is (width, height)."""
    got = f"frame 0 of {first[0]}x{first[1]} and frame {index} of {other[0]}x{other[1]} pixels"
    return UsageError("the frames of a video differ in size", got=got, where=path)


def only_a_picture(path: Path) -> UsageError:
    """The error for a file of one picture."""
    return UsageError("this is a picture, not a video", expected="2 frames or more", got="1 frame", where=path)


def _not_a_video(path: Path, reason: str) -> UsageError:
    remedy = "convert it to MP4 (H.264) and try again"
    return UsageError("this is no video that can be read", got=reason, where=path, remedy=remedy)


@contextlib.contextmanager
def _logged_to(errors: list[str], path: Path) -> Iterator[None]:
    """Collect what FFmpeg logs as errors while the block runs, in this thread.

    The lock is because PyAV has one level, and one memory of the last message, for the whole process.
    """
    with _LOG_LOCK:
        level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)  # else the message that another file ended in is lost for this one
        try:
            with av.logging.Capture() as messages:
                yield
        finally:
            av.logging.set_level(level)
            av.logging.set_skip_repeated(skips)
            errors += [" ".join(text.replace(str(path), path.name).split())[:100] for _, _, text in messages]


def _ends_within_a_block(path: Path, container: str) -> bool:
    """Whether a file ends where none does that was written to its end, though its header may state no length."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if container == "mpegts":
            begin = file.read(4 * 204)  # a packet is 188 bytes, or 192 with time codes, 204 with error correction
            packet = next((each for each in (188, 192, 204) if set(begin[4 * (each == 192) :: each]) == {0x47}), size)
            return bool(size % packet)
        if container == "gif":
            file.seek(max(size - 64, 0))
            return not file.read().rstrip(b"\0\r\n").endswith(b";")
        return "mp4" in container and _last_box_ends(file) != size


def _last_box_ends(file: BinaryIO) -> int:
    """Where the last box of an MP4 file ends by its own length, in bytes from the beginning of the file."""
    offset, length = 0, 8
    while length >= 8:
        offset = file.seek(offset)
        head = file.read(16)
        length = int.from_bytes(head[:4])
        length = int.from_bytes(head[8:]) if length == 1 else length
        offset += length if length >= 8 else len(head) + len(file.read())  # 0: up to the end of the file
    return offset
