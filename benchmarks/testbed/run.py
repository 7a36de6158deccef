"""The testbed benchmark: every method on the same held-out scenes, scored against ground truth, in one table."""

from __future__ import annotations

import dataclasses
import difflib
import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.results import experiment
from benchmarks.testbed.scenes import PROFILE_PROMPTS, PROFILE_STEPS, SCENES, training_profile
from benchmarks.testbed.summary import Figures, bench_table, summarise
from benchmarks.testbed.tracks import TRACKS, Track
from benchmarks.testbed.work import RowWork, row_tasks
from ieadapt.errors import UsageError
from ieadapt.models import known_models
from ieadapt.runs.engines import make_missing
from ieadapt.runs.flags import flag_arguments
from ieadapt.runs.folder import RunFolder, Stages, open_run, silent
from ieadapt.runs.report import Table
from ieadapt.runs.settings import GenerationConfig, Hardware, with_model_defaults
from ieadapt.runs.workers import Task
from ieadapt.tasks.bench.vbench import PROFILE
from ieadapt.tasks.evaluate.tables import markdown
from ieadapt.tasks.measure.profile import EntropyProfile


@dataclass(frozen=True)
class BenchConfig:
    """How the benchmark is run.

    Attributes:
        tracks: `generation`, `editing`, or both with a comma.
        methods: names with commas; `all` for every one.
        scenes: how many of the fixed scenes, and of the fixed pairs.
        steps: denoising steps of plain generation and of edits; None for the tracks' own.
        batch: videos that run as one batch.
        profile: folder of a measure run; without one, and where a method needs it, the model is measured first.
        engine: local or ray.
        workers: how many; None for one per GPU or core.
        hardware: device and precision.

    Raises:
        UsageError: an unknown track or method, or a number out of range.
    """

    tracks: str = field(default=",".join(TRACKS), metadata={"help": "generation, editing, or both with a comma"})
    methods: str = field(default="all", metadata={"help": "names with commas, or all"})
    scenes: int = field(default=SCENES, metadata={"help": f"how many of the {SCENES} fixed scenes, and of the pairs"})
    steps: int | None = field(
        default=None,
        metadata={
            "help": "denoising steps; by default " + ", ".join(f"{t.steps} for {t.name}" for t in TRACKS.values())
        },
    )
    batch: int = field(default=4, metadata={"help": "videos that run as one batch"})
    profile: Path | None = field(default=None, metadata={"help": "folder of a measure run; without one it measures"})
    engine: str = field(default="local", metadata={"help": "local or ray"})
    workers: int | None = field(default=None, metadata={"help": "workers; by default one per GPU or core"})
    hardware: Hardware = field(default_factory=lambda: Hardware(dtype="float32"))

    def __post_init__(self) -> None:
        if not 1 <= self.scenes <= SCENES:
            raise UsageError("--scenes is out of range", expected=f"1..{SCENES}", got=self.scenes)
        for name in ("steps", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name} must be positive", expected=">= 1", got=value)
        if not any(self.chosen.values()):
            raise UsageError("no method of these tracks is chosen", got=self.methods, where=f"--tracks {self.tracks}")

    @property
    def chosen(self) -> dict[str, list[str]]:
        """Track -> names of its methods that are run."""
        tracks = _names(self.tracks, TRACKS, "track")
        everywhere = {name: None for track in TRACKS.values() for name in track.methods}
        names = list(everywhere) if self.methods == "all" else _names(self.methods, everywhere, "method")
        return {track: [name for name in names if name in TRACKS[track].methods] for track in tracks}


