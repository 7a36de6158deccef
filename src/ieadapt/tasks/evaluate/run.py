"""The evaluation of any folder of videos, alone or against another folder, in a run folder."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from ieadapt.errors import FailureError, IEAdaptError, UsageError
from ieadapt.metrics import Metric, evaluate, missing_metrics, select_metrics
from ieadapt.metrics.clips import USUAL_RATE
from ieadapt.runs.clip_folders import REFERENCES, ClipFile, ClipFolder, find_clips, parts_of
from ieadapt.runs.clip_reading import ReadConfig, aligned, check_readable, read_clip
from ieadapt.runs.flags import flag_words
from ieadapt.runs.folder import Batch, Stages, open_run, silent
from ieadapt.runs.report import Report, Section, Table, write_report
from ieadapt.runs.weight_places import read_places
from ieadapt.tasks.evaluate.tables import MetricSummary, markdown, remarks, summarise, summary_table

VALUES, SUMMARY, TABLE = "values.parquet", "evaluation.json", "table.md"


@dataclass(frozen=True)
class EvaluateConfig:
    """How videos are evaluated.

    Attributes:
        metrics: names with commas; None for every metric that can run.
        weights: see `ieadapt.runs.weight_places.read_places`.
        reading: length, size, alignment.
    """

    metrics: str | None = field(default=None, metadata={"help": "names with commas; by default all that can run"})
    weights: str | None = field(
        default=None, metadata={"help": "weights of CLIP, RAFT, ...: a folder of them, or clip=PLACE,raft=PLACE"}
    )
    reading: ReadConfig = field(default_factory=ReadConfig)


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        table: the summary, as it is printed.
        rows: the same as values.
        notes: what was left out, aligned, refused or not measured, and what the numbers do not settle.
        values: one row per video, with its own notes.
        batch: which videos were left out, and why.
    """

    table: Table
    rows: Sequence[MetricSummary]
    notes: Sequence[str]
    values: Sequence[Mapping[str, Any]]
    batch: Batch


_Pair = tuple[ClipFile, ClipFile | None]


@dataclass(frozen=True)
class _Pairing:
    """Which video is compared with which; no reference where there is only one folder."""

    videos: ClipFolder
    reference: ClipFolder | None
    pairs: Sequence[_Pair]
    notes: Sequence[str]


def run_evaluation(
    videos: str | Path,
    out: str | Path,
    *,
    reference: str | Path | None = None,
    prompts: Path | None = None,
    config: EvaluateConfig | None = None,
    overwrite: bool = False,
    stages: Stages = silent,
) -> Evaluation:
    """Measure every video of a folder and write the values, their summary and a report into a run folder.

    All videos are checked first. One that cannot be read, or not be compared with its reference, is left out; the run
    is then marked partial.

    Args:
        videos: folder of videos, run folder (`RUN:PART`), or one video; see `ieadapt.runs.clip_folders.find_clips`.
        out: the run folder.
        reference: the videos to compare with, paired by name; of a run with plain and enhanced videos, or source and
            edited ones, the former is taken where none is named.
        prompts: what the videos show, see `read_prompts_of`.
        config: metrics and reading.
        overwrite: replace an earlier run in `out`.
        stages: told how far it is.

    Raises:
        UsageError: a folder without videos, no pair, or none of which both videos can be read and compared.
        FailureError: no metric could measure any video.

    Example:
        >>> import tempfile, torch
        >>> from ieadapt.runs.videos import encode_video
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "clip.mp4").write_bytes(encode_video(torch.rand(4, 3, 32, 48)))
        >>> found = run_evaluation(folder, folder / "out", config=EvaluateConfig("flicker,sharpness"))
        >>> [row.metric for row in found.rows], sorted(path.name for path in (folder / "out").iterdir())
        (['flicker', 'sharpness'], ['config.json', 'evaluation.json', 'report.html', 'table.md', 'values.parquet'])
    """
    config = config or EvaluateConfig()
    places = read_places(config.weights)
    chosen = select_metrics(config.metrics, places)
    pairing = _paired(videos, reference, prompts)
    usable, unusable = _applicable(chosen, pairing, named=config.metrics is not None)
    batch = Batch("videos")
    batch.each({pair[0].name: pair for pair in pairing.pairs}, lambda pair: _check(pair, config.reading))
    asked = {"videos": str(videos), "reference": None if reference is None else str(reference)}
    asked |= {"prompts": None if prompts is None else str(prompts), **dataclasses.asdict(config)}
    command = _command(videos, out, reference, prompts, config)
    with open_run(out, "evaluate", asked, command=command, overwrite=overwrite) as run:
        values, notes = _measured(usable, pairing, config.reading, stages, batch)
        rows = summarise(usable, values)
        missing = [] if config.metrics else missing_metrics(places)
        notes = [*pairing.notes, *notes, *remarks(rows, len(values)), *unusable]
        notes += _listed("weights missing", {metric.name: _brings(metric) for metric in missing})
        table = _shown(rows, pairing)
        found = Evaluation(table, rows, [*notes, *batch.notes], values, batch)
        run.write(VALUES, parquet(values))
        run.write(SUMMARY, json.dumps(_record(found, pairing, usable), indent=1, ensure_ascii=False) + "\n")
        run.write(TABLE, markdown(table))
        write_report(run, _report(found, usable, pairing, command))
    batch.mark(run)
    return found


