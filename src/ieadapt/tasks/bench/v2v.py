"""Editing benchmarks (V2VBench, LOVEU-TGVE): layout, edits, and one table of every method beside the two controls."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from ieadapt.errors import FailureError, IEAdaptError, UsageError, raised_as
from ieadapt.metrics import Metric, select_metrics
from ieadapt.notation import counted
from ieadapt.runs.clip_folders import VIDEO_SUFFIXES, frames_of
from ieadapt.runs.clip_reading import open_clip, read_clip
from ieadapt.runs.engines import make_missing
from ieadapt.runs.flags import command_line
from ieadapt.runs.folder import Batch, RunFolder, Stages, open_run, silent
from ieadapt.runs.notes import noted
from ieadapt.runs.report import Table
from ieadapt.runs.workers import Task, tasks_of
from ieadapt.tasks.bench.config import V2VConfig
from ieadapt.tasks.bench.edit_videos import EditWork
from ieadapt.tasks.edit.inversion import default_cache
from ieadapt.tasks.edit.jobs import EditJob, read_jobs
from ieadapt.tasks.evaluate.run import clip_values, parquet, read_places
from ieadapt.tasks.evaluate.tables import MetricSummary, markdown, summarise

VALUES, SUMMARY, TABLE = "values.parquet", "benchmark.json", "table.md"
TGVE_VIDEO, TGVE_SOURCE = "Video name", "Our GT caption"
TGVE_TARGETS = (
    "Style Change Caption",
    "Object Change Caption",
    "Background Change Caption",
    "Multiple Changes Caption",
)
_NOT_REQUESTED = ("engine", "workers", "metrics", "weights", "cache")
"""Fields of a config that decide nothing about the videos."""


@dataclass(frozen=True)
class V2VResult:
    """The result of an editing benchmark.

    Attributes:
        table: one row per method, every metric with its mean and 95 % interval.
        rows: method -> the same as values.
        notes: signs of damage in a source, what was refused, and what was left out.
        batch: which source videos were left out, and why.
    """

    table: Table
    rows: Mapping[str, Sequence[MetricSummary]]
    notes: Sequence[str]
    batch: Batch


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

    All videos are checked first. One that cannot be read or edited is left out, and the run is then marked partial;
    resumed, it tries that one again.

    Args:
        model: a bundled name, a folder or a hub id.
        edits: the list, see `read_edit_set`.
        out: gets `source/VIDEO.mp4`, `METHOD/VIDEO/INDEX.mp4`, `config.yaml` (the list as V2VBench takes it), values,
            table and summary.
        config: methods, metrics, sampling.
        resume: go on with an earlier run of the same request; finished edits that are as they were written are not
            made again.
        stages: called as it goes on.

    Raises:
        UsageError: the request cannot be met, no video can be read, or the folder holds a run of another request.
        FailureError: no video could be edited.
    """
    config = config or V2VConfig()
    jobs = read_edit_set(Path(edits), config.videos)
    places = read_places(config.weights)
    metrics = select_metrics(None if config.metrics == "all" else config.metrics, places)
    work = EditWork(
        Path(out).expanduser(),
        model,
        config.hardware,
        config.presets,
        config.sampling.generation,
        config.source,
        config.cache or default_cache(),
    )
    request: dict[str, Any] = {"model": model, "jobs": [asdict(job) for job in jobs]}
    request |= {name: value for name, value in asdict(config).items() if name not in _NOT_REQUESTED}
    request["source"] = config.source.as_key()
    command = command_line("bench v2v", config, out, model, edits)
    batch = Batch("videos")
    batch.each({job.name: job for job in jobs}, _check)
    with open_run(out, "v2v", {"request": request}, command=command, resume=resume) as run:
        with noted() as warned:
            failed = _make(work, [job for job in jobs if job.name not in batch.left_out], config, stages)
        batch.left_out |= {name: str(reason) for name, reason in failed.items()}
        done = [job for job in jobs if job.name not in batch.left_out]
        if not done:
            name, reason = next(iter(batch.left_out.items()))
            problem = f"{counted(len(batch.left_out), 'video')} could not be edited"
            raise FailureError(problem, got=f"{name}: {reason}", remedy="--resume")
        run.write("config.yaml", as_v2vbench(done))
        values, notes = _measure(work, done, metrics, stages)
        result = _write(run, work.rows, metrics, values, [*warned, *notes], batch)
    batch.mark(run)
    return result


def _check(job: EditJob) -> None:
    if job.video is not None:
        with open_clip(job.video):
            return


def _make(work: EditWork, jobs: Sequence[EditJob], config: V2VConfig, stages: Stages) -> dict[str, IEAdaptError]:
    """Make what is missing; why some jobs could not be done, by name."""
    keyed = {work.key(job): job for job in jobs}

    def pending(failed: Collection[str]) -> list[Task]:
        left = {key: job for key, job in keyed.items() if key not in failed and work.missing(job)}
        return tasks_of(EditWork.make, left, 1)

    failed = make_missing(work, pending, stages, "edits", engine=config.engine, workers=config.workers)
    return {keyed[key].name: reason for key, reason in failed.items()}


