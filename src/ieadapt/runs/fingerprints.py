"""Files that are whole or not there, and the fingerprints by which they are known."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

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
        _sync_folder(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise StorageError(
            "cannot write a file of the study",
            got=error.strerror or error,
            where=path,
            remedy="make room; the study goes on with --resume",
        ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_aside(path: Path, folder: Path) -> None:
    """Move a file that cannot be trusted into the study's `rejected` folder."""
    target = folder / REJECTED / f"{path.name}.{secrets.token_hex(4)}"
    target.parent.mkdir(exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.replace(target)


def canonical(value: Mapping[str, Any]) -> bytes:
    """A mapping as JSON in one way only: sorted, without spaces, without absent entries.

    Example:
        >>> canonical({"b": 1, "a": None, "c": 0.5})
        b'{"b":1,"c":0.5}'
    """
    present = {name: entry for name, entry in value.items() if entry is not None}
    return json.dumps(present, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def fingerprint(value: Mapping[str, Any]) -> str:
    """The hash of a mapping's content, 32 hexadecimal digits."""
    return hashlib.sha256(canonical(value)).hexdigest()[:32]
