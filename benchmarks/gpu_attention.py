"""What exact entropy costs on a GPU: the fused kernel against PyTorch's fastest attention at the shapes of real models.

Run it from the root of the repository: `python -m benchmarks.gpu_attention`; the record is `gpu-attention`. It needs
torch and Triton, nothing is downloaded, and all ratios are taken in one run. `--sweep` times other tile sizes and other
ways to write the kernel instead; its record is `gpu-attention-sweep`. `--once` runs each kernel once, for a profiler.
`--device cpu` rehearses all of it at tiny shapes in Triton's interpreter.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.attention_shapes import REHEARSAL, SHAPES, SPECIALISED, Shape, inputs
from benchmarks.results import FOLDER, Value, record
from ieadapt.functional import Attention, RowSample, measured_attention
from ieadapt.functional.kernels import fused_rows
from ieadapt.functional.kernels.launch import SHORT, WHOLE, Tiling, tiling_of

BACKENDS = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
FRACTIONS = (0.02, 0.05)
HEAD_START = 6_000_000
"""GPU cycles, about 3 ms, that the CPU has to queue a run."""
LEAST_RUNS, MOST_RUNS = 6, 200
PROCESSES = 14
"""That compile at a time before a sweep."""
PATIENCE = 75
"""Seconds until candidates that have not run are left out."""

Tensors = tuple[Tensor, Tensor, Tensor]
Measured = Callable[[], tuple[Tensor, Tensor]]
"""A way to get output and entropy of every row."""


def milliseconds(run: Callable[[], object], device: str, repeats: int) -> float:
    """Median time of a run on the GPU in that many milliseconds of runs, caches cleared before each.

    The GPU is kept waiting while the CPU queues a run, so that it is the GPU's time even where queueing takes longer.
    """
    if device == "cpu":
        began = time.perf_counter()
        run()
        return 1000 * (time.perf_counter() - began)
    cache = torch.empty(2**28, dtype=torch.int8, device=device)
    begins, ends = ([torch.cuda.Event(enable_timing=True) for _ in range(MOST_RUNS)] for _ in range(2))
    expected = 1.0
    for turn, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        cache.zero_()
        torch.cuda._sleep(HEAD_START)
        begin.record()
        run()
        end.record()
        if turn == 0:
            end.synchronize()
            expected = max(begin.elapsed_time(end), 1e-2)
        elif turn * expected >= repeats and turn >= LEAST_RUNS:
            break
    torch.cuda.synchronize()
    times = [begin.elapsed_time(end) for begin, end in zip(begins[1:turn], ends[1:turn], strict=True)]
    return statistics.median(times)


def attention_by(tensors: Tensors, backend: SDPBackend) -> Tensor:
    """PyTorch's attention by one of its backends."""
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(*tensors)


def backends_timed(tensors: Tensors, device: str, repeats: int) -> dict[SDPBackend, float]:
    """Milliseconds of every backend that takes these tensors, the fastest first."""
    found = {}
    for backend in BACKENDS if device != "cpu" else (SDPBackend.MATH,):
        try:
            found[backend] = milliseconds(partial(attention_by, tensors, backend), device, repeats)
        except RuntimeError as error:
            print(f"    {backend.name}: {str(error).splitlines()[0]}", flush=True)
    return dict(sorted(found.items(), key=lambda entry: entry[1]))


def attention_of(shape: Shape, tensors: Tensors) -> Attention:
    """The attention of a shape, its video tokens told."""
    return Attention(*tensors, video=shape.video)


def ways(shape: Shape, tensors: Tensors) -> dict[str, Callable[[Tiling], tuple[Tensor, Tensor]]]:
    """Name -> a way to write the kernel, given tile sizes."""
    scale, attention = shape.dim**-0.5, attention_of(shape, tensors)

    def fused(maximum: str, tiling: Tiling) -> tuple[Tensor, Tensor]:
        rows = fused_rows(attention, tiling=tiling, maximum=maximum)  # type: ignore[arg-type]
        assert rows.output is not None
        return rows.output, rows["entropy"]

    found: dict[str, Callable[[Tiling], tuple[Tensor, Tensor]]] = {
        "fixed": partial(fused, "fixed"),
        "running": partial(fused, "running"),
    }
    if shape.video is None:
        from benchmarks.attention_variants import described

        found["described"] = partial(described, *tensors, scale)
        if tensors[0].is_cuda and torch.cuda.get_device_capability() >= (9, 0):
            from benchmarks.attention_specialised import specialised

            found["specialised"] = partial(specialised, *tensors, scale)
    return found


