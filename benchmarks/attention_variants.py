"""Other ways to write the fused kernel, kept to be timed against it: see `benchmarks.gpu_attention`.

`described_rows` is `fixed_reference_rows` without video tokens whose tiles come through tensor descriptors, which
Hopper's copy engine reads: no thread computes addresses.
"""

# mypy: ignore-errors
from __future__ import annotations

from math import log2

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from ieadapt.functional.kernels.launch import Tiling, padded

HIDDEN = tl.constexpr(-1e30)
LANES = tl.constexpr(8)


@triton.jit
def _partial(tile):
    lines: tl.constexpr = tile.shape[0]
    return tl.sum(tl.reshape(tile, [lines, tile.shape[1] // LANES, LANES]), 1)


@triton.jit
def _described_block(state, anchor, column, query, keys, values, batch, head, n_keys, scale, TAIL: tl.constexpr):
    acc, mass, moment = state
    lines: tl.constexpr = keys.block_shape[2]
    dim: tl.constexpr = keys.block_shape[3]
    key = keys.load([batch, head, column, 0]).reshape(lines, dim)
    shifted = tl.dot(query, key.T) * scale - anchor[:, None]
    if TAIL:
        shifted = tl.where((column + tl.arange(0, lines) < n_keys)[None, :], shifted, HIDDEN)
    weights = tl.exp2(shifted)
    mass += _partial(weights)
    moment += _partial(weights * shifted)
    value = values.load([batch, head, column, 0]).reshape(lines, dim)
    return tl.dot(weights.to(value.dtype), value, acc), mass, moment


@triton.jit
def described_rows(queries, keys, values, out, entropy, heads, n_queries, n_keys, scale, STAGES: tl.constexpr):
    """A block of query rows: its output, and its entropies in nats."""
    m: tl.constexpr = queries.block_shape[2]
    n: tl.constexpr = keys.block_shape[2]
    dim: tl.constexpr = queries.block_shape[3]
    start = tl.program_id(0) * m
    batch = tl.program_id(1) // heads
    head = tl.program_id(1) % heads
    query = queries.load([batch, head, start, 0]).reshape(m, dim)
    there = (tl.arange(0, n) < n_keys)[None, :]
    first = tl.dot(query, keys.load([batch, head, 0, 0]).reshape(n, dim).T)
    anchor = tl.max(tl.where(there, first, HIDDEN), 1) * scale
    spread = tl.zeros([m, LANES], dtype=tl.float32)
    state = (tl.zeros([m, dim], dtype=tl.float32), spread, spread)
    whole = n_keys // n * n
    for column in tl.range(0, whole, n, num_stages=STAGES):
        state = _described_block(state, anchor, column, query, keys, values, batch, head, n_keys, scale, False)
    if whole < n_keys:
        state = _described_block(state, anchor, whole, query, keys, values, batch, head, n_keys, scale, True)
    acc, mass_parts, moment_parts = state
    mass = tl.sum(mass_parts, 1)
    moment = tl.sum(moment_parts, 1)
    out.store([batch, head, start, 0], (acc / mass[:, None]).to(out.dtype).reshape(1, 1, m, dim))
    rows = start + tl.arange(0, m)
    at = entropy + tl.program_id(1).to(tl.int64) * n_queries + rows
    tl.store(at, (tl.log2(mass) - moment / mass) * 0.6931471805599453, mask=rows < n_queries)


def described(query: Tensor, key: Tensor, value: Tensor, scale: float, tiling: Tiling) -> tuple[Tensor, Tensor]:
    """Output and entropy of every row, by `described_rows`."""
    (batch, heads, n_queries, dim), n_keys = query.shape, key.shape[-2]
    out = torch.empty_like(query)
    entropy = torch.empty((batch, heads, n_queries), dtype=torch.float32, device=query.device)

    def described_by(tensor: Tensor, lines: int) -> TensorDescriptor:
        return TensorDescriptor(tensor, tensor.shape, tensor.stride(), [1, 1, lines, padded(dim)])

    described_rows[(-(-n_queries // tiling.block_m), batch * heads)](
        described_by(query, tiling.block_m),
        described_by(key, tiling.block_n),
        described_by(value, tiling.block_n),
        described_by(out, tiling.block_m),
        *(entropy, heads, n_queries, n_keys, scale * log2(torch.e)),
        **tiling.options(),
    )
    return out, entropy
