"""The evaluation of any folder of videos, alone or against another folder, in a run folder."""

from __future__ import annotations

import difflib
import io
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from ieadapt.errors import FailureError, IEAdaptError, UsageError
from ieadapt.metrics import METRICS, Metric, evaluate, missing_metrics, select_metrics
from ieadapt.metrics.metric import USUAL_RATE
from ieadapt.metrics.weights import UserWeights, WeightPaths
from ieadapt.notation import counted
from ieadapt.runs.clip_folders import REFERENCES, ClipFolder, find_clips, parts_of, read_prompts_of
from ieadapt.runs.clip_reading import aligned, check_readable, read_clip
from ieadapt.runs.flags import command_line
from ieadapt.runs.folder import Batch, Stages, open_run, silent
from ieadapt.runs.report import Picture, Report, Section, Table, figure_png, write_report
from ieadapt.runs.settings import ReadConfig
from ieadapt.tasks.evaluate.config import EvaluateConfig
from ieadapt.tasks.evaluate.tables import (
    MetricSummary,
    definitions_table,
    markdown,
    plot_pairs,
    remarks,
    summarise,
    summary_table,
)

VALUES, SUMMARY, TABLE = "values.parquet", "evaluation.json", "table.md"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

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


@dataclass(frozen=True)
class _Pairing:
    """Which video is compared with which, by name; no reference where there is only one folder."""

    videos: ClipFolder
    reference: ClipFolder | None
    pairs: Mapping[str, tuple[Path, Path | None]]
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
        stages: called as it goes on.

    Raises:
        UsageError: a folder without videos, no pair, or none of which both videos can be read and compared.
        FailureError: no metric could measure any video.

    Example:
        >>> import tempfile, torch
        >>> from ieadapt.runs.videos import encode_video
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "clip.mp4").write_bytes(encode_video(torch.rand(4, 3, 32, 48)))
        >>> result = run_evaluation(folder, folder / "out", config=EvaluateConfig("flicker,sharpness"))
        >>> [row.metric for row in result.rows], sorted(path.name for path in (folder / "out").iterdir())
        (['flicker', 'sharpness'], ['config.json', 'evaluation.json', 'report.html', 'table.md', 'values.parquet'])
    """
    config = config or EvaluateConfig()
    places = read_places(config.weights)
    chosen = select_metrics(config.metrics, places)
    pairing = _paired(videos, reference, prompts)
    usable, unusable = _applicable(chosen, pairing, named=config.metrics is not None)
    batch = Batch("videos")
    names = {name: name for name in pairing.pairs}

    def check(name: str) -> None:
        for clip in filter(None, pairing.pairs[name]):
            check_readable(clip, config.reading)

    batch.each(names, check)
    against = {"--reference": reference, "--prompts": prompts}
    options = [] if prompts is None else ["--prompts", prompts]
    called = ["evaluate", videos] if reference is None else ["compare", reference, videos]
    command = command_line(str(called[0]), config, out, *called[1:], *options)
    request = {"videos": str(videos), **{option[2:]: value and str(value) for option, value in against.items()}}
    with open_run(out, "evaluate", request | asdict(config), command=command, overwrite=overwrite) as run:
        values, notes = _measure(usable, pairing, config.reading, stages, batch)
        rows = summarise(usable, values)
        missing = [] if config.metrics else missing_metrics(places)
        notes = [*pairing.notes, *notes, *remarks(rows, len(values)), *unusable]
        notes += _not_measured(", weights missing", ((each.name, _command_for(each)) for each in missing))
        result = Evaluation(_table(rows, pairing), rows, [*notes, *batch.notes], values, batch)
        run.write(VALUES, parquet(values))
        run.write(SUMMARY, json.dumps(_record(result, pairing, usable), indent=1, ensure_ascii=False) + "\n")
        run.write(TABLE, markdown(result.table))
        write_report(run, _report(result, usable, pairing, command))
    batch.mark(run)
    return result


def _paired(videos: str | Path, reference: str | Path | None, prompts: Path | None) -> _Pairing:
    if reference is None:
        parts = parts_of(videos)
        implied = next((part for part in REFERENCES if part in parts and REFERENCES[part] in parts), None)
        if implied is not None:
            videos, reference = f"{videos}:{implied}", f"{videos}:{REFERENCES[implied]}"
    ours = find_clips(videos)
    if prompts is not None:
        ours = replace(ours, prompts=read_prompts_of(prompts, ours.clips))
    left_out = [f"left out of {ours.label}: {each}" for each in ours.left_out]
    if reference is None:
        return _Pairing(ours, None, {name: (clip, None) for name, clip in ours.clips.items()}, left_out)
    theirs = find_clips(reference)
    left_out += [f"left out of {theirs.label}: {each}" for each in theirs.left_out]
    single = len(ours.clips) == len(theirs.clips) == 1  # a pair, whatever their names
    partners = dict(zip(ours.clips, theirs.clips.values(), strict=True)) if single else theirs.clips
    pairs = {name: (clip, partners[name]) for name, clip in ours.clips.items() if name in partners}
    if not pairs:
        raise UsageError(
            "no video has a partner of the same name in the reference",
            got=f"{next(iter(ours.clips))}, ... and {next(iter(theirs.clips))}, ...",
            where=f"{videos} and {reference}",
            remedy="name the two videos of a pair alike",
        )
    for folder in (ours, theirs):
        alone = [name for name in folder.clips if name not in pairs]
        if alone and not single:
            left_out.append(f"left out of {folder.label}, no partner: {', '.join(alone)}")
    return _Pairing(ours, theirs, pairs, left_out)


def _applicable(chosen: Sequence[Metric], pairing: _Pairing, *, named: bool) -> tuple[list[Metric], list[str]]:
    """The metrics that have what they compare with, and notes on the others."""
    absent = {"pair": "--reference"} if pairing.reference is None else {}
    absent |= {} if pairing.videos.prompts else {"text": "--prompts"}
    lacking = {metric.name: absent[metric.compares] for metric in chosen if metric.compares in absent}
    usable = [metric for metric in chosen if metric.name not in lacking]
    if lacking and (named or not usable):
        name, option = next(iter(lacking.items()))
        raise UsageError(f"the metric {name} needs {option}", remedy=f"pass {option}, or leave it out of --metrics")
    return usable, _not_measured("", ((name, f"needs {option}") for name, option in lacking.items()))


def _not_measured(why: str, needs: Iterable[tuple[str, str]]) -> list[str]:
    """A line for each need, with the metrics that have it."""
    return [f"not measured{why}: {', '.join(names)}: {need}" for need, names in _grouped(needs).items()]


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Pairs of (name, reason) as reason -> names."""
    groups: dict[str, list[str]] = {}
    for name, reason in pairs:
        groups.setdefault(reason, []).append(name)
    return groups


