"""The measure run: an entropy profile of a model in a run folder, with its plot and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from diffusers import DiffusionPipeline

from ieadapt.attention import AttentionSite, find_sites, select_sites
from ieadapt.runs.folder import RunFolder, Stages, display_path, silent
from ieadapt.runs.pipelines import Load, open_model_run
from ieadapt.runs.report import Block, Picture, Report, Section, Table, figure_png, write_report
from ieadapt.runs.settings import Hardware, PromptRun
from ieadapt.tasks.measure.config import MeasureRun
from ieadapt.tasks.measure.method import QUICK_PROMPTS, measure, quick_profile
from ieadapt.tasks.measure.profile import EntropyProfile, short_name

PROFILE_FILES = ("profile.parquet", "profile.json")
PROFILE_CAPTION = "Energy, energy share and EP per site, in order of execution; the line marks EP 50 %."


def run_measure(
    config: MeasureRun,
    out: str | Path,
    *,
    overwrite: bool = False,
    stages: Stages = silent,
    load: Load = Hardware.load,
) -> EntropyProfile:
    """Measure a model and write profile, plot and report into a run folder.

    Args:
        config: model, prompts and settings.
        out: the run folder.
        overwrite: replace an earlier run in it.
        stages: gets the name of each stage as it begins, and how far it is.
        load: how the run comes by its pipeline; by default it loads one.

    Raises:
        UsageError: the config does not fit the model, or the folder cannot be used.
        FailureError: the run could not be carried out.
    """
    config = config.with_model_defaults()
    prompts, generation, seed = list(config.prompts), config.generation, config.seed
    with open_model_run("measure", config, out, overwrite=overwrite, load=load) as (run, pipe):
        sites = select_sites(find_sites(pipe), config.sites)
        run.note(seeds=config.prompt_seeds, sites=[site.name for site in sites])
        progress = stages("measuring")
        profile = measure(pipe, prompts, generation, seed=seed, sites=sites, rows=config.rows, progress=progress)
        plot = write_profile(run, profile, config.model)
        write_report(run, _report(config, out, profile, plot, run.record))
    return profile


def write_profile(run: RunFolder, profile: EntropyProfile, model: str) -> bytes:
    """Write a profile and its plot into a run, under the name that the user gave the model; returns the plot."""
    profile.metadata["model"] = model
    profile.save(run.path)
    for name in PROFILE_FILES:
        run.add(name)
    plot = figure_png(profile.plot())
    run.write("ep.png", plot)
    return plot


def own_profile(pipe: DiffusionPipeline, config: PromptRun, run: RunFolder, stages: Stages) -> EntropyProfile:
    """A profile on a few of a run's prompts and steps, saved with the run; an earlier one that is there is taken."""
    if run.holds(*PROFILE_FILES):
        kept = EntropyProfile.load(run.path)
        own = {"prompts": list(config.prompts[:QUICK_PROMPTS]), "seed": config.seed}
        if own == {name: kept.metadata.get(name) for name in own}:
            return kept
    profile = quick_profile(pipe, config.prompts, config.generation, seed=config.seed, progress=stages("measuring"))
    write_profile(run, profile, config.model)
    return profile


def describe_profile(profile: EntropyProfile) -> list[str]:
    """What a profile says: where attention is most and least spread out, then a sentence for each kind."""
    sites = profile.by_site().sort("ep")

    def place(row: Mapping[str, Any]) -> str:
        return f"#{row['order']} {short_name(row['site'])}"

    ends = [sites.row(0, named=True), sites.row(-1, named=True)]
    most, least = (f"{place(row)} ({row['kind']}, EP {row['ep']:.1f} %)" for row in ends)
    sentences = (
        [f"Attention is most concentrated in {most} and most spread out in {least}."] if sites.height > 1 else []
    )
    for kind in sites.sort("order")["kind"].unique(maintain_order=True):
        rows = sites.filter(pl.col("kind") == kind)
        lowest, highest = rows.row(0, named=True), rows.row(-1, named=True)
        if rows.height == 1:
            sentences.append(f"The one {kind} site, {place(lowest)}, has EP {lowest['ep']:.1f} %.")
            continue
        sentences.append(
            f"{kind.capitalize()} attention, {rows.height} sites: mean EP {sum(rows['ep']) / rows.height:.1f} %, "
            f"from {lowest['ep']:.1f} % ({place(lowest)}) to {highest['ep']:.1f} % ({place(highest)})."
        )
    return sentences


