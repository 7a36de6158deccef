"""The recipe: `python -m benchmarks.training.train --model scenes --folder runs/testbed --vae 120 --images 150`.

Each number is a stage's budget in seconds; a stage without one is skipped. Every stage starts from the folder's weights
where it has them and leaves averaged fp16 weights there, so that running again goes on. `--export` writes the diffusers
folder and `--evaluate` generates held-out captions from it and scores them. `torchrun --nproc-per-node N -m
benchmarks.training.train ...` trains on N GPUs, each with a batch and a pool of its own.
"""

from __future__ import annotations

import argparse
import datetime
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers
from diffusers import __version__ as diffusers_version
from torch import Tensor, nn

from benchmarks.training.architecture import STAGES, Architecture
from benchmarks.training.checkpoint import Parts, add_history, adopt, export, load_parts, save_weights
from benchmarks.training.evaluate import report
from benchmarks.training.loop import Outcome, Schedule, processes
from benchmarks.training.models import ARCHITECTURES
from benchmarks.training.pool import Pool, latent_pool, vae_pool
from benchmarks.training.stages import COMPILED, train_denoiser, train_vae
from ieadapt.testbed.rendering import render_batch
from ieadapt.testbed.sampling import sample_batch

VAE_CLIPS = 16
"""Held-out clips by which a VAE is measured."""


@dataclass(frozen=True)
class Recipe:
    """One stretch of training.

    Args:
        folder: where the weights and the record are.
        seconds: budget of each stage; a stage that is not named is skipped.
        architecture: what is trained.
        batch: rows an iteration of each stage, where not the architecture's.
        rate: highest learning rate of each stage, likewise.
        floor: share of the learning rate left at a stage's end, for a stretch that another one will follow.
        careless: share of what training captions say that is wrong, as captions of real data are.
        pool: rows of training data kept on the device, where not the architecture's.
        iterations: most iterations of any stage.
        size: of the model: `standard`, or `tiny` for a smoke run.
        compile: which part of the denoiser is compiled: `none`, or `blocks`, each block of its stacks by itself.
        seed: of data, noise and initial weights.
        device: where it trains.
    """

    folder: Path
    seconds: Mapping[str, float]
    architecture: Architecture = ARCHITECTURES["scenes"]
    batch: Mapping[str, int] = field(default_factory=dict)
    rate: Mapping[str, float] = field(default_factory=dict)
    floor: Mapping[str, float] = field(default_factory=dict)
    careless: float = 0.0
    pool: int | None = None
    iterations: int = 1_000_000
    size: str = "standard"
    compile: str = "none"
    seed: int = 0
    device: str = "cuda" if torch.cuda.is_available() else "cpu"

    def schedule(self, stage: str) -> Schedule:
        """The schedule of one stage."""
        return Schedule(
            self.seconds[stage],
            self.rate.get(stage, self.architecture.stages[stage].rate),
            iterations=self.iterations,
            floor=self.floor.get(stage, 0.0),
            precision=self.architecture.stages[stage].precision,
        )

    def rows(self, stage: str) -> int:
        """Rows an iteration."""
        return self.batch.get(stage, self.architecture.stages[stage].batch)

    def pool_size(self, stage: str) -> int:
        """Rows kept on the device."""
        return self.pool or self.architecture.stages[stage].pool


def run(recipe: Recipe) -> list[dict[str, object]]:
    """Train the stages that have a budget, in order; returns their records."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    stretch = _Stretch(recipe)
    work: dict[str, Callable[[], tuple[Outcome, dict[str, object]]]] = {
        "vae": stretch.vae,
        "images": lambda: stretch.denoiser("images"),
        "video": lambda: stretch.denoiser("video"),
    }
    records = []
    for stage in (name for name in STAGES if recipe.seconds.get(name)):
        print(f"{stage}: {recipe.seconds[stage]:.0f} s on {recipe.device}", flush=True)
        began = time.monotonic()
        outcome, extra = work[stage]()
        records.append(_record(recipe, stage, outcome, extra, time.monotonic() - began))
        if _rank() == 0:
            add_history(recipe.folder, records[-1])
            print(records[-1], flush=True)
        _wait()
    return records


def _rank() -> int:
    """Which of the processes that train together this one is; the first one writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def _wait() -> None:
    """Wait until every process is here."""
    if processes() > 1:
        dist.barrier()


