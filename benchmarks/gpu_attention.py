"""What exact entropy costs on a GPU: the fused kernel against PyTorch's fastest attention at the shapes of real models.

Run it from the root of the repository: `python -m benchmarks.gpu_attention [--sweep]`; the record is `gpu-attention`.
It needs torch and Triton, nothing is downloaded, and all ratios are taken in one run. `--sweep` also times other tile
sizes (and prints, but does not record them). `--device cpu` rehearses it at tiny shapes in Triton's interpreter.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.results import FOLDER, Value, record
from ieadapt.functional import RowSample, VideoTokens, measured_attention
from ieadapt.functional.kernels import fused_rows
from ieadapt.functional.kernels.launch import Tiling, tiling_of

BACKENDS = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
FRACTION = 0.05


@dataclass(frozen=True)
class Shape:
    """One attention of a real model: batch, heads, tokens, head_dim, and its video tokens where it is joint."""

    name: str
    batch: int
    heads: int
    tokens: int
    dim: int
    video: VideoTokens | None = None
    tilings: tuple[Tiling, ...] = ()


NARROW = (Tiling(128, 64, 4, 3), Tiling(128, 128, 8, 3), Tiling(128, 128, 8, 2), Tiling(64, 64, 4, 3))
WIDE = (Tiling(128, 64, 8, 2), Tiling(128, 128, 8, 2), Tiling(64, 64, 4, 3))
SHAPES = (
    Shape("CogVideoX-5B, 49 frames 480x720", 1, 48, 17776, 64, VideoTokens(226, 13, 1350), NARROW),
    Shape("CogVideoX-5B, not split", 1, 48, 17776, 64),
    Shape("Wan2.1-14B, 81 frames 480p", 1, 40, 32760, 128, VideoTokens(0, 21, 1560), WIDE),
    Shape("Wan2.1-14B, not split", 1, 40, 32760, 128),
    Shape("AnimateDiff spatial, 64x64 latents", 16, 8, 4096, 40, None, NARROW),
    Shape("AnimateDiff temporal, 64x64 latents", 8192, 8, 16, 40),
)
REHEARSAL = (
    Shape("joint", 1, 2, 170, 16, VideoTokens(10, 4, 40), (Tiling(64, 32, 4, 2),)),
    Shape("spatial", 1, 2, 400, 40),
    Shape("temporal", 5, 2, 16, 40),
)


def inputs(shape: Shape, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Random queries, keys and values in a model's memory layout; queries differ in size, so that entropies do."""
    generator = torch.Generator(device).manual_seed(0)

    def draw() -> Tensor:
        size = (shape.batch, shape.tokens, shape.heads, shape.dim)
        return torch.randn(size, generator=generator, device=device, dtype=dtype).transpose(1, 2)

    sizes = torch.linspace(0.5, 3.0, shape.tokens, device=device, dtype=dtype)[:, None]
    return draw() * sizes, draw(), draw()


def milliseconds(run: Callable[[], object], device: str) -> float:
    """Median time of a run, caches cleared before each."""
    if device == "cpu":
        began = time.perf_counter()
        run()
        return 1000 * (time.perf_counter() - began)
    from triton.testing import do_bench

    return float(do_bench(run, warmup=25, rep=150, return_mode="median"))


def fastest_attention(
    query: Tensor, key: Tensor, value: Tensor, device: str
) -> tuple[str, float, Callable[[], Tensor]]:
    """PyTorch's fastest backend for these tensors: name, milliseconds, and a call of it."""
    found = []
    for backend in BACKENDS if device != "cpu" else (SDPBackend.MATH,):

        def attend(backend: SDPBackend = backend) -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(query, key, value)

        try:
            found.append((backend.name, milliseconds(attend, device), attend))
        except RuntimeError as error:
            print(f"    {backend.name}: {str(error).splitlines()[0]}", flush=True)
    return min(found, key=lambda entry: entry[1])


def errors(shape: Shape, tensors: tuple[Tensor, Tensor, Tensor], usual: Tensor) -> dict[str, Value]:
    """Largest errors on a few rows against float64: output (kernel and PyTorch), entropy, its temporal part."""
    query, key, value = tensors
    rows = fused_rows(query, key, value, scale=shape.dim**-0.5, video=shape.video)
    assert rows.output is not None
    generator = torch.Generator().manual_seed(1)
    places = torch.randint(0, shape.tokens, (min(64, shape.tokens),), generator=generator).to(query.device)
    batch, heads = slice(0, 2), slice(0, 3)
    logits = query[batch, heads][:, :, places].double() @ key[batch, heads].double().mT * shape.dim**-0.5
    chances = logits.softmax(-1)
    exact = chances @ value[batch, heads].double()
    entropy = torch.special.entr(chances).sum(-1)
    found: dict[str, Value] = {
        "output_error": (rows.output[batch, heads][:, :, places].double() - exact).abs().max().item(),
        "sdpa_output_error": (usual[batch, heads][:, :, places].double() - exact).abs().max().item(),
        "entropy_error": (rows["entropy"][batch, heads][..., places].double() - entropy).abs().max().item(),
    }
    if shape.video is not None:
        frames = chances[..., shape.video.slice].unflatten(-1, (shape.video.frames, -1)).sum(-1)
        temporal = torch.special.entr(frames / frames.sum(-1, keepdim=True)).sum(-1)
        apart = rows["temporal"][batch, heads][..., places].double() - temporal
        found["temporal_entropy_error"] = apart.abs().max().item()
    return found


