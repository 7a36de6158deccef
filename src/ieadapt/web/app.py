"""What all pages share: the folder of runs, the line of jobs, the one model, and what was asked of each job."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ieadapt.errors import UsageError
from ieadapt.runs.folder import Stages
from ieadapt.runs.pipelines import Load
from ieadapt.web.fields import Field, run_field
from ieadapt.web.jobs import JobQueue, Status
from ieadapt.web.shelf import ModelShelf
from ieadapt.web.wording import NO_LABELS, places_of_this_machine, without_places
from ieadapt.web.workspace import Workspace

Run = Callable[[Any, Path, Stages, Load], Any]
"""A function of `ieadapt.runs`: what is asked, the run folder, where stages are told, where the model comes from."""


@dataclass(frozen=True)
class Seen:
    """A run as a page sees it.

    Attributes:
        name: of its folder.
        status: how far it is.
        workflow: what it does.
        config: what it was asked, as its record says it.
        record: the record of its folder; empty where nothing was written yet.
    """

    name: str
    status: Status
    workflow: str
    config: Mapping[str, Any]
    record: Mapping[str, Any] = field(default_factory=dict)


class App:
    """The state of the web app.

    Args:
        workspace: where runs are kept.
        models: names that a page may load; the first one is preselected.
    """

    def __init__(self, workspace: Workspace, models: tuple[str, ...]) -> None:
        self.workspace, self.models = workspace, models
        self.queue, self.shelf = JobQueue(), ModelShelf()
        self._asked: dict[str, tuple[str, Mapping[str, Any]]] = {}

    @functools.cached_property
    def places(self) -> tuple[str, ...]:
        """Folders of this machine that no page names."""
        return places_of_this_machine(self.workspace.root)

    def start(self, workflow: str, run: Run, asked: Any, labels: Mapping[str, str] = NO_LABELS) -> str:
        """Put a run into the line; returns its name.

        Args:
            workflow: what it does.
            run: carries it out.
            asked: its config.
            labels: of the form that asks for it, so that errors name its fields.

        Raises:
            UsageError: the line is full, or the memory will not do for the model.
        """
        if hasattr(asked, "hardware"):
            self.shelf.check(asked.hardware, asked.model)
        name = self.workspace.new_name(workflow)
        out = self.workspace.folder(name)
        self.queue.submit(name, lambda stages: run(asked, out, stages, self.shelf.load), labels)
        self._asked[name] = workflow, dataclasses.asdict(asked)
        return name

    def see(self, name: str) -> Seen:
        """A run by its name: from the line of jobs, or from its folder if it is older than this server.

        Raises:
            UsageError: there is no such run.
        """
        status = self.queue.status(name)
        try:
            record = self.workspace.record(name)
        except UsageError:
            if status is None or name not in self._asked:
                raise
            workflow, config = self._asked[name]
            return Seen(name, status, workflow, config)
        return self.seen(name, record)

    def seen(self, name: str, record: Mapping[str, Any]) -> Seen:
        """A run whose record is at hand."""
        status = self.queue.status(name) or _status_of(record)
        return Seen(name, status, record["workflow"], record["config"], record)

    def spoken(self, text: str) -> str:
        """A text without the folders of this machine."""
        return without_places(text, self.places)

    def profile_field(self) -> Field:
        """A measure run whose EP chooses layers."""
        info = "A measured run, where layers are chosen by EP; without one it is measured first"
        return run_field("profile", "Measured run", info, self.workspace.profiles, self.workspace.folder)

    def close(self) -> None:
        """Stop all jobs and let the model go."""
        self.queue.close()
        self.shelf.clear()


def _status_of(record: Mapping[str, Any]) -> Status:
    """The state of a run that no job of this server carries out."""
    if record["status"] == "complete":
        return Status("complete")
    if record["status"] == "partial" and "stopped" in str(record.get("error")):
        return Status("stopped", words="Stopped. What was finished by then is kept.")
    if record["status"] == "partial":
        return Status("failed", words="This run failed. The log of the server that ran it says why.")
    return Status("stopped", words="The server ended while this run was going on.")
