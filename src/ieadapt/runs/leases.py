"""Claims: which process computes what now, so that two processes on one folder do not compute it twice.

A claim is a file that only one process can create. Its owner touches it every few seconds. A claim whose process has
died on this machine, or which nobody has touched for a minute, may be taken over; whoever does moves it away first, and
puts it back if it turns out to be another one than was judged. In the instant between these two moves a third process
may claim the same work: then it is done twice, with the same result, and nothing is lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ieadapt.runs.fingerprints import StorageError

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
CLOCK = ".clock"
"""Ending of the file by which a process asks what time it is in the folder."""


class Claims:
    """The claims of one owner in a study folder.

    Args:
        folder: where the claim files are.
        owner: the name of the process or worker; invented if not given.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> one, other = Claims(folder), Claims(folder)
        >>> one.take("cell"), other.take("cell"), one.release("cell"), other.take("cell")
        (True, False, None, True)
    """

    def __init__(self, folder: Path, owner: str | None = None) -> None:
        self.folder = folder
        self.owner = owner or secrets.token_hex(8)
        self._held: set[str] = set()

    def take(self, key: str) -> bool:
        """Claim a piece of work; False if somebody else has it."""
        path = self._path(key)
        if not self._create(path) and not (self._abandoned(path) and self._move_away(path) and self._create(path)):
            return False
        self._held.add(key)
        return True

    def release(self, key: str) -> None:
        """Give a piece of work back, done or not."""
        self._path(key).unlink(missing_ok=True)
        self._held.discard(key)

    def release_all(self) -> None:
        """Give everything back."""
        for key in list(self._held):
            self.release(key)

    def release_owner(self, owner: str) -> None:
        """Give back what a worker held that is known to be dead, and remove what it was about to."""
        for path in self.folder.glob("*.claim"):
            if _read(path).get("owner") == owner:
                path.unlink(missing_ok=True)
        for path in (*self.folder.glob(f"*.claim.{owner}"), self.folder / f"{owner}{CLOCK}"):
            path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what dead processes have left on work that is done."""
        for path in self.folder.glob("*.claim"):
            if self._abandoned(path):
                self._move_away(path)

    def live(self) -> list[str]:
        """Keys that a running process holds."""
        return [path.stem for path in sorted(self.folder.glob("*.claim")) if not self._abandoned(path)]

    @contextlib.contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Touch what is held every few seconds while the block is open, and give it back at the end."""
        over = threading.Event()
        thread = threading.Thread(target=self._beat, args=(over,), name="claims", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.release_all()

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(HEARTBEAT_SECONDS):
            for key in list(self._held):
                with contextlib.suppress(OSError):
                    os.utime(self._path(key))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.claim"

    def _create(self, path: Path) -> bool:
        content = json.dumps({"owner": self.owner, **_this_process()}).encode()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            try:
                os.write(descriptor, content)
            except BaseException:  # a stop too: an empty claim would name nobody who could give it back
                path.unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)
        except FileExistsError:
            return False
        except OSError as error:
            raise StorageError("cannot claim work in the study", got=error.strerror or error, where=path) from error
        return True

    def _abandoned(self, path: Path) -> bool:
        """Whether the owner of a claim is dead: known so on this machine, silent for long elsewhere."""
        claim = _read(path)
        if claim.get("machine") == _machine() and _birth(claim["pid"]) != claim["birth"]:
            return True
        try:
            return self._now() - path.stat().st_mtime > STALE_SECONDS
        except FileNotFoundError:
            return True

    def _move_away(self, path: Path) -> bool:
        judged, target = _read(path), path.with_name(f"{path.name}.{self.owner}")
        try:
            path.rename(target)
        except FileNotFoundError:
            return True
        found = _read(target)
        if found != judged:
            with contextlib.suppress(FileExistsError):
                os.link(target, path)
        target.unlink(missing_ok=True)
        return found == judged

    def _now(self) -> float:
        """The time by the clock that stamps the claims, which may be another machine's."""
        probe = self.folder / f"{self.owner}{CLOCK}"
        try:
            probe.touch()
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """A claim's content; empty while it is being written, or if it is gone."""
    try:
        claim = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return claim if isinstance(claim, dict) and {"owner", "machine", "pid", "birth"} <= set(claim) else {}


def _this_process() -> dict[str, Any]:
    return {"machine": _machine(), "pid": os.getpid(), "birth": _birth(os.getpid())}


def _machine() -> str:
    """A name for the set of processes that this one can see."""
    try:
        return f"{platform.node()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{platform.node()} {os.getpid()}"  # process ids cannot be compared here


def _birth(pid: int) -> str | None:
    """When a process started, in the kernel's own count, or None if there is no such process any more."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in "ZX" else fields[19]
