"""The app's own folder: runs by name, and the files of a run that may be shown. No page reads anything else."""

from __future__ import annotations

import datetime
import json
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ieadapt.errors import UsageError, raised_as
from ieadapt.files import difference, file_inside, fits
from ieadapt.runs.folder import CONFIG, read_run

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,119}")
_SHOWN = {
    "command": str | None,
    "started": str | None,
    "seconds": float | int | None,
    "results": list[str] | None,
    "found": list[str] | None,  # the results, in records of earlier versions
    "sites": list[str] | None,
    "repeat": dict[str, str] | None,
}
"""What the pages show of a record beside what every record holds, and of which type it must be for that."""


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
        problem, remedy = "the folder of the web app cannot be written", "name another --root"
        with raised_as(UsageError, problem, OSError, where=self.root, remedy=remedy):
            self.root.mkdir(parents=True, exist_ok=True)
            for folder in (self.uploads, self.incoming, self.inversions):
                folder.mkdir(exist_ok=True)
                folder.chmod(0o700)  # whatever the umask, and where an earlier version has made it

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
        try:
            record = read_run(folder)
            json.dumps(record, ensure_ascii=False).encode()  # half a character (\ud800) fits into JSON and into no page
        except (RuntimeError, UnicodeEncodeError) as error:  # endless nesting, a loop of links
            raise UsageError("the record of this run cannot be shown", got=type(error).__name__) from error
        odd = difference(record, _SHOWN, optional=tuple(_SHOWN))
        if not odd and not 0 <= (record.get("seconds") or 0) < 1e12:  # NaN too is refused
            odd = "'seconds' out of range"
        if odd:
            raise UsageError("the record of this run cannot be shown", got=odd)
        return record

    def file(self, name: str, path: str) -> Path:
        """A file of a run that its record lists.

        Raises:
            UsageError: no such run, or a file that it does not list.
        """
        if path not in self.files(name):
            raise UsageError("the run has no such file", got=repr(path))
        return self.folder(name) / path

    def files(self, name: str) -> list[str]:
        """The files of a run that are there and in its folder, its record first."""
        folder = self.folder(name)
        listed = dict.fromkeys([CONFIG, *self.record(name)["files"]])
        return [path for path in listed if _is_inside(folder, path)]

    def scan(self) -> tuple[list[tuple[str, dict[str, Any]]], list[tuple[str, UsageError]]]:
        """Name and record of every run, the latest first; and of other folders that look like runs what is wrong."""
        runs, odd = [], []
        for folder in self.root.iterdir() if self.root.is_dir() else ():
            if _NAME.fullmatch(folder.name) and (folder / CONFIG).is_file():
                try:
                    runs.append((folder.name, self.record(folder.name)))
                except UsageError as error:
                    odd.append((folder.name, error))
        runs.sort(key=lambda run: (run[1].get("started") or "", run[0]), reverse=True)
        return runs, sorted(odd, key=lambda each: each[0])

    def runs(self) -> list[tuple[str, dict[str, Any]]]:
        """Name and record of every run, the latest first."""
        return self.scan()[0]

    def complete(self, workflow: str) -> list[tuple[str, dict[str, Any]]]:
        """Name and record of every finished run of a workflow, the latest first."""
        sought = (workflow, "complete")
        return [(name, record) for name, record in self.runs() if (record["workflow"], record["status"]) == sought]

    def profiles(self) -> list[tuple[str, str]]:
        """Label and name of every finished measure run, the latest first."""
        return [(label_of_run(name, record), name) for name, record in self.complete("measure")]


def _is_inside(folder: Path, path: str) -> bool:
    """Whether a file that a record lists, or the record, is there, in the folder itself: links may lead out of it."""
    try:
        return file_inside(folder, path).is_file()
    except (UsageError, OSError, RuntimeError, ValueError):  # outside, a loop of links, a name that is no name
        return False


def label_of_run(name: str, record: Mapping[str, Any]) -> str:
    """A run in a list of choices: what it shows, and when it was made.

    Example:
        >>> record = {"config": {"model": "scenes", "prompts": ["a red ball"]}, "started": "2026-01-02T03:04:05"}
        >>> label_of_run("a", record)
        'a red ball · scenes, 2026-01-02 03:04'
    """
    config = record["config"]
    prompts = config.get("prompts")
    first, *others = prompts if prompts and fits(prompts, list[str]) else [name]
    shown = first if len(first) <= 48 else f"{first[:47]}…"
    more = f" and {len(others)} more" if others else ""
    when = str(record.get("started", ""))[:16].replace("T", " ")
    return f"{shown}{more} · {config.get('model', record.get('workflow', ''))}, {when}"
