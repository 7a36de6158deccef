"""The study run: what does each layer do? The same videos again and again, with one part of the attention replaced."""

from __future__ import annotations

import dataclasses
import hashlib
import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from diffusers import DiffusionPipeline
from torch import nn

from ieadapt.attention import find_sites
from ieadapt.errors import IEAdaptError, UsageError
from ieadapt.files import sha256_of
from ieadapt.metrics import select_metrics
from ieadapt.models import known_models, model_folder
from ieadapt.notation import counted
from ieadapt.runs.cells import require_made
from ieadapt.runs.engines import open_workers
from ieadapt.runs.flags import command_line
from ieadapt.runs.folder import Stages, silent
from ieadapt.runs.notes import noted
from ieadapt.runs.pipelines import named
from ieadapt.runs.settings import GenerationConfig, Hardware, with_model_defaults
from ieadapt.runs.workers import RunTasks, Task, require_all, require_once, tasks_of
from ieadapt.tasks.study.config import StudyConfig, StudyRun
from ieadapt.tasks.study.folder import REQUEST, StudyFolder
from ieadapt.tasks.study.grid import Cell, Setting, conditions
from ieadapt.tasks.study.table import compact, table_rows
from ieadapt.tasks.study.videos import first_step, tensor_bytes
from ieadapt.tasks.study.work import PROFILE_PROMPTS, StudyWork

_WEIGHTS_AND_CONFIGS = (".safetensors", ".json", ".txt", ".model")


