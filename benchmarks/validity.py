"""Is a model of the test bed fit to judge methods by? The record `testbed-validity`.

    python -m benchmarks.validity --picks benchmarks/sweeps/validity-scenes-dit.json --out runs/validity --record

PICKS is JSON: the model, the guidance scale, the published method, and two disjoint sets of sites, all picked on the
*choosing* captions, and how many settings were tried for that. The values come from the *confirming* captions, which
picked nothing. Models are kept apart in the record; running one again replaces its rows.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from diffusers import DiffusionPipeline

from benchmarks.results import FOLDER, Value, load, record
from benchmarks.scene_sets import scene_set
from benchmarks.scenes_compare import Comparison, Rows, column, compare, mean, pipeline_of, read_variants
from benchmarks.training.architecture import Architecture
from benchmarks.training.models import ARCHITECTURES
from ieadapt.files import write_atomically
from ieadapt.metrics.intervals import Interval, mean_interval, paired_interval
from ieadapt.metrics.structure import ssim
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.measure.method import quick_profile
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.testbed import Scene, caption, render, score_scenes

NAME = "testbed-validity"
PUBLISHED = 4
"""Methods of which one was picked: its interval is at level .05 / 4, the first step of Holm's."""
DIVERSITY_CAPTIONS, SEEDS = 48, 4


@dataclass(frozen=True)
class Picks:
    """What was picked on the choosing captions.

    Args:
        model: `scenes` or `scenes-dit`.
        guidance: the scale with the highest accuracy.
        method: the published method at its best layer and scale, as an entry of variants.
        better: a set of sites at one perturbation and scale, likewise.
        worse: as many other sites of the same kind and resolutions.
        tried: settings tried.
    """

    model: str
    guidance: float
    method: Mapping[str, Any]
    better: Mapping[str, Any]
    worse: Mapping[str, Any]
    tried: int

    def variants(self) -> dict[str, Mapping[str, Any]]:
        """Everything that is generated, as entries of variants."""
        same = self.method["guidance"]
        return {
            "plain": {"guidance": 1},
            "picked": {"guidance": self.guidance},
            "picked, twice the steps": {"guidance": self.guidance, "steps": 2.0},
            "four times": {"guidance": 4 * self.guidance},
            "method": self.method,
            "beside the method": {"guidance": same},
            "guidance 1, equal passes": {"guidance": 1, "steps": 2.0 if same == 1 else 3.0},
            "better": self.better,
            "worse": self.worse,
        }


def judged(found: Mapping[str, Rows], diversity: Mapping[str, Sequence[float]], picks: Picks) -> list[dict[str, Value]]:
    """The rows of the record.

    Args:
        found: rows of every variant of `picks`, and of `vae`, the rendered truth through the VAE.
        diversity: of `plain` and `picked`, by caption.
        picks: what they are of.
    """
    rows: list[dict[str, Value]] = []

    def row(condition: str, interval: Interval, bar: str, passed: bool | None) -> None:
        ends: dict[str, Value] = {"value": interval.mean, "low": interval.low, "high": interval.high}
        rows.append({"model": picks.model, "condition": condition, **ends, "bar": bar, "passed": passed})

    def less(one: str, other: str, level: float = 0.95) -> Interval:
        return paired_interval(column(found[one], "accuracy"), column(found[other], "accuracy"), level=level)

    gain = less("picked", "plain")
    row("guidance: picked less 1", gain, ">= .05, low > .02", gain.mean >= 0.05 and gain.low > 0.02)
    spread = paired_interval(diversity["picked"], diversity["plain"])
    row("guidance: diversity, picked less 1", spread, "high < 0", spread.high < 0)
    room = _ratio(found, lambda m: (m("picked"), m("vae")))
    row("room: picked / truth through the VAE", room, "high <= .85", room.high <= 0.85)
    closed = _ratio(found, lambda m: (m("picked, twice the steps") - m("picked"), m("vae") - m("picked")))
    bar = "<= .1, high <= .2"
    row("room: share of the gap that twice the steps close", closed, bar, closed.mean <= 0.1 and closed.high <= 0.2)
    holm = 1 - 0.05 / PUBLISHED
    for other, name in (("beside the method", "plain"), ("guidance 1, equal passes", "guidance 1, equal passes")):
        above = less("method", other, holm)
        row(f"perturbation: published method less {name}", above, "low > 0, Holm over four", above.low > 0)
    harm = less("four times", "picked")
    row("harm: four times the scale less picked", harm, "high < 0", harm.high < 0)
    better, apart = less("better", "plain"), less("better", "worse")
    row("sites: better less plain", better, "low > 0", better.low > 0)
    row("sites: better less worse", apart, "> .03, low > 0", apart.mean > 0.03 and apart.low > 0)
    presence = paired_interval(column(found["worse"], "presence"), column(found["plain"], "presence"))
    row("sites: presence, worse less plain", presence, ">= -.1", presence.mean >= -0.1)
    return rows


