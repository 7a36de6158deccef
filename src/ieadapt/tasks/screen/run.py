"""The screen run: a price, the trajectories, the passes of every site, and one page to act on, in a run folder."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from diffusers import DiffusionPipeline

from ieadapt.notation import counted
from ieadapt.runs.cells import CellRow, require_made
from ieadapt.runs.engines import open_workers
from ieadapt.runs.flags import command_line
from ieadapt.runs.folder import Stages, open_run, silent
from ieadapt.runs.pipelines import named
from ieadapt.runs.report import write_report
from ieadapt.runs.settings import GenerationConfig, Hardware
from ieadapt.runs.workers import RunTasks, Task, leaving_nothing, require_all, require_once, tasks_of
from ieadapt.tasks.measure.profile import EFFECTS_FILE, EntropyProfile
from ieadapt.tasks.measure.run import PROFILE_FILES
from ieadapt.tasks.screen.config import CHUNK, DEFAULT_GENERATION, EFFECTS, ScreenConfig, ScreenPlan, ScreenRun
from ieadapt.tasks.screen.method import effects_table
from ieadapt.tasks.screen.report import screen_report
from ieadapt.tasks.screen.work import PRICE, TRAJECTORY, ScreenWork, Try
from ieadapt.tasks.study.grid import Condition


def screen(
    model: str | Path | DiffusionPipeline,
    prompts: str | Sequence[str],
    out: str | Path,
    config: ScreenConfig | None = None,
    generation: GenerationConfig | None = None,
    *,
    budget: str | None = None,
    check: int = 3,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    engine: str = "local",
    workers: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    stages: Stages = silent,
) -> EntropyProfile:
    """Predict what replacing the map of each site does to a model's videos, for a few passes per site.

    Args:
        model: a bundled name, a folder or a hub id; or a pipeline, which then works in this process.
        prompts: one or several; from three on, effects have intervals over them.
        out: the run folder.
        config: maps, sites, steps, heads.
        generation: steps, size, guidance, prompts of a batch.
        budget: the most time it may take, such as `30m`.
        check: of so many sites of largest, and of smallest, predicted effect one video is generated in full.
        seed: of the first prompt; the next ones count up.
        overwrite: replace an earlier run in the folder.
        resume: go on with the screen that the folder holds.
        engine: `local` or `ray`.
        workers: None for one per GPU, or per core as far as memory goes.
        device: `auto`, `cpu`, `cuda`.
        dtype: `auto`, `float32`, `bfloat16`, `float16`.
        stages: gets the name of each stage as it begins, and how far it is.

    Returns:
        Entropy and energy along the trajectories, with the predicted `effects`; sites can be chosen by all of them.

    Raises:
        UsageError: the request cannot be met, or the budget is too small.
        FailureError: some passes could not be made.

    Example:
        >>> profile = ieadapt.screen("MODEL", ["a red ball", "a dog in snow"], "runs/screen")  # doctest: +SKIP
        >>> profile.effects.filter(effect="structure").sort("value")  # doctest: +SKIP
    """
    listed = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    name, pipe = named(model)
    common = (name, listed, generation or DEFAULT_GENERATION, seed, Hardware(device, dtype), budget, engine, workers)
    request = ScreenRun(*common, config or ScreenConfig(), check)
    return run_screen(request, out, overwrite=overwrite, resume=resume, pipe=pipe, stages=stages)


def price_screen(request: ScreenRun, pipe: DiffusionPipeline | None = None) -> ScreenPlan:
    """What a screen would do and take: times one pass, and stops there.

    Args:
        request: model, prompts and settings.
        pipe: the pipeline, if it is at hand.
    """
    request = request.with_model_defaults()
    with tempfile.TemporaryDirectory() as folder:
        work = ScreenWork(Path(folder), request.model, request.hardware, request)
        with open_workers(work, "local", 1, pipe) as workers:
            _price(workers, work, silent)
        return work.plan


def run_screen(
    request: ScreenRun,
    out: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    pipe: DiffusionPipeline | None = None,
    stages: Stages = silent,
    say: Callable[[str], None] = lambda line: None,
) -> EntropyProfile:
    """Screen a model and write effects, profile and report into a run folder.

    Every finished pass is kept at once: a run that was stopped, or killed, goes on with `resume`.

    Args:
        request: model, prompts and settings.
        out: the run folder.
        overwrite: replace an earlier run in it.
        resume: go on with the screen that the folder holds.
        pipe: the pipeline, if it is at hand.
        stages: gets the name of each stage as it begins, and how far it is.
        say: gets the price before the work begins.

    Raises:
        UsageError: the request cannot be met.
        FailureError: some passes could not be made; the others are kept.
    """
    request = request.with_model_defaults()
    config = {**dataclasses.asdict(request), "request": request.request}
    command = command_line("screen", request, out)
    with open_run(out, "screen", config, command=command, overwrite=overwrite, resume=resume) as run:
        work = ScreenWork(run.path.absolute(), request.model, request.hardware, request)
        with open_workers(work, request.engine, request.workers, pipe) as workers:
            with leaving_nothing(work.folder):
                _price(workers, work, stages)
            say(work.plan.summary())
            require_once(workers, ScreenWork.follow, lambda: work.latents() is not None, stages, "trajectories")
            cells = _make_passes(workers, work, stages)
            profile = EntropyProfile.load(run.path)
            profile.effects = effects_table([{**row.identity, **row.values} for row in cells])
            profile.save(run.path)
            films = _make_films(workers, work, profile.effects, stages)
        for name in (*PROFILE_FILES, EFFECTS_FILE, PRICE, TRAJECTORY, *films):
            run.add(name)
        pictures = [((run.path / name).read_bytes(), condition) for name, condition in films.items()]
        write_report(run, screen_report(request.model, work.plan.summary(), profile, pictures, run.record))
    return profile


def _make_films(
    workers: RunTasks, work: ScreenWork, effects: pl.DataFrame, stages: Stages
) -> dict[str, Condition | None]:
    """The strips of the sites of largest and of smallest predicted effect, the plain one first, by file name."""
    number, name = work.request.check, next(name for name in EFFECTS if name in set(effects["effect"]))
    if not number:
        return {}
    first = effects.filter(effect=name).sort("value", descending=True)
    rows = pl.concat([first.head(number), first.tail(number)]).unique(maintain_order=True)
    films: dict[str, Condition | None] = {"check-plain.png": None}
    for row in rows.iter_rows(named=True):
        films[f"check-{len(films)}.png"] = Condition((row["site"],), row["kind"], row["map"], row["head"])

    def pending(failed: Collection[str]) -> list[Task]:
        left = {name: film for name, film in films.items() if name not in failed and not (work.folder / name).exists()}
        return tasks_of(ScreenWork.film, left, 1)

    require_all(workers, pending, stages, "videos generated in full")
    return films


def _price(workers: RunTasks, work: ScreenWork, stages: Stages) -> None:
    require_once(workers, ScreenWork.price, (work.folder / PRICE).exists, stages, "timing a pass")


def _make_passes(workers: RunTasks, work: ScreenWork, stages: Stages) -> list[CellRow]:
    """See to every pass; what each gave."""
    tries, batch = work.tries(), work.plan.batch
    work.cells.set_damaged_aside(tries)

    def together(tried: Try) -> tuple[int, int]:
        _, prompt, step = tried
        return step, prompt // batch

    failed = work.cells.make(
        workers, ScreenWork.make, tries, CHUNK * batch, together=together, stages=stages, stage="passes"
    )
    problem = f"{counted(len(failed), 'pass')} of the screen could not be made"
    require_made(failed, problem, work.folder, "--resume tries these again")
    cells = work.cells.read(tries.keys())[0]
    return [cells[key] for key in tries]


def screened_passes(request: ScreenRun, out: str | Path) -> tuple[ScreenPlan, list[dict[str, Any]]]:
    """What a finished screen did, and what every pass of it gave.

    Args:
        request: of the screen.
        out: its run folder.
    """
    request = request.with_model_defaults()
    work = ScreenWork(Path(out).absolute(), request.model, request.hardware, request)
    cells = work.cells.read(work.tries().keys() & work.cells.keys())[0]
    return work.plan, [{**row.identity, **row.values} for row in cells.values()]