def _paired(videos: str | Path, reference: str | Path | None, prompts: Path | None) -> _Pairing:
    if reference is None:
        parts = parts_of(videos)
        implied = next((part for part in REFERENCES if part in parts and REFERENCES[part] in parts), None)
        if implied is not None:
            videos, reference = f"{videos}:{implied}", f"{videos}:{REFERENCES[implied]}"
    ours = find_clips(videos).with_prompts(prompts)
    left_out = [f"left out of {ours.label}: {each}" for each in ours.left_out]
    if reference is None:
        return _Pairing(ours, None, [(clip, None) for clip in ours.clips], left_out)
    theirs = find_clips(reference)
    left_out += [f"left out of {theirs.label}: {each}" for each in theirs.left_out]
    partners = {clip.name: clip for clip in theirs.clips}
    pairs = [(clip, partners[clip.name]) for clip in ours.clips if clip.name in partners]
    if not pairs and len(ours.clips) == len(theirs.clips) == 1:
        pairs = [(ours.clips[0], theirs.clips[0])]
    if not pairs:
        raise UsageError(
            "no video has a partner of the same name in the reference",
            got=f"{ours.clips[0].name}, ... and {theirs.clips[0].name}, ...",
            where=f"{videos} and {reference}",
            remedy="name the two videos of a pair alike",
        )
    matched = {clip.name for pair in pairs for clip in pair}
    for folder in (ours, theirs):
        alone = [clip.name for clip in folder.clips if clip.name not in matched]
        left_out += [f"left out of {folder.label}, no partner: {', '.join(alone)}"] if alone else []
    return _Pairing(ours, theirs, pairs, left_out)


def _applicable(chosen: Sequence[Metric], pairing: _Pairing, *, named: bool) -> tuple[list[Metric], list[str]]:
    """The metrics that have what they compare with, and what is said of the others."""
    lacking = {}
    for metric in chosen:
        if metric.compares == "pair" and pairing.reference is None:
            lacking[metric.name] = "needs --reference"
        if metric.compares == "text" and not pairing.videos.prompts:
            lacking[metric.name] = "needs --prompts"
    usable = [metric for metric in chosen if metric.name not in lacking]
    if (named and lacking) or not usable:
        name, need = next(iter(lacking.items()))
        raise UsageError(f"the metric {name} {need}", remedy=f"pass {need.split()[1]}, or leave it out of --metrics")
    return usable, _listed("", lacking)


def _listed(why: str, needs: Mapping[str, str]) -> list[str]:
    """A line for each need, with the metrics that have it."""
    by_need: dict[str, list[str]] = {}
    for name, need in needs.items():
        by_need.setdefault(need, []).append(name)
    begin = f"not measured, {why}: " if why else "not measured: "
    return [f"{begin}{', '.join(names)}: {need}" for need, names in by_need.items()]


def _check(pair: _Pair, reading: ReadConfig) -> None:
    for clip in filter(None, pair):
        check_readable(clip.path, reading)


