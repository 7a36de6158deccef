"""Ways of generating, scored on a set of held-out scenes: what `testbed-validity` and every choice of settings rest on.

    python -m benchmarks.scenes_compare --variants benchmarks/sweeps/scenes-first.json --out runs/scenes-compare

VARIANTS is JSON, name -> `{"guidance": 3, "steps": 1.0, "enhance": {...}}`: the guidance scale, a factor on the
steps, and the fields of an `EnhanceConfig` (`{"preset": "pag", "scale": 2}` starts from a published method). A finished
variant is a JSON file in the folder, a row a scene with every figure of its score; the command goes on where it
stopped. Scene i has seed i in every variant, so that variants are compared pair by pair. `--folder` takes the weights
of a training folder instead of those that ship. On a GPU a variant of 128 scenes takes about half a minute.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from filelock import FileLock

from benchmarks.scene_sets import scene_set
from benchmarks.testbed.generating import Variant
from benchmarks.training.checkpoint import load_trained
from benchmarks.training.models import ARCHITECTURES
from ieadapt.errors import UsageError
from ieadapt.files import write_atomically
from ieadapt.metrics.intervals import paired_interval
from ieadapt.models import load
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.measure.method import quick_profile
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.testbed import caption, score_scenes

Rows = list[dict[str, Any]]
"""One a scene, every figure of its score by name."""
PLAIN = "plain"
FIGURES = ("accuracy", "fit", "detail", "flicker")


def read_variants(content: Mapping[str, Any]) -> dict[str, Variant]:
    """The variants that a file describes.

    Raises:
        UsageError: an entry with a key that is none of those known, or settings that cannot be.

    Example:
        >>> read_variants({"pag": {"guidance": 3, "enhance": {"preset": "pag", "scale": 2.0}}})["pag"].enhance.scale
        2.0
    """
    variants = {}
    for name, entry in content.items():
        unknown = set(entry) - {"guidance", "steps", "enhance"}
        if unknown:
            raise UsageError(
                "unknown setting of a variant", expected="guidance, steps, enhance", got=sorted(unknown), where=name
            )
        variants[name] = Variant(
            "compared", _enhancement(entry.get("enhance")), entry.get("guidance"), entry.get("steps", 1.0)
        )
    return variants


def _enhancement(fields: Mapping[str, Any] | None) -> EnhanceConfig | None:
    if fields is None:
        return None
    rest = {name: value for name, value in fields.items() if name != "preset"}
    return EnhanceConfig.preset(fields["preset"], **rest) if "preset" in fields else EnhanceConfig(**rest)


@dataclass(frozen=True)
class Comparison:
    """What all variants share; a worker process gets it whole.

    Args:
        model: `scenes` or `scenes-dit`.
        captions: one a clip; clip i has seed i.
        base: steps, guidance and batch size of plain generation.
        out: where each variant is kept.
        folder: a training folder, instead of the weights that ship.
        size: of the model.
        iterations: of the fit that quality rests on.
    """

    model: str
    captions: tuple[str, ...]
    base: GenerationConfig
    out: Path
    folder: Path | None = None
    size: str = "standard"
    iterations: int = 40

    def make(self, name: str, variant: Variant, device: str) -> None:
        """Make and score one variant, where its file is not there yet; clips are scored where they are made."""
        path = self.out / f"{name}.json"
        if path.is_file():
            return
        pipe = pipeline_of(self.model, self.folder, self.size, device)
        profile = _profile(pipe, self.captions, self.base, self.out) if variant.needs_profile else None
        rows: Rows = []
        for start in range(0, len(self.captions), self.base.batch_size):
            prompts = self.captions[start : start + self.base.batch_size]
            clips = variant.videos(pipe, prompts, list(range(start, start + len(prompts))), self.base, profile)
            scores = score_scenes(clips.to(pipe.device), prompts, self.iterations)
            rows += [{"scene": start + index, **score.as_dict()} for index, score in enumerate(scores)]
        write_atomically(path, json.dumps(rows).encode())
        print(f"{name}: " + ", ".join(f"{key} {mean(rows, key):.4f}" for key in FIGURES), flush=True)


def compare(comparison: Comparison, variants: Mapping[str, Variant], device: str, workers: int = 1) -> dict[str, Rows]:
    """Make and score every variant that is not there yet; rows by variant.

    Args:
        comparison: what all variants share.
        variants: ways of generating, by name.
        device: `cpu` or `cuda`; with several workers, all GPUs.
        workers: processes, shared by the GPUs evenly; each has one variant at a time.
    """
    comparison.out.mkdir(parents=True, exist_ok=True)
    if workers == 1:
        for name, variant in variants.items():
            comparison.make(name, variant, device)
    else:
        devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if device == "cuda" else [device]
        with ExitStack() as stack:
            pools = [
                stack.enter_context(ProcessPoolExecutor(-(-workers // len(devices)), get_context("spawn")))
                for _ in devices
            ]
            made = [
                pools[number % len(pools)].submit(comparison.make, name, variant, devices[number % len(pools)])
                for number, (name, variant) in enumerate(variants.items())
            ]
            for each in as_completed(made):
                each.result()
    return {name: json.loads((comparison.out / f"{name}.json").read_text()) for name in variants}


def column(rows: Rows, figure: str) -> list[float]:
    """One figure of every scene."""
    return [float(row[figure]) for row in rows]


def mean(rows: Rows, figure: str) -> float:
    """The mean of one figure over scenes."""
    return sum(column(rows, figure)) / len(rows)


def _profile(pipe: DiffusionPipeline, captions: Sequence[str], base: GenerationConfig, out: Path) -> EntropyProfile:
    """EP of the model's sites on a few captions, measured once a folder."""
    with FileLock(out / "profile.lock"):
        if not (out / "profile.parquet").is_file():
            quick_profile(pipe, list(captions), base, seed=0).save(out)
    return EntropyProfile.load(out)


