"""The fast kernel for long sequences without a mask: an attention whose exponentials share one reference per row.

FlashAttention-2 (arXiv 2307.08691) follows the running maximum of each row, and rescales its sums whenever that moves:
one comparison per logit, and one product per element of the output for every block of keys. Here a row's logits are
taken relative to its largest logit in the first block of keys, its reference, once and for all. A later logit may lie
far above it: float32 and bfloat16 hold powers up to 2^127. What is saved is more than the entropy costs, one
multiply-add per logit: with x the logits less their reference and p = exp(x), the sum of p x beside the sum of p, so
that H = ln(sum of p) - (sum of p x) / (sum of p). Everything is kept in powers of two, whose exponential is one
instruction.

Blocks with a row whose sum passes LIMIT are left with a log-sum-exp of NaN: `long_rows`, run afterwards, follows the
running maximum there.

Video keys come first, so that their own statistics are final before any text key. The entropy over frames needs the sum
of m log m over the masses m of the frames, added up as each frame ends: no mass per frame is ever stored.
"""

# mypy: ignore-errors
from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

from ieadapt.functional.kernels.long_rows import (
    ENERGY,
    ENTROPY,
    HIDDEN,
    LN2,
    LOGSUMEXP,
    SPATIAL,
    TEMPORAL,
    TEXT,
    load_tile,
)

LIMIT = tl.constexpr(2.0**100)
LANES = tl.constexpr(
    8
)  # columns over which a tensor core's tile spreads a row: within them no thread waits for another


