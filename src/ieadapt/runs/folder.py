"""Run folders: one folder per run, whose `config.json` says what was requested, with what, and how far it came."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from ieadapt.errors import FailureError, IEAdaptError, IEAdaptWarning, UsageError, raised_as
from ieadapt.files import (
    as_read,
    file_inside,
    is_leftover,
    read_record,
    record_text,
    sha256_of,
    sweep,
    write_atomically,
)

CONFIG = "config.json"
FORMAT = 1
_SCHEMA = {
    "workflow": str,
    "status": Literal["running", "complete", "partial"],
    "config": dict[str, Any],
    "files": list[str],
    "sha256": dict[str, str],
    "started": str,
}
_SINCE_HASHES = ("sha256",)
"""Earlier versions wrote no content hashes."""
_PACKAGES = ("ieadapt", "torch", "diffusers", "transformers", "numpy")
UNWRITABLE = "the output folder cannot be written"
_REMEDY = "name another folder, or repeat the run; its videos can be read as a folder of their own"

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""
Item = TypeVar("Item")
Result = TypeVar("Result")


@runtime_checkable
class Stages(Protocol):
    """Called with the name of a stage that begins, and what it counts where its name does not say it."""

    def __call__(self, stage: str, counts: str = "step") -> Progress:
        """Where it is reported how far the stage is."""


def silent(stage: str, counts: str = "step") -> Progress:
    """Stages that nobody watches.

    Example:
        >>> silent("measuring")(1, 8)
    """
    return lambda done, total: None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute.

    Example:
        >>> sorted(versions())
        ['diffusers', 'ieadapt', 'numpy', 'python', 'torch', 'transformers']
    """
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _PACKAGES}}


