"""What measuring and enhancing add to a whole denoising step of full-size models on a GPU: time and peak memory.

Run it from the root of the repository: `python -m benchmarks.gpu_step`; the record is `gpu-step`. The transformers are
initialised at random at their real sizes, so nothing is downloaded. Measured steps are single calls of the denoiser for
one video; guided ones run the pipeline with classifier-free guidance, the enhancement in every step.
`--device cpu` rehearses it at tiny sizes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

from benchmarks.gpu_models import Budget, Model, defaults, record_models, timed
from benchmarks.results import Value
from ieadapt.attention import find_sites, intercept
from ieadapt.interventions import Record
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.method import enhancement

STEPS = 2
"""Of a guided run; the time of a step is the run's divided by them."""

Block = Callable[[], AbstractContextManager[Any]]


def measured(model: nn.Module) -> dict[str, Block]:
    """Name -> the block inside which a call of the denoiser is timed."""
    return {
        "plain": nullcontext,
        "intercepted, nothing done": lambda: intercept(model, lambda call: None),
        "exact": lambda: intercept(model, Record()),
        "sampled 2%": lambda: intercept(model, Record(rows="sample:0.02")),
        "sampled 5%": lambda: intercept(model, Record(rows="sample:0.05")),
    }


def guided(pipe: DiffusionPipeline) -> dict[str, Block]:
    """Name -> the block inside which a run with classifier-free guidance is timed."""
    names = [site.name for site in find_sites(pipe) if site.kind == "joint"]
    half = len(names) // 2

    def enhanced(sites: Sequence[str], perturbation: str = "identity") -> Block:
        config = EnhanceConfig(sites=",".join(sites), perturbation=perturbation, start=0.0)
        return lambda: enhancement(pipe, config)

    return {
        "guided, plain": nullcontext,
        "guided, first half of the sites, no prefix": enhanced(names[:half]),
        "guided, second half of the sites, prefix": enhanced(names[half:]),
        "guided, last quarter of the sites, prefix": enhanced(names[-max(half // 2, 1) :]),
        "guided, second half of the blocks skipped": enhanced(names[half:], "skip-block"),
    }


def table(model: Model, device: str, repeats: int, budget: Budget) -> Iterator[dict[str, Value]]:
    """Time one model: a plain step, the same measured; a guided one, the same enhanced."""
    with defaults(device):
        denoiser, given = model.build().eval(), model.inputs(1)
    with torch.no_grad():
        yield from _timed(model, measured(denoiser), lambda: denoiser(**given), repeats, 1, device, budget)
        pipe: Any = model.pipeline(denoiser)
        pipe.set_progress_bar_config(disable=True)
        yield from _timed(model, guided(pipe), lambda: model.run(pipe, STEPS), 1, STEPS, device, budget)


def _timed(
    model: Model,
    blocks: dict[str, Block],
    run: Callable[[], object],
    repeats: int,
    steps: int,
    device: str,
    budget: Budget,
) -> Iterator[dict[str, Value]]:
    plain, least = 0.0, 0.0
    for variant, block in blocks.items():
        if not budget.allows(f"{model.name}, {variant}", 3 * plain * steps * (repeats + 1) / 1000):
            continue
        with block():
            taken, peak = timed(run, repeats, device)
        taken /= steps
        plain, least = plain or taken, least or peak
        row: dict[str, Value] = {
            "model": model.name,
            "variant": variant,
            "ms": taken,
            "times_plain": taken / plain,
            "peak_gib": peak,
            "times_peak": peak / least if least else 1.0,
        }
        print(f"{model.name}, {variant}: {taken:.1f} ms, {taken / plain:.3f} x, peak {peak:.2f} GiB", flush=True)
        yield row


def main(words: Sequence[str] | None = None) -> int:
    """Time every model, print and record."""
    note = (
        "One video, bfloat16, random weights; peak of allocated memory with weights, without VAE and text encoder. "
        f"Guided: a run of {STEPS} steps with classifier-free guidance, all of them enhanced, divided by {STEPS}."
    )
    record_models("gpu-step", table, note, words)
    return 0


if __name__ == "__main__":
    sys.exit(main())
