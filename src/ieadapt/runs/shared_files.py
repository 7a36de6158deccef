"""Files of a folder that several processes fill: whole or not there, fingerprinted, locked while they are made."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ieadapt.errors import FailureError, UsageError, raised_as, reason_of
from ieadapt.files import read_record, record_text, sha256_of, write_atomically

REJECTED = "rejected"
WRITTEN = "written"
"""Folder of the records of what was written, in the folder of the work."""
_SCHEMA = {"sha256": dict[str, str], "notes": list[str]}


class StorageError(FailureError):
    """The study's folder cannot be written: the study stops, and what is in the folder stays as it was."""


def write_whole(path: Path, content: bytes, *, put: Callable[[Path, Path], object] = os.replace) -> None:
    """Write a file so that a reader, also after a crash, finds all of it or none.

    Args:
        path: the file.
        content: all of it.
        put: as for `ieadapt.files.write_atomically`.

    Raises:
        FileExistsError: with `os.link`, there is a file already.
        StorageError: the disk is full or the folder cannot be written.
    """
    try:
        write_atomically(path, content, put=put, synced=True)
        folder = os.open(path.parent, os.O_RDONLY)  # a new name is safe only when its folder is on the disk too
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        raise
    except OSError as error:
        problem, remedy = "cannot write a file of the study", "make room; the study goes on with --resume"
        raise StorageError(problem, got=reason_of(error), where=path, remedy=remedy) from error


def set_aside(path: Path, folder: Path) -> None:
    """Move a file that cannot be trusted into the study's `rejected` folder."""
    target = folder / REJECTED / f"{path.name}.{secrets.token_hex(4)}"
    target.parent.mkdir(exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.replace(target)


def fingerprint(value: Mapping[str, Any]) -> str:
    """The hash of a mapping's content, 32 hexadecimal digits; absent entries do not count, nor does the order.

    Example:
        >>> fingerprint({"b": 1, "a": None}) == fingerprint({"b": 1})
        True
    """
    present = {name: entry for name, entry in value.items() if entry is not None}
    content = json.dumps(present, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class FileRecord:
    """What was written of a piece of work: the content hash of its files, so that damaged ones are made again.

    Attributes:
        folder: of the work.
        key: of the piece.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> record = FileRecord(folder, "a")
        >>> record.write({folder / "clip.mp4": b"1"}, notes=["damaged"])
        >>> record.holds(folder / "clip.mp4"), record.notes
        (True, ['damaged'])
        >>> _ = (folder / "clip.mp4").write_bytes(b"2")
        >>> record.holds(folder / "clip.mp4")
        False
    """

    folder: Path
    key: str

    @property
    def notes(self) -> list[str]:
        """What was noted of the piece."""
        notes: list[str] = self._read()["notes"]
        return notes

    def holds(self, *paths: Path) -> bool:
        """Whether these files are there as they were written."""
        hashes = self._read()["sha256"]
        return all(path.is_file() and hashes.get(self._name(path)) == sha256_of(path) for path in paths)

    def write(self, contents: Mapping[Path, bytes], notes: Iterable[str] = ()) -> None:
        """Write files, and then the record of them, each whole or not at all.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        hashes = self._read()["sha256"]
        for path, content in contents.items():
            write_whole(path, content)
            hashes[self._name(path)] = hashlib.sha256(content).hexdigest()
        write_whole(self._path, record_text({"sha256": hashes, "notes": list(notes)}).encode())

    @property
    def _path(self) -> Path:
        return self.folder / WRITTEN / f"{self.key}.json"

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.folder))

    def _read(self) -> dict[str, Any]:
        try:
            return read_record(self._path, _SCHEMA, what="the record of written files", remedy="--resume")
        except (FileNotFoundError, UsageError):  # what no sound record speaks for is made again
            return {"sha256": {}, "notes": []}


@contextlib.contextmanager
def locked(folder: Path, keys: Iterable[str]) -> Iterator[list[str]]:
    """Lock pieces of work while the block is open, so that no other process does them; gives those that were free.

    The operating system frees the locks of a process that dies. A lock that is given back takes its file along: in that
    instant two processes may lock the same piece, which is then done twice, with the same result.

    Args:
        folder: of the lock files.
        keys: names of the pieces.

    Raises:
        StorageError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with locked(folder, ["a"]) as one, locked(folder, ["a", "b"]) as other:
        ...     print(one, other, locked_keys(folder))
        ['a'] ['b'] ['a', 'b']
    """
    with contextlib.ExitStack() as locks:
        free = []
        for key in keys:
            path = folder / f"{key}.lock"
            with raised_as(StorageError, "cannot lock work in the study", OSError, where=path):
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    locks.enter_context(FileLock(path).acquire(blocking=False))
                except Timeout:
                    continue
            locks.callback(path.unlink, missing_ok=True)
            free.append(key)
        yield free


def locked_keys(folder: Path) -> list[str]:
    """Pieces of work that a running process has locked; lock files that dead processes left are removed."""
    keys = [path.stem for path in sorted(folder.glob("*.lock"))]
    with locked(folder, keys) as free:
        return [key for key in keys if key not in free]