@dataclass
class RunFolder:
    """An open run: write its files through this, so that none is ever half there.

    Attributes:
        path: the folder.
        record: the content of `config.json`; `status` is "running", "complete" or "partial", `sha256` holds the content
            hash of every file.
    """

    path: Path
    record: dict[str, Any] = field(default_factory=dict)

    def note(self, **fields: Any) -> None:
        """Add fields to the record and write it."""
        self.record |= fields
        self._replace(CONFIG, record_text(self.record).encode())

    def write(self, name: str, content: bytes | str) -> Path:
        """Write one file of the run, whole or not at all, and list it in the record.

        Raises:
            FailureError: the disk is full or the folder cannot be written any more.
        """
        data = content.encode() if isinstance(content, str) else content
        path = self._replace(name, data)
        self._list(name, hashlib.sha256(data).hexdigest())
        return path

    def add(self, name: str) -> None:
        """List a file that something else has written into the run."""
        self._list(name, sha256_of(self.path / name))

    def holds(self, *names: str) -> bool:
        """Whether the run has these files; those of an earlier run that were changed since are not among its files."""
        return set(names) <= set(self.record["files"])

    def _list(self, name: str, digest: str) -> None:
        files = list(dict.fromkeys([*self.record["files"], name]))
        self.note(files=files, sha256={**self.record.get("sha256", {}), name: digest})

    def _replace(self, name: str, content: bytes) -> Path:
        path = self.path / name
        with raised_as(FailureError, "cannot write a file of the run", OSError, where=path):
            write_atomically(path, content)
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
        config: what was requested, as it can be written to JSON. Where it holds a `request`, only a run of the same
            request is resumed.
        command: the command line that repeats the run.
        overwrite: replace an earlier run in the folder; files that no run has written are never touched.
        resume: go on with an earlier run of this workflow in the folder; its files are kept, but for those that are no
            longer what the run wrote.

    Raises:
        UsageError: the folder cannot be written, holds something that is no run, or holds an earlier run, or, to be
            resumed, one of another request.

    Example:
        >>> import tempfile
        >>> with open_run(tempfile.mkdtemp(), "measure", {"seed": 0}) as run:
        ...     _ = run.write("notes.txt", "done")
        >>> read_run(run.path)["status"]
        'complete'
    """
    run = RunFolder(Path(out).expanduser())
    resumed = {"workflow": workflow, "request": as_read(config).get("request")} if resume else {}
    kept = _prepare(run.path, resumed, overwrite=overwrite)
    started = datetime.datetime.now(datetime.UTC)
    run.record = {"format": FORMAT, "workflow": workflow, "status": "running", "error": None, "command": command}
    run.record |= {"config": dict(config), "versions": versions(), "started": started.isoformat(timespec="seconds")}
    try:
        run.note(files=list(kept), sha256=kept)
    except FailureError as error:
        raise UsageError(UNWRITABLE, got=error.got, where=run.path, remedy="name another --out") from error
    try:
        yield run
    except BaseException as error:
        _mark_partial(run, error, started)
        raise
    run.note(status="complete", **_ending(started))


def read_run(folder: str | Path) -> dict[str, Any]:
    """The record of a run folder.

    Raises:
        UsageError: the folder holds no run, its record is damaged, or it names files outside the folder.
    """
    path = Path(folder).expanduser() / CONFIG
    missing = f"no run in this folder: {CONFIG} is missing"
    with raised_as(UsageError, missing, FileNotFoundError, got=None, where=Path(folder)):
        record = read_record(path, _SCHEMA, what="the record of this run", remedy=_REMEDY, optional=_SINCE_HASHES)
    if record.get("format") != FORMAT:
        raise UsageError(
            "this is no record of a run", expected=f"format {FORMAT}", got=record.get("format"), where=path
        )
    for name in record["files"]:
        file_inside(path.parent, name)
    return record


def problem_of(folder: Path, record: Mapping[str, Any], name: str) -> str:
    """Why a file of a run is not what the run wrote; empty where it is, or where an earlier version wrote no hash."""
    path = file_inside(folder, name)
    if not path.is_file():
        return "gone"
    hashes = record.get("sha256")
    if hashes is not None and hashes.get(name) != sha256_of(path):
        return "not what the run wrote: its content hash is another"
    return ""


def default_folder(workflow: str) -> Path:
    """A new folder under `runs/`, named by the workflow and the time in UTC."""
    return Path("runs") / f"{workflow}-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}"


def display_path(path: str | Path) -> str:
    """A path as a reader would type it: relative to the working folder where it lies below that."""
    full = Path(path).resolve()
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(path)


def _prepare(path: Path, resumed: Mapping[str, Any], *, overwrite: bool) -> dict[str, str]:
    """Make the folder ready; returns the files that stay of the run that is resumed, with their content hashes."""
    with raised_as(UsageError, UNWRITABLE, OSError, where=path, remedy="name another --out"):
        path.mkdir(parents=True, exist_ok=True)
        empty = all(is_leftover(entry) for entry in path.iterdir())
    if not empty:
        if not (path / CONFIG).is_file():
            raise UsageError("the output folder holds files of something else", where=path, remedy="name another --out")
        earlier = read_run(path)
        if resumed.get("workflow") == earlier["workflow"]:
            if resumed["request"] != earlier["config"].get("request"):
                remedy = "name another --out, or repeat the same request"
                raise UsageError("the folder holds a run of another request", where=path, remedy=remedy)
            sweep(path)
            return _unchanged(path, earlier)
        if not overwrite:
            raise UsageError(
                f"the output folder holds a {earlier['status']} {earlier['workflow']} run of {earlier['started']}",
                where=path,
                remedy="name another --out, or add --overwrite",
            )
        for file in (path / name for name in earlier["files"]):  # all inside the folder: `read_run` checks that
            if file.is_file():
                file.unlink()
    sweep(path)
    return {}


def _unchanged(path: Path, earlier: Mapping[str, Any]) -> dict[str, str]:
    hashes: dict[str, str] = earlier.get("sha256", {})
    if not hashes and earlier["files"]:
        warnings.warn(
            f"the earlier run recorded no content hashes, so its files cannot be trusted and are made again; in {path}",
            IEAdaptWarning,
            stacklevel=5,
        )
    listed = [name for name in earlier["files"] if name in hashes]
    return {name: hashes[name] for name in listed if not problem_of(path, earlier, name)}


def _mark_partial(run: RunFolder, error: BaseException, started: datetime.datetime) -> None:
    """Say in the record why the run ended; a run that was refused before it wrote anything leaves nothing behind."""
    with contextlib.suppress(FailureError, OSError):
        if isinstance(error, UsageError) and not run.record["files"]:
            (run.path / CONFIG).unlink()
            run.path.rmdir()
        else:
            stopped = isinstance(error, KeyboardInterrupt)
            reason = "stopped by the user" if stopped else f"{type(error).__name__}: {error}"
            run.note(status="partial", error=reason, **_ending(started))


def _ending(started: datetime.datetime) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC)
    return {"finished": now.isoformat(timespec="seconds"), "seconds": round((now - started).total_seconds(), 1)}


class Batch:
    """The inputs of a run, tried one after another.

    Args:
        noun: what they are, such as "videos".
        say: gets a line for each input of several that is left out.

    Attributes:
        left_out: name of an input -> why it is left out.

    Example:
        >>> batch = Batch("numbers")
        >>> batch.each({"a": 1, "b": 2}, lambda number: 2 * number), batch.left_out
        ([2, 4], {})
    """

    def __init__(self, noun: str, say: Callable[[str], None] = lambda line: None) -> None:
        self._noun, self._say, self._total = noun, say, 0
        self.left_out: dict[str, str] = {}

    @property
    def notes(self) -> list[str]:
        """A line for each input that is left out."""
        return [f"left out: {name}: {reason}" for name, reason in self.left_out.items()]

    def each(self, inputs: Mapping[str, Item], act: Callable[[Item], Result]) -> list[Result]:
        """What comes of every input, by name, that is not left out already.

        Raises:
            IEAdaptError: every input was refused; the first reason.
        """
        self._total = max(self._total, len(inputs))
        results, first = list[Result](), None
        for name in [name for name in inputs if name not in self.left_out]:
            try:
                results.append(act(inputs[name]))
            except IEAdaptError as error:
                first = first or error
                self.left_out[name] = str(error)
                if len(inputs) > 1:
                    self._say(f"{name}: left out: {error}")
        if first is not None and not results:
            raise first
        return results

    def mark(self, run: RunFolder) -> None:
        """Say in the record of a finished run what it lacks."""
        if self.left_out:
            run.note(status="partial", error=str(self.shortfall()), left_out=self.left_out)

    def shortfall(self, remedy: str | None = None) -> FailureError:
        """The error that a command ends with, after all else was done."""
        name, reason = next(iter(self.left_out.items()))
        number = f"{len(self.left_out)} of {self._total}"
        return FailureError(f"{number} {self._noun} were left out", got=f"{name}: {reason}", remedy=remedy)
