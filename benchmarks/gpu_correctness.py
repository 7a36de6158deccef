"""Whether every path of the fused kernels gives what whole maps in float64 give, on a GPU; exits with 1 where not.

Run it from the root of the repository: `python -m benchmarks.gpu_correctness [--out FOLDER]`; the record is
`gpu-correctness`. It needs torch and Triton only. Inputs are drawn anew by each case's seed; logits reach 80 where
outliers are asked for; every buffer that a kernel gets to write holds NaN before. Groups of cases run in processes of
their own, since most of the time goes into compiling. `--device cpu` rehearses it in Triton's interpreter.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu_attention import versions
from benchmarks.results import FOLDER, Value, record
from ieadapt.functional import Attention, RowSample, VideoTokens, attention_statistics
from ieadapt.functional.kernels import FusedRows, fused_rows
from ieadapt.functional.kernels.launch import Maximum

NATS = 1e-3
"""Largest error of a log-sum-exp or an entropy, in nats, where logits reach 80; of a share of the attention too."""
LOGITS = {"outliers": 80.0, "one-hot": 1000.0}
"""How far the largest logit is from zero."""

TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
OUTPUT_FLOOR = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 2e-5}
"""Error of an output, relative to the largest value, that is allowed whatever PyTorch's own is."""


@dataclass(frozen=True)
class Case:
    """One call of the kernels.

    Attributes:
        logits: spread (standard deviation 2), outliers (up to 80), equal, or one-hot.
        dtype: of queries, keys and values.
        size: batch, heads, queries, keys, head_dim.
        video: the video tokens of a joint attention.
        mask: none, keys (some for nobody), pairs, additive or infinite.
        maximum: as `fused_rows` takes it.
        sampled: measure a part of the rows.
    """

    logits: str
    dtype: str
    size: tuple[int, int, int, int, int]
    video: VideoTokens | None = None
    mask: str = "none"
    maximum: Maximum = "fixed"
    sampled: bool = False


JOINT = VideoTokens(226, 5, 350)
LATE_TEXT = VideoTokens(0, 6, 160)
SPREAD_DIMS = (40, 64, 80, 128, 256)


def cases() -> dict[str, list[Case]]:
    """Name of a group -> its cases; a group shares most of its compiled kernels."""
    long = {dim: (2, 3, 777, 1301, dim) for dim in SPREAD_DIMS}
    found = {
        f"{dtype}, head_dim {dim}": [
            Case(logits, dtype, long[dim], maximum=maximum)
            for maximum in (("fixed", "running") if dtype != "float16" else ("running",))
            for logits in ("spread", "outliers", "equal", "one-hot")
        ]
        for dtype in TYPES
        for dim in SPREAD_DIMS
    }
    joint = (1, 2, JOINT.stop, JOINT.stop, 64)
    late = (1, 2, LATE_TEXT.stop + 77, LATE_TEXT.stop + 77, 128)
    for dtype in TYPES:
        found[f"{dtype}, joint"] = [
            Case(logits, dtype, size, video, maximum=maximum)
            for size, video in ((joint, JOINT), (late, LATE_TEXT))
            for maximum in ("fixed", "running")
            for logits in ("spread", "outliers", "equal", "one-hot")
        ]
        found[f"{dtype}, masks"] = [
            Case("spread", dtype, (2, 3, 300, 451, 64), None, mask)
            for mask in ("keys", "pairs", "additive", "infinite")
        ] + [Case("outliers", dtype, (1, 2, JOINT.stop, JOINT.stop, 64), JOINT, mask) for mask in ("keys", "infinite")]
        found[f"{dtype}, short"] = [
            Case(logits, dtype, (batch, 8, tokens, tokens, 40))
            for batch, tokens in ((4096, 16), (1000, 24), (2048, 32), (300, 13))
            for logits in ("spread", "outliers", "equal", "one-hot")
        ]
        found[f"{dtype}, sampled"] = [
            Case(logits, dtype, size, video, sampled=True)
            for size, video in (((2, 3, 777, 1301, 64), None), (joint, JOINT), (long[128], None))
            for logits in ("spread", "outliers")
        ]
    return found


def rehearsal() -> dict[str, list[Case]]:
    """The same in small."""
    video = VideoTokens(3, 3, 20)
    kinds = ("spread", "outliers", "equal", "one-hot")
    return {
        "long": [Case(logits, "float32", (1, 2, 70, 101, 40)) for logits in kinds],
        "joint": [Case(logits, "float32", (1, 2, 70, 70, 16), video) for logits in kinds],
        "masks": [Case("spread", "float32", (1, 2, 70, 70, 16), video, mask) for mask in ("keys", "infinite")],
        "short": [Case(logits, "float32", (5, 2, 16, 16, 40)) for logits in kinds],
        "sampled": [Case("spread", "float32", (1, 2, 300, 300, 16), None, sampled=True)],
    }


