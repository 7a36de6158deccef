"""Ways of generating, scored on a set of held-out scenes: what `testbed-validity` and every choice of settings rest on.

    python -m benchmarks.scenes_compare --model scenes-dit --folder runs/scenes-dit --set choosing --scenes 200 \
        --variants benchmarks/sweeps/scenes-first.json --out runs/scenes-compare

VARIANTS is JSON, name -> `{"guidance": 3, "steps": 1.0, "enhance": {...}}`: the guidance scale, a factor on the
steps, and the fields of an `EnhanceConfig` (`{"preset": "pag", "scale": 2}` starts from a published method). A finished
variant is a parquet file in the folder, a row a scene with every figure of its score; the command goes on where it
stopped. Scene i has seed i in every variant, so that variants are compared pair by pair. Clips are scored beside
generation, in as many processes as are asked for.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import polars as pl
import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from benchmarks.scene_sets import scene_set
from benchmarks.testbed.generating import Variant
from benchmarks.training.checkpoint import load_trained
from benchmarks.training.models import ARCHITECTURES
from ieadapt.errors import UsageError
from ieadapt.files import write_atomically
from ieadapt.metrics.intervals import paired_interval
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.generate import GenerationConfig
from ieadapt.tasks.measure.method import quick_profile
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.testbed import caption
from ieadapt.testbed.score import score_scene

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


def compare(
    pipe: DiffusionPipeline,
    captions: list[str],
    variants: Mapping[str, Variant],
    base: GenerationConfig,
    out: Path,
    judges: Executor,
    iterations: int = 40,
) -> dict[str, pl.DataFrame]:
    """Make and score every variant that is not there yet.

    Args:
        pipe: the model.
        captions: one a clip; clip i has seed i.
        variants: ways of generating, by name.
        base: steps, guidance and batch size of plain generation.
        out: where each variant is kept.
        judges: scores clips.
        iterations: of the fit that quality rests on.

    Returns:
        One table a variant, a row a caption.
    """
    out.mkdir(parents=True, exist_ok=True)
    profile = _profile(pipe, captions, base, out) if any(each.needs_profile for each in variants.values()) else None
    for name, variant in variants.items():
        path = _file(out, name)
        if path.is_file():
            continue
        waiting = []
        for start in range(0, len(captions), base.batch_size):
            prompts = captions[start : start + base.batch_size]
            seeds = list(range(start, start + len(prompts)))
            clips = variant.videos(pipe, prompts, seeds, base, profile)
            waiting += [judges.submit(_scored, *pair, iterations) for pair in zip(clips.half(), prompts, strict=True)]
        rows = [{"scene": index, "caption": captions[index], **job.result()} for index, job in enumerate(waiting)]
        table, buffer = pl.DataFrame(rows), io.BytesIO()
        table.write_parquet(buffer)
        write_atomically(path, buffer.getvalue())
        means = table.select(FIGURES).mean().row(0, named=True)
        print(f"{name}: " + ", ".join(f"{key} {value:.4f}" for key, value in means.items()), flush=True)
    return {name: pl.read_parquet(_file(out, name)) for name in variants}


def _file(out: Path, name: str) -> Path:
    return out / f"{name}.parquet"


def _scored(clip: Float[Tensor, "frame channel height width"], text: str, iterations: int) -> dict[str, float]:
    torch.set_num_threads(1)
    return score_scene(clip.float(), text, iterations).as_dict()


def _profile(pipe: DiffusionPipeline, captions: list[str], base: GenerationConfig, out: Path) -> EntropyProfile:
    """EP of the model's sites on a few captions, measured once a folder."""
    if not (out / "profile.parquet").is_file():
        quick_profile(pipe, captions, base, seed=0).save(out)
    return EntropyProfile.load(out)


def differences(tables: Mapping[str, pl.DataFrame], against: str = PLAIN) -> list[dict[str, Any]]:
    """Every variant less one of them, scene by scene, with 95 % intervals.

    Raises:
        UsageError: that one is not there.
    """
    if against not in tables:
        raise UsageError("nothing to compare with", expected=", ".join(tables), got=against)
    rows = []
    for name, table in tables.items():
        for figure in FIGURES:
            interval = paired_interval(table[figure].to_list(), tables[against][figure].to_list())
            rows.append(
                {
                    "variant": name,
                    "figure": figure,
                    "mean": table[figure].mean(),
                    "difference": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "scenes": table.height,
                }
            )
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, make and score what is missing, and print differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("scenes", "scenes-dit"), default="scenes-dit")
    parser.add_argument("--folder", type=Path, required=True, help="a training folder")
    parser.add_argument("--size", choices=("standard", "tiny"), default="standard")
    parser.add_argument("--set", choices=("choosing", "confirming"), default="choosing")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--variants", type=Path, required=True, help="JSON")
    parser.add_argument("--against", default=PLAIN, help="which variant the others are compared with")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--fit", type=int, default=40, help="iterations of the fit that quality rests on")
    parser.add_argument("--judges", type=int, default=1, help="processes that score clips")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    captions = [caption(scene) for scene in scene_set(options.set, options.scenes)]
    base = GenerationConfig(options.steps, guidance_scale=1.0, batch_size=options.batch)
    variants = read_variants(json.loads(options.variants.read_text()))
    pipe = load_trained(ARCHITECTURES[options.model], options.folder, options.size).to(options.device)
    # spawned: a process that holds a GPU cannot be forked
    with ProcessPoolExecutor(options.judges, get_context("spawn")) as judges:
        tables = compare(pipe, captions, variants, base, options.out, judges, options.fit)
    rows = differences(tables, options.against)
    write_atomically(options.out / "differences.json", (json.dumps(rows, indent=1) + "\n").encode())
    for row in rows:
        interval = f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
        print(f"{row['variant']:28} {row['figure']:9} {row['mean']:8.4f} {interval}")


if __name__ == "__main__":
    main()
