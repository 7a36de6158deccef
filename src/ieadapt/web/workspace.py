"""The app's own folder: runs by name, and the files of a run that may be shown. No page reads anything else."""

from __future__ import annotations

import datetime
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ieadapt.errors import UsageError
from ieadapt.runs.folder import CONFIG, read_run

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,119}")


@dataclass(frozen=True)
class Workspace:
    """A folder of run folders.

    Attributes:
        root: made when the app starts.
    """

    root: Path

    @property
    def uploads(self) -> Path:
        """Where clean clips lie."""
        return self.root / "uploads"

    @property
    def inversions(self) -> Path:
        """Where inversions are kept."""
        return self.root / "inversions"

    @property
    def incoming(self) -> Path:
        """Where uploads lie until they are decoded."""
        return self.root / "incoming"

    def empty_incoming(self) -> None:
        """Remove what an earlier server has left of uploads, or this one."""
        shutil.rmtree(self.incoming, ignore_errors=True)

    def prepare(self) -> None:
        """Make the folders; nobody else on the machine can look into those of uploads.

        Raises:
            UsageError: it cannot be made.
        """
        self.empty_incoming()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for folder in (self.uploads, self.incoming, self.inversions):
                folder.mkdir(exist_ok=True)
                folder.chmod(0o700)  # whatever the umask, and where an earlier version has made it
        except OSError as error:
            raise UsageError(
                "the folder of the web app cannot be written",
                got=error.strerror or error,
                where=self.root,
                remedy="name another --root",
            ) from error

    def new_name(self, workflow: str) -> str:
        """A name that no run has: workflow, time in UTC, and four random letters."""
        return f"{workflow}-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"

    def folder(self, name: str) -> Path:
        """The folder of a run, whether or not it is there.

        Raises:
            UsageError: the name leads out of the root, or is none.

        Example:
            >>> Workspace(Path("runs")).folder("../etc")
            Traceback (most recent call last):
            ...
            ieadapt.errors.UsageError: this is no name of a run; got '../etc'
        """
        folder = self.root / name
        if not _NAME.fullmatch(name) or folder.resolve().parent != self.root.resolve():
            raise UsageError("this is no name of a run", got=repr(name))
        return folder

    def record(self, name: str) -> dict[str, Any]:
        """The record of a run.

        Raises:
            UsageError: there is no such run.
        """
        folder = self.folder(name)
        if not (folder / CONFIG).is_file():
            raise UsageError("there is no such run", got=repr(name), remedy="the page of runs lists them")
        return read_run(folder)

    def file(self, name: str, path: str) -> Path:
        """A file of a run that its record lists.

        Raises:
            UsageError: no such run, or a file that it does not list.
        """
        folder = self.folder(name)
        file = folder / path
        listed = path == CONFIG or path in self.record(name).get("files", [])
        inside = file.resolve().is_relative_to(folder.resolve())
        if not (listed and inside and file.is_file()):
            raise UsageError("the run has no such file", got=repr(path))
        return file

    def files(self, name: str) -> list[str]:
        """The files of a run that are there, its record first."""
        folder = self.folder(name)
        listed = [CONFIG, *self.record(name).get("files", [])]
        return [path for path in listed if (folder / path).is_file()]

    def runs(self) -> list[tuple[str, dict[str, Any]]]:
        """Name and record of every run, the latest first."""
        found = list(self._readable())
        return sorted(found, key=lambda run: (str(run[1].get("started", "")), run[0]), reverse=True)

    def complete(self, workflow: str) -> list[str]:
        """Names of the finished runs of a workflow, the latest first."""
        return [
            name for name, record in self.runs() if (record["workflow"], record["status"]) == (workflow, "complete")
        ]

    def profiles(self) -> list[tuple[str, str]]:
        """Label and name of every finished measure run, the latest first."""
        return [(spoken(name, self.record(name)), name) for name in self.complete("measure")]

    def _readable(self) -> Iterator[tuple[str, dict[str, Any]]]:
        if not self.root.is_dir():
            return
        for folder in self.root.iterdir():
            try:
                record = self.record(folder.name)
            except UsageError:
                continue
            if {"config", "status", "files"} <= set(record):  # a study's record is of another form
                yield folder.name, record


def spoken(name: str, record: Mapping[str, Any]) -> str:
    """A run in a list of choices: what it shows, and when it was made.

    Example:
        >>> spoken("a", {"config": {"model": "shapes", "prompts": ["a red ball"]}, "started": "2026-01-02T03:04:05"})
        'a red ball · shapes, 2026-01-02 03:04'
    """
    config = record["config"]
    prompts = config.get("prompts") or [name]
    first = str(prompts[0]) if len(str(prompts[0])) <= 48 else f"{str(prompts[0])[:47]}…"
    more = f" and {len(prompts) - 1} more" if len(prompts) > 1 else ""
    when = str(record.get("started", ""))[:16].replace("T", " ")
    return f"{first}{more} · {config.get('model', record.get('workflow', ''))}, {when}"
