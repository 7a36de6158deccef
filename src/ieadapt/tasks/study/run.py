"""The study run: what does each layer do? The same videos again and again, with one part of the attention replaced."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl
from diffusers import DiffusionPipeline

from ieadapt.errors import FailureError, UsageError
from ieadapt.files import sweep
from ieadapt.metrics import select_metrics
from ieadapt.models import known_models, model_folder
from ieadapt.runs.flags import command_line
from ieadapt.runs.folder import Stages, silent
from ieadapt.runs.leases import STALE_SECONDS, Claims
from ieadapt.runs.pipelines import Hardware, check_prompts, check_seeds
from ieadapt.tasks.generate import GenerationConfig, with_model_defaults
from ieadapt.tasks.study.config import StudyConfig
from ieadapt.tasks.study.engines import ENGINES, Workforce, open_engine
from ieadapt.tasks.study.folder import ASKED, StudyFolder
from ieadapt.tasks.study.grid import Cell
from ieadapt.tasks.study.setting import Setting
from ieadapt.tasks.study.table import compact, table_rows
from ieadapt.tasks.study.tasks import MakeTwins, Perturb, Settle
from ieadapt.tasks.study.weights import weights_hash
from ieadapt.tasks.study.worker import Plan, Task

WAIT_SECONDS = 1.0
"""Between two looks at work that other processes have claimed."""


@dataclass(frozen=True)
class StudyRun:
    """What a study run is asked.

    Attributes:
        model: a bundled name, a folder or a hub id.
        prompts: each different.
        study: what is perturbed and measured.
        generation: steps, size, guidance; its batch size is that of the perturbed videos too.
        engine: `local` or `ray`.
        workers: None for one per GPU, or per core as far as memory goes.
        strips: how many prompts have frames kept for the figures.
        hardware: device and precision.

    Raises:
        UsageError: no prompt, a blank one or one that stands twice, an unknown engine, or no workers.
    """

    model: str
    prompts: tuple[str, ...]
    study: StudyConfig = field(default_factory=StudyConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    engine: str = field(default="local", metadata={"help": "local (processes) or ray (a cluster)"})
    workers: int | None = field(default=None, metadata={"help": "one per GPU or core by default"})
    strips: int = field(default=1, metadata={"help": "prompts of which frames are kept for the figures"})
    hardware: Hardware = field(default_factory=Hardware)

    def __post_init__(self) -> None:
        check_prompts(self.prompts)
        check_seeds(self.study.seed, len(self.prompts) * self.study.seeds)
        first = {prompt: number for number, prompt in reversed(list(enumerate(self.prompts, start=1)))}
        twice = [number for number, prompt in enumerate(self.prompts, start=1) if first[prompt] != number]
        if twice:
            raise UsageError(
                "a prompt stands twice",
                got=f"prompt {twice[0]} is prompt {first[self.prompts[twice[0] - 1]]} again",
                remedy="remove it; --seeds makes several videos of each prompt",
            )
        if self.engine not in ENGINES:
            raise UsageError("unknown engine", expected=", ".join(ENGINES), got=self.engine, where="--engine")
        if self.workers is not None and self.workers < 1:
            raise UsageError("a study needs workers", expected=">= 1", got=self.workers, where="--workers")
        if self.strips < 0:
            raise UsageError(
                "frames are kept of some prompts, or of none", expected=">= 0", got=self.strips, where="--strips"
            )
        self.study.perturbed.steps(self.generation.num_inference_steps)


@dataclass(frozen=True)
class StudyResult:
    """What a study run leaves.

    Attributes:
        table: one row per perturbed video, as in `study.parquet`.
        notes: what a reader should know: cells that were redone, files that are of something else, where runs begin.
    """

    table: pl.DataFrame
    notes: list[str]


def study(
    model: str | Path | DiffusionPipeline,
    prompts: str | Sequence[str],
    out: str | Path,
    config: StudyConfig | None = None,
    generation: GenerationConfig | None = None,
    *,
    resume: bool = False,
    engine: str = "local",
    workers: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    stages: Stages = silent,
) -> pl.DataFrame:
    """Perturb each attention site of a model in turn, and measure how far its videos move.

    Every finished video is kept in the folder at once: a run that was stopped, or killed, goes on with `resume=True`,
    and several processes may work on one folder.

    Args:
        model: a bundled name, a folder or a hub id; or a pipeline, which then works in this process.
        prompts: one or several, each different.
        out: the study's folder, see `ieadapt.tasks.study`.
        config: perturbations, sites, seeds, window, branch, mode, metrics.
        generation: steps, size, guidance, batch size.
        resume: go on with the study that the folder holds.
        engine: `local` or `ray`.
        workers: None for one per GPU, or per core as far as memory goes.
        device: `auto`, `cpu`, `cuda`.
        dtype: `auto`, `float32`, `bfloat16`, `float16`.
        stages: told which stage begins and how far it is.

    Returns:
        One row per perturbed video: what it depends on, EP and energy of its sites, and the measured values.

    Raises:
        UsageError: what was asked cannot be, or the folder holds a study of another configuration.
        FailureError: some cells could not be computed, or the folder cannot be written.

    Example:
        >>> table = ieadapt.study("shapes", "a big red ball moving left over bricks", "runs/study")  # doctest: +SKIP
    """
    listed = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    pipe = model if isinstance(model, DiffusionPipeline) else None
    name = _name_of(pipe) if pipe is not None else str(model)
    asked = StudyRun(
        name,
        listed,
        config or StudyConfig(),
        generation or GenerationConfig(),
        engine,
        workers,
        hardware=Hardware(device, dtype),
    )
    return run_study(asked, out, resume=resume, pipe=pipe, stages=stages).table


def run_study(
    asked: StudyRun,
    out: str | Path,
    *,
    resume: bool = False,
    pipe: DiffusionPipeline | None = None,
    stages: Stages = silent,
) -> StudyResult:
    """Do what is missing of a study, and write its table.

    Args:
        asked: model, prompts and settings.
        out: the study's folder.
        resume: go on with the study that the folder holds.
        pipe: the pipeline, if it is at hand.
        stages: told which stage begins and how far it is.

    Raises:
        UsageError: what was asked cannot be.
        FailureError: some cells could not be computed; the others are in the table.
    """
    asked = dataclasses.replace(asked, generation=with_model_defaults(asked.generation, asked.model))
    folder = StudyFolder(out)
    setting = _setting(asked, folder, pipe)
    folder.enter(setting, asked.prompts, command=command_line("study", asked, out), resume=resume)
    sweep(folder.path, STALE_SECONDS)  # other processes may be writing there now
    plan = Plan(folder.path, asked.model, asked.hardware, setting, asked.prompts, asked.strips)
    try:
        with open_engine(asked.engine, plan, asked.workers, pipe) as workforce:
            progress = _Course(plan, folder, workforce, stages)
            progress.settle()
            failed = progress.perturb()
    except UsageError:
        folder.forget_if_unsettled()
        raise
    Claims(folder.claims_path).sweep()
    table = compact(folder, set(folder.expected(setting, asked.prompts)))
    if failed:
        raise FailureError(
            f"{len(failed)} cells of the study could not be computed",
            got=next(iter(failed.values())),
            where=folder.path,
            remedy="the others are in study.parquet; --resume tries these again",
        )
    return StudyResult(table, progress.notes)


def _setting(asked: StudyRun, folder: StudyFolder, pipe: DiffusionPipeline | None) -> Setting:
    """The setting of a run; where no metrics are named, those that the study began with."""
    names = asked.study.metrics
    if names is None and (folder.path / ASKED).exists():
        names = folder.record()["asked"]["metrics"]
    chosen = asked.study.chosen_metrics if names is None else select_metrics(names.split(","))
    source = pipe if pipe is not None else model_folder(asked.model)
    local = pipe is None and asked.model not in known_models() and Path(asked.model).expanduser().is_dir()
    name = Path(asked.model).expanduser().resolve().name if local else asked.model
    return Setting(name, weights_hash(source), asked.study, asked.generation, tuple(metric.name for metric in chosen))


def _name_of(pipe: Any) -> str:
    return str(pipe.config.get("_name_or_path") or type(pipe).__name__)


class _Course:
    """The stages of a study, each repeated until nothing is missing: what others have claimed is waited for."""

    def __init__(self, plan: Plan, folder: StudyFolder, workforce: Workforce, stages: Stages) -> None:
        self._plan, self._folder, self._workforce, self._stages = plan, folder, workforce, stages
        self.notes: list[str] = []

    def settle(self) -> None:
        """See to the profile and the conditions."""
        self._work_off("measuring entropy", lambda failed: [] if self._folder.has_grid() else [Settle()], 1)
        first = self._plan.setting.study.perturbed.steps(self._plan.setting.generation.num_inference_steps).start
        _, notes = self._folder.grid()
        if notes["runs_begin_at_step"] < first:
            self.notes.append(f"{notes['scheduler']} keeps a history: every run begins at step 0, not at the window")

    def perturb(self) -> dict[str, str]:
        """See to the unperturbed videos and the cells; the reasons of those that failed, by key."""
        expected = self._folder.expected(self._plan.setting, self._plan.prompts)
        tabled = self._sort_out(set(expected))

        def missing(failed: dict[str, str]) -> list[Cell]:
            there = self._folder.cells.keys() | tabled | failed.keys()
            return [cell for key, cell in expected.items() if key not in there]

        pairs = dict.fromkeys((cell.prompt, cell.seed) for cell in missing({}))
        self._work_off("unperturbed videos", lambda failed: list(self._twins(list(pairs))), len(pairs))
        return self._work_off("perturbed videos", lambda failed: list(self._batches(missing(failed))), len(missing({})))

    def _sort_out(self, expected: set[str]) -> set[str]:
        """Set damaged cells aside, and give the keys that the table holds."""
        cells = self._folder.cells
        _, damaged = cells.read(cells.keys() & expected)
        cells.set_aside(damaged)
        tabled = table_rows(self._folder).keys() & expected
        foreign = cells.foreign(expected)
        if damaged:
            self.notes.append(f"{len(damaged)} damaged cells were set aside and done again: {damaged[0]}.json ...")
        if foreign:
            self.notes.append(f"{len(foreign)} files among the cells are none of this study: {foreign[0]} ...")
        return set(tabled)

    def _twins(self, pairs: Sequence[tuple[str, int]]) -> Iterator[Task]:
        lacking = [pair for pair in pairs if not self._folder.twins.has(self._plan.setting.twin_key(*pair))]
        for batch in _chunks(lacking, self._plan.setting.generation.batch_size):
            yield MakeTwins(tuple(batch))

    def _batches(self, cells: Sequence[Cell]) -> Iterator[Task]:
        for _, group in groupby(cells, key=lambda cell: cell.condition):
            for batch in _chunks(list(group), self._plan.setting.generation.batch_size):
                yield Perturb(tuple(batch))

    def _work_off(self, stage: str, pending: Callable[[dict[str, str]], Sequence[Task]], total: int) -> dict[str, str]:
        failed: dict[str, str] = {}
        if not pending(failed):
            return failed
        report, done = self._stages(stage), 0
        while tasks := pending(failed):
            before = done
            for outcome in self._workforce.run(tasks):
                done += outcome.done + len(outcome.failed)
                failed |= dict(outcome.failed)
                report(min(done, total), total)
            if done == before:
                time.sleep(WAIT_SECONDS)
        report(total, total)
        return failed


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