def _measure(
    metrics: Sequence[Metric], pairing: _Pairing, reading: ReadConfig, stages: Stages, batch: Batch
) -> tuple[list[dict[str, Any]], list[str]]:
    """One row of values per pair, and what must be known of them."""
    notes, refusals = list[str](), list[tuple[str, str]]()
    report, done = stages("measuring", "video"), itertools.count(1)

    def measure(name: str) -> dict[str, Any]:
        report(next(done), len(pairing.pairs))
        video, partner = pairing.pairs[name]
        ours = read_clip(video, reading)
        frames, reference, own = ours.frames, None, list(ours.notes)
        if partner is not None:
            theirs = read_clip(partner, reading)
            frames, reference, changes = aligned(ours, theirs, reading)
            own += [*(f"reference: {note}" for note in theirs.notes), *changes]
        row, reasons = clip_values(metrics, frames, reference, pairing.videos.prompts.get(name), ours.rate)
        notes.extend(f"{name}: {note}" for note in own)
        refusals.extend((name, reason) for reason in reasons)
        size = dict(zip(("frames", "height", "width"), (len(frames), *frames.shape[2:]), strict=True))
        return {"video": name, **size, **row, "notes": "; ".join(own)}

    values = batch.each({name: name for name in pairing.pairs}, measure)
    for reason, names in _grouped(refusals).items():
        some = names if len(names) <= 3 else [f"{names[0]} and {len(names) - 1} others"]
        notes.append(f"{', '.join(some)}: {reason}")
    if not any(row.get(metric.name) is not None for row in values for metric in metrics):
        raise FailureError("no metric could measure any video", got=notes[-1])
    return values, notes


def clip_values(
    metrics: Sequence[Metric], frames: Any, reference: Any, prompt: str | None, rate: float = USUAL_RATE
) -> tuple[dict[str, float | None], list[str]]:
    """One video's row; a metric that refuses it has no value there, and its reason is given."""
    row: dict[str, float | None] = {}
    refused = []
    for metric in metrics:
        try:
            row |= evaluate(frames, reference, [metric], prompt=prompt, rate=rate)
        except IEAdaptError as error:
            row[metric.name] = None
            refused.append(str(error) if metric.name in str(error) else f"{metric.name}: {error}")
    return row, refused


