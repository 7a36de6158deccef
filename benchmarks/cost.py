"""What measuring and enhancing cost: seconds per denoising step and video, against a plain run of the same pipeline.

Run it from the root of the repository: `python -m benchmarks.cost [--device cuda]`; the record is `cost`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from benchmarks.results import Value, record
from ieadapt.attention import intercept
from ieadapt.interventions import Identity, Record
from ieadapt.models import load
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.method import enhancement
from ieadapt.tasks.generate import generate
from ieadapt.tasks.measure.method import measure
from ieadapt.testbed import caption, sample_scenes


def seconds_of_rounds(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every run by round, after one round that is not counted.

    A round holds each run once: the speed of a machine drifts, and runs of one round have the same.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - began)
    return {name: each[1:] for name, each in seconds.items()}


def variants(pipe: Any, captions: list[str], config: GenerationConfig) -> dict[str, Callable[[], object]]:
    """Name -> the run that is timed."""
    profile = measure(pipe, captions[:1], config)

    def inside(block: Callable[[], Any]) -> Callable[[], object]:
        def run() -> object:
            with block():
                return generate(pipe, captions, config)

        return run

    enhanced = EnhanceConfig()
    return {
        "plain": lambda: generate(pipe, captions, config),
        "every site intercepted, nothing done": inside(lambda: intercept(pipe, lambda call: None, guidance="all")),
        "entropy and energy of every site": inside(lambda: intercept(pipe, Record(), guidance="all")),
        "identity in every temporal site": inside(lambda: intercept(pipe, Identity(), "temporal", guidance="all")),
        "enhanced, default sites": inside(lambda: enhancement(pipe, enhanced, profile)),
    }


def main(words: Sequence[str] | None = None) -> int:
    """Time every variant, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--videos", type=int, default=2, help="videos in one batch")
    parser.add_argument("--steps", type=int, default=4, help="denoising steps")
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each variant; the median counts")
    arguments = parser.parse_args(words)
    pipe = load("scenes", device=arguments.device)
    config = GenerationConfig(arguments.steps, guidance_scale=3.0, batch_size=arguments.videos)
    captions = [caption(scene) for scene in sample_scenes(arguments.videos, 0, "heldout")]
    rows: list[dict[str, Value]] = []
    seconds = seconds_of_rounds(variants(pipe, captions, config), arguments.rounds)
    for name, each in seconds.items():
        own = statistics.median(each) / arguments.steps / arguments.videos
        ratios = [one / plain for one, plain in zip(each, seconds["plain"], strict=True)]
        middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
        rows.append({"variant": name, "seconds": own, "times_plain": middle, "low": low, "high": high})
        print(f"{name}: {own:.3f} s per step and video, {middle:.2f} times plain ({low:.2f} to {high:.2f})", flush=True)
    command = f"python -m benchmarks.cost {' '.join(sys.argv[1:] if words is None else words)}".strip()
    note = f"The bundled model, 16 frames of 128 x 128 pixels, guidance on, {arguments.videos} videos in one batch. "
    note += f"Medians of {arguments.rounds} rounds, each with one run of every variant; low and high are of all rounds."
    record("cost", command, rows, notes=note)
    return 0


if __name__ == "__main__":
    sys.exit(main())
