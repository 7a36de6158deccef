"""The demo: the bundled model measured layer by layer, enhanced on held-out captions and scored, and one edit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import polars as pl
from diffusers import DiffusionPipeline
from torch import Tensor

from ieadapt.attention import find_sites
from ieadapt.errors import UsageError
from ieadapt.metrics.structure import psnr, region_psnr, ssim
from ieadapt.runs.flags import command_line, setting
from ieadapt.runs.folder import RunFolder, Stages, open_run, silent
from ieadapt.runs.pipelines import Hardware, describe
from ieadapt.runs.report import Block, Clip, Gallery, Picture, Report, Section, Table, Text, render_report
from ieadapt.runs.videos import Video, encode_video, rows_of_frames, side_by_side
from ieadapt.tasks.edit.method import edit
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.plan import make_plan
from ieadapt.tasks.enhance.run import Seconds, enhanced_pairs, write_pair
from ieadapt.tasks.evaluate.tables import MetricSummary, compare, summary_table, verdict
from ieadapt.tasks.generate import GenerationConfig, with_model_defaults
from ieadapt.tasks.measure.method import measure
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.measure.run import describe_profile, profile_blocks, report_record, sites_table, write_profile
from ieadapt.tasks.pairs import pair_tasks
from ieadapt.testbed import caption, sample_scenes, score_scene
from ieadapt.testbed.edits import EditPair, edit_pairs, kept_region
from ieadapt.testbed.rendering import render
from ieadapt.testbed.score import COMPONENTS, Seen, accuracy_of, checked_clip, look_at

KIND = "colour"
STEPS = 6
READ = 0.5
"""The mark from which a change counts as seen."""
SEEN_BY = {"colour": "binding"}
"""The component that sees a change, where it has another name than the kind of edit."""


@dataclass(frozen=True)
class EditScores:
    """How good an edit is; higher is better in every one.

    Attributes:
        psnr: to the perfect edit, dB.
        ssim: to the perfect edit, in [-1, 1].
        kept: PSNR in the region that the perfect edit leaves as it is, dB.
        change: the mark of what was changed, of the changed object alone, in [0, 1]; of an order of depth, how much
            nearer the clip is to the perfect edit than to the source.
        success: 1 where that is 0.5 or more: the new value is seen; else 0.
        preserved: mean mark of the other components of accuracy, in [0, 1].
    """

    psnr: float
    ssim: float
    kept: float
    change: float
    success: float
    preserved: float

    def as_dict(self) -> dict[str, float]:
        """The scores by name."""
        return asdict(self)


def score_edit(frames: Video, pair: EditPair) -> EditScores:
    """Score an edited clip of a pair.

    No sentence says how a new background lies. A clip whose background is edited is therefore held against the perfect
    edit with the layout that fits it best.

    Args:
        frames: the edit, in [0, 1].
        pair: what was to be changed.

    Raises:
        UsageError: frames of another shape than the pair's.

    Example:
        >>> from ieadapt.testbed.edits import edit_pairs
        >>> pair = edit_pairs(1, ["colour"])[0]
        >>> scores = score_edit(pair.perfect, pair)
        >>> scores.psnr, scores.success
        (100.0, 1.0)
    """
    seen = look_at(checked_clip(frames)[None])[0]
    source, perfect = pair.source_frames, _fitting_perfect(frames, pair, seen)
    named, kept = SEEN_BY.get(pair.kind, pair.kind), kept_region(source, perfect)
    # the changed object by itself, so that the marks of the others do not stand for it
    changed = pair.target if pair.object is None else pair.target.replace(order=(pair.object,))
    change = (
        _nearness(frames, source, perfect, ~kept) if named == "order" else getattr(accuracy_of(seen, changed), named)
    )
    whole = accuracy_of(seen, pair.target)
    others = [getattr(whole, name) for name in COMPONENTS if name != named]
    return EditScores(
        psnr=psnr(frames, perfect),
        ssim=ssim(frames, perfect),
        kept=region_psnr(frames, perfect, kept),
        change=change,
        success=float(change >= READ),
        preserved=sum(others) / len(others),
    )


def _nearness(frames: Tensor, source: Tensor, perfect: Tensor, region: Tensor) -> float:
    """Where a clip lies between source (0) and perfect edit (1), by squared error over some pixels.

    No caption says who is in front in a way that the components of accuracy see.
    """
    before, after = ((frames - other).square().mean(1)[region].mean() for other in (source, perfect))
    return float(before / (before + after).clamp(min=1e-12))


def _fitting_perfect(frames: Video, pair: EditPair, seen: Seen) -> Video:
    """The perfect edit; where the background is new, with the layout that fits the clip best."""
    perfect = pair.perfect
    if pair.kind != "background":
        return perfect
    placed = seen.patterns[pair.target.background]
    fitted = render(pair.target.replace(variation=placed.within(pair.target.variation)))
    errors = [float((clip - frames).square().mean()) for clip in (fitted, perfect)]
    return fitted if errors[0] < errors[1] else perfect


@dataclass(frozen=True)
class DemoEdit:
    """The result of the demo's edit.

    Attributes:
        pair: source and target.
        scores: of the edit.
        copy: of the source itself, taken for the edit.
        psnr: of the reconstruction to the source, dB.
        clip: source, reconstruction, edit and perfect edit side by side.
        strip: the same frame by frame.
    """

    pair: EditPair
    scores: EditScores
    copy: EditScores
    psnr: float
    clip: Clip
    strip: bytes

    def sentences(self) -> list[str]:
        """What came out, in words."""
        return [
            f"Edited with the default settings: “{self.pair.source_prompt}” into “{self.pair.prompt}”. The "
            f"reconstruction of the source has {self.psnr:.1f} dB.",
            f"The edit has {self.scores.psnr:.1f} dB to the perfect edit, where a copy of the source has "
            f"{self.copy.psnr:.1f} dB, and {self.scores.kept:.1f} dB where nothing should change. The new "
            f"{self.pair.kind} is {'read' if self.scores.success else 'not read'} by the scorer.",
        ]

    def section(self) -> Section:
        """For the demo's report."""
        text = " ".join(self.sentences()) + " One edit settles nothing about the method; the benchmark's table does."
        picture = Picture(self.strip, self.clip.caption, f"frames of source and edit: {self.clip.caption}", 560)
        blocks: list[Block] = [Text(text), Gallery([self.clip]), picture]
        return Section("One edit", blocks)