def profile_table(profile: EntropyProfile) -> Table:
    """One row per site: kind, keys, EP with its range over heads, energy share; of joint sites what EP is made of."""
    sites = profile.by_site()
    headings = ["#", "site", "kind", "heads", "keys", "EP %", "over heads", "energy share %"]
    formats = {"temporal_ep": ".1f", "spatial_ep": ".1f", "text_mass": ".3f"}
    if not sites["temporal_ep"].is_not_null().any():
        formats = {}
    rows = []
    for row in sites.iter_rows(named=True):
        error = "" if row["ep_error"] is None else f" ± {row['ep_error']:.2f}"
        rows.append(
            [
                *(str(row["order"]), short_name(row["site"]), row["kind"], str(row["heads"]), f"{row['n_keys']:.0f}"),
                f"{row['ep']:.1f}{error}",
                f"{row['ep_min']:.1f} – {row['ep_max']:.1f}",
                f"{100 * row['energy_share']:.2f}",
                *("–" if row[name] is None else format(row[name], form) for name, form in formats.items()),
                row["site"],
            ]
        )
    headings += [*(["temporal EP %", "spatial EP %", "text mass"] if formats else []), "path"]
    return Table(
        headings, rows, "Means over prompts, steps and guidance branches.", numeric=(0, *range(3, len(headings) - 1))
    )


def sites_table(sites: Sequence[AttentionSite], profile: EntropyProfile | None) -> Table:
    """The chosen sites with their EP, where it is known."""
    ep = profile.ep if profile else {}
    rows = [
        [
            *(str(site.order), short_name(site.name), site.kind),
            *(f"{ep[site.name]:.1f}" if site.name in ep else "–", site.name),
        ]
        for site in sites
    ]
    return Table(("#", "site", "kind", "EP %", "path"), rows, "The changed attention sites.", numeric=(0, 3))


def profile_blocks(profile: EntropyProfile, plot: bytes) -> list[Block]:
    """Plot and table of a profile, for a report."""
    about = "bar charts of energy, energy share and EP per attention site"
    return [Picture(plot, PROFILE_CAPTION, about), profile_table(profile)]


def _report(
    config: MeasureRun, out: str | Path, profile: EntropyProfile, plot: bytes, record: dict[str, object]
) -> Report:
    more = f"seed={config.seed}" + ("" if config.rows == "all" else f', rows="{config.rows}"')
    python = (
        f'import ieadapt\n\npipe = ieadapt.load("{config.model}")\n'
        f"profile = ieadapt.measure(pipe, {list(config.prompts)}, ieadapt.{config.generation}, {more})\n"
        f'profile.save("{display_path(out)}")'
    )
    meaning = (
        "EP is the entropy of attention in percent of its maximum: 0 when every token looks at one token only, "
        "100 when it looks at all alike."
    )
    numbered = [[str(seed), prompt] for seed, prompt in zip(config.prompt_seeds, config.prompts, strict=True)]
    return Report(
        title=f"Attention entropy of {config.model}",
        request=f"{profile.metadata.get('pipeline')}, {config.summary}",
        results=[*describe_profile(profile), meaning],
        sections=[
            Section("Entropy and energy per site", profile_blocks(profile, plot)),
            Section("Prompts", [Table(("seed", "prompt"), numbered, numeric=(0,))]),
        ],
        repeat={"Command line": str(record["command"]), "Python": python},
        record=report_record(record),
    )


def report_record(record: Mapping[str, object]) -> dict[str, object]:
    """The lines of a run's record that a reader of the report needs."""
    model, versions = record["model"], record["versions"]
    lines: dict[str, object] = dict(model) if isinstance(model, dict) else {}
    if isinstance(versions, dict):
        lines["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    return {**lines, "started": record["started"]}
