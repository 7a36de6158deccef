"""The demo: the bundled model measured layer by layer, enhanced on held-out captions and scored, and one edit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ieadapt.attention import find_sites
from ieadapt.runs.flags import command_line
from ieadapt.runs.folder import RunFolder, Stages, open_run, silent
from ieadapt.runs.pipelines import describe
from ieadapt.runs.report import Clip, Gallery, Report, Section, Table, Text, render_report
from ieadapt.runs.settings import with_model_defaults
from ieadapt.tasks.demo.config import DemoRun
from ieadapt.tasks.demo.edit import DemoEdit, demo_edit
from ieadapt.tasks.demo.layer import DemoLayer, demo_layer
from ieadapt.tasks.enhance.plan import make_plan
from ieadapt.tasks.enhance.run import Seconds, enhanced_pairs, write_pair
from ieadapt.tasks.evaluate.tables import MetricSummary, compare, summary_table, verdict
from ieadapt.tasks.measure.method import measure
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.measure.run import describe_profile, profile_blocks, report_record, sites_table, write_profile
from ieadapt.tasks.pairs import pair_tasks
from ieadapt.testbed import caption, sample_scenes, score_scene

MODEL = "scenes"
PROFILE_CAPTIONS = 4


@dataclass(frozen=True)
class DemoResult:
    """The result of the demo.

    Attributes:
        profile: entropy and energy of every site.
        choice: one row per site: kind, rank by EP within its kind, EP, whether it is in the upper or lower half.
        comparison: plain against enhanced, one row per score.
        layer: the videos without the layer that carries motion.
        edit: one edit of a clip whose perfect edit is known.
    """

    profile: EntropyProfile
    choice: Table
    comparison: list[MetricSummary]
    layer: DemoLayer
    edit: DemoEdit

    def sentences(self) -> list[str]:
        """What came out, in words, what can be seen first."""
        accuracy = next(row for row in self.comparison if row.metric == "accuracy")
        return [
            self.layer.sentence,
            *self.edit.sentences(),
            f"Enhanced against plain, {verdict(accuracy)} No enhancement is proven on this model yet, so it does not "
            "come first here.",
            *describe_profile(self.profile),
        ]


def run_demo(config: DemoRun, out: str | Path, *, overwrite: bool = False, stages: Stages = silent) -> DemoResult:
    """Measure the bundled model, then generate held-out captions plain and enhanced, score them, and edit one clip.

    Raises:
        UsageError: the config cannot be used, or the folder cannot.
        FailureError: the demo could not be carried out.
    """
    config = dataclasses.replace(config, generation=with_model_defaults(config.generation, MODEL))
    generation, method = config.generation, config.enhancement
    command = command_line("demo", config, out)
    with open_run(out, "demo", dataclasses.asdict(config), command=command, overwrite=overwrite) as run:
        pipe = config.hardware.load(MODEL)
        seen = [caption(scene) for scene in sample_scenes(PROFILE_CAPTIONS, config.seed, "train")]
        profile = measure(pipe, seen, generation, seed=config.seed, progress=stages("measuring"))
        write_profile(run, profile, MODEL)
        sites = make_plan(method, find_sites(pipe), profile).sites
        captions = [caption(scene) for scene in sample_scenes(config.captions, config.seed, "heldout")]
        tasks = pair_tasks(captions, config.seed)
        run.note(seeds=[task.seed for task in tasks], sites=[site.name for site in sites], model=describe(pipe))
        pairs = list(enhanced_pairs(pipe, tasks, generation, method, profile, stages))
        clips = [Clip(write_pair(run, task, pair), task.caption) for task, pair in zip(tasks, pairs, strict=True)]
        progress, plain, enhanced = stages("scoring", "pair"), [], []
        for done, (text, pair) in enumerate(zip(captions, pairs, strict=True), start=1):
            plain.append(score_scene(pair.plain, text))
            enhanced.append(score_scene(pair.changed, text))
            progress(done, len(pairs))
        comparison = compare(plain, enhanced)
        run.write("comparison.json", json.dumps([dataclasses.asdict(row) for row in comparison], indent=1))
        marks = [score.accuracy.motion for score in plain]
        layer = demo_layer(pipe, tasks, [pair.plain for pair in pairs], marks, (generation, profile), run, stages)
        edited = demo_edit(pipe, run, stages)
        result = DemoResult(profile, choice_table(profile), comparison, layer, edited)
        seconds = Seconds.mean([Seconds(pair.plain_seconds, pair.changed_seconds) for pair in pairs])
        report = _report(config, result, clips, seconds, sites_table(sites, profile), run)
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


def _report(
    config: DemoRun, result: DemoResult, clips: Sequence[Clip], seconds: Seconds, sites: Table, run: RunFolder
) -> Report:
    plot = (run.path / "ep.png").read_bytes()
    times = f"A plain video took {seconds.plain:.1f} s, an enhanced one {seconds.enhanced:.1f} s."
    return Report(
        title="What the attention layers of a video model do",
        request=f"The bundled model, {len(clips)} held-out captions, {config.generation.num_inference_steps} steps.",
        results=result.sentences(),
        sections=[
            result.layer.section(),
            result.edit.section(),
            Section("Plain and enhanced", [Text(times), Gallery(clips)]),
            Section("The difference", [summary_table(result.comparison, "enhanced", "plain")]),
            Section("Which sites were used", [sites]),
            Section("Every attention site", [*profile_blocks(result.profile, plot)[:1], result.choice]),
        ],
        repeat={"Command line": str(run.record["command"])},
        record=report_record(run.record),
    )
