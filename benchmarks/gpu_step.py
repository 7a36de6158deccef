"""What measuring adds to a whole denoising step of full-size models on a GPU: time and peak memory.

Run it from the root of the repository: `python -m benchmarks.gpu_step`; the record is `gpu-step`. The transformers are
initialised at random at their real sizes, so nothing is downloaded; speed and memory do not depend on the weights.
`--device cpu` rehearses it at tiny sizes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel
from torch import Tensor, nn

from benchmarks.gpu_attention import versions
from benchmarks.results import FOLDER, Value, record
from ieadapt.attention import intercept
from ieadapt.interventions import Record


@dataclass(frozen=True)
class Model:
    """A denoiser at its real size and one input of a real video."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, Tensor | tuple[Tensor, Tensor]]]


def cogvideox(layers: int, heads: int, frames: int, height: int, width: int) -> Model:
    """CogVideoX with rotary embedding; sizes in latents, one prompt."""

    def build() -> nn.Module:
        return CogVideoXTransformer3DModel(
            num_attention_heads=heads,
            num_layers=layers,
            sample_frames=4 * frames - 3,
            sample_height=height,
            sample_width=width,
            use_rotary_positional_embeddings=True,
        )

    def inputs() -> dict[str, Tensor | tuple[Tensor, Tensor]]:
        angles = torch.rand(frames * height * width // 4, 64).float()
        return {
            "hidden_states": torch.randn(1, frames, 16, height, width),
            "encoder_hidden_states": torch.randn(1, 226, 4096),
            "timestep": torch.tensor([500]),
            "image_rotary_emb": (angles.cos(), angles.sin()),
        }

    return Model(f"CogVideoX, {layers} layers, {frames} latent frames", build, inputs)


def wan(layers: int, heads: int, ffn: int, frames: int, height: int, width: int) -> Model:
    """Wan2.1; sizes in latents, one prompt."""

    def build() -> nn.Module:
        return WanTransformer3DModel(num_attention_heads=heads, num_layers=layers, ffn_dim=ffn)

    def inputs() -> dict[str, Tensor | tuple[Tensor, Tensor]]:
        return {
            "hidden_states": torch.randn(1, 16, frames, height, width),
            "encoder_hidden_states": torch.randn(1, 512, 4096),
            "timestep": torch.tensor([500]),
        }

    return Model(f"Wan2.1, {layers} layers, {frames} latent frames", build, inputs)


MODELS = (cogvideox(42, 48, 13, 60, 90), wan(30, 12, 8960, 21, 60, 104))
REHEARSAL = (cogvideox(1, 2, 3, 8, 12), wan(1, 2, 64, 3, 8, 12))


def variants(model: nn.Module) -> dict[str, Callable[[], AbstractContextManager[Any]]]:
    """Name -> the block inside which a step is timed."""
    return {
        "plain": nullcontext,
        "intercepted, nothing done": lambda: intercept(model, lambda call: None),
        "exact": lambda: intercept(model, Record()),
        "sampled 5%": lambda: intercept(model, Record(rows="sample:0.05")),
    }


def timed(step: Callable[[], object], repeats: int, device: str) -> tuple[float, float]:
    """Median milliseconds of a step after one that is not counted, and the peak of allocated memory in GiB."""
    cuda = device != "cpu"
    step()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        step()
        if cuda:
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times), torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0


def table(model: Model, device: str, repeats: int) -> Iterator[dict[str, Value]]:
    """Time one model: a plain step, then the same step measured."""
    with torch.device(device), torch.no_grad():
        denoiser, given = model.build().eval(), model.inputs()
        plain = 0.0
        for variant, block in variants(denoiser).items():
            with block():
                taken, peak = timed(lambda: denoiser(**given), repeats, device)
            plain = plain or taken
            print(f"{model.name}, {variant}: {taken:.1f} ms, {taken / plain:.3f} x, peak {peak:.2f} GiB", flush=True)
            yield {"model": model.name, "variant": variant, "ms": taken, "times_plain": taken / plain, "peak_gib": peak}


def main(words: Sequence[str] | None = None) -> int:
    """Time every model, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to rehearse at tiny sizes")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each variant; the median counts")
    parser.add_argument("--only", default="", help="part of the names of the models to time")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the record")
    arguments = parser.parse_args(words)
    rehearsal = arguments.device == "cpu"
    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if rehearsal else torch.bfloat16)
    rows: list[dict[str, Value]] = []
    try:
        for model in REHEARSAL if rehearsal else MODELS:
            if arguments.only in model.name:
                rows.extend(table(model, arguments.device, arguments.repeats))
                if not rehearsal:
                    torch.cuda.empty_cache()
    finally:
        torch.set_default_dtype(usual)
    command = f"python -m benchmarks.gpu_step {' '.join(sys.argv[1:] if words is None else words)}".strip()
    note = "One forward pass of the denoiser, batch 1, bfloat16, random weights; peak of allocated memory with weights."
    record("gpu-step", command, rows, notes=note, versions=versions(), folder=arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
