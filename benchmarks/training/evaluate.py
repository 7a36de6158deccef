"""Generate clips for captions that were never trained on, and score them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from benchmarks.training.architecture import Architecture
from ieadapt.models import load
from ieadapt.testbed.captions import caption
from ieadapt.testbed.sampling import sample_scenes
from ieadapt.testbed.score import score_scenes

STEPS = 25


def held_out_captions(n: int, seed: int = 7) -> list[str]:
    """Captions of combinations of coloured shapes and background that training never saw."""
    found = dict.fromkeys(caption(scene) for scene in sample_scenes(4 * n, seed, "heldout"))
    return list(found)[:n]


@torch.no_grad()
def generate(
    pipeline: DiffusionPipeline,
    prompts: Sequence[str],
    guidance: float,
    steps: int = STEPS,
    seed: int = 0,
    batch: int = 8,
    **call: Any,
) -> Float[Tensor, "clip frame channel height width"]:
    """Clips of the prompts in [0, 1] on the CPU; clip i has the noise of seed + i whatever the batch.

    `call` is passed on to the pipeline; an architecture's own `call` belongs there.
    """
    pipeline.set_progress_bar_config(disable=True)
    clips = []
    for start in range(0, len(prompts), batch):
        chosen = list(prompts[start : start + batch])
        noise = [torch.Generator("cpu").manual_seed(seed + start + index) for index in range(len(chosen))]
        made = pipeline(
            chosen, guidance_scale=guidance, num_inference_steps=steps, generator=noise, output_type="pt", **call
        )
        clips.append(made.frames.float().cpu())
    return torch.cat(clips)


def save_strip(clips: Float[Tensor, "clip frame channel height width"], path: Path, every: int = 3) -> Path:
    """A picture with one row a clip and every third frame of it."""
    rows = torch.cat([torch.cat(list(clip[::every]), -1) for clip in clips], -2)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((rows.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()).save(path)
    return path


def report(
    architecture: Architecture, folder: Path | None, n: int, guidance: float, device: str, out: Path
) -> dict[str, float]:
    """Score `n` held-out captions, print the means, and leave them and a strip of the first clips in `out`."""
    began = time.monotonic()
    pipeline = load(folder or architecture.name).to(device)
    prompts = held_out_captions(n)
    clips = generate(pipeline, prompts, guidance, batch=25 if device.startswith("cuda") else 4, **architecture.call)
    seconds = time.monotonic() - began
    rows = [score.as_dict() for score in score_scenes(clips, prompts)]
    means = {name: round(sum(row[name] for row in rows) / n, 4) for name in rows[0]}
    print(f"guidance {guidance}: {means} ({seconds:.0f} s to generate)", flush=True)
    save_strip(clips[:10], out / f"strip-{guidance:g}.png")
    table = [{"caption": prompt, **row} for prompt, row in zip(prompts, rows, strict=True)]
    (out / f"scores-{guidance:g}.json").write_text(json.dumps({"mean": means, "clips": table}, indent=1) + "\n")
    return means
