"""Video files that open in a browser, with sound, and pictures of videos: strips of frames and clips side by side."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ieadapt.errors import FailureError, UsageError

FRAMES_PER_SECOND = 8
_WHITE, _INK = 1.0, (40, 40, 40)
# In order of preference. One thread and no lookahead, so that the same frames give the same bytes: with x264's
# lookahead a few in a hundred encodings of one clip came out different on a busy machine.
_REPEATABLE = "lookahead-threads=1:sync-lookahead=0:rc-lookahead=0:mbtree=0"
_ENCODERS: Mapping[str, Mapping[str, str]] = {
    "libx264": {"crf": "12", "preset": "medium", "threads": "1", "x264-params": _REPEATABLE},
    "libvpx-vp9": {"crf": "15", "b": "0", "threads": "1"},
}
SOUND_RATE = 48_000
Video = Float[Tensor, "frame channel height width"]
"""RGB in [0, 1]."""


@dataclass(frozen=True)
class Sound:
    """Two channels in [-1, 1] at 48,000 samples per second."""

    samples: Float[np.ndarray, "2 sample"]


def encode_video(
    frames: Video,
    frames_per_second: int | Fraction = FRAMES_PER_SECOND,
    sound: Sound | None = None,
) -> bytes:
    """An MP4 file of the frames: H.264 where PyAV has it, VP9 otherwise, in the pixel format that browsers play.

    Args:
        frames: RGB in [0, 1]; values outside are clipped. An odd height or width is extended by one row or column.
        frames_per_second: more than 0.
        sound: muxed beside the frames, cut to their length by players.

    Returns:
        The bytes of the file.

    Raises:
        UsageError: there is no frame, or not three channels.
        FailureError: a value is not finite, or PyAV has neither encoder.

    Example:
        >>> len(encode_video(torch.zeros(4, 3, 32, 32))) > 500
        True
    """
    pixels = _pixels(frames)
    pixels = np.pad(pixels, ((0, 0), (0, pixels.shape[1] % 2), (0, pixels.shape[2] % 2), (0, 0)), mode="edge")
    name = next((name for name in _ENCODERS if name in av.codecs_available), None)
    if name is None:
        expected = f"one of {list(_ENCODERS)}"
        raise FailureError("this build of PyAV can write no video that a browser plays", expected=expected)
    with tempfile.TemporaryDirectory() as folder:  # "faststart" moves the header by reading the file again
        path = Path(folder, "video.mp4")
        with av.open(path, mode="w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = cast(
                Any, container.add_stream(name, rate=Fraction(frames_per_second), options=dict(_ENCODERS[name]))
            )
            stream.height, stream.width, stream.pix_fmt = pixels.shape[1], pixels.shape[2], "yuv420p"
            # before the first picture is muxed
            heard: Any = sound and container.add_stream("aac", rate=SOUND_RATE, layout="stereo", bit_rate=160_000)
            for picture in pixels:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
            if sound is not None:
                _mux_sound(container, heard, sound)
        return path.read_bytes()


def _mux_sound(container: Any, stream: Any, sound: Sound) -> None:
    for start in range(0, sound.samples.shape[1], 1024):
        part = np.ascontiguousarray(sound.samples[:, start : start + 1024], dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = SOUND_RATE, start
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def strip(frames: Video, count: int = 8) -> bytes:
    r"""A PNG of evenly spaced frames in a row, first and last among them, unchanged in size.

    Example:
        >>> strip(torch.zeros(16, 3, 8, 8))[:4]
        b'\x89PNG'
    """
    pixels = _pixels(frames)
    chosen = pixels[_evenly_spaced(len(pixels), count)]
    return _png(rearrange(chosen, "frame height width channel -> height (frame width) channel"))


def rows_of_frames(clips: Mapping[str, Video], count: int = 8, gap: int = 4) -> bytes:
    r"""A PNG of evenly spaced frames of each clip, a row under its label for each, unchanged in size.

    Args:
        clips: label -> frames in [0, 1], all of the same shape.
        count: frames in a row, first and last among them.
        gap: white space between frames, in pixels.

    Raises:
        UsageError: there is no clip, or the shapes differ.

    Example:
        >>> rows_of_frames({"source": torch.zeros(16, 3, 8, 8), "edit": torch.ones(16, 3, 8, 8)})[:4]
        b'\x89PNG'
    """
    number = _common_shape(clips)[0]
    chosen = _evenly_spaced(number, count)
    rows = [
        _under_label(_with_gaps([frames[index : index + 1].cpu() for index in chosen], 3, gap), label)
        for label, frames in clips.items()
    ]
    return _png(_pixels(_with_gaps(rows, 2, gap))[0])


def differences(
    one: Float[Tensor, "frame channel height width"],
    other: Float[Tensor, "frame channel height width"],
    gain: int | float = 4,
) -> Float[Tensor, "frame channel height width"]:
    """Where two clips differ, as a clip: absolute differences times a gain; black where they are alike.

    Example:
        >>> differences(torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.6)).mean().round(decimals=2)
        tensor(0.4000)
    """
    return ((one - other).abs() * gain).clamp(max=1)


def _evenly_spaced(number: int, count: int) -> np.ndarray:
    return np.unique(np.linspace(0, number - 1, min(count, number)).round().astype(int))


def side_by_side(
    clips: Mapping[str, Video], gap: int = 4
) -> Float[Tensor, "frame channel height_and_label all_widths"]:
    """One clip that shows several in step, each under its label.

    Args:
        clips: label -> frames in [0, 1], all of the same shape.
        gap: white columns between neighbours, in pixels.

    Raises:
        UsageError: there is no clip, or the shapes differ.

    Example:
        >>> side_by_side({"plain": torch.zeros(2, 3, 8, 16), "enhanced": torch.ones(2, 3, 8, 16)}).shape
        torch.Size([2, 3, 28, 36])
    """
    _common_shape(clips)
    return _with_gaps([_under_label(frames, label) for label, frames in clips.items()], 3, gap)


def _common_shape(clips: Mapping[str, Tensor]) -> tuple[int, ...]:
    shapes = {tuple(frames.shape) for frames in clips.values()}
    if len(shapes) != 1:
        raise UsageError("a picture of several clips needs clips of one shape", got=sorted(shapes) or "no clip")
    return shapes.pop()


def _with_gaps(parts: Sequence[Tensor], dim: int, gap: int) -> Tensor:
    """Clips side by side (`dim` 3) or one below the other (2), with white between them."""
    shape = list(parts[0].shape)
    shape[dim] = gap
    return torch.cat([each for part in parts for each in (torch.full(shape, _WHITE), part)][1:], dim=dim)


def _under_label(frames: Video, label: str, height: int = 20) -> Tensor:
    board = Image.new("RGB", (frames.shape[3], height), "white")
    ImageDraw.Draw(board).text((3, 2), label, fill=_INK, font=ImageFont.load_default(size=12))
    header = rearrange(
        torch.from_numpy(np.array(board)).float() / 255, "height width channel -> 1 channel height width"
    )
    return torch.cat([header.expand(frames.shape[0], -1, -1, -1), frames.cpu()], dim=2)


def _pixels(frames: Video) -> UInt8[np.ndarray, "frame height width 3"]:
    if frames.shape[0] == 0 or frames.shape[1] != 3:
        raise UsageError("a video needs RGB frames", expected="(frame >= 1, 3, height, width)", got=tuple(frames.shape))
    if not torch.isfinite(frames).all():
        raise FailureError(
            "the video holds values that are not finite", remedy="compute in float32, or lower the scale"
        )
    channels_last = rearrange(frames.detach().cpu().float(), "frame channel height width -> frame height width channel")
    return (channels_last.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _png(pixels: UInt8[np.ndarray, "height width 3"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