def prepare(shape: Shape, device: str, dtype: torch.dtype, way: str, tiling: Tiling) -> str | None:
    """Compile and run one candidate in a process of its own; return what went wrong."""
    if device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
    try:
        ways(shape, inputs(shape, device, dtype))[way](tiling)
        if device != "cpu":
            torch.cuda.synchronize()
    except Exception as failure:  # compilers raise many types, and the sweep goes on without
        return f"{type(failure).__name__}: {str(failure).strip()[:200]}"
    return None


def tried(shape: Shape, device: str) -> Iterator[tuple[str, Tiling]]:
    """The ways and tile sizes to try for a shape; of the running maximum, which is slower, only some."""
    yield from (("fixed", tiling) for tiling in shape.tilings)
    if shape.tokens > SHORT:
        yield from (("running", tiling) for tiling in shape.tilings[:4])
    if shape.tokens > SHORT and shape.video is None:
        yield from (("described", tiling) for tiling in shape.tilings)
        if shape.tilings and device != "cpu":
            yield from (("specialised", tiling) for tiling in SPECIALISED)


def candidates(shapes: Sequence[Shape], device: str, dtype: torch.dtype) -> dict[str, list[tuple[str, Tiling]]]:
    """Shape's name -> the ways and tile sizes that compile and run there, tried at a time in processes of their own."""
    found: dict[str, list[tuple[str, Tiling]]] = {shape.name: [] for shape in shapes}
    with multiprocessing.get_context("spawn").Pool(PROCESSES if device != "cpu" else 2) as pool:
        waiting = {
            (shape.name, way, tiling): pool.apply_async(prepare, (shape, device, dtype, way, tiling))
            for shape in shapes
            for way, tiling in tried(shape, device)
        }
        latest = time.perf_counter() + PATIENCE
        for (name, way, tiling), answer in waiting.items():
            try:
                failure = answer.get(timeout=max(latest - time.perf_counter(), 0.1))
            except multiprocessing.TimeoutError:
                failure = f"no answer within {PATIENCE} seconds"
            if failure is None:
                found[name].append((way, tiling))
            else:
                print(f"  left out: {name}, {way}, {tiling}: {failure}", flush=True)
    return found  # leaving the pool ends processes that still hang


def errors(shape: Shape, tensors: Tensors, output: Tensor, entropy: Tensor) -> dict[str, Value]:
    """Largest errors on a few rows against float64."""
    query, key, value = tensors
    generator = torch.Generator().manual_seed(1)
    places = torch.randint(0, shape.tokens, (min(64, shape.tokens),), generator=generator).to(query.device)
    some = (slice(0, 2), slice(0, 3))
    weights = (query[some][:, :, places].double() @ key[some].double().mT * shape.dim**-0.5).softmax(-1)
    exact = weights @ value[some].double()
    entropies = torch.special.entr(weights).sum(-1)
    return {
        "output_error": (output[some][:, :, places].double() - exact).abs().max().item(),
        "entropy_error": (entropy[some][..., places].double() - entropies).abs().max().item(),
    }


def row(shape: Shape, dtype: torch.dtype, variant: str, taken: float, plain: float, **more: Value) -> dict[str, Value]:
    """One line of a record, printed too."""
    shown = "".join(f", {name} {value:.2g}" for name, value in more.items() if isinstance(value, float))
    print(f"  {variant}: {taken:.3f} ms, {taken / plain:.3f} x{shown}", flush=True)
    lead: dict[str, Value] = {"model": shape.name, "shape": shape.size, "dtype": str(dtype).removeprefix("torch.")}
    return {**lead, "variant": variant, "ms": taken, "times_sdpa": taken / plain, **more}


def plain_rows(
    shape: Shape, tensors: Tensors, device: str, repeats: int
) -> tuple[list[dict[str, Value]], Callable[[], Tensor], float]:
    """A line for each of PyTorch's backends, a call of the fastest, and its milliseconds."""
    timed = backends_timed(tensors, device, repeats)
    fastest = next(iter(timed))
    plain = timed[fastest]
    print(f"{shape.name} ({shape.size})", flush=True)
    dtype = tensors[0].dtype
    rows = [row(shape, dtype, f"PyTorch, {backend.name}", taken, plain) for backend, taken in timed.items()]
    return rows, partial(attention_by, tensors, fastest), plain


