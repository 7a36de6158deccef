"""Editing benchmarks (V2VBench, LOVEU-TGVE): layout, edits, and one table of every method beside the two controls."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ieadapt.errors import FailureError, UsageError
from ieadapt.metrics import Metric, select_metrics
from ieadapt.runs.clip_reading import read_clip
from ieadapt.runs.flags import flag_words
from ieadapt.runs.folder import RunFolder, Stages, open_run, silent
from ieadapt.runs.pipelines import Hardware
from ieadapt.runs.report import Table
from ieadapt.runs.sources import SourceConfig
from ieadapt.runs.weight_places import read_places
from ieadapt.tasks.bench.edit_sets import as_v2vbench, read_edit_set
from ieadapt.tasks.bench.edit_videos import EditPlan, MakeEdits
from ieadapt.tasks.bench.layout_videos import removed_leftovers
from ieadapt.tasks.edit.inversions import default_cache
from ieadapt.tasks.edit.jobs import EditJob
from ieadapt.tasks.edit.presets import edit_preset
from ieadapt.tasks.edit.run_config import Sampling
from ieadapt.tasks.evaluate.run import clip_values, parquet
from ieadapt.tasks.evaluate.tables import MetricSummary, markdown, summarise
from ieadapt.tasks.study.engines import open_engine

METRICS = "psnr,ssim,warp_error,flicker,motion"
VALUES, SUMMARY, TABLE = "values.parquet", "benchmark.json", "table.md"


@dataclass(frozen=True)
class V2VConfig:
    """How an editing benchmark is run.

    Attributes:
        videos: folder of the source videos.
        methods: names of presets, with commas.
        metrics: names, with commas.
        weights: see `read_places`.
        sampling: steps and size.
        source: which frames of the videos are taken.
        engine: local or ray.
        workers: how many; None for one per GPU or core.
        cache: folder in which inversions are kept.
        hardware: device and precision.

    Raises:
        UsageError: a method is unknown, or none is named.
    """

    videos: Path | None = field(default=None, metadata={"help": "folder of the source videos; by default the list's"})
    methods: str = field(default="default", metadata={"help": "presets of the editor, with commas"})
    metrics: str = field(default=METRICS, metadata={"help": "names with commas; `all` for all that can run"})
    weights: str | None = field(
        default=None, metadata={"help": "weights of CLIP, RAFT, ...: a folder of them, or clip=PLACE,raft=PLACE"}
    )
    sampling: Sampling = field(default_factory=Sampling)
    source: SourceConfig = field(default_factory=SourceConfig)
    engine: str = field(default="local", metadata={"help": "local or ray"})
    workers: int | None = field(default=None, metadata={"help": "workers; by default one per GPU or core"})
    cache: Path | None = field(default=None, metadata={"help": "folder in which inversions are kept"})
    hardware: Hardware = field(default_factory=Hardware)

    def __post_init__(self) -> None:
        if not self.presets:
            raise UsageError("the choice of methods is empty", remedy="pass --methods default")
        for name in self.presets:
            edit_preset(name)

    @property
    def presets(self) -> tuple[str, ...]:
        """The methods, each once."""
        return tuple(dict.fromkeys(name.strip() for name in self.methods.split(",") if name.strip()))


@dataclass(frozen=True)
class V2VResult:
    """What a benchmark found.

    Attributes:
        table: one row per method, every metric with its mean and 95 % interval.
        rows: method -> the same as values.
        notes: what was refused.
    """

    table: Table
    rows: Mapping[str, Sequence[MetricSummary]]
    notes: Sequence[str]


def run_v2v(
    model: str,
    edits: str | Path,
    out: str | Path,
    config: V2VConfig | None = None,
    *,
    resume: bool = False,
    stages: Stages = silent,
) -> V2VResult:
    """Make every edit of a list by every method, in V2VBench's layout, and measure them.

    The rows `copy` (the source itself) and `reconstruction` (inverted and run again with its own prompt) are always
    there: consistency and nearness to the source alone reward not editing.

    Args:
        model: a bundled name, a folder or a hub id.
        edits: the list, see `read_edit_set`.
        out: gets `source/VIDEO.mp4`, `METHOD/VIDEO/INDEX.mp4`, `config.yaml` (the list as V2VBench takes it), values,
            table and summary.
        config: methods, metrics, sampling.
        resume: go on with an earlier run of the same request; finished edits are not made again.
        stages: told how far it is.

    Raises:
        UsageError: what was asked cannot be, or the folder holds a run of another request.
        FailureError: some edits could not be made.
    """
    config = config or V2VConfig()
    jobs = read_edit_set(Path(edits), config.videos)
    places = read_places(config.weights)
    metrics = select_metrics(None if config.metrics == "all" else config.metrics, places)
    folder = Path(out).expanduser()
    plan = EditPlan(
        folder,
        model,
        config.hardware,
        config.presets,
        config.sampling.generation,
        config.source,
        config.cache or default_cache(),
    )
    wanted = _request(model, jobs, config)
    command = shlex.join(["ieadapt", "bench", "v2v", model, str(edits), *flag_words(config), "--out", str(out)])
    with open_run(out, "v2v", {"request": wanted}, command=command, resume=resume) as run:
        run.write("config.yaml", as_v2vbench(jobs))
        _make(plan, jobs, config, stages)
        values, notes = _measured(plan, jobs, metrics, stages)
        return _written(run, plan.rows, metrics, values, notes)


def _request(model: str, jobs: Sequence[EditJob], config: V2VConfig) -> dict[str, Any]:
    """What decides about the videos, as it is read from JSON."""
    left = ("engine", "workers", "metrics", "weights", "cache")
    given = {name: value for name, value in dataclasses.asdict(config).items() if name not in left}
    given["source"] = config.source.as_key()
    asked = {"model": model, "jobs": [dataclasses.asdict(job) for job in jobs], **given}
    found: dict[str, Any] = json.loads(json.dumps(asked, default=str))
    return found


def _make(plan: EditPlan, jobs: Sequence[EditJob], config: V2VConfig, stages: Stages) -> None:
    removed_leftovers(plan.folder)
    lacking = [job for job in jobs if plan.missing(job)]
    report, done, failed = stages("edits"), len(jobs) - len(lacking), list[tuple[str, str]]()
    if lacking:
        with open_engine(config.engine, plan, config.workers) as force:
            for outcome in force.run([MakeEdits(job) for job in lacking]):
                done, failed = done + outcome.done, [*failed, *outcome.failed]
                report(done, len(jobs))
    if failed:
        name, reason = failed[0]
        raise FailureError(f"{len(failed)} videos could not be edited", got=f"{name}: {reason}", remedy="--resume")


def _measured(
    plan: EditPlan, jobs: Sequence[EditJob], metrics: Sequence[Metric], stages: Stages
) -> tuple[list[dict[str, Any]], list[str]]:
    """One row of values per method, video and prompt; a metric that refuses has no value there."""
    values, refused, report = list[dict[str, Any]](), dict[str, None](), stages("measuring")
    for done, job in enumerate(jobs):
        reference = read_clip(plan.source_file(job)).frames
        for row in plan.rows:
            for index, prompt in enumerate(job.prompts):
                frames = read_clip(plan.file(row, job, index)).frames
                named = {"method": row, "video": job.name, "index": index, "prompt": prompt}
                found, reasons = clip_values(metrics, frames, reference, prompt)
                values.append(named | found)
                refused |= dict.fromkeys(f"{row}: {reason}" for reason in reasons)
        report(done + 1, len(jobs))
    return values, list(refused)


def _written(
    run: RunFolder,
    methods: Sequence[str],
    metrics: Sequence[Metric],
    values: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
) -> V2VResult:
    rows = {name: summarise(metrics, [each for each in values if each["method"] == name]) for name in methods}
    headings = ["method", *(f"{metric.name} ({metric.unit})" if metric.unit else metric.name for metric in metrics)]
    cells = [[name, *(_cell(row) for row in found)] for name, found in rows.items()]
    caption = "Means over all edits with their 95 % intervals; metrics of pairs compare with the source."
    table = Table(headings, cells, caption, numeric=range(1, len(headings)))
    run.write(VALUES, parquet(values))
    record = {name: [row.as_dict() for row in found] for name, found in rows.items()}
    run.write(SUMMARY, json.dumps({"rows": record, "notes": list(notes)}, indent=1, ensure_ascii=False) + "\n")
    run.write(TABLE, markdown(table))
    return V2VResult(table, rows, notes)


def _cell(row: MetricSummary) -> str:
    if row.mean is None:
        return "–"
    digits = 3 if abs(row.mean) < 10 else 2
    return f"{row.mean:.{digits}f} [{row.low:.{digits}f}, {row.high:.{digits}f}]"
