"""Video files of every awkward kind, written with PyAV; frame i of a file is the grey level `LEVELS[i]`."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from ieadapt.runs.videos import SOUND_RATE

LEVELS = [20 + 10 * index for index in range(20)]


def grey(level: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """A picture of one grey level; size is (width, height)."""
    return np.full((size[1], size[0], 3), level, dtype=np.uint8)


def corner(level: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """Grey, with the upper left quarter red: shows which way is up."""
    picture = grey(level, size)
    picture[: size[1] // 2, : size[0] // 2] = (230, 20, 20)
    return picture


def write(
    path: Path,
    pictures: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rate: Fraction | int = 10,
    stamps: Sequence[int] | None = None,
    change: Callable[[av.VideoStream], None] = lambda stream: None,
    tone: float | None = None,
    **options: str,
) -> Path:
    """Write pictures with PyAV.

    Args:
        path: the suffix chooses the container.
        pictures: (height, width, 3 or 4) in 0..255.
        codec: of the video.
        pixels: pixel format of the file.
        rate: frames per second.
        stamps: times in milliseconds, for a variable rate.
        change: called with the new stream.
        tone: hertz of a tone that begins at 0.5 s, 0 before; None for no sound.
        options: of the codec.
    """
    given = {"crf": "10"} if codec == "libx264" else {}
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=rate, options=given | options)
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], pixels
        if stamps is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        change(stream)
        sound = None if tone is None else container.add_stream("aac", rate=44_100, layout="mono")
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgba" if picture.shape[2] == 4 else "rgb24")
            if stamps is not None:
                frame.pts, frame.time_base = stamps[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            time = np.arange(round(44_100 * len(pictures) / float(rate))) / 44_100
            wave = (0.5 * np.sin(2 * np.pi * float(tone or 0) * time) * (time >= 0.5)).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate = 44_100
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def greys(path: Path, number: int = 20, **keywords: object) -> Path:
    """A video of grey frames, frame i of `LEVELS[i]`."""
    return write(path, [grey(level) for level in LEVELS[:number]], **keywords)  # type: ignore[arg-type]


def loudness(samples: np.ndarray, begin: float, end: float) -> float:
    """Root mean square of the samples between two times in seconds."""
    return float(np.sqrt(np.mean(samples[:, round(begin * SOUND_RATE) : round(end * SOUND_RATE)] ** 2)))


def damaged_copy(path: Path, copy: Path, at: float = 0.1, number: int = 40) -> Path:
    """A copy of a file in which some bytes behind a share of its length are turned over."""
    content = bytearray(path.read_bytes())
    first = round(at * len(content))
    for index in range(first, min(first + number, len(content))):
        content[index] ^= 0xFF
    copy.write_bytes(bytes(content))
    return copy


def decode_video(content: bytes) -> torch.Tensor:
    """The frames of a video file as (frame, channel, height, width), RGB in [0, 1]."""
    with av.open(io.BytesIO(content)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
