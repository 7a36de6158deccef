"""Clips from a browser: decoded in a process of their own, with little memory and time, into a clean clip.

What was uploaded is read there alone. The server reads the clean clip, which that process has encoded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ieadapt.errors import FailureError, UsageError
from ieadapt.web import clean_clip
from ieadapt.web.clean_clip import TOO_MUCH

_NAME = re.compile(r"[0-9a-f]{16}")
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Limits:
    """What an uploaded clip may be.

    Attributes:
        bytes: size of the file.
        seconds: length of the clip.
        frames: number of its pictures.
        pixels: of one picture.
        side: pixels of the longer side, to which larger pictures are shrunk.
        least: pixels of the shorter side, at least.
        memory: bytes that decoding may take.
        patience: seconds that decoding may take.
    """

    bytes: int = 200 * MEBIBYTE
    seconds: int = 60
    frames: int = 2000
    pixels: int = 4096 * 2304
    side: int = 1280
    least: int = 16
    memory: int = 2048 * MEBIBYTE
    patience: int = 120


@dataclass(frozen=True)
class Clip:
    """A clean clip.

    Attributes:
        name: 16 letters, from the content of what was uploaded.
        frames: number of its pictures.
        height: in pixels.
        width: in pixels.
        rate: pictures per second.
        notes: what was done to it.
    """

    name: str
    frames: int
    height: int
    width: int
    rate: float
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        seconds = self.frames / self.rate
        said = f"{self.frames} frames of {self.width}x{self.height}, {seconds:.1f} s at {self.rate:g} per second"
        return "; ".join([said, *self.notes])


@dataclass(frozen=True)
class Uploads:
    """Clean clips in a folder.

    Attributes:
        folder: where they lie.
        limits: of what is taken in.
        turn: held while a file is decoded, so that one is at a time.
    """

    folder: Path
    limits: Limits
    turn: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def take(self, uploaded: Path) -> Clip:
        """Make a clean clip of an uploaded file; the file itself is not opened here, only hashed.

        Raises:
            UsageError: it is no video, damaged, or more than the limits allow.
            FailureError: the clip could not be written.
        """
        if uploaded.stat().st_size > self.limits.bytes:
            most = f"at most {self.limits.bytes // MEBIBYTE} MB"
            raise UsageError("the file is too large to upload", expected=most, remedy="cut or shrink the clip first")
        with uploaded.open("rb") as file:
            name = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        with self.turn:
            if not (self.path(name).is_file() and self._notes(name).is_file()):
                told = self._decode(uploaded, name)
                self._notes(name).write_text(json.dumps(told), encoding="utf-8")
        return self.find(name)

    def find(self, name: str) -> Clip:
        """A clip that was taken in earlier.

        Raises:
            UsageError: there is none of that name.
        """
        if not (_NAME.fullmatch(name) and self.path(name).is_file() and self._notes(name).is_file()):
            raise UsageError("there is no such clip", got=repr(name), remedy="upload it again")
        told = json.loads(self._notes(name).read_text(encoding="utf-8"))
        return Clip(name, **{**told, "notes": tuple(told["notes"])})

    def path(self, name: str) -> Path:
        """The file of a clip."""
        return self.folder / f"{name}.mp4"

    def _notes(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _decode(self, uploaded: Path, name: str) -> dict[str, object]:
        """Let the child decode; what it says of the clip."""
        partial = self.folder / f"{name}.{os.getpid()}.part"
        asked = json.dumps({"source": str(uploaded), "target": str(partial), **dataclasses.asdict(self.limits)})
        try:
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-m", clean_clip.__name__],
                input=asked,
                capture_output=True,
                text=True,
                timeout=self.limits.patience,
                env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                check=False,
            )
            answer: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else TOO_MUCH
            if answer == TOO_MUCH:
                raise _too_much()
            if "refused" in answer:
                raise UsageError(**answer["refused"])
            partial.replace(self.path(name))
        except subprocess.TimeoutExpired as error:
            raise _too_much() from error
        except OSError as error:
            raise FailureError("the clip could not be kept", got=error.strerror) from error
        finally:
            partial.unlink(missing_ok=True)
        return dict(answer["clip"])


def _too_much() -> UsageError:
    remedy = "make a smaller copy of the clip"
    return UsageError("the clip takes more memory or time to decode than an upload may", remedy=remedy)
