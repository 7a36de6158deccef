"""The sound of a source, kept beside the frames of its edit."""

from __future__ import annotations

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