@triton.jit
@no_type_check
def _partial(tile):
    """Sum a (row, key) tile to (row, LANES), each thread by itself."""
    lines: tl.constexpr = tile.shape[0]
    return tl.sum(tl.reshape(tile, [lines, tile.shape[1] // LANES, LANES]), 1)


@triton.jit
@no_type_check
def _block(
    state, reference, column, high, query, at, strides, scale, positions,
    TAIL: tl.constexpr, FRAMES: tl.constexpr, VALUE: tl.constexpr, DIM: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One block of keys: logits, exponentials, output, and the sums behind the entropies."""
    acc, mass, moment, closed, product, boundary = state
    columns = column + tl.arange(0, BLOCK_N)
    padded: tl.constexpr = query.shape[1] != DIM
    dims = tl.arange(0, query.shape[1]) < DIM
    key = load_tile(at[0] + column * strides[0], (columns < high)[None, :], TAIL, dims[:, None], padded)
    shifted = tl.dot(query, key, input_precision=PRECISION) * scale - reference[:, None]
    if TAIL:
        shifted = tl.where((columns < high)[None, :], shifted, HIDDEN)
    weights = tl.exp2(shifted)
    moment += _partial(weights * shifted)
    if FRAMES:
        if boundary <= column + BLOCK_N:
            early = (columns < boundary)[None, :]
            frame = tl.sum(mass + _partial(tl.where(early, weights, 0.0)), 1)
            closed += frame
            product += frame * tl.log2(tl.maximum(frame, 1e-37))  # a frame without mass adds 0 log 0 = 0, not NaN
            mass = _partial(tl.where(early, 0.0, weights))
            boundary += positions
        else:
            mass += _partial(weights)
    else:
        mass += _partial(weights)
    if VALUE:
        value = load_tile(at[1] + column * strides[1], (columns < high)[:, None], TAIL, dims[None, :], padded)
        acc = tl.dot(weights.to(value.dtype), value, acc, input_precision=PRECISION)
    return acc, mass, moment, closed, product, boundary


@triton.jit
@no_type_check
def _span(
    state, reference, low, high, query, at, strides, scale, positions,
    FRAMES: tl.constexpr, VALUE: tl.constexpr, DIM: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_N: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """A range of keys: whole blocks in a pipelined loop, then the rest."""
    whole = low + (high - low) // BLOCK_N * BLOCK_N
    for column in tl.range(low, whole, BLOCK_N, num_stages=STAGES):
        state = _block(
            state, reference, column, high, query, at, strides, scale, positions,
            False, FRAMES, VALUE, DIM, PRECISION, BLOCK_N,
        )  # fmt: skip
    if whole < high:
        state = _block(
            state, reference, whole, high, query, at, strides, scale, positions,
            True, FRAMES, VALUE, DIM, PRECISION, BLOCK_N,
        )  # fmt: skip
    return state


@triton.jit
@no_type_check
def _top(low, high, query, key_at, stride, scale, DIM: tl.constexpr, PRECISION: tl.constexpr, BLOCK_N: tl.constexpr):
    """The largest logit of each row in the first block of keys."""
    there = (low + tl.arange(0, BLOCK_N) < high)[None, :]
    dims = (tl.arange(0, query.shape[1]) < DIM)[:, None]
    key = tl.load(key_at + low * stride, mask=there & dims, other=0.0)
    logits = tl.dot(query, key, input_precision=PRECISION)
    return tl.max(tl.where(there, logits, HIDDEN), 1) * scale


@triton.jit
@no_type_check
def fixed_reference_rows(
    query, key, value, out, stats, chosen,
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_ob, stride_oh, stride_on, stride_stat,
    heads, n_queries, n_keys, n_slots, n_blocks, video_start, video_stop, positions, scale,
    VIDEO: tl.constexpr, VALUE: tl.constexpr, CHOSEN: tl.constexpr, DIM: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    ALIGN: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """A block of query rows of one head.

    Takes and writes what `long_rows` does, but for its mask.
    """
    slot = tl.program_id(0) % n_blocks
    pair = tl.program_id(0) // n_blocks
    batch = (pair // heads).to(tl.int64)
    head = (pair % heads).to(tl.int64)
    place = slot
    if CHOSEN:
        place = tl.load(chosen + pair * n_blocks + slot)
    rows = place * BLOCK_M + tl.arange(0, BLOCK_M)
    dims = tl.arange(0, BLOCK_D)
    steps = tl.arange(0, BLOCK_N)
    there = rows < n_queries
    cells = there[:, None] & (dims < DIM)[None, :]
    query_at = query + (batch * stride_qb + head * stride_qh + rows[:, None] * stride_qn) * ALIGN + dims[None, :]
    tile = tl.load(query_at, mask=cells, other=0.0)
    key_at = key + (batch * stride_kb + head * stride_kh + steps[None, :] * stride_kn) * ALIGN + dims[:, None]
    value_at = value + (batch * stride_vb + head * stride_vh + steps[:, None] * stride_vn) * ALIGN + dims[None, :]
    at = (key_at, value_at)
    strides = (stride_kn * ALIGN, stride_vn * ALIGN)
    stats += pair.to(tl.int64) * n_slots + slot * BLOCK_M + tl.arange(0, BLOCK_M)

    reference = _top(video_start, n_keys, tile, key_at, strides[0], scale, DIM, PRECISION, BLOCK_N)
    zero = tl.zeros([BLOCK_M], dtype=tl.float32)
    spread = tl.zeros([BLOCK_M, LANES], dtype=tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    state = (acc, spread, spread, zero, zero, video_start + positions)
    if VIDEO:
        state = _span(
            state, reference, video_start, video_stop, tile, at, strides, scale, positions,
            True, VALUE, DIM, PRECISION, BLOCK_N, STAGES,
        )  # fmt: skip
        _acc, _mass, moment, closed, product, _boundary = state
        whole = tl.log2(closed)
        temporal = tl.maximum(whole - product / closed, 0.0)
        spatial = tl.maximum(whole - tl.sum(moment, 1) / closed - temporal, 0.0)
        tl.store(stats + TEMPORAL * stride_stat, temporal * LN2, mask=there)
        tl.store(stats + SPATIAL * stride_stat, spatial * LN2, mask=there)
        for part in range(2):  # the keys before the video, then those after it
            state = _span(
                state, reference, part * video_stop, video_start + part * (n_keys - video_start), tile, at, strides,
                scale, positions, False, VALUE, DIM, PRECISION, BLOCK_N, STAGES,
            )  # fmt: skip
    else:
        state = _span(
            state, reference, 0, n_keys, tile, at, strides, scale, positions,
            False, VALUE, DIM, PRECISION, BLOCK_N, STAGES,
        )  # fmt: skip

    acc, mass_parts, moment_parts, closed, _product, _boundary = state
    rest = tl.sum(mass_parts, 1)
    mass = closed + rest
    moment = tl.sum(moment_parts, 1)
    if VIDEO:
        tl.store(stats + TEXT * stride_stat, rest / mass, mask=there)
    logsumexp = tl.where(mass < LIMIT, (reference + tl.log2(mass)) * LN2, float("nan"))
    tl.store(stats + ENTROPY * stride_stat, tl.maximum(tl.log2(mass) - moment / mass, 0.0) * LN2, mask=there)
    tl.store(stats + LOGSUMEXP * stride_stat, logsumexp, mask=there)
    if VALUE:
        result = (acc / mass[:, None]).to(out.dtype.element_ty)
        out_at = out + (batch * stride_ob + head * stride_oh + rows[:, None] * stride_on) * ALIGN + dims[None, :]
        tl.store(out_at, result, mask=cells)
        kept = result.to(tl.float32)
        tl.store(stats + ENERGY * stride_stat, tl.sum(kept * kept, 1), mask=there)
