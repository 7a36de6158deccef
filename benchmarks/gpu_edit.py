"""What a step of an edit costs on a GPU: source and target in one batch, the target with the source's maps.

Run it from the root of the repository: `python -m benchmarks.gpu_edit`; the record is `gpu-edit`. It is compared with
the same batch without injection, which costs two plain steps, for no, few and all sites: time, and the peak of memory,
which does not grow with the number of sites, since no map is stored. `--device cpu` rehearses it at tiny sizes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from benchmarks.gpu_models import Budget, Model, defaults, record_models, timed
from benchmarks.results import Value
from ieadapt.attention import find_sites, intercept
from ieadapt.functional import Scope
from ieadapt.interventions import Inject


def variants(denoiser: nn.Module) -> dict[str, Callable[[], AbstractContextManager[Any]]]:
    """Name -> the block inside which a step of two rows is timed."""
    sites = [site for site in find_sites(denoiser) if site.kind == "joint"]

    def injected(share: float, scope: Scope) -> Callable[[], AbstractContextManager[Any]]:
        chosen = [site.name for site in sites[-max(round(share * len(sites)), 1) :]]
        return lambda: intercept(denoiser, Inject(scope), chosen, streams=("source", "target"))

    return {
        "two rows, plain": nullcontext,
        "the whole map at a quarter of the sites": injected(0.25, "all"),
        "the whole map at all sites": injected(1.0, "all"),
        "the map over the video at a quarter of the sites": injected(0.25, "video"),
        "the map over the video at all sites": injected(1.0, "video"),
    }


def table(model: Model, device: str, repeats: int, budget: Budget) -> Iterator[dict[str, Value]]:
    """Time one model: one row, two rows, and two rows with injected maps."""
    with defaults(device):
        denoiser, alone, both = model.build().eval(), model.inputs(1), model.inputs(2)
    with torch.no_grad():
        single, _ = timed(lambda: denoiser(**alone), repeats, device)
        least = 0.0
        for variant, block in variants(denoiser).items():
            if not budget.allows(f"{model.name}, {variant}", 4 * single * (repeats + 1) / 1000):
                continue
            with block():
                taken, peak = timed(lambda: denoiser(**both), repeats, device)
            least = least or peak
            ratio = taken / (2 * single)
            print(f"{model.name}, {variant}: {taken:.1f} ms, {ratio:.3f} x, peak {peak:.2f} GiB", flush=True)
            yield {
                "model": model.name,
                "variant": variant,
                "ms": taken,
                "times_two_steps": ratio,
                "peak_gib": peak,
                "times_peak": peak / least if least else 1.0,
            }


def main(words: Sequence[str] | None = None) -> int:
    """Time every model, print and record."""
    note = (
        "One call of the denoiser with a source and a target row, bfloat16, random weights, against twice the time of "
        "one row; peak of allocated memory with weights, against that of the two rows without injection."
    )
    record_models("gpu-edit", table, note, words)
    return 0


if __name__ == "__main__":
    sys.exit(main())
