"""A worker's bench: one loaded pipeline, one study folder, and the tasks that are done there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from ieadapt.attention import denoisers_of
from ieadapt.errors import FailureError, IEAdaptError, UsageError
from ieadapt.metrics import evaluate, select_metrics
from ieadapt.models import known_models
from ieadapt.runs.fingerprints import StorageError
from ieadapt.runs.leases import Claims
from ieadapt.runs.pipelines import Hardware
from ieadapt.tasks.study.cells import CellRow
from ieadapt.tasks.study.filmstrips import Strip, to_strip_frames, write_strip
from ieadapt.tasks.study.folder import StudyFolder
from ieadapt.tasks.study.setting import Setting
from ieadapt.tasks.study.videos import Pairs, Twin, make_perturbed, make_twins
from ieadapt.testbed import score


@dataclass(frozen=True)
class WorkPlan:
    """What the engines have to know of any work: where it lies and which model does it.

    Attributes:
        folder: of the work, which every worker must see.
        load_from: name, folder or hub id of the model.
        hardware: device and precision.
        threads: processor threads of a worker; None leaves them as they are.
    """

    folder: Path
    load_from: str
    hardware: Hardware
    threads: int | None = field(default=None, kw_only=True)

    def bench(self, owner: str | None = None, pipe: DiffusionPipeline | None = None) -> WorkBench:
        """A bench on which tasks of this work are done."""
        raise NotImplementedError


@runtime_checkable
class WorkBench(Protocol):
    """Where a worker does its tasks."""

    def open(self) -> AbstractContextManager[Any]:
        """Keep claims alive while the block is open; gives what tasks are run with."""
        ...


@dataclass(frozen=True)
class Plan(WorkPlan):
    """What a worker of a study has to know; small, and the same for every worker.

    Attributes:
        setting: what all cells share.
        prompts: in order.
        strips: how many prompts have frames kept for the figures.
    """

    setting: Setting
    prompts: tuple[str, ...]
    strips: int = 1

    def bench(self, owner: str | None = None, pipe: DiffusionPipeline | None = None) -> Bench:
        """A bench of the study."""
        return Bench(self, owner, pipe)


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        done: pieces of work that were done.
        elsewhere: pieces that another process has claimed.
        failed: reasons by key, for pieces that cannot be done.
    """

    done: int = 0
    elsewhere: int = 0
    failed: tuple[tuple[str, str], ...] = ()


@runtime_checkable
class Task(Protocol):
    """Work that any bench can do; small enough to be sent to another process."""

    def run(self, bench: Any) -> Outcome:
        """Do it, on what the plan's bench gives when it is opened."""
        ...


