"""The training recipe: `python -m ieadapt.testbed.train --folder runs/testbed --vae 120 --images 150 --video 250`.

Each number is a stage's budget in seconds; a stage without one is skipped. Every stage starts from the folder's weights
where it has them and leaves averaged fp16 weights there, so that running again goes on. `--export` writes the diffusers
folder and `--evaluate` generates held-out captions from it and scores them.
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import transformers
from diffusers import __version__ as diffusers_version

from ieadapt.testbed import stages
from ieadapt.testbed.checkpoint import Parts, add_history, export, load_parts, save_video, save_weights
from ieadapt.testbed.evaluate import report
from ieadapt.testbed.loop import Outcome, Schedule
from ieadapt.testbed.model import STANDARD, TINY, Widths
from ieadapt.testbed.pool import Pool, frame_pool, latent_pool
from ieadapt.testbed.render import render_frames
from ieadapt.testbed.scenes import FRAMES, sample_tensors

STAGES = ("vae", "images", "video")


@dataclass(frozen=True)
class Recipe:
    """One stretch of training.

    Args:
        folder: where the weights and the record are.
        seconds: budget of each stage; a stage that is not named is skipped.
        batch: frames, frames and clips an iteration in the three stages.
        rate: highest learning rate of each stage.
        pool: rows of training data kept on the device: frames for the VAE, clips for the other two.
        iterations: most iterations of any stage.
        floor: share of the learning rate left at a stage's end, for a stretch that another one will follow.
        widths: the size of the model.
        seed: of data, noise and initial weights.
        device: where it trains.
    """

    folder: Path
    seconds: Mapping[str, float]
    batch: Mapping[str, int] = field(default_factory=lambda: {"vae": 128, "images": 1024, "video": 64})
    rate: Mapping[str, float] = field(default_factory=lambda: {"vae": 1e-3, "images": 1e-3, "video": 6e-4})
    pool: Mapping[str, int] = field(default_factory=lambda: {"vae": 32768, "images": 16384, "video": 24576})
    iterations: int = 1_000_000
    floor: float = 0.0
    widths: Widths = STANDARD
    seed: int = 0
    device: str = "cuda" if torch.cuda.is_available() else "cpu"

    def schedule(self, stage: str) -> Schedule:
        """The schedule of one stage."""
        precision: Literal["autocast", "bfloat16"] = "autocast" if stage == "vae" else "bfloat16"
        return Schedule(
            self.seconds[stage], self.rate[stage], iterations=self.iterations, floor=self.floor, precision=precision
        )


def run(recipe: Recipe) -> list[dict[str, object]]:
    """Train the stages that have a budget, in order; returns their records."""
    torch.manual_seed(recipe.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    work: dict[str, Callable[[Recipe], tuple[Outcome, dict[str, object]]]] = {
        "vae": _vae,
        "images": _images,
        "video": _video,
    }
    records = []
    for stage in (name for name in STAGES if recipe.seconds.get(name)):
        print(f"{stage}: {recipe.seconds[stage]:.0f} s on {recipe.device}", flush=True)
        began = time.monotonic()
        outcome, extra = work[stage](recipe)
        records.append(_record(recipe, stage, outcome, extra, time.monotonic() - began))
        add_history(recipe.folder, records[-1])
        print(records[-1], flush=True)
    return records


def _parts(recipe: Recipe) -> Parts:
    return Parts(*(model.to(recipe.device) for model in load_parts(recipe.folder, recipe.widths)))


def _generator(recipe: Recipe, stage: str) -> torch.Generator:
    """Data of each stage and of each stretch differ."""
    return torch.Generator().manual_seed(1000 * recipe.seed + STAGES.index(stage))


def _vae(recipe: Recipe) -> tuple[Outcome, dict[str, object]]:
    vae, device = _parts(recipe).vae, torch.device(recipe.device)
    pool = frame_pool(recipe.pool["vae"], _generator(recipe, "vae"), device)
    print(f"  {len(pool.data)} frames rendered", flush=True)
    outcome = stages.train_vae(vae, pool, recipe.batch["vae"], recipe.schedule("vae"), device)
    stages.normalise_latents(vae, pool.data[:512].float() / 255)
    save_weights(recipe.folder, "vae", vae.state_dict())
    scenes = sample_tensors(64, torch.Generator().manual_seed(99), "heldout").to(device)
    frames = render_frames(scenes, torch.arange(64, device=device) % FRAMES)
    with torch.no_grad():
        rebuilt = vae.decode(vae.encode(frames * 2 - 1).latent_dist.mean).sample / 2 + 0.5
    error = (rebuilt.clamp(0, 1) - frames).square().mean((1, 2, 3))
    return outcome, {"psnr": round(float((-10 * error.log10()).mean()), 2)}


def _clips(recipe: Recipe, parts: Parts, stage: str) -> Pool:
    began = time.monotonic()
    pool = latent_pool(recipe.pool[stage], parts.vae, _generator(recipe, stage), torch.device(recipe.device))
    deviation = float(pool.data[:512].float().std())
    print(
        f"  {len(pool.data)} clips encoded in {time.monotonic() - began:.1f} s, deviation {deviation:.3f}", flush=True
    )
    return pool


def _images(recipe: Recipe) -> tuple[Outcome, dict[str, object]]:
    parts, device = _parts(recipe), torch.device(recipe.device)
    pool = _clips(recipe, parts, "images")
    outcome = stages.train_images(
        parts.image, parts.text, pool, recipe.batch["images"], recipe.schedule("images"), device
    )
    save_weights(recipe.folder, "unet", parts.image.state_dict())
    save_weights(recipe.folder, "text", parts.text.state_dict())
    return outcome, {}


def _video(recipe: Recipe) -> tuple[Outcome, dict[str, object]]:
    parts, device = _parts(recipe), torch.device(recipe.device)
    pool = _clips(recipe, parts, "video")
    outcome = stages.train_video(parts.video, parts.text, pool, recipe.batch["video"], recipe.schedule("video"), device)
    save_video(recipe.folder, parts.video, recipe.widths)
    save_weights(recipe.folder, "text", parts.text.state_dict())
    return outcome, {}


def _record(
    recipe: Recipe, stage: str, outcome: Outcome, extra: Mapping[str, object], wall: float
) -> dict[str, object]:
    device = torch.cuda.get_device_name() if recipe.device.startswith("cuda") else "cpu"
    return {
        "stage": stage,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": device,
        "seconds": outcome.seconds,
        "seconds with data": round(wall, 1),
        "iterations": outcome.iterations,
        "batch": recipe.batch[stage],
        "learning rate": recipe.rate[stage],
        "loss": round(outcome.loss, 5),
        "floor": recipe.floor,
        "steps run as": outcome.mode,
        "precision": recipe.schedule(stage).precision if recipe.device.startswith("cuda") else "float32",
        "seed": recipe.seed,
        "torch": torch.__version__,
        "diffusers": diffusers_version,
        "transformers": transformers.__version__,
        **extra,
    }


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and train."""
    options = _parser().parse_args(arguments)
    recipe = _recipe(options)
    run(recipe)
    if options.export:
        export(options.folder, options.export, recipe.widths)
    for guidance in options.guidance if options.evaluate else ():
        report(options.export, options.evaluate, guidance, options.device, options.folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="weights and record, read and written")
    for stage in STAGES:
        parser.add_argument(f"--{stage}", type=float, default=0.0, metavar="SECONDS", help=f"budget of stage {stage}")
        parser.add_argument(f"--{stage}-rate", type=float, help="highest learning rate of that stage")
        parser.add_argument(f"--{stage}-batch", type=int, help="rows an iteration of that stage")
    parser.add_argument("--iterations", type=int, default=1_000_000, help="most iterations of any stage")
    parser.add_argument("--floor", type=float, default=0.0, help="share of the learning rate left at a stage's end")
    parser.add_argument("--size", choices=("standard", "tiny"), default="standard", help="tiny: for a smoke run")
    parser.add_argument("--pool", type=int, help="rows of training data kept on the device")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--export", type=Path, help="write the diffusers pipeline folder here")
    parser.add_argument("--evaluate", type=int, default=0, metavar="CLIPS", help="held-out captions to score")
    parser.add_argument("--guidance", type=float, nargs="+", default=[4.0], help="guidance scales of the evaluation")
    return parser


def _recipe(options: argparse.Namespace) -> Recipe:
    """The recipe that the command line asks for."""
    standard = Recipe(options.folder, {})
    return Recipe(
        folder=options.folder,
        seconds={stage: getattr(options, stage) for stage in STAGES},
        batch={stage: getattr(options, f"{stage}_batch") or standard.batch[stage] for stage in STAGES},
        rate={stage: getattr(options, f"{stage}_rate") or standard.rate[stage] for stage in STAGES},
        pool={stage: options.pool or standard.pool[stage] for stage in STAGES},
        iterations=options.iterations,
        floor=options.floor,
        widths=TINY if options.size == "tiny" else STANDARD,
        seed=options.seed,
        device=options.device,
    )


if __name__ == "__main__":
    main()
