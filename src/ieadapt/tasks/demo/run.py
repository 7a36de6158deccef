"""The demo run: the bundled model measured layer by layer, enhanced on held-out captions and scored, and one edit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from ieadapt.attention import find_sites
from ieadapt.errors import UsageError
from ieadapt.runs.flags import command_line
from ieadapt.runs.folder import RunFolder, Stages, open_run, silent
from ieadapt.runs.pipelines import Hardware, describe
from ieadapt.runs.report import Clip, Gallery, Report, Section, Table, Text, render_report
from ieadapt.tasks.demo.edit import DemoEdit, demo_edit
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.pairs import Pair, Seconds, generate_pairs, pair_tasks, write_pair
from ieadapt.tasks.evaluate.tables import Comparison, compare, comparison_table, verdict
from ieadapt.tasks.generate import GenerationConfig, with_model_defaults
from ieadapt.tasks.measure.method import measure
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.measure.run import describe_profile, profile_blocks, report_record, sites_table, write_profile
from ieadapt.testbed import caption, sample_scenes, score

MODEL = "shapes"
PROFILE_CAPTIONS = 4
RECORD = "enhance-default-shapes"


@dataclass(frozen=True)
class DemoRun:
    """What the demo is asked; the defaults suit a few minutes on two cores.

    Attributes:
        captions: number of held-out captions, each generated plain and enhanced.
        generation: steps, size, guidance.
        enhancement: scale, perturbation, sites, window.
        seed: of the captions and of the first video's noise.
        hardware: device and precision.

    Raises:
        UsageError: no caption.
    """

    captions: int = field(default=6, metadata={"help": "held-out captions, each generated plain and enhanced"})
    generation: GenerationConfig = field(default_factory=lambda: GenerationConfig(num_inference_steps=8))
    enhancement: EnhanceConfig = field(default_factory=EnhanceConfig)
    seed: int = field(default=0, metadata={"help": "seed of the captions and of the first video's noise"})
    hardware: Hardware = field(default_factory=Hardware)

    def __post_init__(self) -> None:
        if self.captions < 1:
            raise UsageError("the demo needs a caption", expected="--captions 1 or more", got=self.captions)


@dataclass(frozen=True)
class DemoResult:
    """What the demo found.

    Attributes:
        profile: entropy and energy of every site.
        choice: one row per site: kind, rank by EP within its kind, EP, whether it is in the upper or lower half.
        comparison: plain against enhanced, one row per measure.
        recorded: the recorded comparison on many captions, with how it was made; None where there is none.
        edit: one edit of a clip whose perfect edit is known.
    """

    profile: EntropyProfile
    choice: Table
    comparison: list[Comparison]
    recorded: Mapping[str, Any] | None
    edit: DemoEdit


def run_demo(asked: DemoRun, out: str | Path, *, overwrite: bool = False, stages: Stages = silent) -> DemoResult:
    """Measure the bundled model, then generate held-out captions plain and enhanced, score them, and edit one clip.

    Raises:
        UsageError: what was asked cannot be.
        FailureError: it could not be carried out.
    """
    asked = dataclasses.replace(asked, generation=with_model_defaults(asked.generation, MODEL))
    command = command_line("demo", asked, out)
    with open_run(out, "demo", dataclasses.asdict(asked), command=command, overwrite=overwrite) as run:
        pipe = asked.hardware.load(MODEL)
        seen = [caption(scene) for scene in sample_scenes(PROFILE_CAPTIONS, asked.seed, "train")]
        profile = measure(pipe, seen, asked.generation, seed=asked.seed, progress=stages("measuring"))
        write_profile(run, profile, MODEL)
        chosen = asked.enhancement.choose(find_sites(pipe), profile)
        captions = [caption(scene) for scene in sample_scenes(asked.captions, asked.seed, "heldout")]
        tasks = pair_tasks(captions, asked.seed, 1)
        run.note(seeds=[task.seed for task in tasks], sites=[site.name for site in chosen], model=describe(pipe))
        clips: list[Clip] = []
        pairs: list[Pair] = []
        for pair, _ in generate_pairs(pipe, tasks, asked.generation, asked.enhancement, profile, stages):
            clips.append(Clip(write_pair(run, pair), f"{pair.prompt} (seed {pair.seed})"))
            pairs.append(pair)
        comparison = compare(*_scores(pairs, stages))
        run.write("comparison.json", json.dumps([dataclasses.asdict(row) for row in comparison], indent=1))
        edited = demo_edit(pipe, run, stages)
        result = DemoResult(profile, choice_table(profile), comparison, recorded_comparison(), edited)
        seconds = Seconds.mean([pair.seconds for pair in pairs])
        report = _report(asked, result, clips, seconds, sites_table(chosen, profile), run)
        run.write("report.html", render_report(report))
    return result


def choice_table(profile: EntropyProfile) -> Table:
    """Every site ranked by EP within its kind; the upper half are the high-entropy sites."""
    rows = []
    for kind in profile.by_site()["kind"].unique(maintain_order=True):
        ranked = profile.by_site().filter(pl.col("kind") == kind).sort("ep", descending=True)
        for rank, row in enumerate(ranked.iter_rows(named=True), start=1):
            half = "high" if rank <= (ranked.height + 1) // 2 else "low"
            share = f"{100 * row['energy_share']:.2f}"
            rows.append([kind, str(rank), f"{row['ep']:.1f}", half, f"{row['n_keys']:.0f}", share, row["site"]])
    headings = ("kind", "rank", "EP %", "entropy", "keys", "energy share %", "site")
    return Table(headings, rows, "Sites ranked by EP within their kind.", numeric=(1, 2, 4, 5))


def recorded_comparison() -> Mapping[str, Any] | None:
    """The recorded comparison on many captions: from the repository, or from the package; None where there is none."""
    source = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / f"{RECORD}.json"
    packaged = Path(__file__).parent / "recorded" / f"{RECORD}.json"
    found = next((path for path in (source, packaged) if path.is_file()), None)
    return None if found is None else json.loads(found.read_text())


def recorded_table(record: Mapping[str, Any]) -> Table:
    """The recorded comparison as a table; its caption says how it was made."""
    rows = [Comparison(**row) for row in record["rows"]]
    made = f"Recorded on {record['date']} by `{record['command']}`. {record['notes']}".strip()
    return comparison_table(rows, made)


def _scores(pairs: Sequence[Pair], stages: Stages) -> tuple[list[Any], list[Any]]:
    progress, plain, enhanced = stages("scoring"), [], []
    for done, pair in enumerate(pairs, start=1):
        plain.append(score(pair.plain, pair.prompt))
        enhanced.append(score(pair.enhanced, pair.prompt))
        progress(done, len(pairs))
    return plain, enhanced


def _report(
    asked: DemoRun, result: DemoResult, clips: Sequence[Clip], seconds: Seconds, sites: Table, run: RunFolder
) -> Report:
    by_name = {row.measure: row for row in result.comparison}
    found = [
        *describe_profile(result.profile),
        "Enhanced against plain, " + verdict(by_name["fidelity"]),
        f"A plain video took {seconds.plain:.1f} s, an enhanced one {seconds.enhanced:.1f} s.",
        *result.edit.sentences(),
    ]
    tables: list[Table | Text] = [comparison_table(result.comparison, f"These {len(clips)} captions.")]
    if result.recorded is None:
        tables.append(Text("No comparison on many captions is recorded yet."))
    else:
        tables.append(recorded_table(result.recorded))
    plot = (run.path / "ep.png").read_bytes()
    return Report(
        title="ieadapt demo: a video model measured, its videos enhanced and edited",
        asked=f"The bundled model, {len(clips)} held-out captions, {asked.generation.num_inference_steps} steps.",
        found=found,
        sections=[
            Section("Plain and enhanced", [Gallery(clips)]),
            Section("The difference", tables),
            result.edit.section(),
            Section("Which sites were used", [sites]),
            Section("Every attention site", [*profile_blocks(result.profile, plot)[:1], result.choice]),
        ],
        repeat={"Command line": str(run.record["command"])},
        record=report_record(run.record),
    )
