"""The first IE-Adapt table: the testbed model plain, enhanced by entropy, and with the controls.

Every variant generates the same held-out captions from the same noise. The default was fixed before this run, from a
pilot on another model, so no caption is spent on choosing it. Two records are written:

- `enhance-variants`: every variant with its network passes, its means, and its paired differences to plain guidance at
  the same scale and steps, with bootstrap 95 % intervals;
- `enhance-first`: the default variant against plain, measure by measure (what the demo prints beside its own).

Run it from the root of the repository: `python -m benchmarks.enhance_first [--device cuda]`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.results import FOLDER, Value, record
from ieadapt.attention import find_sites
from ieadapt.methods import EnhanceConfig, EntropyProfile, GenerationConfig, enhancement, generate, measure
from ieadapt.metrics.intervals import paired_interval
from ieadapt.models import load
from ieadapt.runs.comparison import compare
from ieadapt.testbed import Score, caption, sample_scenes, score

PROFILE_PROMPTS = 8
PROFILE_STEPS = 8
MEASURES = ("fidelity", "shape", "motion", "iou", "fit", "jitter", "flicker")
PLAIN, DEFAULT = "plain", "upper half by EP, temporal, scale 1 (default)"


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        name: how the row is called.
        guidance_scale: classifier-free guidance scale; None is the pipeline's own.
        steps: factor on the number of denoising steps.
        enhance: the enhancement, None for plain.
    """

    name: str
    guidance_scale: float | None = None
    steps: float = 1.0
    enhance: EnhanceConfig | None = None

    def passes(self, steps: int) -> int:
        """Network passes per video; a guided step is two, a weak branch one more."""
        return round(steps * self.steps) * (3 if self.enhance else 2)


def _temporal(name: str, sites: str, **changes: Any) -> Variant:
    return Variant(name, enhance=EnhanceConfig(sites=sites, **changes))


HALF = "temporal:top=0.5"

VARIANTS = (
    Variant(PLAIN),
    Variant(DEFAULT, enhance=EnhanceConfig()),
    _temporal("half at random, temporal, scale 1 (control)", "temporal:random=0.5"),
    Variant("plain, 1.5 x steps (equal compute)", steps=1.5),
    Variant("plain, guidance 2", guidance_scale=2.0),
    _temporal("3 highest EP, temporal, scale 1", "temporal:top=3"),
    _temporal("3 at random, temporal, scale 1 (control)", "temporal:random=3"),
    _temporal("lower half by EP, temporal, scale 1 (control)", "temporal:bottom=0.5"),
    _temporal("upper half by EP, temporal, scale 0.5", HALF, scale=0.5),
    Variant("guidance 2, upper half by EP, temporal, scale 1", 2.0, 1.0, EnhanceConfig(sites=HALF)),
    Variant("plain, guidance 4.5", guidance_scale=4.5),
    _temporal("mid block spatial, scale 1 (as PAG)", "mid_block.attentions.*.attn1"),
    _temporal("half at random, another draw, temporal, scale 1 (control)", "temporal:random=0.5", seed=1),
    _temporal("3 at random, another draw, temporal, scale 1 (control)", "temporal:random=3", seed=1),
    _temporal("3 lowest EP, temporal, scale 1 (control)", "temporal:bottom=3"),
    _temporal("uniform, upper half by EP, temporal, scale 1", HALF, perturbation="uniform"),
    _temporal("upper half by EP, spatial, scale 1", "spatial:top=0.5"),
    Variant("plain, guidance 1.5", guidance_scale=1.5),
)
"""Identity unless the name says otherwise; the most important rows first, in case time runs out."""


def run(pipe: Any, variant: Variant, base: GenerationConfig, captions: list[str], profile: EntropyProfile) -> Tensor:
    """The variant's videos of the captions, one seed per caption."""
    steps = round(base.num_inference_steps * variant.steps)
    guidance = base.guidance_scale if variant.guidance_scale is None else variant.guidance_scale
    config = replace(base, num_inference_steps=steps, guidance_scale=guidance)
    if variant.enhance is None:
        return generate(pipe, captions, config)
    with enhancement(pipe, variant.enhance, profile) as told:
        print(f"  {len(told.sites)} sites", file=sys.stderr)
        return generate(pipe, captions, config)


def _score(pair: tuple[Tensor, str]) -> Score:
    torch.set_num_threads(1)
    return score(pair[0].float() / 255, pair[1])


