"""A made-up study whose answers are known: temporal identity costs structure where EP is low and quality where high."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.study.videos import Strip, to_strip_frames, write_strip
from ieadapt.testbed import render, sample_scenes

PROMPTS = ("a big red ball moving right over bricks", "a small blue star moving up on grass")
SEEDS = (0, 1, 2)
MODEL = "made-up"


def sites() -> list[dict[str, Any]]:
    """Ten spatial, twelve temporal and three cross-attention sites in order of execution."""
    random = np.random.default_rng(0)
    made, counts = [], {"spatial": 10, "temporal": 12, "cross": 3}
    for index in range(12):
        for kind in ("spatial", "temporal", "cross"):
            if index < counts[kind]:
                keys = {"spatial": 16 * 4 ** (index % 3), "temporal": 16, "cross": 12}[kind]
                ep = {"spatial": 97 - 2.3 * index, "temporal": 76 + 1.9 * index, "cross": 50 + index}[kind]
                made.append({"site": f"block.{index}.{kind}", "kind": kind, "n_keys": float(keys), "ep": float(ep)})
    return [{**site, "order": order, "energy": float(random.lognormal(8))} for order, site in enumerate(made)]


def profile() -> EntropyProfile:
    row = {"head": 0, "step": 0, "branch": "cond", "videos": 1, "entropy": 1.0}
    return EntropyProfile.from_rows([{**site, **row} for site in sites()], {"model": MODEL})


def effect(site: dict[str, Any], perturbation: str, noise: float) -> dict[str, float]:
    """What replacing a site does: known for temporal identity, mild elsewhere."""
    low = (100 - site["ep"]) / 100
    random = np.random.default_rng(site["order"] + (100 if perturbation == "uniform" else 0))
    structure, quality = {
        ("temporal", "identity"): (0.6 * low, 0.3 * site["ep"] / 100),
        ("temporal", "uniform"): (0.4 * low, 0.2 * low),
    }.get((site["kind"], perturbation), (random.uniform(0.01, 0.1), random.uniform(0.0, 0.1)))
    return {
        "psnr": 40 - 60 * structure + noise,
        "ssim": 1 - structure + 0.01 * noise,
        "flicker": 3.4 + quality,
        "flicker_change": quality + 0.05 * noise,
        "mobilenet_consistency": 0.97 - 0.1 * quality,
        "mobilenet_consistency_change": -0.1 * quality + 0.002 * noise,
        "sharpness": 1.0,
        "sharpness_change": 0.1 * noise,
        "testbed_fit": 0.8 - quality,
        "testbed_fit_change": -quality + 0.01 * noise,
        "testbed_motion": 0.9,
        "testbed_motion_change": -structure + 0.01 * noise,
    }


def cell(site: dict[str, Any], perturbation: str, prompt: str, seed: int, **other: Any) -> dict[str, Any]:
    noise = float(np.random.default_rng(10 * seed + PROMPTS.index(prompt)).normal())
    return {
        "key": f"{site['site']}-{perturbation}-{prompt}-{seed}",
        "model": MODEL,
        "weights_hash": "abc123",
        "prompt": prompt,
        "seed": seed,
        "sites": site["site"],
        "kind": site["kind"],
        "perturbation": perturbation,
        "head": None,
        "rank": "each",
        "window": "0:1",
        "branch": "both",
        "steps": 20,
        "ep": site["ep"],
        "energy": site["energy"],
        "energy_share": 0.04,
        **effect(site, perturbation, noise),
        **other,
    }


def study_table() -> pl.DataFrame:
    return pl.DataFrame(
        [
            cell(site, perturbation, prompt, seed)
            for site in sites()
            for perturbation in ("identity", "uniform")
            if (site["kind"], perturbation) != ("cross", "identity")
            for prompt in PROMPTS
            for seed in SEEDS
        ],
        schema_overrides={"head": pl.Int32},
    )


def growing_table() -> pl.DataFrame:
    """The table with sets of one, two and four temporal sites of highest and lowest EP beside it."""
    own = sorted((site for site in sites() if site["kind"] == "temporal"), key=lambda site: -site["ep"])
    rows = []
    for count in (1, 2, 4):
        for rank, chosen in (("top", own[:count]), ("bottom", own[-count:])):
            names = ",".join(site["site"] for site in chosen)
            rows += [
                cell({**chosen[0], "ep": sum(site["ep"] for site in chosen) / count}, "identity", prompt, 0)
                | {"sites": names, "rank": rank, "ssim": 1 - 0.05 * count * (1 if rank == "top" else 2)}
                for prompt in PROMPTS
            ]
    return pl.concat([study_table(), pl.DataFrame(rows, schema_overrides={"head": pl.Int32})])


def heads_table() -> pl.DataFrame:
    """The temporal sites perturbed head by head: head 1 of every site carries all of the damage."""
    own = [site for site in sites() if site["kind"] == "temporal"]
    rows = [
        cell(site, "identity", prompt, 0) | {"head": head, "ssim": 0.7 if head == 1 else 1.0}
        for site in own
        for head in range(3)
        for prompt in PROMPTS
    ]
    return pl.DataFrame(rows, schema_overrides={"head": pl.Int32})


def strips() -> list[Strip]:
    frames = render(sample_scenes(1, seed=3, split="heldout")[0])
    made = [Strip(to_strip_frames(frames), PROMPTS[0], 0)]
    for site in sites():
        for perturbation in ("identity", "uniform"):
            if (site["kind"], perturbation) == ("cross", "identity"):
                continue
            torch.manual_seed(site["order"])
            moved = frames.roll(site["order"] % 4, dims=3) + 0.1 * torch.randn_like(frames)
            told = (PROMPTS[0], 0, site["site"], site["kind"], perturbation, None, "each")
            made.append(Strip(to_strip_frames(moved.clamp(0, 1)), *told))
    return made


def write_study(folder: Path) -> Path:
    """A study folder as far as the report reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    study_table().write_parquet(folder / "study.parquet")
    profile().save(folder)
    for index, strip in enumerate(strips()):
        write_strip(folder, f"{index:032x}", strip)
    (folder / "study.json").write_text('{"command": "ieadapt study made-up --out runs/study", "versions": {"a": "1"}}')
    return folder
