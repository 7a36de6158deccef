"""Run folders: one folder per run, whose `config.json` says what was asked, with what, and how far it came."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ieadapt.errors import FailureError, UsageError
from ieadapt.runs.environment import versions

CONFIG = "config.json"
FORMAT = 1


@dataclass
class RunFolder:
    """An open run: write its files through this, so that none is ever half there.

    Attributes:
        path: the folder.
        record: the content of `config.json`; `status` is "running", "complete" or "partial".
    """

    path: Path
    record: dict[str, Any] = field(default_factory=dict)

    def note(self, **fields: Any) -> None:
        """Add fields to the record and write it."""
        self.record |= fields
        self._replace(CONFIG, json.dumps(self.record, indent=1, ensure_ascii=False, default=str).encode())

    def write(self, name: str, content: bytes | str) -> Path:
        """Write one file of the run, whole or not at all, and list it in the record.

        Raises:
            FailureError: the disk is full or the folder cannot be written any more.
        """
        path = self._replace(name, content.encode() if isinstance(content, str) else content)
        self.add(name)
        return path

    def add(self, name: str) -> None:
        """List a file or folder that something else has written into the run."""
        if name not in self.record["files"]:
            self.note(files=[*self.record["files"], name])

    def _replace(self, name: str, content: bytes) -> Path:
        path = self.path / name
        partial = path.with_name(f"{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise FailureError("cannot write a file of the run", got=error.strerror or error, where=path) from error
        return path


@contextlib.contextmanager
def open_run(
    out: str | Path,
    workflow: str,
    config: Mapping[str, Any],
    *,
    command: str = "",
    overwrite: bool = False,
    resume: bool = False,
) -> Iterator[RunFolder]:
    """Open a run folder; on leaving it is marked complete, or partial with the reason if something was raised.

    Args:
        out: the folder; made if it is not there.
        workflow: "measure", "enhance", "edit", "demo".
        config: what was asked, as it can be written to JSON.
        command: the command line that repeats the run.
        overwrite: replace an earlier run in the folder; files that no run has written are never touched.
        resume: go on with an earlier run of this workflow in the folder; its files are kept.

    Raises:
        UsageError: the folder cannot be written, holds something that is no run, or holds an earlier run.

    Example:
        >>> import tempfile
        >>> with open_run(tempfile.mkdtemp(), "measure", {"seed": 0}) as run:
        ...     _ = run.write("notes.txt", "done")
        >>> read_run(run.path)["status"]
        'complete'
    """
    run = RunFolder(Path(out).expanduser())
    kept = _prepare(run.path, resumed=workflow if resume else None, overwrite=overwrite)
    started = datetime.datetime.now(datetime.UTC)
    run.record = {"format": FORMAT, "workflow": workflow, "status": "running", "error": None, "command": command}
    run.record |= {"config": dict(config), "versions": versions(), "started": started.isoformat(timespec="seconds")}
    try:
        run.note(files=kept)
    except FailureError as error:
        raise _unwritable(run.path, error.__cause__ or error) from error
    try:
        yield run
    except BaseException as error:
        _mark_partial(run, error, started)
        raise
    run.note(status="complete", **_ending(started))


def read_run(folder: str | Path) -> dict[str, Any]:
    """The record of a run folder.

    Raises:
        UsageError: the folder holds no run, or its record cannot be read.
    """
    path = Path(folder).expanduser() / CONFIG
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UsageError(f"no run in this folder: {CONFIG} is missing", where=Path(folder)) from error
    except (OSError, ValueError) as error:
        raise UsageError("the record of this run cannot be read", got=error, where=path) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT or "workflow" not in record:
        raise UsageError("this is no record of a run", expected=f"an object with format {FORMAT}", where=path)
    return record


def default_folder(workflow: str) -> Path:
    """A new folder under `runs/`, named by the workflow and the time in UTC."""
    return Path("runs") / f"{workflow}-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}"


def _prepare(path: Path, *, resumed: str | None, overwrite: bool) -> list[str]:
    """Make the folder ready; returns the files of the earlier run of the workflow that is resumed."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        empty = next(path.iterdir(), None) is None
    except OSError as error:
        raise _unwritable(path, error) from error
    if empty:
        return []
    if not (path / CONFIG).is_file():
        raise UsageError("the output folder holds files of something else", where=path, remedy="name another --out")
    earlier = read_run(path)
    if resumed == earlier["workflow"]:
        return [name for name in earlier.get("files", []) if (path / name).is_file()]
    if not overwrite:
        raise UsageError(
            f"the output folder holds a {earlier['status']} {earlier['workflow']} run of {earlier['started']}",
            where=path,
            remedy="name another --out, or add --overwrite",
        )
    _remove_files(path, earlier.get("files", []))
    return []


def _remove_files(path: Path, names: list[str]) -> None:
    """Remove what an earlier run wrote; names that lead out of the folder are left alone."""
    root = path.resolve()
    for name in names:
        file = (root / name).resolve()
        if file.is_file() and file.is_relative_to(root):
            file.unlink()


def _unwritable(path: Path, error: BaseException) -> UsageError:
    reason = getattr(error, "strerror", None) or error
    return UsageError("the output folder cannot be written", got=reason, where=path, remedy="name another --out")


def _mark_partial(run: RunFolder, error: BaseException, started: datetime.datetime) -> None:
    """Say in the record why the run ended; a run that was refused before it wrote anything leaves nothing behind."""
    with contextlib.suppress(FailureError, OSError):
        if isinstance(error, UsageError) and not run.record["files"]:
            (run.path / CONFIG).unlink()
            run.path.rmdir()
        else:
            run.note(status="partial", error=_reason(error), **_ending(started))


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "stopped by the user"
    return f"{type(error).__name__}: {error}"


def _ending(started: datetime.datetime) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC)
    return {"finished": now.isoformat(timespec="seconds"), "seconds": round((now - started).total_seconds(), 1)}