def _measured(
    metrics: Sequence[Metric], pairing: _Pairing, reading: ReadConfig, stages: Stages, batch: Batch
) -> tuple[list[dict[str, Any]], list[str]]:
    """One row of values per pair, and what must be known of them."""
    notes, refusals = list[str](), dict[str, list[str]]()
    report, done = stages("measuring"), itertools.count(1)

    def measure(pair: _Pair) -> dict[str, Any]:
        report(next(done), len(pairing.pairs))
        video, partner = pair
        ours = read_clip(video.path, reading)
        theirs = None if partner is None else read_clip(partner.path, reading)
        frames, reference, how = (ours.frames, None, ()) if theirs is None else aligned(ours, theirs, reading)
        own = [*ours.notes, *(f"reference: {note}" for note in (theirs.notes if theirs else ())), *how]
        row, reasons = clip_values(metrics, frames, reference, pairing.videos.prompts.get(video.name), ours.rate)
        notes.extend(f"{video.name}: {note}" for note in own)
        for reason in reasons:
            refusals.setdefault(reason, []).append(video.name)
        size = dict(zip(("frames", "height", "width"), (len(frames), *frames.shape[2:]), strict=True))
        return {"video": video.name, **size, **row, "notes": "; ".join(own)}

    values = batch.each({pair[0].name: pair for pair in pairing.pairs}, measure)
    notes += [f"{_some(names)}: {reason}" for reason, names in refusals.items()]
    if not any(row.get(metric.name) is not None for row in values for metric in metrics):
        raise FailureError("no metric could measure any video", got=notes[-1])
    return values, notes


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} others"


def clip_values(
    metrics: Sequence[Metric], frames: Any, reference: Any, prompt: str | None, rate: float = USUAL_RATE
) -> tuple[dict[str, float | None], list[str]]:
    """One video's row; a metric that refuses it has no value there, and its reason is told."""
    row: dict[str, float | None] = {}
    refused = []
    for metric in metrics:
        try:
            row |= evaluate(frames, reference, [metric], prompt=prompt, rate=rate)
        except IEAdaptError as error:
            row[metric.name] = None
            refused.append(str(error) if metric.name in str(error) else f"{metric.name}: {error}")
    return row, refused


def _brings(metric: Metric) -> str:
    return metric.weights.command if metric.weights is not None else "-"


def _shown(rows: Sequence[MetricSummary], pairing: _Pairing) -> Table:
    ours, theirs = pairing.videos.label, pairing.reference
    if theirs is None:
        return summary_table(rows, ours, None)
    a, b = theirs.label, ours
    return summary_table(rows, *((f"{b} (B)", f"{a} (A)") if a == b else (b, a)))


def parquet(values: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows of values as the content of a Parquet file."""
    buffer = io.BytesIO()
    pl.DataFrame(values, infer_schema_length=None).write_parquet(buffer)
    return buffer.getvalue()


def _record(found: Evaluation, pairing: _Pairing, metrics: Sequence[Metric]) -> dict[str, Any]:
    return {
        "format": 1,
        "videos": pairing.videos.label,
        "reference": None if pairing.reference is None else pairing.reference.label,
        "summary": [row.as_dict() for row in found.rows],
        "definitions": {metric.name: metric.definition for metric in metrics},
        "notes": list(found.notes),
        "left_out": found.batch.left_out,
        "values": list(found.values),
    }


def _report(found: Evaluation, metrics: Sequence[Metric], pairing: _Pairing, command: str) -> Report:
    against = "" if pairing.reference is None else f" against {pairing.reference.label}"
    meaning = Table(
        ("metric", "what it is", "range", "better", "source"),
        [[each.name, each.definition, each.range, each.better, each.source] for each in metrics],
    )
    return Report(
        title=f"Evaluation of {pairing.videos.label}{against}",
        asked=f"{len(pairing.pairs)} videos, {len(metrics)} metrics.",
        found=list(found.notes) or ["Every metric measured every video."],
        sections=[Section("Metrics", [found.table]), Section("What they mean", [meaning])],
        repeat={"Command line": command},
    )


def _command(
    videos: str | Path, out: str | Path, reference: str | Path | None, prompts: Path | None, config: EvaluateConfig
) -> str:
    words = ["ieadapt", "evaluate", str(videos)]
    words += ["--reference", str(reference)] if reference is not None else []
    words += ["--prompts", str(prompts)] if prompts is not None else []
    words += flag_words(config)
    return shlex.join([*words, "--out", str(out)])


__all__ = ["EvaluateConfig", "Evaluation", "clip_values", "parquet", "run_evaluation"]