def differences(found: Mapping[str, Rows], against: str = PLAIN) -> list[dict[str, Any]]:
    """Every variant less one of them, scene by scene, with 95 % intervals.

    Raises:
        UsageError: that one is not there.
    """
    if against not in found:
        raise UsageError("nothing to compare with", expected=", ".join(found), got=against)
    rows = []
    for name, own in found.items():
        for figure in FIGURES:
            interval = paired_interval(column(own, figure), column(found[against], figure))
            ends = {"difference": interval.mean, "low": interval.low, "high": interval.high}
            rows.append({"variant": name, "figure": figure, "mean": mean(own, figure), **ends, "scenes": len(own)})
    return rows


@cache
def pipeline_of(model: str, folder: Path | None, size: str, device: str) -> DiffusionPipeline:
    """The model as it ships, or from a training folder."""
    trained = load(model) if folder is None else load_trained(ARCHITECTURES[model], folder, size)
    return trained.to(device)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, make and score what is missing, and print differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("scenes", "scenes-dit"), default="scenes-dit")
    parser.add_argument("--folder", type=Path, help="a training folder, instead of the weights that ship")
    parser.add_argument("--size", choices=("standard", "tiny"), default="standard")
    parser.add_argument("--set", choices=("choosing", "confirming"), default="choosing")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--variants", type=Path, required=True, help="JSON")
    parser.add_argument("--against", default=PLAIN, help="which variant the others are compared with")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--fit", type=int, default=40, help="iterations of the fit that quality rests on")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes, shared by all GPUs evenly")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    captions = tuple(caption(scene) for scene in scene_set(options.set, options.scenes))
    base = GenerationConfig(options.steps, guidance_scale=1.0, batch_size=options.batch)
    variants = read_variants(json.loads(options.variants.read_text()))
    comparison = Comparison(options.model, captions, base, options.out, options.folder, options.size, options.fit)
    rows = differences(compare(comparison, variants, options.device, options.workers), options.against)
    write_atomically(options.out / "differences.json", (json.dumps(rows, indent=1) + "\n").encode())
    for row in rows:
        interval = f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
        print(f"{row['variant']:28} {row['figure']:9} {row['mean']:8.4f} {interval}")


if __name__ == "__main__":
    main()
