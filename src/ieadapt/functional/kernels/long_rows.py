"""The fused kernel for long sequences: attention output and entropy of every row in one pass over the keys.

An online softmax in the manner of FlashAttention-2 (arXiv 2307.08691) that carries one number more per row: with x the
logits less their running maximum and p = exp(x), besides the sum of p also the sum of p x. When the maximum moves by
d, that sum becomes exp(d) (sum + d * sum of p). In the end H = ln(sum of p) - (sum of p x) / (sum of p), both of whose
terms are at least 0. Everything is kept in powers of two, whose exponential is one instruction. It takes every mask
and any logits; where no mask is, `fixed_reference_rows` is faster, and this kernel does again what that one could
not do.

Video keys come first, so that their own statistics are final before a text key far above them can move the maximum. The
entropy over frames is carried in the same way, by the sum of m log m over the masses m of the frames that are
complete: no mass per frame is ever stored.
"""

# mypy: ignore-errors
from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
HIDDEN = tl.constexpr(-1e30)  # finite, so that zero probability times logit stays zero
MASKED_BIAS = tl.constexpr(-9984.0)  # as ieadapt.functional.attention has it
ENTROPY, ENERGY, LOGSUMEXP = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
TEMPORAL, SPATIAL, TEXT = tl.constexpr(3), tl.constexpr(4), tl.constexpr(5)
KEYS, VIDEO_KEYS = tl.constexpr(6), tl.constexpr(7)


@triton.jit
@no_type_check
def load_tile(at, lines, line_mask: tl.constexpr, dims, dim_mask: tl.constexpr):
    """Load a tile of keys or values: only the lines and channels that exist, zeros elsewhere."""
    if line_mask and dim_mask:
        tile = tl.load(at, mask=lines & dims, other=0.0)
    elif line_mask:
        tile = tl.load(at, mask=lines, other=0.0)
    elif dim_mask:
        tile = tl.load(at, mask=dims, other=0.0)
    else:
        tile = tl.load(at)
    return tile


@triton.jit
@no_type_check
def _visible(logits, scale, mask_at, stride_mask, column, inside, there, TAIL: tl.constexpr, MASK: tl.constexpr):
    """Hide keys that are masked or past the end; return the logits, the scale still to apply, and the keys left."""
    if MASK == "none":
        factor, visible = scale, 0.0
        if TAIL:
            logits = tl.where(inside, logits, HIDDEN)
    else:
        entry = tl.load(mask_at + column * stride_mask, mask=there & inside, other=0)
        if MASK == "bool":
            kept = (entry != 0) & inside
            logits = logits * scale
        else:
            entry = entry.to(tl.float32)
            kept = (entry > MASKED_BIAS) & inside
            logits = logits * scale + entry * LOG2E
        logits = tl.where(kept, logits, HIDDEN)
        factor, visible = 1.0, tl.sum(kept.to(tl.float32), 1)
    return logits, factor, visible


@triton.jit
@no_type_check
def _fold(closed, mass, moment, top):
    """Add a complete frame to the sums over complete frames, all relative to the newest maximum."""
    closed_mass, closed_moment, closed_product, closed_top = closed
    shift = closed_top - top
    share = tl.exp2(shift)
    moment += (closed_moment + shift * closed_mass) * share
    product = (closed_product + shift * closed_mass) * share + mass * tl.log2(tl.maximum(mass, 1e-37))
    return closed_mass * share + mass, moment, product, top


@triton.jit
@no_type_check
def _close_frame(open_sums, closed, weights, products, late, top):
    """Close the frame that ends inside this block, and open the next one with the block's late keys."""
    mass, moment = open_sums
    late_mass = tl.sum(tl.where(late, weights, 0.0), 1)
    late_moment = tl.sum(tl.where(late, products, 0.0), 1)
    closed = _fold(closed, tl.maximum(mass - late_mass, 0.0), tl.minimum(moment - late_moment, 0.0), top)
    return (late_mass, late_moment), closed


