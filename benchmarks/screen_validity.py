"""How well a screen predicts a finished study: Spearman's rho over sites, beside EP, energy, depth and whole clips.

Run it from the root of the repository, with the folder of a finished study of the same model:
`python -m benchmarks.screen_validity MODEL --study benchmarks/studies/MODEL --out runs/screen-MODEL [--device cuda]`.
It screens the model on captions that the study does not have (it goes on where an earlier run stopped), and writes
the rows of this model into the record `screen-validity`; those of other models stay. `--after 24` judges on the clips
of the study after the first 24, on which statistics and steps were chosen.

Truth is the mean damage per site and map over the clips of the study. `kind` all ranks within each kind and pools, so
that telling kinds apart earns nothing; `raw_rho` is the pooled one that does. Predictors: `screen`; `ep` and `energy`
of the study's profile; `depth`, the order of execution; `full-clips`, whole clips of the study for as many passes of
the network as the screen took, one at least; `split-half`, one half of the clips against the other: what truth repeats.
 Intervals are over captions of the screen and clips of the study.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.results import FOLDER, Value, load, record
from benchmarks.study import captions
from ieadapt.cli.console import shown_stages
from ieadapt.metrics.intervals import spearman_interval
from ieadapt.runs.settings import GenerationConfig, Hardware
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.screen.config import EFFECTS, ScreenConfig, ScreenRun
from ieadapt.tasks.screen.method import effects_table
from ieadapt.tasks.screen.run import run_screen, screened_passes
from ieadapt.tasks.study.report_effects import effects_of, site_effects

TRUTH: Mapping[str, tuple[str, ...]] = {
    "structure": ("ssim", "psnr"),
    "quality": ("testbed_fit_change", "sharpness_change"),
    "motion": ("testbed_motion_change", "motion_change"),
    "flicker": ("testbed_flicker_change", "flicker_change"),
}
"""The column of a study that is the truth of an effect, the first that it has."""
NAME = "screen-validity"
RESAMPLES = 400
HALVES = 50


@dataclass(frozen=True)
class Compared:
    """The sites of one map: what each did on every clip of the study, and what predicts it.

    Attributes:
        kinds: of the sites.
        damage: by effect.
        screened: by effect, per caption of the screen.
        single: predictors of one number per site.
    """

    kinds: Sequence[str]
    damage: Mapping[str, np.ndarray]
    screened: Mapping[str, np.ndarray]
    single: Mapping[str, np.ndarray]


def compared(
    table: pl.DataFrame, profile: EntropyProfile, passes: Sequence[Mapping[str, Value]], map_: str
) -> Compared:
    """Line up study and screen for one map, site by site."""
    sites, columns_there = profile.by_site(), {effect.column: effect for effect in effects_of(table)}
    damage: dict[str, dict[str, np.ndarray]] = {}
    for name, columns in TRUTH.items():
        effect = next((columns_there[column] for column in columns if column in columns_there), None)
        if effect is not None:
            units = [unit for unit in site_effects(table, effect, sites) if unit.perturbation == map_]
            damage[name] = {unit.site: effect.as_damage(unit.values) for unit in units}
    each: dict[str, dict[str, list[float]]] = {}
    for prompt in dict.fromkeys(str(row["prompt"]) for row in passes):
        own = effects_table(row for row in passes if row["prompt"] == prompt and row["map"] == map_)
        for effect_name, site, value in own.select("effect", "site", "value").iter_rows():
            each.setdefault(effect_name, {}).setdefault(site, []).append(value)
    order = {row["site"]: row for row in sites.iter_rows(named=True)}
    both = [*map(set, damage.values()), *map(set, each.values())]
    names = [name for name in order if all(name in there for there in both)]
    return Compared(
        [order[name]["kind"] for name in names],
        {effect: np.stack([by_site[name] for name in names]) for effect, by_site in damage.items()},
        {effect: np.array([by_site[name] for name in names]) for effect, by_site in each.items()},
        {
            "ep": np.array([order[name]["ep"] for name in names]),
            "energy": np.array([order[name]["energy"] for name in names]),
            "depth": np.array([order[name]["order"] for name in names], dtype=float),
        },
    )


def rho(predicted: np.ndarray, damage: np.ndarray, groups: Sequence[int] | None = None) -> float:
    """Spearman's rho over sites; with groups, of ranks within them."""
    return spearman_interval(predicted, damage[:, None], groups=groups, units="fixed", resamples=2).rho


