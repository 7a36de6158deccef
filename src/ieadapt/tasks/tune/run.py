"""The tune run: a price, the race on one half of the prompts, the proof on the other, a preset and a report."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from ieadapt.runs.engines import open_workers
from ieadapt.runs.flags import command_line
from ieadapt.runs.folder import RunFolder, Stages, open_run, silent
from ieadapt.runs.pipelines import named
from ieadapt.runs.report import write_report
from ieadapt.runs.settings import Hardware
from ieadapt.runs.workers import leaving_nothing, require_once
from ieadapt.tasks.measure.run import PROFILE_FILES
from ieadapt.tasks.tune.arms import Arm
from ieadapt.tasks.tune.config import DEFAULT_GENERATION, TuneConfig, TuneRun
from ieadapt.tasks.tune.race import Tuned, Tuner
from ieadapt.tasks.tune.report import blind_page, tune_report
from ieadapt.tasks.tune.work import PRICE, SHOWN, TuneWork

PRESET, BLIND, RESULT = "preset.json", "compare-blind.html", "result.json"


def tune(
    model: str | Path | DiffusionPipeline,
    prompts: Sequence[str],
    out: str | Path,
    config: TuneConfig | None = None,
    generation: Any = None,
    *,
    profile: str | Path | None = None,
    budget: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    engine: str = "local",
    workers: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    stages: Stages = silent,
) -> Tuned:
    """Find an enhancement for a model on half of the prompts, and prove it on the other half.

    Args:
        model: a bundled name, a folder or a hub id; or a pipeline, which then works in this process.
        prompts: at least twelve different ones; they are split by their hash.
        out: the run folder.
        config: the metric, and how many candidates are raced.
        generation: steps, size, guidance.
        profile: folder of a screen or measure run of this model.
        budget: the most time it may take, such as `2h`.
        seed: of the first prompt; the next ones count up.
        overwrite: replace an earlier run in the folder.
        resume: go on with the tune that the folder holds.
        engine: `local` or `ray`.
        workers: None for one per GPU, or per core as far as memory goes.
        device: `auto`, `cpu`, `cuda`.
        dtype: `auto`, `float32`, `bfloat16`, `float16`.
        stages: told which stage begins and how far it is.

    Raises:
        UsageError: the request cannot be met, or the budget is below one round.
        FailureError: some videos could not be made; the others are kept.

    Example:
        >>> found = ieadapt.tune("MODEL", prompts, "runs/tune", ieadapt.TuneConfig("sharpness"))  # doctest: +SKIP
        >>> found.verdict.word  # doctest: +SKIP
        'confirmed'
    """
    name, pipe = named(model)
    hardware, generation = Hardware(device, dtype), generation or DEFAULT_GENERATION
    common = (name, tuple(prompts), generation, seed, hardware, budget, engine, workers)
    request = TuneRun(*common, config or TuneConfig(), None if profile is None else Path(profile))
    return run_tune(request, out, overwrite=overwrite, resume=resume, pipe=pipe, stages=stages)


def run_tune(
    request: TuneRun,
    out: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    pipe: DiffusionPipeline | None = None,
    candidates: Sequence[Arm] | None = None,
    stages: Stages = silent,
    say: Callable[[str], None] = lambda line: None,
) -> Tuned:
    """Tune, and write scores, preset, blind comparison and report into a run folder.

    Every scored video is kept at once: a run that was stopped, or killed, goes on with `resume`.

    Args:
        request: model, prompts and settings.
        out: the run folder.
        overwrite: replace an earlier run in it.
        resume: go on with the tune that the folder holds.
        pipe: the pipeline, if it is at hand.
        candidates: what is raced, instead of the default enhancements.
        stages: told which stage begins and how far it is.
        say: gets the price before the work begins, and what the second half can show before that begins.

    Raises:
        UsageError: the request cannot be met.
        FailureError: some videos could not be made; the others are kept.
    """
    request = request.with_model_defaults()
    config = {**dataclasses.asdict(request), "request": request.request}
    command = command_line("tune", request, out)
    with open_run(out, "tune", config, command=command, overwrite=overwrite, resume=resume) as run:
        own = None if candidates is None else tuple(candidates)
        work = TuneWork(run.path.absolute(), request.model, request.hardware, request, own)
        prepared = (*PROFILE_FILES, PRICE)
        with (
            open_workers(work, request.engine, request.workers, pipe) as workers,
            leaving_nothing(work.folder, prepared, unless=work.cells.keys),
        ):
            require_once(workers, TuneWork.prepare, (work.folder / PRICE).exists, stages, "measuring and timing")
            tuner = Tuner(work, workers, stages)
            say(tuner.price())
            found = tuner.tune(say)
        for name in prepared:
            run.add(name)
        _write_results(run, tuner, found)
    return found


def price_tune(request: TuneRun, pipe: DiffusionPipeline | None = None) -> str:
    """What a tune would do and take, in a line: measures the model, times a pass, and stops there."""
    request = request.with_model_defaults()
    with tempfile.TemporaryDirectory() as folder:
        work = TuneWork(Path(folder), request.model, request.hardware, request)
        with open_workers(work, "local", 1, pipe) as workers:
            require_once(workers, TuneWork.prepare, (work.folder / PRICE).exists, silent, "measuring and timing")
            return Tuner(work, workers, silent).price()


def _write_results(run: RunFolder, tuner: Tuner, found: Tuned) -> None:
    """Preset, result, blind comparison and report."""
    request = tuner.request
    enhance = found.best.enhance
    if enhance is not None:
        preset = {"format": 1, "model": request.model, "verdict": found.verdict.word, "enhance": vars(enhance)}
        run.write(PRESET, json.dumps(preset, indent=1) + "\n")
    verdict = {"verdict": found.verdict.word, "sites": found.verdict.sites, "sentence": found.verdict.sentence}
    result = verdict | {
        "best": found.best.name,
        "detectable": found.detectable,
        "matters": found.matters,
        "tests": [{"against": test.against, **test.interval._asdict()} for test in found.tests],
        "guards": {name: interval._asdict() for name, interval in found.guards.items()},
    }
    run.write(RESULT, json.dumps(result, indent=1) + "\n")
    pairs = []
    for prompt in tuner.second[:SHOWN]:
        enhanced, plain = tuner.clips(found.best, prompt)
        pairs.append((prompt, (run.path / enhanced).read_bytes(), (run.path / plain).read_bytes()))
        run.add(enhanced)
        run.add(plain)
    run.write(BLIND, blind_page(pairs, seed=request.seed))
    write_report(run, tune_report(request, found, tuner.price(), run.record))