def _command_for(metric: Metric) -> str:
    return metric.weights.command if metric.weights is not None else "-"


def _table(rows: Sequence[MetricSummary], pairing: _Pairing) -> Table:
    if pairing.reference is None:
        return summary_table(rows, pairing.videos.label, None)
    a, b = pairing.reference.label, pairing.videos.label
    return summary_table(rows, f"{b} (B)", f"{a} (A)") if a == b else summary_table(rows, b, a)


def parquet(values: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows of values as the content of a Parquet file."""
    buffer = io.BytesIO()
    pl.DataFrame(values, infer_schema_length=None).write_parquet(buffer)
    return buffer.getvalue()


def _record(result: Evaluation, pairing: _Pairing, metrics: Sequence[Metric]) -> dict[str, Any]:
    return {
        "format": 1,
        "videos": pairing.videos.label,
        "reference": None if pairing.reference is None else pairing.reference.label,
        "summary": [asdict(row) for row in result.rows],
        "definitions": {metric.name: metric.definition for metric in metrics},
        "notes": list(result.notes),
        "left_out": result.batch.left_out,
        "values": list(result.values),
    }


def _report(result: Evaluation, metrics: Sequence[Metric], pairing: _Pairing, command: str) -> Report:
    against = "" if pairing.reference is None else f" against {pairing.reference.label}"
    pictures = []
    if any(row.difference is not None for row in result.rows):
        plot = figure_png(plot_pairs(result.rows, result.values))
        caption = "Grey: one pair each, from the reference to the video. Blue: the means."
        pictures = [Section("Pair by pair", [Picture(plot, caption, "a panel per metric with a line per pair", 560)])]
    return Report(
        title=f"Evaluation of {pairing.videos.label}{against}",
        request=f"{counted(len(pairing.pairs), 'video')}, {counted(len(metrics), 'metric')}.",
        results=list(result.notes),
        sections=[
            *pictures,
            Section("Metrics", [result.table]),
            Section("What they mean", [definitions_table(metrics)]),
        ],
        repeat={"Command line": command},
    )


def given_keys() -> list[str]:
    """The names under which weights may be given, such as `clip` and `dino`."""
    weights = (metric.weights for metric in METRICS.values() if isinstance(metric.weights, UserWeights))
    return list(dict.fromkeys(each.key for given in weights for each in given.sets))


def read_places(text: str | None) -> WeightPaths:
    """Where weights are.

    Args:
        text: parts with commas: `clip=PLACE`, where PLACE is a folder, a file or a hub id, or a folder alone, in which
            folders and files named by their keys are looked for. None for nothing.

    Raises:
        UsageError: an unknown key, a location that is not there, or a folder without any known name in it.
        FailureError: the hub does not give the model.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "clip").mkdir()
        >>> read_places(str(folder)) == {"clip": folder / "clip"} == read_places(f"clip={folder / 'clip'}")
        True
    """
    places: dict[str, Path] = {}
    for part in filter(None, (part.strip() for part in (text or "").split(","))):
        key, equals, location = part.partition("=")
        if not equals:
            places |= _weights_in(Path(part).expanduser())
        elif key in given_keys():
            places[key] = _weights_at(location)
        else:
            near = difflib.get_close_matches(key, given_keys(), n=1)
            meant = f" (did you mean {near[0]!r}?)" if near else ""
            expected = ", ".join(given_keys())
            raise UsageError(f"no metric takes weights named {key!r}{meant}", expected=expected, where="--weights")
    return places


def _weights_in(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UsageError("there is no such folder of weights", where=folder, remedy="or name one: --weights clip=PLACE")
    files = ((key, folder / f"{key}{suffix}") for key in given_keys() for suffix in (".pth", ".safetensors", ""))
    weights = {key: file for key, file in files if file.exists()}
    if not weights:
        expected = f"folders or files named {', '.join(given_keys())}"
        raise UsageError("the folder holds no weights that a metric takes", expected=expected, where=folder)
    return weights


def _weights_at(location: str) -> Path:
    path = Path(location).expanduser()
    if path.exists():
        return path
    if not _HUB_ID.fullmatch(location):
        raise UsageError("these weights are not there", expected="a folder, a file or a hub id", got=location)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(location, allow_patterns=["*.json", "*.txt", "*.safetensors", "*.model"]))
    except Exception as error:  # the hub client raises errors of many unrelated classes
        raise FailureError(
            f"{location!r} is nothing here and could not be fetched from the model hub",
            got=(str(error).strip().splitlines() or [type(error).__name__])[0],
            remedy="check the name and the network, or download the model and give its folder",
        ) from error
