"""Files that are whole or not there, and JSON records that a reader can trust: checked field by field, with a digest.

A record's digest covers all of its content, and a run's record holds the content hash of every file of the run, so a
byte that was changed, cut off or swapped is refused by name instead of being taken for a result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ieadapt.errors import UsageError

DIGEST, METHOD = "digest", "digest_method"
"""Both or neither are in a record, so that a damaged name of one does not make it a record without a digest."""
_PARTIAL = re.compile(r".+\.[0-9a-f]{8}\.part")
_NAMES = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}

Schema = Mapping[str, Any]
"""Field -> its type: what `typing.get_type_hints` gives for a dataclass."""


def write_atomically(
    path: Path, content: bytes, *, put: Callable[[Path, Path], object] = os.replace, synced: bool = False
) -> None:
    """Write a file so that a reader finds all of it or none.

    Args:
        path: the file; its folder is made.
        content: all of it.
        put: how the finished file gets its name: `os.replace`, or `os.link` where an earlier one must stay.
        synced: also after a crash of the machine.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing is left behind.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "a", "notes.txt")
        >>> write_atomically(path, b"1")
        >>> path.read_bytes(), len(list(path.parent.iterdir()))
        (b'1', 1)
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as file:
            file.write(content)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        put(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def is_leftover(path: Path) -> bool:
    """Whether a file's name is that of one which `write_atomically` was about to write."""
    return _PARTIAL.fullmatch(path.name) is not None


def sweep(folder: Path, older_than: float = 0.0) -> None:
    """Remove what killed processes left of files that they were writing, if nobody has written to it for so long."""
    for path in folder.rglob("*.part"):
        with contextlib.suppress(OSError):
            if is_leftover(path) and time.time() - path.lstat().st_mtime >= older_than:
                path.unlink()


def sha256_of(path: Path) -> str:
    """The content hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_inside(folder: Path, name: str) -> Path:
    """A file that a record names, which must lie in the record's folder.

    Raises:
        UsageError: the name is absolute, goes up, or leads out through a link.

    Example:
        >>> file_inside(Path("runs/a"), "../b/config.json")
        Traceback (most recent call last):
        ...
        ieadapt.errors.UsageError: a record names a file outside its folder; got '../b/config.json'; in runs/a; ...
    """
    pure = PurePath(name)
    inside = "\0" not in name and (folder / name).resolve().is_relative_to(folder.resolve())
    if pure.is_absolute() or ".." in pure.parts or not inside:
        raise UsageError(
            "a record names a file outside its folder",
            got=repr(name),
            where=folder,
            remedy="use a folder as the run left it; a copy must hold the files themselves, no links to them",
        )
    return folder / name


def record_text(content: Mapping[str, Any]) -> str:
    """A record as JSON, with the digest by which `read_record` knows that all of it is there.

    Example:
        >>> sorted(json.loads(record_text({"steps": 8})))
        ['digest', 'digest_method', 'steps']
    """
    plain = as_read({name: value for name, value in content.items() if name not in (DIGEST, METHOD)})
    return json.dumps(plain | {DIGEST: _digest(plain), METHOD: "sha256"}, indent=1, ensure_ascii=False) + "\n"


def as_read(content: Mapping[str, Any]) -> dict[str, Any]:
    """A record as it is read back from JSON: tuples as lists, paths as texts."""
    plain: dict[str, Any] = json.loads(json.dumps(content, default=str))
    return plain


def read_record(
    path: Path, schema: Schema, *, what: str, remedy: str, optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A JSON record with every field that is read from it later, each of its type; without its digest.

    Records of versions that wrote no digest are read too.

    Args:
        path: the file.
        schema: the fields that must be there. Others are left as they are.
        what: the record, in words.
        remedy: what to do where it is damaged.
        optional: fields of the schema that may be missing.

    Raises:
        FileNotFoundError: there is no such file.
        UsageError: it is no JSON object, lacks a field, holds one of another type, or was changed.
    """
    reason = ""
    content: Any = None
    try:
        if path.exists() and not path.is_file():
            reason = "no ordinary file"
        else:
            content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or f"no JSON: {' '.join(str(error).split())[:120]}"
    reason = reason or difference(content, schema, optional)
    if not reason:
        seal = content.pop(DIGEST, None), content.pop(METHOD, None)
        reason = "" if seal in ((None, None), (_digest(content), "sha256")) else "other content than was written"
    if reason:
        raise UsageError(f"{what} cannot be read", got=reason, where=path, remedy=remedy)
    return dict(content)


def _digest(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def difference(content: Any, schema: Schema, optional: tuple[str, ...] = ()) -> str:
    """How a record differs from its schema; empty where it does not."""
    if not isinstance(content, dict):
        return f"{_named(content)} instead of an object"
    for name, kind in schema.items():
        if name not in content and name not in optional:
            return f"no {name!r} in it"
        if name in content and not fits(content[name], kind):
            return f"{_named(content[name])} as {name!r}"
    return ""


def _named(value: Any) -> str:
    return "nothing" if value is None else f"{_NAMES.get(type(value), 'something else')} of another form"


def fits(value: Any, kind: Any) -> bool:
    """Whether a value read from JSON is of a type; a dataclass stands for an object with its fields.

    Example:
        >>> fits(["a", "b"], list[str]), fits(["a", 1], list[str]), fits(3, int | None), fits(True, int)
        (True, False, True, False)
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin in (Union, UnionType):
        return any(fits(value, each) for each in arguments)
    if origin in (list, tuple):
        return isinstance(value, list) and all(fits(each, arguments[0]) for each in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(fits(each, arguments[1]) for each in value.values())
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return isinstance(value, dict) and value.keys() == hints.keys() and not difference(value, hints)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))
