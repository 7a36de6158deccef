"""The sound of a source: read from its file, and kept beside the frames of its edit."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from jaxtyping import Float

SOUND_RATE = 48_000
_ENCODER = "aac"
_BLOCK = 1024


@dataclass(frozen=True)
class Sound:
    """Two channels in [-1, 1] at 48,000 samples per second."""

    samples: Float[np.ndarray, "2 sample"]

    @property
    def seconds(self) -> float:
        """Length."""
        return self.samples.shape[1] / SOUND_RATE


def read_sound(container: Any, stream: Any, begin: float, seconds: float) -> Sound | None:
    """The sound of a span, silence where there is none.

    Args:
        container: the open file.
        stream: its sound track.
        begin: of the span, in seconds of the track's own clock.
        seconds: length of the span.

    Returns:
        None where nothing of the track can be decoded.
    """
    samples = np.zeros((2, round(seconds * SOUND_RATE)), dtype=np.float32)
    layout = "mono" if stream.layout.nb_channels == 1 else "stereo"  # FFmpeg would make both sides of mono softer
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=SOUND_RATE)
    heard = False
    with contextlib.suppress(av.FFmpegError, OSError):
        container.seek(max(int(begin / stream.time_base), 0) if begin > 1 else 0, stream=stream, backward=True)
        offset: int | None = None
        for frame in container.decode(stream):
            if frame.time is not None and (offset is None or frame.time > begin + seconds):
                if frame.time > begin + seconds:
                    break
                offset = round((frame.time - begin) * SOUND_RATE)
            for part in resampler.resample(frame):
                offset = _lay(samples, part.to_ndarray(), offset or 0)
                heard = True
    return Sound(samples) if heard else None


def add_sound(container: Any) -> Any:
    """A stream for sound in a container that is being written; call it before the first picture is muxed."""
    stream = container.add_stream(_ENCODER, rate=SOUND_RATE)
    stream.layout, stream.format = "stereo", "fltp"
    stream.bit_rate = 160_000
    return stream


def mux_sound(container: Any, stream: Any, sound: Sound) -> None:
    """Write all of the sound into its stream."""
    for start in range(0, sound.samples.shape[1], _BLOCK):
        part = np.ascontiguousarray(sound.samples[:, start : start + _BLOCK], dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = SOUND_RATE, start
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _lay(samples: np.ndarray, part: np.ndarray, offset: int) -> int:
    """Copy what of a part falls into the span; returns where the next part goes."""
    first, last = max(offset, 0), min(offset + part.shape[1], samples.shape[1])
    if first < last:
        samples[:, first:last] = part[:, first - offset : last - offset]
    return offset + part.shape[1]