class Bench:
    """A pipeline and a study folder.

    Args:
        plan: what to work on.
        owner: the name under which work is claimed.
        pipe: the pipeline, where it is at hand; else it is loaded when it is first needed.
    """

    def __init__(self, plan: Plan, owner: str | None = None, pipe: DiffusionPipeline | None = None) -> None:
        self.plan = plan
        self.folder = StudyFolder(plan.folder)
        self.claims = Claims(self.folder.claims_path, owner)
        self._given = pipe
        self._references: dict[str, dict[str, float]] = {}

    @contextmanager
    def open(self) -> Iterator[Bench]:
        """Keep claims alive while the block is open, and give them back at its end.

        Raises:
            FailureError: this machine does not see the study folder.
        """
        if self.plan.threads:
            torch.set_num_threads(self.plan.threads)
        self._require_folder()
        with self.claims.kept_alive():
            yield self

    @cached_property
    def pipe(self) -> DiffusionPipeline:
        """The pipeline; it must compute in the precision in which the study began."""
        pipe = self._given if self._given is not None else self.plan.hardware.load(self.plan.load_from)
        began = self.folder.grid()[1].get("dtype") if self.folder.has_grid() else None
        if began not in (None, number_type(pipe)):
            raise UsageError(
                "the study began in another precision",
                expected=began,
                got=number_type(pipe),
                remedy=f"add --dtype {began}",
            )
        return pipe

    def twins_of(self, pairs: Pairs) -> list[Twin]:
        """The unperturbed videos of these prompts and seeds; missing ones are made."""
        missing = [pair for pair in pairs if self.folder.twins.read(self.plan.setting.twin_key(*pair)) is None]
        made = dict(zip(missing, self.make_twins(missing), strict=True)) if missing else {}
        found = [made.get(pair) or self.folder.twins.read(self.plan.setting.twin_key(*pair)) for pair in pairs]
        return [twin for twin in found if twin is not None]

    def make_twins(self, pairs: Pairs) -> list[Twin]:
        """Make unperturbed videos and store them."""
        setting = self.plan.setting
        with within_memory(min(len(pairs), setting.generation.batch_size)):
            twins = make_twins(self.pipe, pairs, setting.study, setting.generation)
        for (prompt, seed), twin in zip(pairs, twins, strict=True):
            self._strip(setting.twin_key(prompt, seed), twin.frames, prompt, seed)
            self.folder.twins.write(setting.twin_key(prompt, seed), twin)
        return twins

    def perturb(self, keys: Sequence[str], cells: Sequence[Any]) -> None:
        """Make the videos of some cells of one condition, measure them, and store the cells."""
        setting, condition = self.plan.setting, cells[0].condition
        pairs = [(cell.prompt, cell.seed) for cell in cells]
        twins = self.twins_of(pairs)
        with within_memory(len(pairs)):
            videos = make_perturbed(self.pipe, condition, pairs, twins, setting.study, setting.generation)
        for key, cell, video, twin in zip(keys, cells, videos, twins, strict=True):
            told = {"sites": ",".join(condition.sites)} | {
                name: getattr(condition, name) for name in ("kind", "perturbation", "head", "rank")
            }
            self._strip(key, video, cell.prompt, cell.seed, **told)
            self.folder.cells.write(CellRow(setting.identity(cell), self._measure(video, twin, cell.prompt, cell.seed)))

    def _measure(self, video: Tensor, twin: Twin, prompt: str, seed: int) -> dict[str, float]:
        metrics = select_metrics(list(self.plan.setting.metrics))
        key = self.plan.setting.twin_key(prompt, seed)
        if key not in self._references:
            single = [metric for metric in metrics if metric.compares in ("single", "timed")]
            self._references[key] = {**evaluate(twin.frames, None, single), **self._scored(twin.frames, prompt)}
        before, scored = self._references[key], self._scored(video, prompt)
        values = evaluate(video, twin.frames, metrics, reference_values=before)
        changes = {f"{name}_change": value - before[name] for name, value in scored.items()}
        return {name: float(value) for name, value in {**values, **scored, **changes}.items()}

    def _scored(self, frames: Tensor, prompt: str) -> dict[str, float]:
        """Ground-truth scores of a video of the testbed; nothing for other models, prompts and sizes."""
        if self.plan.load_from not in known_models():
            return {}
        try:
            return {f"testbed_{name}": value for name, value in score(frames, prompt).as_dict().items()}
        except UsageError:
            return {}

    def _strip(self, key: str, frames: Tensor, prompt: str, seed: int, **told: Any) -> None:
        if prompt in self.plan.prompts[: self.plan.strips] and seed == self.plan.setting.study.seed:
            write_strip(self.folder.path, key, Strip(to_strip_frames(frames), prompt, seed, **told))

    def _require_folder(self) -> None:
        """Every worker must see the study; on another machine the folder may be another one, or not there."""
        try:
            asked = self.folder.record()["asked"]
        except UsageError as error:
            raise FailureError(
                "a worker does not see the study",
                got=error.problem,
                where=self.folder.path,
                remedy="put the study on a file system that all machines share",
            ) from error
        if asked["weights_hash"] != self.plan.setting.weights_hash:
            raise FailureError("a worker sees another study in this folder", where=self.folder.path)


def number_type(pipe: DiffusionPipeline) -> str:
    """The precision in which a pipeline's denoiser computes."""
    denoiser = next(iter(denoisers_of(pipe).values()))
    return str(next(denoiser.parameters()).dtype).removeprefix("torch.")


def attempt(bench: Bench, keys: Sequence[str], work: Callable[[], None]) -> Outcome:
    """Do claimed work: what the model refuses is noted, a folder that cannot be written stops the study."""
    try:
        work()
    except StorageError:
        raise
    except IEAdaptError as error:
        return Outcome(failed=tuple((key, str(error)) for key in keys))
    finally:
        for key in keys:
            bench.claims.release(key)
    return Outcome(done=len(keys))


@contextmanager
def within_memory(videos: int) -> Iterator[None]:
    """Say what to do where the device's memory is too small for a batch."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise FailureError(
            "the device's memory is too small", got=f"{videos} videos in a batch", remedy="use a smaller --batch"
        ) from error
