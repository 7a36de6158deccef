"""What FFmpeg knows of a damaged video file, collected while the file is decoded.

A damaged file seldom fails to decode: FFmpeg fills the gaps and goes on. Three signs are left: frames with the corrupt
flag, errors in the decoder's log, and an end before the one that the header states. Damage that a codec has no means to
notice, such as a changed bit in VP9, cannot be told from a picture that was meant.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av

TS_PACKETS = (188, 192, 204)
"""Bytes of a packet of an MPEG transport stream: plain, with time codes, with error correction."""
_TS_SYNC, _GIF_TRAILER = 0x47, b";"
_LOG_LOCK = threading.Lock()


class Damage:
    """Signs of damage in one file.

    Attributes:
        cut_off: what the file lacks at its end; empty where nothing is known to be missing.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._errors, self._corrupt = path, list[str](), list[float]()
        self.cut_off = ""

    @property
    def signs(self) -> tuple[str, ...]:
        """What was found so far, a sentence for each kind."""
        signs = [self.cut_off] if self.cut_off else []
        if self._corrupt:
            signs.append(f"damaged: {_counted(self._corrupt, 'corrupt frame')}, the first at {self._corrupt[0]:.2f} s")
        if self._errors:
            signs.append(f"damaged: the decoder reports {_counted(self._errors, 'error')}, first: {self._errors[0]}")
        return tuple(signs)

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
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
                told = (message.replace(str(self._path), self._path.name) for _, _, message in messages)
                self._errors += [" ".join(message.split())[:100] for message in told]

    def add_corrupt_frame(self, time: float) -> None:
        """Note a frame that carries FFmpeg's corrupt flag; its time in seconds."""
        self._corrupt.append(time)

    def add_error(self, reason: str) -> None:
        """Note that a part of the file could not be read or decoded at all."""
        self._errors.append(reason)

    def forget(self) -> None:
        """Drop what was collected: after a jump into a file, the first frames lack those that they refer to."""
        self._errors.clear()
        self._corrupt.clear()


def ends_within_a_block(path: Path, container: str) -> bool:
    """Whether a file ends where none does that was written to its end, though its header may state no length.

    Args:
        path: the file.
        container: FFmpeg's name of its format.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if container == "mpegts":
            begin = file.read(4 * max(TS_PACKETS))
            packet = next((each for each in TS_PACKETS if set(begin[4 * (each == 192) :: each]) == {_TS_SYNC}), size)
            return bool(size % packet)
        if container == "gif":
            file.seek(max(size - 64, 0))
            return not file.read().rstrip(b"\0\r\n").endswith(_GIF_TRAILER)
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


def _counted(items: list[str] | list[float], noun: str) -> str:
    return f"{len(items)} {noun}{'s' if len(items) > 1 else ''}"
