"""What all pages share: the folder of runs, the queue of jobs, the one model, and the config of each job."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DiffusionPipeline

from ieadapt.errors import UsageError
from ieadapt.models import check_memory, loaded_size
from ieadapt.runs.settings import Hardware
from ieadapt.web.jobs import STOPPED, JobQueue, Status
from ieadapt.web.rendering import NO_LABELS, folders_of_this_machine, hide_folders
from ieadapt.web.workspace import Workspace

Run = Callable[..., Any]
"""A run of `ieadapt.tasks`: called with its config, its folder, `stages` and `load`."""


@dataclass(frozen=True)
class RunView:
    """A run as a page sees it.

    Attributes:
        name: of its folder.
        status: how far it is.
        workflow: what it does.
        config: the settings that its record holds.
        record: the record of its folder; empty where nothing was written yet.
        repeat: what repeats it, by label, without the folders of this machine.
    """

    name: str
    status: Status
    workflow: str
    config: Mapping[str, Any]
    record: Mapping[str, Any] = field(default_factory=dict)
    repeat: Mapping[str, str] = field(default_factory=dict)

    @property
    def results(self) -> Sequence[str]:
        """What came out, in sentences; records of earlier versions hold them as `found`."""
        return self.record.get("results") or self.record.get("found") or ()


class ModelCache:
    """Holds the pipeline that was loaded last, and lets it go before another one is loaded.

    Only the thread of the jobs uses it.

    Example:
        >>> cache = ModelCache()
        >>> cache.load(Hardware(), "scenes") is cache.load(Hardware(), "scenes")
        True
    """

    def __init__(self) -> None:
        self._key: tuple[Hardware, str] | None = None
        self._pipe: DiffusionPipeline | None = None

    def load(self, hardware: Hardware, model: str) -> DiffusionPipeline:
        """The pipeline, from memory if it is the one there.

        Raises:
            UsageError: it cannot be loaded, or the memory will not do for it.
        """
        if self._pipe is None or self._key != (hardware, model):
            self.clear()
            self._pipe, self._key = hardware.load(model), (hardware, model)
        return self._pipe

    def check(self, hardware: Hardware, model: str) -> None:
        """Refuse a model for which the memory will not do, before its job waits in the queue.

        Raises:
            UsageError: as `ieadapt.models.check_memory` does.
        """
        if self._key != (hardware, model):
            spare = loaded_size(self._key[1], **vars(self._key[0])) if self._key else 0
            check_memory(model, **vars(hardware), spare=spare)

    def clear(self) -> None:
        """Let the model go."""
        self._key = self._pipe = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class App:
    """The state of the web app.

    Args:
        workspace: where runs are kept.
        models: names that a page may load; the first one is preselected.
    """

    def __init__(self, workspace: Workspace, models: tuple[str, ...]) -> None:
        self.workspace, self.models = workspace, models
        self.queue, self.cache = JobQueue(), ModelCache()
        self._requests: dict[str, tuple[str, Mapping[str, Any]]] = {}

    def start(self, workflow: str, run: Run, config: Any, labels: Mapping[str, str] = NO_LABELS) -> str:
        """Put a run into the queue; returns its name.

        Args:
            workflow: what it does.
            run: carries it out.
            config: its settings.
            labels: of the form that asks for it, so that errors name its fields.

        Raises:
            UsageError: the queue is full, or the memory will not do for the model.
        """
        if hasattr(config, "hardware"):
            self.cache.check(config.hardware, config.model)
        name = self.workspace.new_name(workflow)
        out = self.workspace.folder(name)
        self.queue.submit(name, lambda stages: run(config, out, stages=stages, load=self.cache.load), labels)
        self._requests[name] = workflow, dataclasses.asdict(config)
        return name

    def view(self, name: str) -> RunView:
        """A run by its name: from the queue of jobs, or from its folder if it is older than this server.

        Raises:
            UsageError: there is no such run.
        """
        status = self.queue.status(name)
        try:
            return self.view_record(name, self.workspace.record(name))
        except UsageError:
            if status is None or name not in self._requests:
                raise
            return RunView(name, status, *self._requests[name])

    def view_record(self, name: str, record: Mapping[str, Any]) -> RunView:
        """A run whose record is at hand."""
        status = self.queue.status(name) or _status_of(record)
        lines = {"Command line": record.get("command"), "Python": (record.get("repeat") or {}).get("Python")}
        repeat = {label: self.hide_folders(text) for label, text in lines.items() if text}
        return RunView(name, status, record["workflow"], record["config"], record, repeat)

    def hide_folders(self, text: str) -> str:
        """A text without the folders of this machine."""
        return hide_folders(text, folders_of_this_machine(self.workspace.root))

    def close(self) -> None:
        """Stop all jobs and let the model go."""
        self.queue.close()
        self.cache.clear()


def _status_of(record: Mapping[str, Any]) -> Status:
    """The state of a run that no job of this server carries out."""
    if record["status"] == "complete":
        return Status("complete")
    if record["status"] == "running":
        return Status("stopped", message="The server ended while this run was going on.")
    if "stopped" in str(record.get("error")):
        return STOPPED
    return Status("failed", message="This run failed. The log of the server that ran it says why.")