class _Stretch:
    """The stages of one run; clips are encoded once for all stages that follow the VAE's."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.device = recipe, torch.device(recipe.device)
        self._clips: Pool | None = None

    @property
    def architecture(self) -> Architecture:
        return self.recipe.architecture

    def vae(self) -> tuple[Outcome, dict[str, object]]:
        vae, recipe = self._parts().modules["vae"], self.recipe
        pool = vae_pool(self.architecture, recipe.pool_size("vae"), self._generator("vae"), self.device)
        print(f"  {len(pool.data)} rows rendered", flush=True)
        outcome = train_vae(self.architecture, vae, pool, recipe.rows("vae"), recipe.schedule("vae"), self.device)
        self.architecture.normalise(vae, pool.data[: 4 * recipe.rows("vae")].float() / 255)
        self._save({"vae": vae})
        self._clips = None
        return outcome, {"psnr": self._psnr(vae)}

    def denoiser(self, stage: str) -> tuple[Outcome, dict[str, object]]:
        recipe, parts = self.recipe, self._parts()
        text, trained = parts.modules["text"], parts.denoisers[stage]
        pool = self._encoded(stage, parts.modules["vae"])
        COMPILED[recipe.compile](trained)
        outcome = train_denoiser(
            self.architecture, stage, trained, text, pool, recipe.rows(stage), recipe.schedule(stage), self.device
        )
        parts_trained = self.architecture.split[stage](trained, self.architecture.widths[recipe.size])
        self._save({**parts_trained, "text": text})
        return outcome, {}

    def _save(self, modules: Mapping[str, nn.Module]) -> None:
        """The first process writes; the others, whose weights are the same, wait for it."""
        for name, module in modules.items() if _rank() == 0 else ():
            save_weights(self.recipe.folder, name, module.state_dict())
        _wait()

    def _parts(self) -> Parts:
        torch.manual_seed(self.recipe.seed)  # untrained weights are the same in every process
        parts = load_parts(self.architecture, self.recipe.folder, self.recipe.size)
        for module in (*parts.modules.values(), *parts.denoisers.values()):
            module.to(self.device).eval()
        torch.manual_seed(1000 * self.recipe.seed + _rank())  # noise is not
        return parts

    def _generator(self, stage: str) -> torch.Generator:
        """Data of each stage, of each stretch and of each process differ."""
        return torch.Generator().manual_seed(1000 * self.recipe.seed + 10 * _rank() + STAGES.index(stage))

    def _encoded(self, stage: str, vae: nn.Module) -> Pool:
        size = self.recipe.pool_size(stage)
        if self._clips is None or len(self._clips.data) != size:
            began = time.monotonic()
            generator = self._generator(stage)
            self._clips = latent_pool(self.architecture, size, vae, generator, self.device, self.recipe.careless)
            first = self._clips.data[:512].float().transpose(0, 2).flatten(1)
            facts = f"channel means {_spoken(first.mean(1))}, deviations {_spoken(first.std(1))}"
            print(f"  {size} clips encoded in {time.monotonic() - began:.1f} s, {facts}", flush=True)
        return self._clips

    def _psnr(self, vae: nn.Module) -> float:
        """Mean PSNR of frames of held-out clips through the VAE, dB."""
        number = min(VAE_CLIPS, self.recipe.pool or VAE_CLIPS)
        clips = render_batch(sample_batch(number, torch.Generator().manual_seed(99), "heldout").to(self.device))
        rebuilt = self.architecture.decode(vae, self.architecture.encode(vae, clips))
        error = (rebuilt.clamp(0, 1) - clips).square().mean((2, 3, 4))
        return round(float((-10 * error.log10()).mean()), 2)


def _spoken(values: Tensor) -> str:
    return " ".join(f"{value:.2f}" for value in values.tolist())


def _record(
    recipe: Recipe, stage: str, outcome: Outcome, extra: Mapping[str, object], wall: float
) -> dict[str, object]:
    device = torch.cuda.get_device_name() if recipe.device.startswith("cuda") else "cpu"
    return {
        "model": recipe.architecture.name,
        "stage": stage,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": device,
        "seconds": outcome.seconds,
        "seconds with data": round(wall, 1),
        "iterations": outcome.iterations,
        "batch": recipe.rows(stage) * processes(),
        "processes": processes(),
        "learning rate": recipe.schedule(stage).learning_rate,
        "loss": round(outcome.loss, 5),
        "floor": recipe.schedule(stage).floor,
        "careless": recipe.careless,
        "steps run as": outcome.mode,
        "compiled": recipe.compile,
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
    if "LOCAL_RANK" in os.environ:  # set by torchrun
        if options.device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if options.device == "cuda" else "gloo")
    recipe = _recipe(options)
    if options.start:
        adopt(recipe.architecture, options.start, options.folder)
    run(recipe)
    if dist.is_initialized():
        first = _rank() == 0
        dist.destroy_process_group()
        if not first:
            return
    if options.export:
        export(recipe.architecture, options.folder, options.export, recipe.size)
    for guidance in options.guidance if options.evaluate else ():
        report(recipe.architecture, options.export, options.evaluate, guidance, options.device, options.folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="weights and record, read and written")
    parser.add_argument("--model", choices=tuple(ARCHITECTURES), default="scenes", help="what is trained")
    for stage in STAGES:
        parser.add_argument(f"--{stage}", type=float, default=0.0, metavar="SECONDS", help=f"budget of stage {stage}")
        parser.add_argument(f"--{stage}-rate", type=float, help="highest learning rate of that stage")
        parser.add_argument(f"--{stage}-batch", type=int, help="rows an iteration of that stage")
        parser.add_argument(f"--{stage}-floor", type=float, help="share of the learning rate left at that stage's end")
    parser.add_argument("--start", type=Path, help="a pipeline folder of standard size whose weights come first")
    parser.add_argument("--iterations", type=int, default=1_000_000, help="most iterations of any stage")
    parser.add_argument("--size", choices=("standard", "tiny"), default="standard", help="tiny: for a smoke run")
    parser.add_argument(
        "--compile", choices=tuple(COMPILED), default="none", help="blocks: compile the denoiser's blocks"
    )
    parser.add_argument("--careless", type=float, default=0.0, help="share of what captions say that is wrong")
    parser.add_argument("--pool", type=int, help="rows of training data kept on the device")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--export", type=Path, help="write the diffusers pipeline folder here")
    parser.add_argument("--evaluate", type=int, default=0, metavar="CLIPS", help="held-out captions to score")
    parser.add_argument("--guidance", type=float, nargs="+", default=[4.0], help="guidance scales of the evaluation")
    return parser


def _recipe(options: argparse.Namespace) -> Recipe:
    """The recipe that the command line asks for."""

    def given(what: str) -> dict[str, Any]:
        values = {stage: getattr(options, f"{stage}_{what}") for stage in STAGES}
        return {stage: value for stage, value in values.items() if value is not None}

    return Recipe(
        folder=options.folder,
        seconds={stage: getattr(options, stage) for stage in STAGES},
        architecture=ARCHITECTURES[options.model],
        batch=given("batch"),
        rate=given("rate"),
        floor=given("floor"),
        careless=options.careless,
        pool=options.pool,
        iterations=options.iterations,
        size=options.size,
        compile=options.compile,
        seed=options.seed,
        device=options.device,
    )


if __name__ == "__main__":
    main()
