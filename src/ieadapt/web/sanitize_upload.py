"""The process that decodes an uploaded file: limits itself, reads pictures, writes a clean clip, reports what it did.

Started as `python -m ieadapt.web.sanitize_upload` with a JSON object on standard input (see `ieadapt.web.uploads`); it
answers with one on standard output. It imports no torch, so that its memory can be small.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from ieadapt.errors import UsageError
from ieadapt.runs.decoding import Picture, VideoFile, open_video

TOO_MUCH: dict[str, Any] = {"too much": "memory"}
"""The answer where the memory was not enough."""
_QUALITY = {"crf": "10", "preset": "veryfast", "threads": "2"}


def main() -> None:
    """Read the request, and answer."""
    request = json.load(sys.stdin)
    _limit(request["memory"], request["patience"])
    try:
        clip = sanitize(Path(request["source"]), Path(request["target"]), request)
        answer: dict[str, Any] = {"clip": clip}
    except UsageError as error:
        answer = TOO_MUCH if os.strerror(errno.ENOMEM) in str(error) else {"refused": _parts_of(error)}
    except MemoryError:
        answer = TOO_MUCH
    json.dump(answer, sys.stdout)


def sanitize(source: Path, target: Path, limits: Mapping[str, int]) -> dict[str, Any]:
    """Decode a video within limits into H.264 of at most so many pixels a side; what was done.

    Raises:
        UsageError: no video of a container that is opened, or more than the limits allow.
    """
    with open_video(source) as video:
        header = video.header
        _check(header.size, header.frames or 0, header.seconds or 0.0, limits)
        rate = header.rate if 1 <= header.rate <= 120 else Fraction(25)
        size = _size(header.size, limits["side"])
        count = 0
        with av.open(str(target), mode="w", format="mp4", options={"movflags": "faststart"}) as container:
            stream: Any = container.add_stream("libx264", rate=rate.limit_denominator(1001), options=_QUALITY)
            stream.pix_fmt = "yuv420p"
            for count, picture in enumerate(_pictures(video, limits), start=1):
                if count == 1:
                    size = _size((picture.shape[1], picture.shape[0]), limits["side"])
                    stream.width, stream.height = size
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                container.mux(stream.encode(frame.reformat(*size, "yuv420p", interpolation="LANCZOS")))
            container.mux(stream.encode(None))
        notes = [f"shrunk from {header.size[0]}x{header.size[1]}"] if max(header.size) > limits["side"] else []
        notes += ["its sound is not kept"] if header.has_sound else []
        notes += video.notes
    return {"frames": count, "width": size[0], "height": size[1], "rate": round(float(rate), 3), "notes": notes}


def _limit(memory: int, seconds: int) -> None:
    """Give this process no more than it is allowed, and no file but a small one."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _check(size: tuple[int, int], frames: int, seconds: float, limits: Mapping[str, int]) -> None:
    """Refuse what is more than the limits allow: what a header says first, then what comes."""
    shown = f"{size[0]}x{size[1]}"
    if size[0] * size[1] > limits["pixels"]:
        _refuse("the pictures of the clip are too large", f"at most {limits['pixels']} pixels", shown)
    if min(size) < limits["least"]:
        _refuse("the pictures of the clip are too small", f"{limits['least']} pixels a side", shown)
    if seconds > limits["seconds"]:
        _refuse("the clip is too long", f"at most {limits['seconds']} s", f"{seconds:.1f} s")
    if frames > limits["frames"]:
        _refuse("the clip has too many frames", f"at most {limits['frames']}", f"{frames}")


def _pictures(video: VideoFile, limits: Mapping[str, int]) -> Iterator[Picture]:
    """The pictures of a file; what its header did not say is checked as they come."""
    count = 0
    for count, decoded in enumerate(video.pictures(), start=1):
        height, width = decoded.picture.shape[:2]
        _check((width, height), count, decoded.time, limits)
        yield decoded.picture
    if count < 2:
        _refuse("this is a picture, not a video", "2 frames or more", f"{count} frame")


def _refuse(problem: str, expected: str, got: str) -> None:
    raise UsageError(problem, expected=expected, got=got, remedy="cut or shrink the clip first")


def _size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height within a side, even, as H.264 with halved colours needs them."""
    share = min(1.0, side / max(size))
    width, height = (max(2, round(length * share / 2) * 2) for length in size)
    return width, height


def _parts_of(error: UsageError) -> dict[str, str]:
    """What an error says, but for the path of the file."""
    parts = {"problem": error.problem, "expected": error.expected, "got": error.got, "remedy": error.remedy}
    return {name: str(value) for name, value in parts.items() if value is not None}


if __name__ == "__main__":
    main()