def scored(videos: Tensor, captions: Sequence[str], pool: ProcessPoolExecutor) -> list[Score]:
    """Ground-truth scores of the videos, in the order of the captions."""
    frames = (videos * 255).round().to(torch.uint8)
    return list(pool.map(_score, zip(frames, captions, strict=True), chunksize=2))


def table_row(variant: Variant, steps: int, scores: Sequence[Score], plain: Sequence[Score]) -> dict[str, Value]:
    """Means, and paired differences to plain with their intervals."""
    row: dict[str, Value] = {"variant": variant.name, "passes": variant.passes(steps), "videos": len(scores)}
    for name in MEASURES:
        after, before = ([getattr(each, name) for each in group] for group in (scores, plain))
        interval = paired_interval(after, before)
        row[name] = sum(after) / len(after)
        row |= {f"{name}_difference": interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return row


def main(arguments: argparse.Namespace) -> None:
    """Run all variants and write both records."""
    pipe = load(arguments.model, device=arguments.device, dtype=torch.float32)
    base = GenerationConfig(arguments.steps, guidance_scale=arguments.guidance_scale, batch_size=arguments.batch_size)
    seen = [caption(scene) for scene in sample_scenes(PROFILE_PROMPTS, 1, "train")]
    profile = measure(pipe, seen, replace(base, num_inference_steps=PROFILE_STEPS))
    profile.save(arguments.folder / "profile")
    captions = [caption(scene) for scene in sample_scenes(arguments.captions, arguments.seed, "heldout")]
    scores: dict[str, list[Score]] = {}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, mp_context=spawn) as pool:
        start = time.monotonic()
        for variant in VARIANTS:
            began = time.monotonic()
            if began - start > arguments.seconds:
                print(f"out of time before {variant.name}", file=sys.stderr)
                break
            videos = run(pipe, variant, base, captions, profile)
            generated = time.monotonic() - began
            scores[variant.name] = scored(videos, captions, pool)
            seconds = time.monotonic() - began - generated
            print(
                f"{variant.name}: {generated:.0f} s to generate, {seconds:.0f} s to score", file=sys.stderr, flush=True
            )
    write(arguments, scores, find_sites(pipe), profile)


def write(arguments: argparse.Namespace, scores: Mapping[str, list[Score]], sites: Sequence[Any], profile: Any) -> None:
    """Write the records and print the table."""
    command = f"python -m benchmarks.enhance_first {' '.join(sys.argv[1:])}".strip()
    chosen = EnhanceConfig().choose(sites, profile)
    note = (
        f"{arguments.captions} held-out captions, one seed each, {arguments.steps} steps, guidance "
        f"{arguments.guidance_scale}; differences to plain, paired, 95 % bootstrap; not corrected for many rows. "
        f"Profile: {PROFILE_PROMPTS} training captions. The default acts on {len(chosen)} {chosen[0].kind} sites."
    )
    done = [variant for variant in VARIANTS if variant.name in scores]
    rows = [table_row(variant, arguments.steps, scores[variant.name], scores[PLAIN]) for variant in done]
    record("enhance-variants", command, rows, notes=note, folder=arguments.folder)
    comparison = compare(scores[PLAIN], scores[DEFAULT])
    record("enhance-first", command, [row.as_dict() for row in comparison], notes=note, folder=arguments.folder)
    for row in rows:
        figures = "  ".join(
            f"{name} {row[name]:.4f} ({row[f'{name}_difference']:+.4f} [{row[f'{name}_low']:+.4f}, "
            f"{row[f'{name}_high']:+.4f}])"
            for name in MEASURES
        )
        print(f"{str(row['variant'])[:58]:58s} {row['passes']:3d}  {figures}")


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="shapes", help="the bundled model, or a folder of one trained like it")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--captions", type=int, default=32, help="held-out captions")
    parser.add_argument("--steps", type=int, default=8, help="denoising steps of the plain variant")
    parser.add_argument(
        "--guidance-scale", type=float, default=3.0, help="classifier-free guidance of the plain variant"
    )
    parser.add_argument("--seed", type=int, default=11, help="seed of the captions")
    parser.add_argument("--batch-size", type=int, default=4, help="videos that run as one batch")
    parser.add_argument("--workers", type=int, default=2, help="processes that score")
    parser.add_argument("--seconds", type=float, default=3600, help="begin no further variant after so long")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the records go")
    return parser.parse_args(words)


if __name__ == "__main__":
    main(parse())