def table(shape: Shape, device: str, dtype: torch.dtype, repeats: int) -> Iterator[dict[str, Value]]:
    """Time one shape: PyTorch alone, the kernel alone, exact and sampled measuring, and the map apart."""
    tensors = inputs(shape, device, dtype)
    attention = attention_of(shape, tensors)
    rows, attend, plain = plain_rows(shape, tensors, device, repeats)
    yield from rows
    fused = fused_rows(attention)
    assert fused.output is not None
    usual = errors(shape, tensors, attend(), fused["entropy"])["output_error"]
    facts = {**errors(shape, tensors, fused.output, fused["entropy"]), "sdpa_output_error": usual}
    used = str(WHOLE if shape.tokens <= SHORT else tiling_of(shape.dim, dtype.itemsize))
    del fused

    def kernel() -> object:
        return fused_rows(attention)

    def measured(sample: RowSample | None) -> Callable[[], object]:
        return lambda: measured_attention(attention, attend, sample=sample, kernel="on")

    def apart() -> object:
        return attend(), fused_rows(attention, output=False)

    yield row(shape, dtype, "kernel alone", milliseconds(kernel, device, repeats), plain, tiling=used, **facts)
    yield row(shape, dtype, "exact", milliseconds(measured(None), device, repeats), plain)
    yield row(shape, dtype, "attention, then entropy without values", milliseconds(apart, device, repeats), plain)
    for fraction in FRACTIONS:
        sample = RowSample(fraction)
        if not sample.takes_all(shape.tokens):
            error = measured_attention(attention, attend, sample=sample, kernel="on")[1].ep_error
            assert error is not None
            of_site = error.double().square().sum().sqrt().item() / error.numel()
            taken = milliseconds(measured(sample), device, repeats)
            yield row(shape, dtype, f"sampled {fraction:.0%}", taken, plain, ep_standard_error=of_site)


def swept(
    shape: Shape, device: str, dtype: torch.dtype, repeats: int, chosen: Sequence[tuple[str, Tiling]]
) -> Iterator[dict[str, Value]]:
    """Time the kernel in every way and with every tiling that runs."""
    tensors = inputs(shape, device, dtype)
    rows, _attend, plain = plain_rows(shape, tensors, device, repeats)
    yield from rows
    found = []
    for way, tiling in chosen:
        run = partial(ways(shape, tensors)[way], tiling)
        facts = errors(shape, tensors, *run())
        taken = milliseconds(run, device, repeats)
        found.append((taken, way, tiling))
        yield row(shape, dtype, f"{way} {tiling}", taken, plain, **facts)
    for way in dict.fromkeys(way for _, way, _ in found):
        taken, _, tiling = min((entry for entry in found if entry[1] == way), key=lambda entry: entry[0])
        print(f"  BEST {way}: {taken / plain:.3f} x with {tiling}", flush=True)


def versions() -> dict[str, str]:
    """What computes here; the package itself need not be installed."""
    import triton

    return {"python": platform.python_version(), "torch": torch.__version__, "triton": triton.__version__}


def once(shapes: Sequence[Shape], device: str, dtype: torch.dtype) -> None:
    """Run each shape's kernels once with the tiling in use."""
    for shape in shapes:
        fused_rows(attention_of(shape, inputs(shape, device, dtype)))


def main(words: Sequence[str] | None = None) -> int:
    """Time every shape, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to rehearse at tiny shapes")
    parser.add_argument("--sweep", action="store_true", help="time other tile sizes and ways to write the kernel")
    parser.add_argument("--once", action="store_true", help="run each kernel once and time nothing")
    parser.add_argument("--only", default="", help="part of the names of the shapes to time")
    parser.add_argument("--repeats", type=int, default=150, help="milliseconds of runs per figure; the median counts")
    parser.add_argument("--budget", type=float, default=600, help="seconds after which no further shape is begun")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the record")
    arguments = parser.parse_args(words)
    began = time.perf_counter()
    rehearsal = arguments.device == "cpu"
    if rehearsal:
        os.environ["TRITON_INTERPRET"] = "1"
    dtype = torch.float32 if rehearsal else torch.bfloat16
    shapes = [shape for shape in (REHEARSAL if rehearsal else SHAPES) if arguments.only in shape.name]
    if arguments.once:
        once(shapes, arguments.device, dtype)
        return 0
    given = (arguments.device, dtype, arguments.repeats)
    ready = candidates(shapes, arguments.device, dtype) if arguments.sweep else {}
    print(f"prepared after {time.perf_counter() - began:.0f} s", flush=True)
    rows: list[dict[str, Value]] = []
    for shape in shapes:
        if time.perf_counter() - began > arguments.budget:
            print(f"  no time left for {shape.name}", flush=True)
            continue
        rows.extend(swept(shape, *given, ready[shape.name]) if arguments.sweep else table(shape, *given))
        if not rehearsal:
            torch.cuda.empty_cache()
    print(f"{time.perf_counter() - began:.0f} s in all", flush=True)
    name = "gpu-attention-sweep" if arguments.sweep else "gpu-attention"
    command = f"python -m benchmarks.gpu_attention {' '.join(sys.argv[1:] if words is None else words)}".strip()
    note = (
        "Medians of the GPU's time, queueing by the CPU left out; ratios to PyTorch's fastest attention backend of the "
        "same run; errors against float64 on 64 rows of up to six heads; queries of unequal size, in the memory layout "
        "of the models."
    )
    record(name, command, rows, notes=note, versions=versions(), folder=arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