@triton.jit
@no_type_check
def _block(
    state, column, high, query, at, strides, there, scale, positions,
    TAIL: tl.constexpr, FRAMES: tl.constexpr, MASK: tl.constexpr, VALUE: tl.constexpr, DIM: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One block of keys: logits, softmax, output, and the sums behind the entropies."""
    acc, top, open_sums, closed, seen, boundary = state
    mass, moment = open_sums
    columns = column + tl.arange(0, BLOCK_N)
    padded: tl.constexpr = query.shape[1] != DIM
    dims = tl.arange(0, query.shape[1]) < DIM
    key_lines = (columns < high)[None, :]
    key = load_tile(at[0] + column * strides[0], key_lines, TAIL, dims[:, None], padded)
    logits = tl.dot(query, key, input_precision=PRECISION)
    logits, factor, visible = _visible(logits, scale, at[2], strides[2], column, key_lines, there, TAIL, MASK)
    newest = tl.maximum(top, tl.max(logits, 1) * factor)
    shifted = logits * factor - newest[:, None]
    weights = tl.exp2(shifted)
    products = weights * shifted
    shift = top - newest
    share = tl.exp2(shift)
    open_sums = (mass * share + tl.sum(weights, 1), (moment + shift * mass) * share + tl.sum(products, 1))
    if FRAMES:  # noqa: SIM102 - one is known when compiled, the other when run
        if boundary <= column + BLOCK_N:
            open_sums, closed = _close_frame(
                open_sums, closed, weights, products, (columns >= boundary)[None, :], newest
            )
            boundary += positions
    if VALUE:
        value = load_tile(at[1] + column * strides[1], (columns < high)[:, None], TAIL, dims[None, :], padded)
        acc = tl.dot(weights.to(value.dtype), value, acc * share[:, None], input_precision=PRECISION)
    return acc, newest, open_sums, closed, seen + visible, boundary


@triton.jit
@no_type_check
def _span(
    state, low, high, query, at, strides, there, scale, positions,
    FRAMES: tl.constexpr, MASK: tl.constexpr, VALUE: tl.constexpr, DIM: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_N: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """A range of keys: whole blocks in a pipelined loop, then the rest."""
    whole = low + (high - low) // BLOCK_N * BLOCK_N
    for column in tl.range(low, whole, BLOCK_N, num_stages=STAGES):
        state = _block(
            state, column, high, query, at, strides, there, scale, positions,
            False, FRAMES, MASK, VALUE, DIM, PRECISION, BLOCK_N,
        )  # fmt: skip
    if whole < high:
        state = _block(
            state, whole, high, query, at, strides, there, scale, positions,
            True, FRAMES, MASK, VALUE, DIM, PRECISION, BLOCK_N,
        )  # fmt: skip
    return state


@triton.jit
@no_type_check
def _write_video(stats, stride, there, closed, seen, MASK: tl.constexpr):
    """Write the statistics of the video keys, all of which have been read."""
    mass, moment, product, _top = closed
    whole = tl.log2(mass)
    temporal = tl.maximum(whole - product / mass, 0.0)
    spatial = tl.maximum(whole - moment / mass - temporal, 0.0)
    tl.store(stats + TEMPORAL * stride, temporal * LN2, mask=there)
    tl.store(stats + SPATIAL * stride, spatial * LN2, mask=there)
    if MASK != "none":
        tl.store(stats + VIDEO_KEYS * stride, seen, mask=there)


@triton.jit
@no_type_check
def long_rows(
    query, key, value, mask, out, stats, chosen,
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_ob, stride_oh, stride_on, stride_mb, stride_mh, stride_mq, stride_mk, stride_stat,
    heads, n_queries, n_keys, n_slots, n_blocks, video_start, video_stop, positions, scale,
    VIDEO: tl.constexpr, MASK: tl.constexpr, VALUE: tl.constexpr, CHOSEN: tl.constexpr, REPAIR: tl.constexpr,
    DIM: tl.constexpr, PRECISION: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    ALIGN: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """A block of query rows of one head.

    Writes the output and, per row, the statistics ENTROPY (nats), LOGSUMEXP and, with VALUE, ENERGY; with VIDEO also
    TEMPORAL and SPATIAL (nats) and TEXT (share of the attention); with MASK also KEYS and VIDEO_KEYS (visible ones).
    Statistics are (statistic, batch, head, slot); a slot is a row, or with CHOSEN a row of the blocks that `chosen`
    (batch, head, block) names. Rows past the end are left alone. With REPAIR, blocks without a LOGSUMEXP of NaN are
    left alone too. Strides of queries, keys, values and output count ALIGN elements. `scale` is in powers of two and
    positive.
    """
    slot = tl.program_id(0) % n_blocks
    pair = tl.program_id(0) // n_blocks
    batch = (pair // heads).to(tl.int64)
    head = (pair % heads).to(tl.int64)
    place = slot
    if CHOSEN:
        place = tl.load(chosen + pair * n_blocks + slot)
    rows = place * BLOCK_M + tl.arange(0, BLOCK_M)
    there = rows < n_queries
    stats += pair.to(tl.int64) * n_slots + slot * BLOCK_M + tl.arange(0, BLOCK_M)
    if REPAIR:
        logsumexp = tl.load(stats + LOGSUMEXP * stride_stat, mask=there, other=0.0)
        if tl.max((logsumexp != logsumexp).to(tl.int32), 0) == 0:
            return
    dims = tl.arange(0, BLOCK_D)
    steps = tl.arange(0, BLOCK_N)
    cells = there[:, None] & (dims < DIM)[None, :]
    query_at = query + (batch * stride_qb + head * stride_qh + rows[:, None] * stride_qn) * ALIGN + dims[None, :]
    tile = tl.load(query_at, mask=cells, other=0.0)
    key_at = key + (batch * stride_kb + head * stride_kh + steps[None, :] * stride_kn) * ALIGN + dims[:, None]
    value_at = value + (batch * stride_vb + head * stride_vh + steps[:, None] * stride_vn) * ALIGN + dims[None, :]
    mask_at = mask + batch * stride_mb + head * stride_mh
    mask_at = mask_at + rows.to(tl.int64)[:, None] * stride_mq + steps[None, :] * stride_mk
    at = (key_at, value_at, mask_at)
    strides = (stride_kn * ALIGN, stride_vn * ALIGN, stride_mk)

    zero = tl.zeros([BLOCK_M], dtype=tl.float32)
    hidden = zero + HIDDEN
    acc = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    state = (acc, hidden, (zero, zero), (zero, zero, zero, hidden), zero, video_start + positions)
    if VIDEO:
        state = _span(
            state, video_start, video_stop, tile, at, strides, there[:, None], scale, positions,
            True, MASK, VALUE, DIM, PRECISION, BLOCK_N, STAGES,
        )  # fmt: skip
        acc, top, open_sums, closed, seen, boundary = state
        _write_video(stats, stride_stat, there, closed, seen, MASK)
        video_mass, video_top = closed[0], top
        state = (acc, top, (closed[0], closed[1]), closed, seen, boundary)
        for part in range(2):  # the keys before the video, then those after it
            state = _span(
                state, part * video_stop, video_start + part * (n_keys - video_start), tile, at, strides,
                there[:, None], scale, positions, False, MASK, VALUE, DIM, PRECISION, BLOCK_N, STAGES,
            )  # fmt: skip
        on_video = video_mass * tl.exp2(video_top - state[1]) / state[2][0]
        tl.store(stats + TEXT * stride_stat, tl.maximum(1.0 - on_video, 0.0), mask=there)
    else:
        state = _span(
            state, 0, n_keys, tile, at, strides, there[:, None], scale, positions,
            False, MASK, VALUE, DIM, PRECISION, BLOCK_N, STAGES,
        )  # fmt: skip

    acc, top, open_sums, closed, seen, boundary = state
    mass, moment = open_sums
    tl.store(stats + ENTROPY * stride_stat, tl.maximum(tl.log2(mass) - moment / mass, 0.0) * LN2, mask=there)
    tl.store(stats + LOGSUMEXP * stride_stat, (top + tl.log2(mass)) * LN2, mask=there)
    if MASK != "none":
        tl.store(stats + KEYS * stride_stat, seen, mask=there)
    if VALUE:
        result = (acc / mass[:, None]).to(out.dtype.element_ty)
        out_at = out + (batch * stride_ob + head * stride_oh + rows[:, None] * stride_on) * ALIGN + dims[None, :]
        tl.store(out_at, result, mask=cells)
        kept = result.to(tl.float32)
        tl.store(stats + ENERGY * stride_stat, tl.sum(kept * kept, 1), mask=there)
