"""How often `ieadapt tune` is wrong, counted where the truth is known: the record `tune-validity`.

    python -m benchmarks.tune_validity --model scenes-dit --metric testbed_accuracy --out runs/tunes --workers 10

It makes many tunes of a bundled model on disjoint sets of captions, half of them *null*: the candidates are plain with
other seeds, so that nothing can be confirmed rightly. Of the others the truth is the mean gain of the chosen
enhancement over plain at equal passes on `--truth` other captions, in accuracy. A finished tune
is a folder; the command goes on where it stopped. `--record` writes the rows of this model and metric; others stay.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from benchmarks.results import FOLDER, Value, load, record
from benchmarks.scenes_compare import Comparison, column, compare
from benchmarks.study import captions
from benchmarks.testbed.generating import Variant
from ieadapt.metrics.intervals import paired_interval
from ieadapt.runs.settings import GenerationConfig, Hardware, with_model_defaults
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.tune.arms import Arm
from ieadapt.tasks.tune.config import TuneConfig, TuneRun
from ieadapt.tasks.tune.run import PRESET, RESULT, run_tune

NAME = "tune-validity"
SEED = 30_000
"""Captions of tune number n are drawn by this seed + n; those of the truth by the seed before all."""


@dataclass(frozen=True)
class Trial:
    """One tune of many.

    Attributes:
        model: a bundled one.
        metric: that is tuned.
        number: of the trial; odd ones are null.
        prompts: in both halves together.
        candidates: that are raced.
        truth: captions on which the truth is measured.
        steps: denoising steps.
        batch: videos of a batch.
        device: `cpu` or `cuda:N`.
        out: folder of all trials.
    """

    model: str
    metric: str
    number: int
    prompts: int
    candidates: int
    truth: int
    steps: int
    batch: int
    device: str
    out: Path

    @property
    def null(self) -> bool:
        """Whether its candidates are plain with other seeds."""
        return self.number % 2 == 1

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return self.out / f"{self.model}-{self.metric}-{self.number:02}"

    @property
    def generation(self) -> GenerationConfig:
        """Of all its videos."""
        return GenerationConfig(self.steps, batch_size=self.batch)

    def run(self) -> dict[str, Value]:
        """The row of this trial; what is there already is not made again."""
        request = TuneRun(
            self.model,
            captions(self.prompts, SEED + 1 + self.number),
            self.generation,
            seed=1000 * self.number,
            hardware=Hardware(self.device, "float32"),
            tune=TuneConfig(self.metric, candidates=self.candidates),
            workers=1,
        )
        shifts = range(1, self.candidates + 1)
        null = [Arm(f"plain, other seeds {shift}", shift=100_000 * shift) for shift in shifts]
        if not (self.folder / RESULT).is_file():
            pipe, resume = request.hardware.load(self.model), (self.folder / "config.json").is_file()
            run_tune(request, self.folder, resume=resume, pipe=pipe, candidates=null if self.null else None)
        result = json.loads((self.folder / RESULT).read_text())
        row: dict[str, Value] = {"model": self.model, "run": self.number, "metric": self.metric}
        row |= {"arm": "null" if self.null else result["best"], "verdict": result["verdict"], "sites": result["sites"]}
        return row | self._truth()

    def _truth(self) -> dict[str, Value]:
        """What the chosen enhancement really gains in accuracy; zero for plain with other seeds."""
        if self.null:
            return {"truth_difference": 0.0, "low": 0.0, "high": 0.0}
        enhance = EnhanceConfig.preset(str(self.folder / PRESET))
        base = with_model_defaults(self.generation, self.model)
        steps = enhance.matched_steps(self.steps) / self.steps
        variants = {"truth": Variant("truth", enhance), "truth-plain": Variant("truth", steps=steps)}
        comparison = Comparison(self.model, captions(self.truth, SEED), base, self.folder, iterations=0)
        rows = compare(comparison, variants, self.device)
        interval = paired_interval(*(column(rows[name], "accuracy") for name in variants))
        return {"truth_difference": interval.mean, "low": interval.low, "high": interval.high}


def summary(rows: Sequence[dict[str, Value]]) -> str:
    """How often a verdict was wrong, in a line."""
    null = [row for row in rows if row["arm"] == "null"]
    false = sum(row["verdict"] == "confirmed" for row in null)
    confirmed = [row for row in rows if row["arm"] != "null" and row["verdict"] == "confirmed"]
    refuted = sum(float(row["high"] or 0.0) < 0 for row in confirmed)
    return (
        f"{false} of {len(null)} null tunes confirmed; of {len(confirmed)} others confirmed, truth refutes {refuted}; "
        f"{sum(float(row['truth_difference'] or 0.0) > 0 for row in confirmed)} gain on average"
    )


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, make what is missing, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scenes-dit")
    parser.add_argument("--metric", default="testbed_accuracy", help="what is tuned")
    parser.add_argument("--trials", type=int, default=20, help="half of them null")
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--candidates", type=int, default=12)
    parser.add_argument("--truth", type=int, default=200, help="captions of the truth")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=1, help="tunes side by side, on all GPUs evenly")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--record", action="store_true", help="write the record")
    options = parser.parse_args(arguments)
    gpus = torch.cuda.device_count() if options.device == "cuda" else 0
    devices = [f"cuda:{number}" for number in range(gpus)] or [options.device]
    shared = (options.prompts, options.candidates, options.truth, options.steps, options.batch)
    trials = [
        Trial(options.model, options.metric, number, *shared, devices[number % len(devices)], options.out)
        for number in range(options.trials)
    ]
    if options.workers == 1:
        rows = [trial.run() for trial in trials]
    else:
        with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
            rows = list(pool.map(Trial.run, trials))
    for row in rows:
        print(f"{row['run']:>3} {row['arm']!s:48} {row['verdict']!s:10} {row['sites']!s:22}", end=" ")
        print(f"{row['truth_difference']:+.4f}")
    print(summary(rows))
    if options.record:
        known = load(NAME)["rows"] if (FOLDER / f"{NAME}.json").is_file() else []
        own = (options.model, options.metric)
        others = [row for row in known if (row["model"], row["metric"]) != own]
        command = f"python -m benchmarks.tune_validity --model {options.model} --metric {options.metric} --record"
        settings = f"{options.prompts} captions a tune, {options.candidates} candidates, {options.steps} steps"
        mean = np.mean([float(row["truth_difference"] or 0.0) for row in rows])
        print(record(NAME, command, [*others, *rows], notes=f"{settings}; truth is accuracy, mean gain {mean:+.4f}."))


if __name__ == "__main__":
    main()
