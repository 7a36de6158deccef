"""What the models of `scenes` show for held-out captions, at several guidance scales: latents to score, and a sheet.

`python -m benchmarks.scenes_samples --model scenes --folder TRAINING_FOLDER --out DIR --guidance 1 3 6` writes
`latents-GUIDANCE.safetensors` (half precision, (clip, frame, channel, row, column)), `captions.json`,
`sheet-GUIDANCE.png` and, for comparison, `sheet-truth.png` and `sheet-vae.png`: scenes of the same captions as rendered
and as the VAE gives them back.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.training.architecture import Architecture
from benchmarks.training.checkpoint import load_trained
from benchmarks.training.evaluate import save_strip
from benchmarks.training.models import ARCHITECTURES
from ieadapt.testbed.captions import captions
from ieadapt.testbed.rendering import render_batch
from ieadapt.testbed.sampling import sample_batch
from ieadapt.testbed.scene import SceneBatch

SEED = 7
ON_SHEET = 10
"""Clips on a sheet."""


def held_out_scenes(n: int, seed: int = SEED) -> SceneBatch:
    """Scenes of combinations that training never saw, the same for the same seed."""
    return sample_batch(n, torch.Generator().manual_seed(seed), "heldout")


@torch.no_grad()
def sample_latents(
    architecture: Architecture,
    pipeline: object,
    prompts: list[str],
    guidance: float,
    steps: int,
    batch: int,
) -> Float[Tensor, "clip frame channel row column"]:
    """Latents of the prompts, on the CPU; clip i has the noise of seed i whatever the batch."""
    parts = []
    for start in range(0, len(prompts), batch):
        chosen = prompts[start : start + batch]
        noise = [torch.Generator("cpu").manual_seed(start + index) for index in range(len(chosen))]
        made = pipeline(  # type: ignore[operator]
            chosen,
            guidance_scale=guidance,
            num_inference_steps=steps,
            generator=noise,
            output_type="latent",
            **architecture.call,
        ).frames
        # AnimateDiff's pipeline has channels before frames, CogVideoX's frames before channels
        parts.append((made if architecture.call else made.transpose(1, 2)).float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def decode(
    architecture: Architecture, vae: nn.Module, latents: Float[Tensor, "clip frame channel row column"], batch: int = 4
) -> Float[Tensor, "clip frame 3 height width"]:
    """Clips in [0, 1] on the CPU."""
    device = next(vae.parameters()).device
    return torch.cat([architecture.decode(vae, part.to(device)).clamp(0, 1).cpu() for part in latents.split(batch)])


def psnr(one: Float[Tensor, "clip frame 3 height width"], other: Tensor) -> Float[Tensor, " clip"]:
    """Peak signal-to-noise ratio of each clip, dB."""
    return -10 * (one - other).square().mean((1, 2, 3, 4)).log10()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("scenes", "scenes-dit"), default="scenes")
    parser.add_argument("--folder", type=Path, required=True, help="a training folder")
    parser.add_argument("--size", choices=("standard", "tiny"), default="standard")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--guidance", type=float, nargs="*", default=[1.0, 3.0, 6.0])
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    architecture: Architecture = ARCHITECTURES[options.model]
    pipeline = load_trained(architecture, options.folder, options.size).to(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    scenes = held_out_scenes(options.clips)
    prompts = captions(scenes)
    (options.out / "captions.json").write_text(json.dumps(prompts, indent=1) + "\n")
    shown = scenes[: min(ON_SHEET, options.clips)]
    truth = render_batch(shown)
    encoded = torch.cat([architecture.encode(pipeline.vae, clip[None].to(options.device)).cpu() for clip in truth])
    rebuilt = decode(architecture, pipeline.vae, encoded)
    print(f"PSNR of {len(truth)} clips through the VAE: {psnr(truth, rebuilt).mean():.2f} dB", flush=True)
    save_strip(truth, options.out / "sheet-truth.png")
    save_strip(rebuilt, options.out / "sheet-vae.png")
    for guidance in options.guidance:
        latents = sample_latents(architecture, pipeline, prompts, guidance, options.steps, options.batch)
        save_file({"latents": latents.half()}, options.out / f"latents-{guidance:g}.safetensors")
        save_strip(decode(architecture, pipeline.vae, latents[: len(shown)]), options.out / f"sheet-{guidance:g}.png")
        print(f"guidance {guidance:g}: {len(latents)} clips", flush=True)


if __name__ == "__main__":
    main()
