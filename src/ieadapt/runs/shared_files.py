"""Files of a folder that several processes fill: whole or not there, fingerprinted, locked while they are made."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ieadapt.errors import FailureError
from ieadapt.files import write_atomically

REJECTED = "rejected"


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
        raise StorageError(
            "cannot write a file of the study",
            got=error.strerror or error,
            where=path,
            remedy="make room; the study goes on with --resume",
        ) from error


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
            try:
                folder.mkdir(parents=True, exist_ok=True)
                locks.enter_context(FileLock(path).acquire(blocking=False))
            except Timeout:
                continue
            except OSError as error:
                raise StorageError("cannot lock work in the study", got=error.strerror or error, where=path) from error
            locks.callback(path.unlink, missing_ok=True)
            free.append(key)
        yield free


def locked_keys(folder: Path) -> list[str]:
    """Pieces of work that a running process has locked; lock files that dead processes left are removed."""
    keys = [path.stem for path in sorted(folder.glob("*.lock"))]
    with locked(folder, keys) as free:
        return [key for key in keys if key not in free]
