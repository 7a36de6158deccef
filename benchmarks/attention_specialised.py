"""`fixed_reference_rows` in Gluon, with Hopper's warps specialised: one loads, two groups compute, each its own rows.

In the manner of FlashAttention-3 (arXiv 2407.08608): while the tensor cores multiply the weights of one block of keys
with its values, the same warps take the exponentials of the next block's logits. Kept to be timed against
`ieadapt.functional.kernels`; see `benchmarks.gpu_attention`.
"""

# mypy: ignore-errors
from __future__ import annotations

from math import log2

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from ieadapt.functional.kernels.launch import Tiling, padded

HIDDEN = gl.constexpr(-1e30)
GROUP_ROWS = gl.constexpr(64)


@gluon.jit
def _weights(logits, anchor, scale, left, TAIL: gl.constexpr):
    """Exponentials of a block of logits, and their sums: of p and of p x, over a thread's own columns."""
    m: gl.constexpr = logits.shape[0]
    n: gl.constexpr = logits.shape[1]
    shifted = logits * scale - gl.expand_dims(anchor, 1)
    if TAIL:
        columns = gl.arange(0, n, layout=gl.SliceLayout(0, logits.type.layout))
        shifted = gl.where(gl.expand_dims(columns < left, 0), shifted, HIDDEN)
    weights = gl.exp2(shifted)
    mass = gl.sum(weights.reshape([m, n // 8, 8]), 1)
    moment = gl.sum((weights * shifted).reshape([m, n // 8, 8]), 1)
    return weights, mass, moment


@gluon.jit
def _operand(weights, like, mma: gl.constexpr):
    """Weights as the tensor cores take them from registers."""
    return gl.convert_layout(weights.to(like), gl.DotOperandLayout(operand_index=0, parent=mma, k_width=2))


@gluon.jit
def _compute(
    query, keys, values, query_full, key_full, key_free, value_full, value_free, out, entropy,
    first_row, pair, n_queries, n_keys, stride_row, scale, STAGES: gl.constexpr, N: gl.constexpr, D: gl.constexpr,
    DIM: gl.constexpr,
):  # fmt: skip
    """Rows of one group of four warps."""
    dtype: gl.constexpr = query.dtype
    logit_layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, N, 16]
    )
    out_layout: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, D, 16])
    blocks = (n_keys + N - 1) // N
    nothing = gl.zeros([GROUP_ROWS, N], gl.float32, logit_layout)
    acc = gl.zeros([GROUP_ROWS, D], gl.float32, out_layout)
    mbarrier.wait(query_full, 0)
    mbarrier.wait(key_full.index(0), 0)
    pending = warpgroup_mma(query, keys.index(0).reshape([N, D]).permute((1, 0)), nothing, use_acc=False, is_async=True)
    logits = warpgroup_mma_wait(0, deps=(pending,))
    mbarrier.arrive(key_free.index(0))
    anchor = gl.max(logits, 1) * scale
    weights, mass, moment = _weights(logits, anchor, scale, n_keys, False)
    operand = _operand(weights, dtype, out_layout)
    for block in range(1, blocks - 1):
        stage = block % STAGES
        earlier = (block - 1) % STAGES
        mbarrier.wait(key_full.index(stage), (block // STAGES) & 1)
        pending = warpgroup_mma(
            query, keys.index(stage).reshape([N, D]).permute((1, 0)), nothing, use_acc=False, is_async=True
        )
        mbarrier.wait(value_full.index(earlier), ((block - 1) // STAGES) & 1)
        growing = warpgroup_mma(operand, values.index(earlier).reshape([N, D]), acc, is_async=True)
        logits = warpgroup_mma_wait(1, deps=(pending,))
        mbarrier.arrive(key_free.index(stage))
        weights, mass_here, moment_here = _weights(logits, anchor, scale, n_keys, False)
        mass += mass_here
        moment += moment_here
        following = _operand(weights, dtype, out_layout)
        # the weights are named here so that they are computed before the wait, beside the product
        acc, operand, following = warpgroup_mma_wait(0, deps=(growing, operand, following))
        mbarrier.arrive(value_free.index(earlier))
        operand = following
    last = blocks - 1
    stage = last % STAGES
    earlier = (last - 1) % STAGES
    mbarrier.wait(key_full.index(stage), (last // STAGES) & 1)
    pending = warpgroup_mma(
        query, keys.index(stage).reshape([N, D]).permute((1, 0)), nothing, use_acc=False, is_async=True
    )
    mbarrier.wait(value_full.index(earlier), ((last - 1) // STAGES) & 1)
    growing = warpgroup_mma(operand, values.index(earlier).reshape([N, D]), acc, is_async=True)
    logits = warpgroup_mma_wait(1, deps=(pending,))
    weights, mass_here, moment_here = _weights(logits, anchor, scale, n_keys - last * N, True)
    following = _operand(weights, dtype, out_layout)
    acc, operand, following = warpgroup_mma_wait(0, deps=(growing, operand, following))
    operand = following
    mbarrier.wait(value_full.index(stage), (last // STAGES) & 1)
    growing = warpgroup_mma(operand, values.index(stage).reshape([N, D]), acc, is_async=True)
    acc, operand = warpgroup_mma_wait(0, deps=(growing, operand))

    row_layout: gl.constexpr = gl.SliceLayout(1, out_layout)
    total = gl.convert_layout(gl.sum(mass + mass_here, 1), row_layout)
    whole = gl.convert_layout(gl.sum(moment + moment_here, 1), row_layout)
    rows = first_row + gl.arange(0, GROUP_ROWS, layout=row_layout)
    there = rows < n_queries
    at = entropy + pair.to(gl.int64) * n_queries + rows
    gl.store(at, (gl.log2(total) - whole / total) * 0.6931471805599453, mask=there)
    dims = gl.arange(0, D, layout=gl.SliceLayout(0, out_layout))
    place = gl.expand_dims(rows.to(gl.int64) * stride_row, 1) + gl.expand_dims(dims, 0)
    result = (acc / gl.expand_dims(total, 1)).to(dtype)
    gl.store(out + place, result, mask=gl.expand_dims(there, 1) & gl.expand_dims(dims < DIM, 0))


@gluon.jit
def _load(
    query_at, key_at, value_at, queries, keys, values, query_full, key_full, key_free, value_full, value_free,
    start, batch, head, n_keys, STAGES: gl.constexpr, N: gl.constexpr, D: gl.constexpr,
):  # fmt: skip
    """The warp that asks for all tiles, a few blocks ahead of those that compute."""
    for group in gl.static_range(2):
        mbarrier.expect(query_full.index(group), query_at.block_type.nbytes)
        tma.async_copy_global_to_shared(
            query_at, [batch, head, start + group * GROUP_ROWS, 0], query_full.index(group), queries.index(group)
        )
    blocks = (n_keys + N - 1) // N
    for block in range(blocks):
        stage = block % STAGES
        unused = ((block // STAGES) & 1) ^ 1
        mbarrier.wait(key_free.index(stage), unused)
        mbarrier.expect(key_full.index(stage), key_at.block_type.nbytes)
        tma.async_copy_global_to_shared(key_at, [batch, head, block * N, 0], key_full.index(stage), keys.index(stage))
        mbarrier.wait(value_free.index(stage), unused)
        mbarrier.expect(value_full.index(stage), value_at.block_type.nbytes)
        tma.async_copy_global_to_shared(
            value_at, [batch, head, block * N, 0], value_full.index(stage), values.index(stage)
        )


@gluon.jit
def specialised_rows(
    query_at, key_at, value_at, out, entropy, stride_ob, stride_oh, stride_on, heads, n_queries, n_keys, scale,
    STAGES: gl.constexpr, REGISTERS: gl.constexpr, DIM: gl.constexpr,
):  # fmt: skip
    """128 query rows of one head: output, and entropies in nats; at least two blocks of keys."""
    n: gl.constexpr = key_at.block_type.shape[2]
    d: gl.constexpr = key_at.block_type.shape[3]
    dtype: gl.constexpr = query_at.dtype
    start = gl.program_id(0) * (2 * GROUP_ROWS)
    pair = gl.program_id(1)
    batch = pair // heads
    head = pair % heads
    queries = gl.allocate_shared_memory(dtype, [2, 1, 1, GROUP_ROWS, d], query_at.layout)
    keys = gl.allocate_shared_memory(dtype, [STAGES, 1, 1, n, d], key_at.layout)
    values = gl.allocate_shared_memory(dtype, [STAGES, 1, 1, n, d], value_at.layout)
    one: gl.constexpr = mbarrier.MBarrierLayout()
    query_full = gl.allocate_shared_memory(gl.int64, [2, 1], one)
    key_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], one)
    key_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], one)
    value_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], one)
    value_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], one)
    for group in gl.static_range(2):
        mbarrier.init(query_full.index(group), count=1)
    for stage in gl.static_range(STAGES):
        mbarrier.init(key_full.index(stage), count=1)
        mbarrier.init(value_full.index(stage), count=1)
        mbarrier.init(key_free.index(stage), count=2)
        mbarrier.init(value_free.index(stage), count=2)
    out += batch.to(gl.int64) * stride_ob + head.to(gl.int64) * stride_oh
    first = queries.index(0).reshape([GROUP_ROWS, d])
    second = queries.index(1).reshape([GROUP_ROWS, d])
    gl.warp_specialize(
        [
            (
                _compute,
                (
                    first, keys, values, query_full.index(0), key_full, key_free, value_full, value_free, out, entropy,
                    start, pair, n_queries, n_keys, stride_on, scale, STAGES, n, d, DIM,
                ),
            ),
            (
                _compute,
                (
                    second, keys, values, query_full.index(1), key_full, key_free, value_full, value_free, out,
                    entropy, start + GROUP_ROWS, pair, n_queries, n_keys, stride_on, scale, STAGES, n, d, DIM,
                ),
            ),
            (
                _load,
                (
                    query_at, key_at, value_at, queries, keys, values, query_full, key_full, key_free, value_full,
                    value_free, start, batch, head, n_keys, STAGES, n, d,
                ),
            ),
        ],
        [4, 1],
        [REGISTERS, 24],
    )  # fmt: skip


def specialised(query: Tensor, key: Tensor, value: Tensor, scale: float, tiling: Tiling) -> tuple[Tensor, Tensor]:
    """Output and entropy of every row, by `specialised_rows`; of the tiling, block_n and stages count."""
    (batch, heads, n_queries, dim), n_keys = query.shape, key.shape[-2]
    out = torch.empty_like(query)
    entropy = torch.empty((batch, heads, n_queries), dtype=torch.float32, device=query.device)
    kind = gl.bfloat16 if query.dtype == torch.bfloat16 else gl.float16

    def described_by(tensor: Tensor, lines: int) -> TensorDescriptor:
        block = [1, 1, lines, padded(dim)]
        layout = gl.NVMMASharedLayout.get_default_for(block, kind)
        return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), block, layout)

    specialised_rows[(-(-n_queries // 128), batch * heads)](
        described_by(query, 64),
        described_by(key, tiling.block_n),
        described_by(value, tiling.block_n),
        *(out, entropy, *out.stride()[:3], heads, n_queries, n_keys, scale * log2(torch.e)),
        STAGES=tiling.stages,
        REGISTERS=240,
        DIM=dim,
        num_warps=4,
        maxnreg=168,
    )
    return out, entropy