def demo_edit(pipe: DiffusionPipeline, run: RunFolder, stages: Stages = silent) -> DemoEdit:
    """Edit one clip in a few steps, and write it into the demo's folder."""
    pair = edit_pairs(1, [KIND])[0]
    result = edit(
        pipe,
        pair.source_frames,
        pair.prompt,
        source_prompt=pair.source_prompt,
        generation=GenerationConfig(num_inference_steps=STEPS),
        progress=stages("editing"),
    )
    edited = result.edited[0]
    clips = {
        "source": result.source,
        "reconstruction": result.reconstruction,
        "edit": edited,
        "perfect edit": pair.perfect,
    }
    joined, strip = encode_video(side_by_side(clips)), rows_of_frames(clips)
    for name, content in {"source.mp4": encode_video(result.source), "edited.mp4": encode_video(edited)}.items():
        run.write(f"edit/{name}", content)
    run.write("edit/side-by-side.mp4", joined)
    run.write("edit/strip.png", strip)
    return DemoEdit(
        pair=pair,
        scores=score_edit(edited, pair),
        copy=score_edit(pair.source_frames, pair),
        psnr=result.inversion.psnr,
        clip=Clip(joined, f"{pair.source_prompt} → {pair.prompt}"),
        strip=strip,
    )


MODEL = "scenes"
PROFILE_CAPTIONS = 4


@dataclass(frozen=True)
class DemoRun:
    """The settings of the demo; the defaults suit a few minutes on two cores.

    Attributes:
        captions: number of held-out captions, each generated plain and enhanced.
        generation: steps, size, guidance.
        enhancement: scale, perturbation, sites, window.
        seed: of the captions and of the first video's noise.
        hardware: device and precision.

    Raises:
        UsageError: no caption.
    """

    captions: int = setting(6, "held-out captions, each generated plain and enhanced")
    generation: GenerationConfig = field(default_factory=lambda: GenerationConfig(num_inference_steps=8))
    enhancement: EnhanceConfig = field(default_factory=EnhanceConfig)
    seed: int = setting(0, "seed of the captions and of the first video's noise")
    hardware: Hardware = field(default_factory=Hardware)

    def __post_init__(self) -> None:
        if self.captions < 1:
            raise UsageError("the demo needs a caption", expected="--captions 1 or more", got=self.captions)


@dataclass(frozen=True)
class DemoResult:
    """The result of the demo.

    Attributes:
        profile: entropy and energy of every site.
        choice: one row per site: kind, rank by EP within its kind, EP, whether it is in the upper or lower half.
        comparison: plain against enhanced, one row per score.
        edit: one edit of a clip whose perfect edit is known.
    """

    profile: EntropyProfile
    choice: Table
    comparison: list[MetricSummary]
    edit: DemoEdit


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
        progress, plain, enhanced = stages("scoring"), [], []
        for done, (text, pair) in enumerate(zip(captions, pairs, strict=True), start=1):
            plain.append(score_scene(pair.plain, text))
            enhanced.append(score_scene(pair.changed, text))
            progress(done, len(pairs))
        comparison = compare(plain, enhanced)
        run.write("comparison.json", json.dumps([dataclasses.asdict(row) for row in comparison], indent=1))
        edited = demo_edit(pipe, run, stages)
        result = DemoResult(profile, choice_table(profile), comparison, edited)
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
    results = [
        *describe_profile(result.profile),
        "Enhanced against plain, " + verdict(next(row for row in result.comparison if row.metric == "accuracy")),
        f"A plain video took {seconds.plain:.1f} s, an enhanced one {seconds.enhanced:.1f} s.",
        *result.edit.sentences(),
    ]
    plot = (run.path / "ep.png").read_bytes()
    return Report(
        title="ieadapt demo: a video model measured, its videos enhanced and edited",
        request=f"The bundled model, {len(clips)} held-out captions, {config.generation.num_inference_steps} steps.",
        results=results,
        sections=[
            Section("Plain and enhanced", [Gallery(clips)]),
            Section("The difference", [summary_table(result.comparison, "enhanced", "plain")]),
            result.edit.section(),
            Section("Which sites were used", [sites]),
            Section("Every attention site", [*profile_blocks(result.profile, plot)[:1], result.choice]),
        ],
        repeat={"Command line": str(run.record["command"])},
        record=report_record(run.record),
    )