@dataclass(frozen=True)
class StudyResult:
    """What a study run leaves.

    Attributes:
        table: one row per perturbed video, as in `study.parquet`.
        notes: what a reader should know: cells that were redone, files that are of something else, where runs begin.
        warned: what was warned of while any process worked on the study.
    """

    table: pl.DataFrame
    notes: list[str]
    warned: list[str]


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
        stages: gets the name of each stage as it begins, and how far it is.

    Returns:
        One row per perturbed video: what it depends on, EP and energy of its sites, and the measured values.

    Raises:
        UsageError: the request cannot be met, or the folder holds a study of another configuration.
        FailureError: some cells could not be computed, or the folder cannot be written.

    Example:
        >>> table = ieadapt.study("scenes", "a big red ball moving left over bricks", "runs/study")  # doctest: +SKIP
    """
    listed = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    name, pipe = named(model)
    study, generation, hardware = config or StudyConfig(), generation or GenerationConfig(), Hardware(device, dtype)
    request = StudyRun(name, listed, study, generation, engine, workers, hardware=hardware)
    return run_study(request, out, resume=resume, pipe=pipe, stages=stages).table


def run_study(
    request: StudyRun,
    out: str | Path,
    *,
    resume: bool = False,
    pipe: DiffusionPipeline | None = None,
    stages: Stages = silent,
) -> StudyResult:
    """Do what is missing of a study, and write its table.

    Args:
        request: model, prompts and settings.
        out: the study's folder.
        resume: go on with the study that the folder holds.
        pipe: the pipeline, if it is at hand.
        stages: gets the name of each stage as it begins, and how far it is.

    Raises:
        UsageError: the request cannot be met.
        FailureError: some cells could not be computed; the others are in the table.
    """
    request = dataclasses.replace(request, generation=with_model_defaults(request.generation, request.model))
    folder = StudyFolder(out)
    setting = _setting(request, folder, pipe)
    folder.enter(setting, command=command_line("study", request, out), resume=resume)
    work = StudyWork(folder.path, request.model, request.hardware, setting, request.strips)
    with noted() as warned:
        try:
            with open_workers(work, request.engine, request.workers, pipe) as run:
                require_once(run, StudyWork.settle, folder.has_grid, stages, "measuring entropy")
                expected = folder.expected(setting)
                notes = _notes(folder, setting, expected)
                failed = _make(run, folder, setting, expected, stages)
        except UsageError:
            folder.forget_if_unsettled()
            raise
        finally:
            if folder.has_grid():
                folder.keep_notes(warned)
    table = compact(folder, expected)
    problem = f"{counted(len(failed), 'cell')} of the study could not be computed"
    require_made(failed, problem, folder.path, "the others are in study.parquet; --resume tries these again")
    return StudyResult(table, notes, folder.notes())


def study_size(request: StudyRun, pipe: DiffusionPipeline) -> tuple[int, int]:
    """How many videos a study makes, and how many denoising steps they take together.

    Args:
        request: model, prompts and settings.
        pipe: its pipeline.
    """
    sites = find_sites(pipe)
    any_ep = {site.name: float(site.order) for site in sites}  # there are as many conditions, whatever it is
    listed = conditions(request.study, sites, any_ep)
    clips, steps = len(request.prompts) * request.study.seeds, request.generation.num_inference_steps
    late = steps - first_step(pipe, request.study, request.generation)
    profile = min(PROFILE_PROMPTS, len(request.prompts))
    return clips * (1 + len(listed)) + profile, clips * (steps + len(listed) * late) + profile * steps


def weights_hash(model: Path | DiffusionPipeline) -> str:
    """32 hexadecimal digits over every weight and every configuration of a pipeline.

    Args:
        model: a pipeline's folder, of which the files are read, or a pipeline in memory.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "model_index.json").write_text("{}")
        >>> len(weights_hash(folder))
        32
    """
    digest = hashlib.sha256()
    for content in _contents(model):
        digest.update(content)
    return digest.hexdigest()[:32]


def _contents(model: Any) -> Iterator[bytes]:
    if not isinstance(model, Path):
        for name, part in sorted(model.components.items()):
            yield f"{name} {type(part).__name__} {getattr(part, 'config', None)}".encode()
            yield from tensor_bytes(part.state_dict() if isinstance(part, nn.Module) else {})
        return
    files = [path for path in model.rglob("*") if path.suffix in _WEIGHTS_AND_CONFIGS and path.is_file()]
    for path in sorted(path for path in files if not path.relative_to(model).parts[0].startswith(".")):
        yield str(path.relative_to(model)).encode()
        yield bytes.fromhex(sha256_of(path))


def _setting(request: StudyRun, folder: StudyFolder, pipe: DiffusionPipeline | None) -> Setting:
    """The setting of a run; where no metrics are named, those that the study began with."""
    names = request.study.metrics
    if names is None and (folder.path / REQUEST).exists():
        names = folder.record()["asked"]["metrics"]
    chosen = request.study.chosen_metrics if names is None else select_metrics(names)
    digest = weights_hash(pipe if pipe is not None else model_folder(request.model))
    local = pipe is None and request.model not in known_models() and Path(request.model).expanduser().is_dir()
    name = Path(request.model).expanduser().resolve().name if local else request.model
    metrics = tuple(metric.name for metric in chosen)
    return Setting(name, digest, request.study, request.generation, metrics, request.prompts)


def _notes(folder: StudyFolder, setting: Setting, expected: Collection[str]) -> list[str]:
    """Set damaged cells aside; notes on these, on files of something else, and on where runs begin."""
    settled, notes = folder.grid()[1], []
    if settled["runs_begin_at_step"] < setting.first_step:
        notes.append(f"{settled['scheduler']} keeps a history: every run begins at step 0, not at the window")
    if damaged := folder.cells.set_damaged_aside(expected):
        notes.append(f"{len(damaged)} damaged cells were set aside and done again: {damaged[0]}.json ...")
    if foreign := folder.cells.foreign(expected):
        notes.append(f"{len(foreign)} files among the cells are none of this study: {foreign[0]} ...")
    return notes


def _make(
    run: RunTasks, folder: StudyFolder, setting: Setting, expected: Mapping[str, Cell], stages: Stages
) -> dict[str, IEAdaptError]:
    """See to the unperturbed videos and the cells; why some cells failed, by key."""
    size, in_table = setting.generation.batch_size, table_rows(folder)
    left = folder.cells.missing({key: cell for key, cell in expected.items() if key not in in_table})
    needed = {(cell.prompt, cell.seed) for cell in left.values()}
    pairs = {key: pair for key, pair in setting.pairs.items() if pair in needed}

    def baselines(failed: Collection[str]) -> list[Task]:
        missing = {key: pair for key, pair in pairs.items() if not (failed or folder.baseline_path(key).exists())}
        return tasks_of(StudyWork.make_baselines, missing, size)

    require_all(run, baselines, stages, "unperturbed videos")
    together, stage = operator.attrgetter("condition"), "perturbed videos"
    return folder.cells.make(run, StudyWork.make_cells, left, size, together=together, stages=stages, stage=stage)