def _names(text: str, known: Mapping[str, Any], kind: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            raise UsageError(
                f"there is no {kind} {name!r} in the testbed benchmark",
                expected=f"a name such as {', '.join(near)}" if near else None,
                remedy=f"choose among {', '.join(known)}",
            )
    if not names:
        raise UsageError(f"the choice of {kind}s is empty", expected=", ".join(known))
    return names


@dataclass(frozen=True)
class BenchResult:
    """What the benchmark found.

    Attributes:
        figures: track -> one row per method.
        tables: track -> the same as it is printed.
        notes: what was refused.
    """

    figures: Mapping[str, Sequence[Figures]]
    tables: Mapping[str, Table]
    notes: Sequence[str]


def run_testbed(
    model: str,
    out: str | Path,
    config: BenchConfig | None = None,
    *,
    resume: bool = False,
    stages: Stages = silent,
) -> BenchResult:
    """Do every method on every scene, score what comes out, and write one record per track.

    Every finished row is kept at once, and several processes may work on one folder. More methods or scenes can be
    asked of a folder later, with the same steps.

    Args:
        model: a bundled model with ground truth: `scenes` or `scenes-dit`.
        out: gets `testbed-generation.json`, `testbed-editing.json`, their tables and `rows/`.
        config: methods, scenes, workers.
        resume: go on with an earlier run; rows that are there are not made again.
        stages: gets the name of each stage as it begins, and how far it is.

    Raises:
        UsageError: the request cannot be met, or the folder holds a run of another model or other steps.
    """
    config = config or BenchConfig()
    if model not in known_models():
        raise UsageError("only a bundled model has ground truth", expected=", ".join(known_models()), got=model)
    folder = Path(out).expanduser()
    work = RowWork(folder, model, config.hardware, config.scenes, _settings(model, config))
    command = shlex.join(
        ["python", "-m", "benchmarks.testbed", "--model", model, *flag_arguments(config), "--out", str(out)]
    )
    with open_run(out, "testbed", {"request": _request(work)}, command=command, resume=resume) as run:
        _settle_profile(work, config, stages)
        notes = _make(work, config, stages)
        return _written(run, work, config, notes)


def _settings(model: str, config: BenchConfig) -> tuple[tuple[str, GenerationConfig], ...]:
    plain = with_model_defaults(GenerationConfig(batch_size=config.batch), model)
    return tuple(
        (name, dataclasses.replace(plain, num_inference_steps=config.steps or track.steps))
        for name, track in TRACKS.items()
    )


def _request(work: RowWork) -> dict[str, Any]:
    """What decides about a row, as it is read from JSON."""
    settings = {name: dataclasses.asdict(generation) for name, generation in work.settings}
    for generation in settings.values():
        del generation["batch_size"]
    request: dict[str, Any] = json.loads(json.dumps({"model": work.model, "settings": settings}))
    return request


def _settle_profile(work: RowWork, config: BenchConfig, stages: Stages) -> None:
    """Measure the model, where the sites of a method that is not done are chosen by entropy."""
    needed = any(
        TRACKS[track].methods[name].needs_profile
        for track, names in config.chosen.items()
        for name in work.missing(TRACKS[track], names)
    )
    if not needed or (work.folder / PROFILE).is_dir():
        return
    if config.profile is not None:
        EntropyProfile.load(config.profile).save(work.folder / PROFILE)
        return
    plain = dict(work.settings)["generation"]
    generation = dataclasses.replace(plain, num_inference_steps=PROFILE_STEPS, batch_size=PROFILE_PROMPTS)
    pipe = config.hardware.load(work.model)
    training_profile(pipe, generation, stages("measuring")).save(work.folder / PROFILE)


def _make(work: RowWork, config: BenchConfig, stages: Stages) -> list[str]:
    """Make the rows that are missing; what was refused, a line per method and reason."""

    def pending(failed: Collection[str]) -> list[Task]:
        missing = {track: work.missing(TRACKS[track], names, failed) for track, names in config.chosen.items()}
        return row_tasks(missing, config.batch)

    failed = make_missing(work, pending, stages, "rows", engine=config.engine, workers=config.workers)
    rows = [row for track, names in config.chosen.items() for row in work.rows(TRACKS[track], names)]
    refused = {f"not done: {row.track}, {row.method}: {failed[row.key]}": None for row in rows if row.key in failed}
    return list(refused)


def _written(run: RunFolder, work: RowWork, config: BenchConfig, notes: Sequence[str]) -> BenchResult:
    figures: dict[str, Sequence[Figures]] = {}
    tables: dict[str, Table] = {}
    for name, methods in config.chosen.items():
        track = TRACKS[name]
        figures[name] = summarise(track, work.kept(track, methods))
        if figures[name]:
            tables[name] = bench_table(track, figures[name])
            record = experiment(
                f"testbed-{name}", run.record["command"], figures[name], notes=_note(track, work, notes)
            )
            run.write(f"testbed-{name}.json", record)
            run.write(f"testbed-{name}.md", markdown(tables[name]))
    return BenchResult(figures, tables, notes)


def _note(track: Track, work: RowWork, notes: Sequence[str]) -> str:
    generation = dict(work.settings)[track.name]
    note = (
        f"{work.model}, {generation.num_inference_steps} steps, guidance {generation.guidance_scale:g} unless "
        f"the row says otherwise; scenes held out of training and of every choice of settings. {track.note} "
        "Differences are to the best plain setting by the leading mark, which was found on the same scenes; paired by "
        "scene, 95 % bootstrap, not corrected for the number of rows."
    )
    return " ".join([note, *(f"{each}." for each in notes)])
