"""Full-size pipelines with random weights and no text encoder or VAE, for the benchmarks of whole denoising steps.

Speed and memory do not depend on the weights, so nothing is downloaded. A prompt is a random embedding; what comes out
are latents.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from torch import Tensor, nn

from benchmarks.gpu_attention import versions
from benchmarks.results import FOLDER, Value, record


@dataclass(frozen=True)
class Model:
    """A denoiser at its real size, and what its pipeline is called with.

    Attributes:
        name: the model and its size.
        build: makes the denoiser.
        pipeline: makes a pipeline around it.
        prompt: shape of a prompt's embedding: tokens, channels.
        call: frames, height and width.
        latents: shape of one video's latents as the denoiser takes them.
        extra: further arguments of the denoiser.
    """

    name: str
    build: Callable[[], nn.Module]
    pipeline: Callable[[nn.Module], DiffusionPipeline]
    prompt: tuple[int, int]
    call: dict[str, int]
    latents: tuple[int, ...]
    extra: Callable[[], dict[str, Any]] = field(default=dict)

    def inputs(self, rows: int) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
        """Arguments of one call of the denoiser."""
        return {
            "hidden_states": torch.randn(rows, *self.latents),
            "encoder_hidden_states": torch.randn(rows, *self.prompt),
            "timestep": torch.tensor([500] * rows),
            **self.extra(),
        }

    def run(self, pipe: Any, steps: int, **arguments: Any) -> Tensor:
        """Run the pipeline for one video."""
        prompt, negative = torch.randn(2, 1, *self.prompt, device=pipe.device, dtype=pipe.dtype)
        return pipe(
            prompt_embeds=prompt,
            negative_prompt_embeds=negative,
            num_inference_steps=steps,
            output_type="latent",
            **self.call,
            **arguments,
        ).frames


def cogvideox(layers: int, heads: int, frames: int, height: int, width: int) -> Model:
    """CogVideoX with rotary embedding; sizes in latents."""

    def build() -> nn.Module:
        return CogVideoXTransformer3DModel(
            num_attention_heads=heads,
            num_layers=layers,
            sample_frames=4 * frames - 3,
            sample_height=height,
            sample_width=width,
            use_rotary_positional_embeddings=True,
        )

    def extra() -> dict[str, Any]:
        angles = torch.rand(frames * height * width // 4, 64).float()
        return {"image_rotary_emb": (angles.cos(), angles.sin())}

    return Model(
        f"CogVideoX, {layers} layers, {frames} latent frames",
        build,
        lambda denoiser: CogVideoXPipeline(None, None, None, denoiser, CogVideoXDDIMScheduler()),
        (226, 4096),
        {"num_frames": 4 * frames - 3, "height": 8 * height, "width": 8 * width},
        (frames, 16, height, width),
        extra,
    )


def wan(layers: int, heads: int, ffn: int, frames: int, height: int, width: int) -> Model:
    """Wan2.1; sizes in latents."""
    return Model(
        f"Wan2.1, {layers} layers, {frames} latent frames",
        lambda: WanTransformer3DModel(num_attention_heads=heads, num_layers=layers, ffn_dim=ffn),
        lambda denoiser: WanPipeline(None, None, None, FlowMatchEulerDiscreteScheduler(shift=3.0), denoiser),
        (512, 4096),
        {"num_frames": 4 * frames - 3, "height": 8 * height, "width": 8 * width},
        (16, frames, height, width),
    )


MODELS = (cogvideox(42, 48, 13, 60, 90), wan(30, 12, 8960, 21, 60, 104))
REHEARSAL = (cogvideox(2, 2, 3, 8, 12), wan(2, 2, 64, 3, 8, 12))
"""Small enough for a CPU."""


@contextmanager
def defaults(device: str) -> Iterator[None]:
    """Random numbers, parameters and tensors are made on the device, in bfloat16 on a GPU."""
    usual = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32 if device == "cpu" else torch.bfloat16)
    try:
        with torch.device(device), torch.no_grad():
            yield
    finally:
        torch.set_default_dtype(usual)


@dataclass
class Budget:
    """Seconds that a script may take; what does not fit is left out and named.

    Example:
        >>> Budget(60).allows("a step", 1.0)
        True
    """

    seconds: float
    began: float = field(default_factory=time.perf_counter)

    def allows(self, what: str, expected: float) -> bool:
        """Whether so many seconds are left; says so where not."""
        left = self.seconds - (time.perf_counter() - self.began)
        if left < expected:
            print(f"left out, {left:.0f} s of {self.seconds:.0f} left: {what}", flush=True)
        return left >= expected


def timed(run: Callable[[], object], repeats: int, device: str) -> tuple[float, float]:
    """Median milliseconds of a run after one that is not counted, and the peak of allocated memory in GiB."""
    cuda = device != "cpu"
    run()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        if cuda:
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times), torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0


Table = Callable[[Model, str, int, "Budget"], Iterable[Mapping[str, Value]]]
"""Times one model: it, the device, the repeats, what time is left."""


def record_models(name: str, table: Table, note: str, words: Sequence[str] | None) -> None:
    """Read the command line of a benchmark of whole models, time every model, print and record.

    Args:
        name: of the record, and of the script with an underscore.
        table: times one model.
        note: of the record.
        words: the command line; None = the program's own.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name.replace('-', '_')}")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to rehearse at tiny sizes")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of each variant; the median counts")
    parser.add_argument("--only", default="", help="part of the names of the models to time")
    parser.add_argument("--budget", type=float, default=600, help="seconds after which variants are left out")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the record")
    given = sys.argv[1:] if words is None else list(words)
    arguments = parser.parse_args(given)
    budget = Budget(arguments.budget)
    rows: list[Mapping[str, Value]] = []
    for model in REHEARSAL if arguments.device == "cpu" else MODELS:
        if arguments.only in model.name:
            rows.extend(table(model, arguments.device, arguments.repeats, budget))
            gc.collect()  # a pipeline refers to itself, and would be in the next model's peak
            if arguments.device != "cpu":
                torch.cuda.empty_cache()
    command = f"{parser.prog} {' '.join(given)}".strip()
    record(name, command, rows, notes=note, versions=versions(), folder=arguments.out)