def inputs(case: Case, device: str) -> tuple[Tensor, Tensor, Tensor, float]:
    """Queries, keys, values in a model's memory layout, and the scale that gives the logits their size."""
    batch, heads, n_queries, n_keys, dim = case.size
    generator = torch.Generator(device).manual_seed(crc32(repr(case).encode()))

    def draw(tokens: int) -> Tensor:
        drawn = torch.randn((batch, tokens, heads, dim), generator=generator, device=device)
        return drawn.to(TYPES[case.dtype]).transpose(1, 2)

    query, key, value = draw(n_queries), draw(n_keys), draw(n_keys)
    if case.logits == "equal":
        return query * 0, key, value, 1.0
    size = max(float((part.double() @ key[:1].double().mT).abs().max()) for part in query[:1].split(1, 1))
    factor = {"spread": 2 / dim**0.5, **{name: top / size for name, top in LOGITS.items()}}[case.logits]
    return query, key, value, factor


def mask_of(case: Case, device: str) -> Tensor | None:
    """The mask of a case; every row keeps a key, and a video key."""
    batch, _, n_queries, n_keys, _ = case.size
    generator = torch.Generator(device).manual_seed(5)
    per_query = case.mask in ("pairs", "additive")
    shape = (batch, 1, n_queries if per_query else 1, n_keys)
    kept = torch.rand(shape, generator=generator, device=device) > 0.3
    kept[..., n_keys // 2] = True
    noise = torch.randn(shape, generator=generator, device=device)
    return {
        "none": None,
        "keys": kept,
        "pairs": kept,
        "additive": noise.masked_fill(~kept, -10_000.0),
        "infinite": torch.zeros(shape, device=device).masked_fill(~kept, -torch.inf),
    }[case.mask]


def exact_rows(
    case: Case, query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None
) -> dict[str, Tensor]:
    """Every figure of every row from whole maps in float64."""
    logits = query.double() @ key.double().mT * scale
    if mask is not None:
        hidden = ~mask if mask.dtype == torch.bool else mask <= -9984
        bias = 0.0 if mask.dtype == torch.bool else mask.double()
        logits = (logits + bias).masked_fill(hidden, -torch.inf)
    weights = logits.softmax(-1)
    output = weights @ value.double()
    found = {
        "output": output,
        "logsumexp": logits.logsumexp(-1),
        "entropy": torch.special.entr(weights).sum(-1),
        "energy": output.square().sum(-1),
    }
    if case.video is not None:
        chosen = logits[..., case.video.slice].softmax(-1)
        masses = chosen.unflatten(-1, (case.video.frames, -1)).sum(-1)
        found["temporal"] = torch.special.entr(masses).sum(-1)
        found["spatial"] = torch.special.entr(chosen).sum(-1) - found["temporal"]
        found["text"] = 1 - weights[..., case.video.slice].sum(-1)
    if mask is not None:
        visible = (~hidden).expand(logits.shape)
        found["keys"] = visible.sum(-1).double()
        if case.video is not None:
            found["video_keys"] = visible[..., case.video.slice].sum(-1).double()
    return found


def errors_of(case: Case, rows: FusedRows, exact: dict[str, Tensor], usual: Tensor, value: Tensor) -> dict[str, Value]:
    """Largest error of every figure, NaN counting as infinite, and whether all are as small as they should be."""
    assert rows.output is not None
    largest = value.abs().max().double().item()
    by_name = {name: _apart(rows[name], exact[name]) for name in exact if name != "output"}
    by_name["energy"] = _apart(rows["energy"] / rows["energy"].max(), exact["energy"] / exact["energy"].max())
    output, ours = _apart(usual, exact["output"]) / largest, _apart(rows.output, exact["output"]) / largest
    fine = ours <= max(2 * output, OUTPUT_FLOOR[case.dtype])
    limit = NATS * max(1.0, LOGITS.get(case.logits, 0.0) / 80)
    fine = fine and all(apart <= (0.05 if name == "energy" else limit) for name, apart in by_name.items())
    return {"output": ours, "sdpa_output": output, **by_name, "passed": fine}


def _apart(found: Tensor, exact: Tensor) -> float:
    apart = (found.double() - exact).abs().nan_to_num(nan=1e30, posinf=1e30)
    return float(apart.max())


def check(case: Case, device: str) -> dict[str, Value]:
    """Run a case: its errors, and whether it passed."""
    query, key, value, scale = inputs(case, device)
    mask = mask_of(case, device)
    if case.sampled:
        return sampled_errors(case, query, key, scale)
    usual = F.scaled_dot_product_attention(
        query, key, value, None if mask is None else _fitting(mask, query), scale=scale
    )
    attention = Attention(query, key, value, mask, scale, case.video)
    rows, again = (fused_rows(attention, maximum=case.maximum) for _ in range(2))
    assert rows.output is not None
    assert again.output is not None
    found = errors_of(case, rows, exact_rows(case, query, key, value, scale, mask), usual, value)
    same = torch.equal(rows.output, again.output) and torch.equal(rows.stats[:3], again.stats[:3])
    return {**found, "same_twice": same, "passed": bool(found["passed"]) and same}


def sampled_errors(case: Case, query: Tensor, key: Tensor, scale: float) -> dict[str, Value]:
    """Statistics of sampled rows against the same rows of whole maps, and their mean against that of all rows."""
    sample = RowSample(0.3)
    attention = Attention(query, key, key, scale=scale, video=case.video)
    found = attention_statistics(attention, kernel="on", sample=sample)
    blocks = sample.blocks(query)
    assert blocks is not None
    assert found.ep_error is not None
    exact = exact_rows(case, query, key, key, scale, None)["entropy"]
    index = (blocks[..., None] * 64 + torch.arange(64, device=blocks.device)).flatten(-2).long()
    own = attention.video_rows if attention.has_text_rows else slice(0, query.shape[-2])
    there = (index >= own.start) & (index < own.stop)
    drawn = exact.gather(-1, index.clamp(max=query.shape[-2] - 1))
    mean = (drawn * there).sum(-1) / there.sum(-1)
    whole = (found.entropy.double() - exact[..., own].mean(-1)).abs().max().item()
    apart = _apart(found.entropy, mean)
    return {
        "entropy": apart,
        "entropy_from_all": whole,
        "ep_error": float(found.ep_error.max()),
        "passed": apart < NATS,
    }


def _fitting(mask: Tensor, query: Tensor) -> Tensor:
    """The mask as PyTorch takes it: boolean, or in the queries' type."""
    return mask if mask.dtype == torch.bool else mask.to(query.dtype)


def run_group(name: str, group: Sequence[Case], device: str) -> list[dict[str, Value]]:
    """Run cases one after the other; an error in one is a failure, and does not stop the rest."""
    if device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
    torch.use_deterministic_algorithms(True, warn_only=True)
    rows: list[dict[str, Value]] = []
    for case in group:
        began = time.perf_counter()
        facts: dict[str, Value] = {
            "group": name,
            "logits": case.logits,
            "dtype": case.dtype,
            "size": "x".join(str(part) for part in case.size),
            "mask": case.mask,
            "maximum": "sampled" if case.sampled else case.maximum,
        }
        try:
            found = check(case, device)
        except Exception as failure:  # what a GPU raises is of many types, and a table of the rest is wanted
            found = {"failure": f"{type(failure).__name__}: {str(failure)[:300]}", "passed": False}
        rows.append({**facts, **found, "seconds": round(time.perf_counter() - began, 2)})
    return rows


def printed(rows: Sequence[dict[str, Value]]) -> None:
    """Print one line for every group and kind of maximum, and every failure in full."""
    for group in dict.fromkeys(row["group"] for row in rows):
        for maximum in ("fixed", "running", "sampled"):
            part = [row for row in rows if (row["group"], row["maximum"]) == (group, maximum)]
            names = ("output", "sdpa_output", "entropy", "logsumexp", "temporal", "spatial", "text")
            worst = {n: max((float(row[n] or 0) for row in part if n in row), default=None) for n in names}
            shown = "  ".join(f"{name} {error:.1e}" for name, error in worst.items() if error is not None)
            if part:
                print(f"{group:24} {maximum:9} {sum(bool(row['passed']) for row in part)}/{len(part)}  {shown}")
    for row in rows:
        if not row["passed"]:
            print("FAILED", {key: value for key, value in row.items() if value is not None})


def main(words: Sequence[str] | None = None) -> int:
    """Run every case, print and record; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to rehearse at tiny sizes")
    parser.add_argument("--processes", type=int, default=8, help="groups that run at a time")
    parser.add_argument("--only", default="", help="part of the names of the groups to run")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the record")
    arguments = parser.parse_args(words)
    began = time.perf_counter()
    groups = cases() if arguments.device != "cpu" else rehearsal()
    chosen = {name: group for name, group in groups.items() if arguments.only in name}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        waiting = [pool.submit(run_group, name, group, arguments.device) for name, group in chosen.items()]
        rows = [row for done in waiting for row in done.result()]
    printed(rows)
    failed = sum(not row["passed"] for row in rows)
    print(f"{len(rows) - failed} of {len(rows)} cases passed; {time.perf_counter() - began:.0f} s", flush=True)
    command = f"python -m benchmarks.gpu_correctness {' '.join(sys.argv[1:] if words is None else words)}".strip()
    note = "Largest errors against whole maps in float64; the output's relative to the largest value."
    record("gpu-correctness", command, rows, notes=note, versions=versions(), folder=arguments.out)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
