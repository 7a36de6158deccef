"""Clips from a browser: decoded in a process of their own, with little memory and time, into a clean clip.

What was uploaded is read there alone. The server reads the clean clip, which that process has encoded. Until then the
upload lies in a private folder, the inbox, that is swept.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from anyio import CapacityLimiter
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ieadapt.errors import FailureError, UsageError, raised_as
from ieadapt.files import sha256_of, write_atomically
from ieadapt.notation import counted
from ieadapt.web import sanitize_upload

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
        number: of clips that are kept, and of files that come in at once.
        total: bytes of all clips that are kept, and of all files that come in at once.
        sending: seconds that a browser may take to send a file.
    """

    bytes: int = 200 * MEBIBYTE
    seconds: int = 60
    frames: int = 2000
    pixels: int = 4096 * 2304
    side: int = 1280
    least: int = 16
    memory: int = 2048 * MEBIBYTE
    patience: int = 120
    number: int = 100
    total: int = 4096 * MEBIBYTE
    sending: int = 600


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
        size = f"{self.frames} frames of {self.width}x{self.height}, {seconds:.1f} s at {self.rate:g} per second"
        return "; ".join([size, *self.notes])


@dataclass(frozen=True)
class Uploads:
    """Clean clips in a folder.

    Attributes:
        folder: where they lie.
        limits: of what is taken in.
        turn: of one file at a time to be decoded. Who awaits it holds no thread, so that pages go on being answered.
    """

    folder: Path
    limits: Limits
    turn: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1), repr=False, compare=False)

    def take(self, uploaded: Path) -> Clip:
        """Make a clean clip of an uploaded file; the file itself is not opened here, only hashed.

        Raises:
            UsageError: it is no video, damaged, more than the limits allow, or there are too many clips already.
            FailureError: the clip could not be written.
        """
        facts = {"got": None, "remedy": "upload it again"}  # the same file, uploaded twice at once, goes with the first
        with raised_as(UsageError, "the upload is not there any more", OSError, **facts):
            size = uploaded.stat().st_size
            name = sha256_of(uploaded)[:16]
        if size > self.limits.bytes:
            most = f"at most {self.limits.bytes // MEBIBYTE} MB"
            raise UsageError("the file is too large to upload", expected=most, remedy="cut or shrink the clip first")
        if not (self.path(name).is_file() and self._notes(name).is_file()):
            self._check_room()
            self._decode(uploaded, name)
        return self.find(name)

    def _check_room(self) -> None:
        kept = [file.stat().st_size for file in self.folder.glob("*.mp4")]
        if len(kept) >= self.limits.number or sum(kept) >= self.limits.total:
            raise UsageError(
                "there is no room for another clip",
                expected=f"fewer than {self.limits.number} clips and {self.limits.total // MEBIBYTE} MB",
                got=f"{counted(len(kept), 'clip')}, {sum(kept) // MEBIBYTE} MB",
                remedy="who runs the app can delete clips in the folder uploads of its --root",
            )

    def find(self, name: str) -> Clip:
        """A clip that was taken in earlier.

        Raises:
            UsageError: there is none of that name.
        """
        if not (_NAME.fullmatch(name) and self.path(name).is_file() and self._notes(name).is_file()):
            raise UsageError("there is no such clip", got=repr(name), remedy="upload it again")
        stored = json.loads(self._notes(name).read_text(encoding="utf-8"))
        return Clip(name, **stored | {"notes": tuple(stored["notes"])})

    def path(self, name: str) -> Path:
        """The file of a clip."""
        return self.folder / f"{name}.mp4"

    def _notes(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _decode(self, uploaded: Path, name: str) -> None:
        """Let the child decode, and keep the clip with what it says of it."""
        partial = self.folder / f"{name}.{os.getpid()}.part"
        request = json.dumps({"source": str(uploaded), "target": str(partial), **dataclasses.asdict(self.limits)})
        try:
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-m", sanitize_upload.__name__],
                input=request,
                capture_output=True,
                text=True,
                timeout=self.limits.patience,
                env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                check=False,
            )
            answer = json.loads(done.stdout) if done.returncode == 0 else sanitize_upload.TOO_MUCH
            if answer == sanitize_upload.TOO_MUCH:
                raise _too_much()
            if "refused" in answer:
                raise UsageError(**answer["refused"])
            write_atomically(self._notes(name), json.dumps(answer["clip"]).encode())
            partial.replace(self.path(name))
        except subprocess.TimeoutExpired as error:
            raise _too_much() from error
        except OSError as error:
            raise FailureError("the clip could not be kept", got=error.strerror) from error
        finally:
            partial.unlink(missing_ok=True)


def _too_much() -> UsageError:
    remedy = "make a smaller copy of the clip"
    return UsageError("the clip takes more memory or time to decode than an upload may", remedy=remedy)


class Inbox:
    """An ASGI layer before gradio's route for uploads: few files at a time, not too large together, none for long.

    What a browser sends lies in the folder until it is decoded, or swept if that never comes: gradio itself keeps the
    pieces of uploads that were broken off.

    Args:
        app: what takes the uploads.
        folder: in which it puts them.
        limits: of what lies in the folder.
    """

    def __init__(self, app: ASGIApp, folder: Path, limits: Limits) -> None:
        self._app, self._folder, self._limits = app, folder, limits
        self._coming: list[int] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let an upload in, or refuse it; whatever else passes."""
        if scope["type"] != "http" or scope["path"].rstrip("/") != "/gradio_api/upload":
            await self._app(scope, receive, send)
            return
        size = Headers(scope=scope).get("content-length", "")
        status = self._refusal(int(size)) if size.isdecimal() else 411
        if status is not None:
            while status == 503 and (await receive()).get("more_body"):
                pass  # a browser reads the answer only once it has sent all, and a file of this size may come
            await PlainTextResponse("this upload is not taken", status)(scope, receive, send)
            return
        self._coming.append(int(size))
        try:
            async with asyncio.timeout(self._limits.sending):
                await self._app(scope, receive, send)
        except TimeoutError:
            await PlainTextResponse("this upload took too long", 408)(scope, receive, send)
        finally:
            self._coming.remove(int(size))

    def _refusal(self, size: int) -> int | None:
        if size > self._limits.bytes + MEBIBYTE:  # what a browser puts around a file takes some bytes too
            return 413
        lying = self._swept()
        full = len(lying) + len(self._coming) >= self._limits.number
        return 503 if full or sum(lying) + sum(self._coming) + size > self._limits.total else None

    def _swept(self) -> list[int]:
        """Sizes of the files in the folder, after those that nobody waits for any more are gone."""
        longest_wait = self._limits.sending + self._limits.number * self._limits.patience
        oldest = time.time() - longest_wait
        sizes = []
        for entry in list(self._folder.rglob("*")):
            with contextlib.suppress(FileNotFoundError):  # decoded in the meantime
                status = entry.lstat()
                if status.st_mtime < oldest:
                    shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink()
                elif entry.is_file() and status.st_size:  # gradio's file field leaves an empty one for each it hands on
                    sizes.append(status.st_size)
        return sizes
