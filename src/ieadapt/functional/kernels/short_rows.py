"""The fused kernel for short sequences in huge batches: several whole sequences per program.

A temporal attention has 8 to 32 tokens and tens of thousands of sequences. A tile takes as many of them as fit, one
after the other, and a token sees the keys of its own sequence only. One pass over memory, no loop.
"""

# mypy: ignore-errors
from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

from ieadapt.functional.kernels.long_rows import ENERGY, ENTROPY, HIDDEN, LN2, LOGSUMEXP


@triton.jit
@no_type_check
def short_rows(
    query, key, value, out, stats,
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_ob, stride_oh, stride_on, stride_stat, heads, n_pairs, scale,
    LENGTH: tl.constexpr, VALUE: tl.constexpr, DIM: tl.constexpr, PRECISION: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """BLOCK_M // LENGTH sequences of LENGTH tokens; a pair is a batch entry and a head.

    Writes the output and, per row, the statistics ENTROPY (nats), LOGSUMEXP and, with VALUE, ENERGY, as
    (statistic, batch, head, row). Strides of queries, keys, values and output count ALIGN elements. `scale` is in
    powers of two and positive.
    """
    together: tl.constexpr = BLOCK_M // LENGTH
    slots = tl.arange(0, BLOCK_M)
    own = slots // LENGTH
    pairs = tl.program_id(0) * together + own
    there = (own < together) & (pairs < n_pairs)
    batch = (pairs // heads).to(tl.int64)  # divided in 32 bits: a GPU divides 64 by a subroutine
    head = (pairs % heads).to(tl.int64)
    token = (slots % LENGTH).to(tl.int64)
    dims = tl.arange(0, BLOCK_D)
    cells = there[:, None] & (dims < DIM)[None, :]
    query_at = (batch * stride_qb + head * stride_qh + token * stride_qn)[:, None] * ALIGN + dims[None, :]
    key_at = (batch * stride_kb + head * stride_kh + token * stride_kn)[:, None] * ALIGN + dims[None, :]
    queries = tl.load(query + query_at, mask=cells, other=0.0)
    keys = tl.load(key + key_at, mask=cells, other=0.0)
    logits = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
    logits = tl.where(own[:, None] == own[None, :], logits, HIDDEN)
    top = tl.max(logits, 1)
    shifted = logits - top[:, None]
    weights = tl.exp2(shifted)
    mass = tl.sum(weights, 1)
    moment = tl.sum(weights * shifted, 1)
    stats += pairs.to(tl.int64) * LENGTH + token
    tl.store(stats + ENTROPY * stride_stat, tl.maximum(tl.log2(mass) - moment / mass, 0.0) * LN2, mask=there)
    tl.store(stats + LOGSUMEXP * stride_stat, (top + tl.log2(mass)) * LN2, mask=there)
    if VALUE:
        value_at = (batch * stride_vb + head * stride_vh + token * stride_vn)[:, None] * ALIGN + dims[None, :]
        values = tl.load(value + value_at, mask=cells, other=0.0)
        acc = tl.dot(weights.to(values.dtype), values, input_precision=PRECISION)
        result = (acc * (1.0 / mass)[:, None]).to(out.dtype.element_ty)
        out_at = (batch * stride_ob + head * stride_oh + token * stride_on)[:, None] * ALIGN + dims[None, :]
        tl.store(out + out_at, result, mask=cells)
        kept = result.to(tl.float32)
        tl.store(stats + ENERGY * stride_stat, tl.sum(kept * kept, 1), mask=there)