def _measure(
    work: EditWork, jobs: Sequence[EditJob], metrics: Sequence[Metric], stages: Stages
) -> tuple[list[dict[str, Any]], list[str]]:
    """One row of values per method, video and prompt; a metric that refuses has no value there."""
    values, noted, report = list[dict[str, Any]](), dict[str, None](), stages("measuring", "video")
    for done, job in enumerate(jobs):
        reference, damage = read_clip(work.source_file(job)).frames, work.record(job).notes
        noted |= dict.fromkeys(f"{job.name}: source: {sign}" for sign in damage)
        for row in work.rows:
            for index, prompt in enumerate(job.prompts):
                edited = read_clip(work.file(row, job, index))
                own = [*(f"source: {sign}" for sign in damage), *edited.notes]
                scores, reasons = clip_values(metrics, edited.frames, reference, prompt)
                identity = {"method": row, "video": job.name, "index": index, "prompt": prompt}
                values.append({**identity, **scores, "notes": "; ".join(own)})
                noted |= dict.fromkeys(f"{row}: {reason}" for reason in reasons)
        report(done + 1, len(jobs))
    return values, list(noted)


def _write(
    run: RunFolder,
    methods: Sequence[str],
    metrics: Sequence[Metric],
    values: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
    batch: Batch,
) -> V2VResult:
    notes = [*notes, *batch.notes]
    rows = {name: summarise(metrics, [each for each in values if each["method"] == name]) for name in methods}
    headings = ["method", *(f"{metric.name} ({metric.unit})" if metric.unit else metric.name for metric in metrics)]
    cells = [[name, *map(_cell, summaries)] for name, summaries in rows.items()]
    caption = "Means over all edits with their 95 % intervals; metrics of pairs compare with the source."
    table = Table(headings, cells, caption, numeric=range(1, len(headings)))
    run.write(VALUES, parquet(values))
    record = {name: [asdict(row) for row in summaries] for name, summaries in rows.items()}
    summary = {"rows": record, "notes": notes, "left_out": batch.left_out}
    run.write(SUMMARY, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    run.write(TABLE, markdown(table))
    return V2VResult(table, rows, notes, batch)


def _cell(row: MetricSummary) -> str:
    if row.mean is None:
        return "–"
    digits = 3 if abs(row.mean) < 10 else 2
    return f"{row.mean:.{digits}f} [{row.low:.{digits}f}, {row.high:.{digits}f}]"


def read_edit_set(file: Path, videos: Path | None = None) -> list[EditJob]:
    """The edits that a benchmark asks for.

    Args:
        file: V2VBench's YAML (`data`: a list of `video_id`, `prompt` and `edit`, a list of prompts), LOVEU-TGVE's CSV
            (`Video name`, `Our GT caption`, four columns of changed captions), or a file of jobs (see `read_jobs`).
        videos: the folder of the source videos, for the first two: files, or folders of frames, named by the list;
            by default the folder of the list.

    Raises:
        UsageError: the list cannot be read, is none of the three, or a video is not there.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "hike.mp4").touch()
        >>> text = "data: [{video_id: hike, edit: [{prompt: pixel art}, {prompt: snow}]}]"
        >>> _ = (folder / "set.yaml").write_text(text)
        >>> read_edit_set(folder / "set.yaml")[0].prompts
        ('pixel art', 'snow')
    """
    causes = (OSError, UnicodeDecodeError, yaml.YAMLError, csv.Error)
    with raised_as(UsageError, "the list of edits cannot be read", causes, where=file):
        text = file.expanduser().read_text(encoding="utf-8-sig")
        if file.suffix.lower() in (".yaml", ".yml"):
            entries = _v2vbench(yaml.safe_load(text), file)
        else:
            entries = _tgve(list(csv.DictReader(text.splitlines())))
    if entries is None:
        jobs = read_jobs(file)
        if any(job.video is None for job in jobs):
            raise UsageError("a benchmark edits videos from files", got="a job with a seed", where=file)
        return jobs
    if not entries:
        raise UsageError("the list of edits is empty", where=file)
    folder = file.expanduser().parent if videos is None else videos.expanduser()
    return [EditJob(name, tuple(targets), source, _video(folder, name)) for name, source, targets in entries]


def as_v2vbench(jobs: list[EditJob]) -> str:
    """The list in V2VBench's form, which its evaluation takes as `index_file`."""
    entries = [
        {"video_id": job.name, "prompt": job.source_prompt, "edit": [{"prompt": prompt} for prompt in job.prompts]}
        for job in jobs
    ]
    return yaml.safe_dump({"data": entries}, sort_keys=False, allow_unicode=True)


Entries = list[tuple[str, str, list[str]]]
"""Name of a video, what it shows, and the prompts of its edits."""


def _v2vbench(content: Any, file: Path) -> Entries | None:
    rows = content.get("data") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "video_id" in row for row in rows):
        return None
    problem, expected = "an entry of the list has no edits", "edit: [{prompt: ...}]"
    with raised_as(UsageError, problem, (KeyError, TypeError), expected=expected, got=None, where=file):
        return [
            (str(row["video_id"]), str(row.get("prompt") or ""), [str(edit["prompt"]) for edit in row["edit"]])
            for row in rows
        ]


def _tgve(rows: Sequence[Mapping[str, str | None]]) -> Entries | None:
    if not rows or TGVE_VIDEO not in rows[0] or not any(name in rows[0] for name in TGVE_TARGETS):
        return None
    entries = []
    for row in rows:
        name, source, *targets = ((row.get(key) or "").strip() for key in (TGVE_VIDEO, TGVE_SOURCE, *TGVE_TARGETS))
        if name and any(targets):  # rows without are headings of a part, and gaps
            entries.append((name, source, [target for target in targets if target]))
    return entries


def _video(folder: Path, name: str) -> Path:
    """The file or folder of frames of this name."""
    if (folder / name).is_dir() and next(frames_of(folder / name), None) is not None:
        return folder / name
    files = (folder / f"{name}{suffix}" for suffix in sorted(VIDEO_SUFFIXES))
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise UsageError(
            "a video of the list is not there",
            expected=f"{name}.mp4 or a folder of frames",
            where=folder,
            remedy="name the folder of the source videos with --videos",
        )
    return file