def predictions(
    predicted: np.ndarray, damage: np.ndarray, random: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Predicted and true values per site: of everything first, then of resamples of captions and of clips."""
    yield predicted.mean(axis=1), np.nanmean(damage, axis=1)
    for _ in range(RESAMPLES):
        ours = random.integers(0, predicted.shape[1], predicted.shape[1])
        theirs = random.integers(0, damage.shape[1], damage.shape[1])
        yield predicted[:, ours].mean(axis=1), np.nanmean(damage[:, theirs], axis=1)


def clips_of(damage: np.ndarray, number: int, random: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Some clips against the mean of the others."""
    for _ in range(HALVES):
        order = random.permutation(damage.shape[1])
        yield np.nanmean(damage[:, order[:number]], axis=1), np.nanmean(damage[:, order[number:]], axis=1)


def rows_of(each: Compared, model: str, map_: str, forwards: float, study_forwards: int) -> list[dict[str, Value]]:
    """One row per kind, effect and predictor."""
    rows: list[dict[str, Value]] = []
    present = list(dict.fromkeys(each.kinds))
    per_clip = study_forwards / next(iter(each.damage.values())).shape[1]
    clips = max(1, round(forwards / per_clip))
    for kind in [*present, *(["all"] if len(present) > 1 else [])]:
        chosen = np.array([kind in ("all", own) for own in each.kinds])
        groups = [present.index(own) for own in each.kinds] if kind == "all" else None
        for effect in (name for name in EFFECTS if name in each.damage and name in each.screened):
            damage, random = each.damage[effect][chosen], np.random.default_rng(0)
            pairs = {
                "screen": list(predictions(each.screened[effect][chosen], damage, random)),
                **{
                    name: list(predictions(values[chosen][:, None], damage, random))
                    for name, values in each.single.items()
                },
                "full-clips": list(clips_of(damage, clips, random)),
                "split-half": list(clips_of(damage, damage.shape[1] // 2, random)),
            }
            for predictor, listed in pairs.items():
                rhos = np.array([rho(*pair, groups) for pair in listed])
                repeated = predictor in ("full-clips", "split-half")
                low, high = np.nanpercentile(rhos if repeated else rhos[1:], (2.5, 97.5))
                rows.append(
                    {
                        **{"model": model, "kind": kind, "effect": effect, "map": map_, "predictor": predictor},
                        **{"rho": float(np.nanmean(rhos) if repeated else rhos[0]), "low": float(low)},
                        **{"high": float(high), "raw_rho": rho(*listed[0]) if kind == "all" and not repeated else None},
                        "forwards": {"full-clips": clips * per_clip, "screen": round(forwards, 1)}.get(predictor),
                        **{"study_forwards": study_forwards, "sites": int(chosen.sum())},
                    }
                )
    return rows


def main(arguments: argparse.Namespace) -> None:
    """Screen, compare with the study, and write the record."""
    table = pl.read_parquet(arguments.study / "study.parquet")
    prompts, first = set(table["prompt"].unique()), table.row(0, named=True)
    listed = arguments.prompts.read_text().splitlines() if arguments.prompts else captions(4 * len(prompts) + 8)
    fresh = tuple(caption for caption in listed if caption not in prompts)[: arguments.captions]
    maps = list(table["perturbation"].unique(maintain_order=True))
    kinds = table["kind"].unique(maintain_order=True)
    request = ScreenRun(
        arguments.model,
        fresh,
        screen=ScreenConfig(maps=",".join(maps), sites=",".join(kinds)),
        generation=GenerationConfig(first["steps"], first["guidance_scale"], batch_size=arguments.batch),
        check=0,
        workers=arguments.workers,
        hardware=Hardware(arguments.device, "float32"),
        seed=1000,
    )
    resume = (arguments.out / "config.json").exists()
    with shown_stages() as stages:
        run_screen(request, arguments.out, resume=resume, stages=stages, say=lambda line: print(line, file=sys.stderr))
    plan, passes = screened_passes(request, arguments.out)
    clips = table.select("prompt", "seed").unique(maintain_order=True)[arguments.after :]
    truth = table.join(clips, on=["prompt", "seed"], how="semi")
    study_forwards = (len(plan.conditions) + 1) * first["steps"] * clips.height
    profile = EntropyProfile.load(arguments.study)
    rows = [
        row
        for map_ in maps
        for row in rows_of(compared(truth, profile, passes, map_), arguments.model, map_, plan.forwards, study_forwards)
    ]
    kept = load(NAME)["rows"] if (FOLDER / f"{NAME}.json").is_file() else []
    kept = [row for row in kept if row["model"] != arguments.model]
    command = (
        f"python -m benchmarks.screen_validity {arguments.model} --study {arguments.study} --captions {len(fresh)}"
    )
    notes = f"{len(fresh)} screening captions, none of the study's; truth: {clips.height} clips of the study."
    path = record(NAME, command, [*kept, *rows], notes=notes, folder=arguments.records)
    for row in rows:
        if row["predictor"] in ("screen", "ep", "depth", "full-clips"):
            print(
                " ".join(f"{row[name]!s:>10}" for name in ("kind", "effect", "map", "predictor")), f"{row['rho']:+.2f}"
            )
    print(path)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a bundled name, a folder or a hub id")
    parser.add_argument("--study", type=Path, required=True, help="folder of a finished study of this model")
    parser.add_argument("--out", type=Path, required=True, help="run folder of the screen")
    parser.add_argument("--captions", type=int, default=4, help="how many captions are screened")
    parser.add_argument("--prompts", type=Path, help="file of captions; held-out ones of the testbed by default")
    parser.add_argument("--after", type=int, default=0, help="clips of the study that are left out, from the first")
    parser.add_argument("--batch", type=int, default=4, help="captions that share a pass")
    parser.add_argument("--workers", type=int, default=1, help="processes, which may share one GPU")
    parser.add_argument("--device", default="auto", help="cpu or cuda")
    parser.add_argument("--records", type=Path, default=FOLDER, help="where the record goes")
    return parser.parse_args(words)


if __name__ == "__main__":
    main(parse())