def table(shape: Shape, device: str, dtype: torch.dtype, sweep: bool) -> Iterator[dict[str, Value]]:
    """Time one shape: PyTorch alone, the kernel alone, exact measuring, sampled measuring."""
    query, key, value = inputs(shape, device, dtype)
    backend, plain, attend = fastest_attention(query, key, value, device)

    def row(variant: str, taken: float, **more: Value) -> dict[str, Value]:
        print(f"  {variant}: {taken:.3f} ms, {taken / plain:.3f} x", flush=True)
        size = "x".join(str(part) for part in (shape.batch, shape.heads, shape.tokens, shape.dim))
        lead: dict[str, Value] = {"model": shape.name, "shape": size, "dtype": str(dtype).removeprefix("torch.")}
        return {**lead, "variant": variant, "ms": taken, "times_sdpa": taken / plain, **more}

    print(f"{shape.name} ({shape.batch}x{shape.heads}x{shape.tokens}x{shape.dim})", flush=True)
    yield row(f"PyTorch, {backend}", plain)

    def kernel(tiling: Tiling | None = None) -> Callable[[], object]:
        return lambda: fused_rows(query, key, value, scale=shape.dim**-0.5, video=shape.video, tiling=tiling)

    def measured(sample: RowSample | None) -> Callable[[], object]:
        return lambda: measured_attention(query, key, value, attend, video=shape.video, sample=sample, kernel="on")

    for tiling in shape.tilings if sweep else ():
        try:
            row(f"swept {tiling}", milliseconds(kernel(tiling), device))
        except Exception as failure:
            print(f"    {tiling}: {type(failure).__name__} {str(failure)[:100]}", flush=True)
    used = tiling_of(shape.dim, query.element_size())
    yield row(
        "kernel alone", milliseconds(kernel(), device), tiling=str(used), **errors(shape, (query, key, value), attend())
    )
    yield row("exact", milliseconds(measured(None), device))
    if RowSample(FRACTION).blocks(query) is not None:
        sample = RowSample(FRACTION)
        error = measured_attention(
            query, key, value, attend, video=shape.video, sample=sample, kernel="on"
        ).statistics.ep_error
        assert error is not None
        of_site = error.double().square().sum().sqrt().item() / error.numel()
        yield row(f"sampled {FRACTION:.0%}", milliseconds(measured(sample), device), ep_standard_error=of_site)


def versions() -> dict[str, str]:
    """What computes here; the package itself need not be installed."""
    import triton

    return {"python": platform.python_version(), "torch": torch.__version__, "triton": triton.__version__}


def main(words: Sequence[str] | None = None) -> int:
    """Time every shape, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to rehearse at tiny shapes")
    parser.add_argument("--sweep", action="store_true", help="also time other tile sizes")
    parser.add_argument("--only", default="", help="part of the names of the shapes to time")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the record")
    arguments = parser.parse_args(words)
    rehearsal = arguments.device == "cpu"
    if rehearsal:
        os.environ["TRITON_INTERPRET"] = "1"
    dtype = torch.float32 if rehearsal else torch.bfloat16
    began = time.perf_counter()
    rows: list[dict[str, Value]] = []
    for shape in REHEARSAL if rehearsal else SHAPES:
        if arguments.only in shape.name:
            rows.extend(table(shape, arguments.device, dtype, arguments.sweep))
            if not rehearsal:
                torch.cuda.empty_cache()
    ratios = [float(row["times_sdpa"] or 0) for row in rows if row["variant"] == "exact"]
    print(f"exact: median {statistics.median(ratios):.3f} x; {time.perf_counter() - began:.0f} s in all", flush=True)
    command = f"python -m benchmarks.gpu_attention {' '.join(sys.argv[1:] if words is None else words)}".strip()
    note = (
        "Medians of triton.testing.do_bench; ratios to PyTorch's fastest attention backend of the same run; errors "
        "against float64 on 64 rows of up to six heads; queries of unequal size, in the memory layout of the models."
    )
    record("gpu-attention", command, rows, notes=note, versions=versions(), folder=arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
