"""One reader for every clip: `evaluate`, `edit`, the benchmarks and the web app all read through `open_clip`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ieadapt.errors import UsageError
from ieadapt.runs.clip_folders import PICTURE_SUFFIXES, frames_of
from ieadapt.runs.decoding import (
    USUAL_RATE,
    DecodedFrame,
    Header,
    Picture,
    VideoFile,
    damaged,
    open_video,
    too_short,
    unequal_frames,
)


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
        rate: frames per second.
        damage: none: a picture that cannot be read is refused.

    Raises:
        UsageError: there is no picture in it, or the first cannot be read.
    """

    rate = float(USUAL_RATE)
    damage: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self._path, self._files, self._notes = path, tuple(frames_of(path)), dict[str, None]()
        if not self._files:
            expected = ", ".join(sorted(PICTURE_SUFFIXES))
            raise UsageError("there is no picture in this folder of frames", expected=expected, where=path)
        with _opened(self._files[0]) as picture:
            size = picture.size
        count = len(self._files)
        self.header = Header(size, Fraction(USUAL_RATE), count / USUAL_RATE, frames=count)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to the colours of the pictures read so far."""
        return tuple(self._notes)

    def pictures(self) -> Iterator[DecodedFrame]:
        """All pictures in natural order of their names.

        Raises:
            UsageError: a picture cannot be read, or is of another size than the first.
        """
        for index in range(len(self._files)):
            yield DecodedFrame(self._picture(index), time=index / USUAL_RATE)

    def pictures_at(self, times: Sequence[float]) -> Iterator[DecodedFrame]:
        """The picture of each time, in seconds from the first.

        Raises:
            UsageError: as `pictures` does, and a folder that holds no picture for the last time.
        """
        indices = [int(time * USUAL_RATE + 1e-6) for time in times]
        if indices[-1] >= len(self._files):
            raise too_short(self._path, times, len(self._files) / USUAL_RATE)
        yield from (DecodedFrame(self._picture(index), time=index / USUAL_RATE) for index in indices)

    def sound(self, start: float, seconds: float) -> None:
        """Pictures have none."""

    def _picture(self, index: int) -> Picture:
        with _opened(self._files[index]) as opened:
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
def _opened(file: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(file) as picture:
            yield picture
    except UsageError:
        raise
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise UsageError(
            "a frame cannot be read", got=error, where=file, remedy="make it again, or remove it"
        ) from error