def ep_rows(model: str, profile: EntropyProfile) -> list[dict[str, Value]]:
    """EP of each kind of site: mean, least and most; reported, no bar."""
    by_kind = profile.by_site().filter(pl.col("kind") != "cross").group_by("kind", maintain_order=True)
    rows: list[dict[str, Value]] = []
    for (kind,), sites in by_kind:
        ep = sites["ep"].to_numpy()
        ends: dict[str, Value] = {"value": float(ep.mean()), "low": float(ep.min()), "high": float(ep.max())}
        bar = "reported: mean, least, most"
        rows.append({"model": model, "condition": f"ep: {kind} sites", **ends, "bar": bar, "passed": None})
    return rows


def _ratio(
    found: Mapping[str, Rows], parts: Callable[[Callable[[str], float]], tuple[float, float]], resamples: int = 5000
) -> Interval:
    """A ratio of mean accuracies with its percentile bootstrap interval over scenes; infinite over nothing."""
    values = {name: np.array(column(rows, "accuracy")) for name, rows in found.items()}
    count, random = len(values["plain"]), np.random.default_rng(0)

    def of(scenes: np.ndarray) -> float:
        part, whole = parts(lambda name: float(values[name][scenes].mean()))
        return part / whole if whole else math.inf

    drawn = [of(random.integers(0, count, count)) for _ in range(resamples)]
    low, high = np.quantile(drawn, (0.025, 0.975), method="inverted_cdf")  # which does not average infinite ends
    return Interval(of(np.arange(count)), float(low), float(high))


def diversity_of(
    pipe: DiffusionPipeline, captions: Sequence[str], entry: Mapping[str, Any], base: GenerationConfig
) -> list[float]:
    """1 - SSIM between clips of several seeds, the mean over pairs, by caption."""
    variant = read_variants({"made": entry})["made"]
    seeds = [[10_000 * number + index for index in range(len(captions))] for number in range(SEEDS)]
    made = [variant.videos(pipe, captions, each, base, None).float().cpu() for each in seeds]
    return [
        1 - float(np.mean([ssim(one[index], other[index]) for one, other in itertools.combinations(made, 2)]))
        for index in range(len(captions))
    ]


def through_vae(
    pipe: DiffusionPipeline, architecture: Architecture, scenes: Sequence[Scene], fit: int, batch: int = 16
) -> Rows:
    """Scores of rendered scenes that went through the model's VAE."""
    rows: Rows = []
    for start in range(0, len(scenes), batch):
        part = scenes[start : start + batch]
        clips = torch.stack([render(scene) for scene in part]).to(pipe.device)
        with torch.no_grad():  # the score's fit needs gradients
            rebuilt = architecture.decode(pipe.vae, architecture.encode(pipe.vae, clips)).float().clamp(0, 1)
        rows += [score.as_dict() for score in score_scenes(rebuilt, [caption(scene) for scene in part], fit)]
    return rows


def _kept(path: Path, make: Callable[[], Any]) -> Any:
    """What a JSON file holds, made first where it is not there."""
    if not path.is_file():
        write_atomically(path, json.dumps(make()).encode())
    return json.loads(path.read_text())


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, make what is missing, judge, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picks", type=Path, required=True, help="JSON")
    parser.add_argument("--folder", type=Path, help="a training folder, instead of the weights that ship")
    parser.add_argument("--size", choices=("standard", "tiny"), default="standard")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--fit", type=int, default=20, help="iterations of the fit that quality rests on")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes, shared by all GPUs evenly")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--record", action="store_true", help="write the record")
    options = parser.parse_args(arguments)
    picks = Picks(**json.loads(options.picks.read_text()))
    scenes = scene_set("confirming", options.scenes)
    captions = tuple(caption(scene) for scene in scenes)
    base = GenerationConfig(options.steps, guidance_scale=1.0, batch_size=options.batch)
    entries = picks.variants()
    out = options.out / picks.model
    comparison = Comparison(picks.model, captions, base, out, options.folder, options.size, options.fit)
    found = compare(comparison, read_variants(entries), options.device, options.workers)
    pipe = pipeline_of(picks.model, options.folder, options.size, options.device)
    architecture, few = ARCHITECTURES[picks.model], captions[:DIVERSITY_CAPTIONS]
    found["vae"] = _kept(out / "vae.json", lambda: through_vae(pipe, architecture, scenes, options.fit))
    diversity = _kept(
        out / "diversity.json",
        lambda: {name: diversity_of(pipe, few, entries[name], base) for name in ("plain", "picked")},
    )
    rows = judged(found, diversity, picks) + ep_rows(picks.model, quick_profile(pipe, few, base, seed=0))
    for row in rows:
        interval = f"{row['value']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
        print(f"{row['condition']:48} {interval} {row['bar']:24} {row['passed']}")
    for name, each in found.items():
        print(f"{name:28} accuracy {mean_interval(column(each, 'accuracy')):.3f}, fit {mean(each, 'fit'):.2f} dB")
    if options.record:
        known = load(NAME)["rows"] if (FOLDER / f"{NAME}.json").is_file() else []
        others = [row for row in known if row["model"] != picks.model]
        note = f"{options.scenes} confirming captions, {options.steps} steps, {picks.tried} settings tried before."
        command = f"python -m benchmarks.validity --picks {options.picks} --record"
        print(record(NAME, command, [*others, *rows], notes=note))


if __name__ == "__main__":
    main()
