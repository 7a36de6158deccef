"""What a study saves by starting perturbed runs at the window: seconds per perturbed video, and how equal they are.

Run it from the root of the repository: `python -m benchmarks.study_window [--device cuda]`; the record is
`study-window`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import torch

from benchmarks.results import Value, record
from ieadapt.attention import find_sites
from ieadapt.models import load, scheduler_wrapper
from ieadapt.tasks.generate import GenerationConfig
from ieadapt.tasks.study.config import StudyConfig
from ieadapt.tasks.study.grid import Condition
from ieadapt.tasks.study.videos import make_baselines, make_perturbed
from ieadapt.testbed import caption, sample_scenes

WINDOWS = ("0:1", "0.25:1", "0.5:1", "0.75:1")


def timed(run: Callable[[], torch.Tensor], repeats: int) -> tuple[float, torch.Tensor]:
    """Median time of a run, and what it made; on a processor the process's own time, which others do not lengthen."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    times = []
    for _ in range(repeats):
        began = clock()
        made = run()
        times.append(clock() - began)
    return statistics.median(times), made


def row(
    pipe: Any, pairs: list[tuple[str, int]], config: GenerationConfig, window: str, repeats: int
) -> dict[str, Value]:
    """One window: from its start, and from the beginning."""
    study, site = StudyConfig(window=window, metrics="psnr"), find_sites(pipe)[0]
    condition = Condition((site.name,), site.kind, "uniform")
    baselines = make_baselines(pipe, pairs, study, config)

    def run() -> torch.Tensor:
        return make_perturbed(pipe, condition, pairs, baselines, study, config)

    late, frames = timed(run, repeats)
    with mock.patch.object(scheduler_wrapper, "ONE_STEP", ()):
        whole, expected = timed(run, repeats)
    return {
        "window": window,
        "seconds": late / len(pairs),
        "seconds_from_the_beginning": whole / len(pairs),
        "saved": 1 - late / whole,
        "largest_difference": float((frames - expected).abs().max()),
    }


def main(words: Sequence[str] | None = None) -> int:
    """Time every window, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--videos", type=int, default=1, help="videos in one batch")
    parser.add_argument("--steps", type=int, default=8, help="denoising steps")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each variant; the median counts")
    arguments = parser.parse_args(words)
    pipe = load("shapes", device=arguments.device)
    config = GenerationConfig(arguments.steps, guidance_scale=3.0, batch_size=arguments.videos)
    pairs = [(caption(scene), 0) for scene in sample_scenes(arguments.videos, 0, "heldout")]
    rows = []
    for window in WINDOWS:
        rows.append(row(pipe, pairs, config, window, arguments.repeats))
        print(rows[-1], flush=True)
    command = f"python -m benchmarks.study_window {' '.join(sys.argv[1:] if words is None else words)}".strip()
    note = (
        f"The bundled model, {arguments.steps} steps with guidance, {arguments.videos} videos in one batch, decoding "
        "included; the unperturbed baseline that keeps the latents is made once for all conditions and not counted."
    )
    record("study-window", command, rows, notes=note)
    return 0


if __name__ == "__main__":
    sys.exit(main())
