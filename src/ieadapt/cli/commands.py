"""The commands that look at a model or make videos.

What needs torch is imported inside a command, so that its help, and a refusal of its options, come at once.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ieadapt.attention import FAMILIES
from ieadapt.cli.console import Summary, location, mend_and_resume, print_progress, run_in
from ieadapt.cli.options import DryRun, Model, Out, Overwrite, Resume, takes
from ieadapt.models import known_models
from ieadapt.notation import counted
from ieadapt.runs.folder import display_path, read_run
from ieadapt.runs.report import Table
from ieadapt.tasks.demo.config import DemoRun
from ieadapt.tasks.edit.config import EditRun
from ieadapt.tasks.enhance.config import EnhanceRun
from ieadapt.tasks.maps.config import MapsRun
from ieadapt.tasks.measure.config import MeasureRun
from ieadapt.tasks.perturb.config import PerturbRun
from ieadapt.tasks.screen.config import ScreenRun
from ieadapt.tasks.study.config import StudyRun
from ieadapt.tasks.tune.config import TuneRun

_OWN = "(default: the model's own)"


@takes()
def models() -> Summary:
    """A model is a bundled name, a folder that `save_pretrained` wrote, or a hub id.

    Example: `ieadapt models --json`
    """
    bundled = [{"name": m.name, "family": m.family, "summary": m.summary} for m in known_models().values()]
    families = [
        {"family": family.name, "denoiser": family.denoiser_name, "guidance": family.guidance} for family in FAMILIES
    ]
    first = Table(("bundled model", "family", "makes"), [list(row.values()) for row in bundled])
    headings = ("family", "denoiser in diffusers", "guidance branches")
    second = Table(headings, [list(row.values()) for row in families])
    return Summary({"bundled": bundled, "families": families}, [first, second])


@takes()
def sites(
    model: Model,
    *,
    sites: Annotated[str | None, typer.Option("--sites", help="names, patterns or kinds, with commas")] = None,
    frames: Annotated[int | None, typer.Option("--frames", help=f"frames per video {_OWN}")] = None,
    height: Annotated[int | None, typer.Option("--height", help=f"height in pixels {_OWN}")] = None,
    width: Annotated[int | None, typer.Option("--width", help=f"width in pixels {_OWN}")] = None,
) -> Summary:
    """The names are those that `--sites` and `intercept` take. Only configs are read: no weights are loaded.

    Tokens are those of the video, per attention; attentions are those of one video in one step and guidance branch.

    Example: `ieadapt sites scenes --sites temporal --frames 16`
    """
    from ieadapt.attention import find_sites, select_sites
    from ieadapt.models.sketch import costs_of, requested_size, sketch, tokens_of

    pipe = sketch(model)
    chosen = select_sites(find_sites(pipe), sites)
    size = requested_size(pipe, frames, height, width)
    tokens = {} if size is None else tokens_of(pipe, size)
    rows, content = [], []
    for site in chosen:
        number, length = tokens.get(site, (None, None))
        shown = ["–" if value is None else str(value) for value in (length, number)]
        rows.append([str(site.order), site.kind, str(site.heads), *shown, site.name])
        content.append({**dataclasses.asdict(site), "tokens": length, "attentions": number})
    caption = "" if size is None else f"For {size[0]} frames of {size[2]}x{size[1]}:"
    table = Table(("#", "kind", "heads", "tokens", "attentions", "site"), rows, caption, numeric=(0, 2, 3, 4))
    return Summary(content, [table, *costs_of(pipe, chosen, size)])


@takes(MeasureRun)
def measure(config: MeasureRun, *, out: Out = None, overwrite: Overwrite = False, dry_run: DryRun = False) -> Summary:
    """The run folder gets the profile (parquet and JSON), the plot and a report; `ieadapt enhance --profile` reads it.

    Example: `ieadapt measure scenes --prompt "a big red ball moving right over bricks" --steps 8 --out runs/profile`
    """
    from ieadapt.tasks.measure.run import describe_profile, profile_table, run_measure

    if dry_run:
        return _plain_price(config, len(config.prompts))
    with run_in(out, "measure") as (folder, stages):
        profile = run_measure(config, folder, overwrite=overwrite, stages=stages)
    content = {"sites": profile.by_site().to_dicts()}
    return Summary(content, [profile_table(profile), *describe_profile(profile)], folder)


def _price(config: Any, count: Callable[[Any], tuple[int | float, int | float]]) -> Summary:
    """About how long a run takes, given what counts its videos and their steps in all."""
    from ieadapt.tasks.price import price_videos

    price = price_videos(config, count)
    return Summary({"price": price}, [price])


def _plain_price(config: Any, videos: int) -> Summary:
    return _price(config, lambda pipe: (videos, videos * config.generation.num_inference_steps))


@takes(MapsRun)
def maps(config: MapsRun, *, out: Out = None, overwrite: Overwrite = False) -> Summary:
    """The run folder gets heat maps (PNG), their numbers (maps.npz), the video and a report.

    `--query` asks where one token looks; without it, where all look on average. Cross-attention is shown per word.

    Example: `ieadapt maps scenes --prompt "a big red ball moving right over bricks" --steps 8
    --site mid_block.motion_modules.0.transformer_blocks.0.attn1 --at-steps 0,7 --query 4,2,2 --out runs/maps`
    """
    from ieadapt.tasks.maps.run import describe_maps, run_maps

    with run_in(out, "maps") as (folder, stages):
        drawn = run_maps(config, folder, overwrite=overwrite, stages=stages)
    content = {"site": drawn.site.name, "steps": drawn.steps, "files": read_run(folder)["files"]}
    return Summary(content, describe_maps(drawn), folder)


@takes(PerturbRun)
def perturb(config: PerturbRun, *, out: Out = None, overwrite: Overwrite = False, dry_run: DryRun = False) -> Summary:
    """Both start from the same noise. The run folder gets the videos side by side, how far they moved, and a report.

    `ieadapt study` does this for every layer in turn and measures it; this shows one choice of layers.

    Example: `ieadapt perturb scenes --prompt "a big red ball moving right over bricks" --perturbation identity
    --sites temporal --steps 8 --out runs/perturbed`
    """
    from ieadapt.tasks.perturb.run import describe_perturbed, perturbed_table, run_perturb

    if dry_run:
        return _plain_price(config, 2 * len(config.prompts))
    with run_in(out, "perturb") as (folder, stages):
        result = run_perturb(config, folder, overwrite=overwrite, stages=stages)
    files = [location("video", folder / f"{each.name}-side-by-side.mp4") for each in result.videos]
    videos = [dataclasses.asdict(each) for each in result.videos]
    content = {"sites": [site.name for site in result.sites], "videos": videos}
    return Summary(content, [*describe_perturbed(config, result), perturbed_table(result.videos), *files], folder)


@takes(EnhanceRun)
def enhance(
    config: EnhanceRun,
    *,
    out: Out = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    dry_run: DryRun = False,
) -> Summary:
    """Both start from the same noise. The run folder gets the videos, strips of their frames and a report.

    Every finished pair is kept at once: stop the run and go on with `--resume`. `--preset` takes a method of the
    literature; options given beside it win.

    Example: `ieadapt enhance scenes --prompt "a big red ball moving right over bricks" --profile runs/profile`
    """
    from ieadapt.tasks.enhance.run import run_enhance

    if dry_run:
        steps, pairs = config.generation.num_inference_steps, len(config.tasks)
        return _price(config, lambda pipe: (2 * pairs, pairs * (steps + config.method.passes(steps) / 2)))
    with run_in(out, "enhance") as (folder, stages):
        chosen = run_enhance(config, folder, overwrite=overwrite, resume=resume, stages=stages)
    record = read_run(folder)
    videos = [name for name in record["files"] if name.endswith(".mp4")]
    content = {key: record[key] for key in ("sites", "seeds", "kept", "cost", "seconds_per_video")}
    rows = [[str(site.order), site.kind, site.name] for site in chosen]
    table = Table(("#", "kind", "site"), rows, f"attention sites that were changed: {len(chosen)}", numeric=(0,))
    kept = f"kept from the earlier run: {record['kept']} of {counted(len(record['seeds']), 'pair')}"
    lines = [kept] if record["kept"] else []
    lines += [location("video", folder / name) for name in videos if "side-by-side" in name]
    return Summary({"videos": videos, **content}, [table, *lines], folder)


@takes(EditRun)
def edit(config: EditRun, *, out: Out = None, overwrite: Overwrite = False, resume: Resume = False) -> Summary:
    """The source is a video file, a folder of frames, or generated; how well the model reconstructs it is said first.

    Several `--prompt`s share that, and `--method inversion` keeps its inversion for later runs. The run folder gets
    source, reconstruction and edits as videos, pictures of their frames, measures and a report. All sources of a
    file of jobs are checked first; a job that cannot be done is left out, and the exit status is then 1.

    Example: `ieadapt edit scenes --video clip.mp4 --source-prompt "a big red star moving left over hills"
    --prompt "a big blue star moving left over hills" --out runs/edited`
    """
    from ieadapt.tasks.edit.report import measures_table
    from ieadapt.tasks.edit.run import run_edit

    with run_in(out, "edit") as (folder, stages):
        records, batch = run_edit(config, folder, overwrite=overwrite, resume=resume, stages=stages, say=print_progress)
    table = dataclasses.replace(measures_table(records), caption="Each edit against its source:")
    files = [record.file(edit, "side-by-side.mp4") for record in records for edit in record.edits]
    lines = [location("video", folder / file) for file in files]
    content = {"jobs": [dataclasses.asdict(record) for record in records]}
    return Summary(content, [table, *lines], folder, batch, mend_and_resume(folder))


@takes(ScreenRun)
def screen(
    config: ScreenRun, *, out: Out = None, overwrite: Overwrite = False, resume: Resume = False, dry_run: DryRun = False
) -> Summary:
    """Where a study makes whole videos, this adds passes along one run of each prompt.

    Every finished pass is kept at once: stop the run, or kill it, and go on with `--resume`. The run folder gets the
    effects, entropy and energy, and a report; `--profile` of other commands takes it, to choose sites by any of them.

    Example: `ieadapt screen MODEL --prompts prompts.txt --budget 30m --out runs/screen`
    """
    from ieadapt.tasks.screen.report import ranked_table
    from ieadapt.tasks.screen.run import price_screen, run_screen

    if dry_run:
        plan = price_screen(config)
        return Summary({"price": plan.summary(), "seconds": plan.seconds}, [plan.summary()])
    with run_in(out, "screen") as (folder, stages):
        profile = run_screen(config, folder, overwrite=overwrite, resume=resume, stages=stages, say=print_progress)
    effects = [] if profile.effects is None else profile.effects.to_dicts()
    return Summary({"effects": effects}, [ranked_table(profile)], folder)


@takes(TuneRun)
def tune(
    config: TuneRun, *, out: Out = None, overwrite: Overwrite = False, resume: Resume = False, dry_run: DryRun = False
) -> Summary:
    """Enhancements race on half of the prompts; the best one is compared with plain generation on the other half.

    Every comparison is at equal network passes. The run folder gets a preset for `ieadapt enhance --preset`, a report,
    and a page that compares the videos blindly. Stop the run, or kill it, and go on with `--resume`.

    Example: `ieadapt tune MODEL --prompts prompts.txt --metric sharpness --budget 2h --out runs/tune`
    """
    from ieadapt.tasks.tune.run import BLIND, PRESET, RESULT, price_tune, run_tune

    if dry_run:
        price = price_tune(config)
        return Summary({"price": price}, [price])
    with run_in(out, "tune") as (folder, stages):
        found = run_tune(config, folder, overwrite=overwrite, resume=resume, stages=stages, say=print_progress)
    content = json.loads((folder / RESULT).read_text())
    rows = [[test.against, f"{test.interval:.4g}", str(len(test.gains))] for test in found.tests]
    table = Table(("against", "gain", "prompts"), rows, f"{config.tune.metric}, {found.best.name}:")
    lines = [f"{found.verdict.word}: {found.verdict.sentence}", location("blind comparison", folder / BLIND)]
    return Summary(content, [table, *lines, location("preset", folder / PRESET)], folder)


@takes(StudyRun, instead=("status", "compact"))
def study(
    config: StudyRun | None,
    *,
    out: Out = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    status: Annotated[Path | None, typer.Option("--status", help="only say how far a study is", metavar="DIR")] = None,
    compact: Annotated[Path | None, typer.Option("--compact", help="only write a study's table", metavar="DIR")] = None,
) -> Summary:
    """Each perturbed video is compared with its baseline, made from the same noise with nothing replaced.

    Every finished video is kept at once: stop the study, or kill it, and go on with `--resume`; several processes may
    work on one folder.

    Example: `ieadapt study scenes --prompts prompts.txt --perturb identity,uniform --sites temporal --out runs/study`
    """
    from ieadapt.tasks.measure.profile import EntropyProfile
    from ieadapt.tasks.study.report import study_maps, write_study_report
    from ieadapt.tasks.study.run import run_study, study_size
    from ieadapt.tasks.study.table import conditions_table, means_by_condition

    if config is None:
        return _study_so_far(status, compact)
    if dry_run:
        return _price(config, functools.partial(study_size, config))
    with run_in(out, "study") as (folder, stages):
        result = run_study(config, folder, resume=resume, stages=stages)
        stages("drawing the report", "")
        pipe, call = config.hardware.load(config.model), config.generation.call
        pictures = study_maps(pipe, result.table, EntropyProfile.load(folder), call)
        write_study_report(folder, maps=pictures)
    means = means_by_condition(result.table)
    content = {"notes": [*result.notes, *result.warned], "conditions": means.to_dicts()}
    lines = [*result.notes, location("table", folder / "study.parquet")]
    return Summary(content, [conditions_table(means), *lines], folder)


def _study_so_far(status: Path | None, compact: Path | None) -> Summary:
    """How far a study is, and the size of the table that was written of it."""
    from ieadapt.tasks.study.table import compact_study, study_status

    content: dict[str, Any] = {}
    lines: list[str] = []
    if status is not None:
        state = study_status(status)
        content |= dataclasses.asdict(state)
        lines += state.sentences()
    if compact is not None:
        cells = compact_study(compact).height
        content |= {"table_cells": cells}
        lines.append(f"{cells} cells in {display_path(compact / 'study.parquet')}")
    return Summary(content, lines)


@takes(DemoRun)
def demo(config: DemoRun, *, out: Out = None) -> Summary:
    """What one layer carries, one edit, and captions plain and enhanced, scored; an earlier demo there is replaced.

    Example: `ieadapt demo --captions 2 --out demo`
    """
    from ieadapt.tasks.demo.run import run_demo
    from ieadapt.tasks.evaluate.tables import summary_table

    with run_in(out or Path("demo"), "demo") as (folder, stages):
        result = run_demo(config, folder, overwrite=True, stages=stages)
    pair = result.edit.pair
    content = {
        "sites": result.profile.by_site().to_dicts(),
        "comparison": [dataclasses.asdict(row) for row in result.comparison],
        "layer": {name: getattr(result.layer, name) for name in ("site", "ep", "before", "after", "captions")},
        "edit": {"source": pair.source_prompt, "prompt": pair.prompt, **result.edit.scores.as_dict()},
    }
    parts: list[Table | str] = [
        result.choice,
        summary_table(result.comparison, "enhanced", "plain"),
        *result.sentences(),
    ]
    return Summary(content, parts, folder)
