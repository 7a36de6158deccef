"""Whether a call is measured by the fused kernel, and its launch: tile sizes, buffers, and what comes back of a row.

By device, by what the kernel can do, and by what the user says.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import gcd, log2
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ieadapt.errors import IEAdaptWarning, UsageError
from ieadapt.functional.attention import Attention

KernelChoice = Literal["auto", "on", "off"]
"""auto: on CUDA devices; on: wherever Triton runs (its interpreter too); off: never."""

VARIABLE = "IEADAPT_KERNEL"
MAX_DIM = 256
LEAST_POSITIONS = 16
"""Tokens that a frame must have: at most one frame ends in a block of keys, and no block is smaller."""

OFFSETS = 2**31
"""Elements past which the kernel's 32-bit offsets within one head do not reach."""

DTYPES = (torch.float16, torch.bfloat16, torch.float32)

STATISTICS = ("entropy", "energy", "logsumexp", "temporal", "spatial", "text", "keys", "video_keys")
"""Order of the kernel's statistics in its buffer."""

Maximum = Literal["fixed", "running"]
"""What a row's logits are taken relative to: its largest one in the first block of keys, or the largest one so far."""

WIDE_RANGE = (torch.bfloat16, torch.float32)
"""Types whose exponents reach as far as float32's, so that weights need no running maximum."""

FEW_KEYS = 512
"""Below so many keys finding a reference first does not pay."""

SHORT = 64
"""Tokens up to which whole sequences share a tile."""


def uses_kernel(attention: Attention, *, output: bool, choice: KernelChoice | None = None) -> bool:
    """Tell whether the fused kernel measures this call; says once, as a warning, why it does not where it might.

    Args:
        attention: the call.
        output: whether its output is wanted too.
        choice: auto, on or off; None = what the variable IEADAPT_KERNEL says, auto where it is not set.

    Raises:
        UsageError: a choice that does not exist.
    """
    chosen = choice or os.environ.get(VARIABLE) or "auto"
    if chosen not in get_args(KernelChoice):
        raise UsageError(
            "no such choice of kernel", expected="auto, on or off", got=chosen, where=f"kernel, {VARIABLE}"
        )
    if chosen == "off" or (chosen == "auto" and not attention.query.is_cuda):
        return False
    obstacle = next(_obstacles(attention, output), None)
    if obstacle is not None:
        warnings.warn(f"measured without the fused kernel: {obstacle}", IEAdaptWarning, stacklevel=2)
    return obstacle is None


def _obstacles(attention: Attention, output: bool) -> Iterator[str]:
    """Yield what the kernel cannot do about a call."""
    query, key, value, mask, video = (getattr(attention, name) for name in ("query", "key", "value", "mask", "video"))
    tensors = [query, key, value] if output else [query, key]
    if find_spec("triton") is None:
        yield "Triton is not installed"
    if not query.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        yield f"no kernel for the device {query.device}"
    if torch.version.hip is not None:
        yield "it is not tested on ROCm"
    if {tensor.dtype for tensor in tensors} - {query.dtype} or query.dtype not in DTYPES:
        yield f"{', '.join(str(tensor.dtype) for tensor in tensors)} are not one of {DTYPES}"
    if query.shape[-1] > MAX_DIM or (output and value.shape[-1] != query.shape[-1]):
        yield f"head_dim {query.shape[-1]} is above {MAX_DIM}, or values have another"
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        yield "gradients are wanted, and it has no backward pass"
    if attention.factor <= 0:
        yield f"the scale {attention.factor} is not positive"
    if video is not None and video.positions < LEAST_POSITIONS:
        yield f"frames have {video.positions} tokens, fewer than {LEAST_POSITIONS}"
    if any(tensor.shape[-2] * tensor.stride(-2) >= OFFSETS for tensor in tensors) or 0 in (*query.shape, *key.shape):
        yield "a sequence is empty or longer than 32-bit offsets reach"
    if mask is not None and mask.dtype not in (torch.bool, *DTYPES):
        yield f"a mask of {mask.dtype}"


@dataclass(frozen=True)
class Tiling:
    """How much of an attention one program of the kernel takes.

    Attributes:
        block_m: query rows.
        block_n: keys of one step.
        warps: groups of 32 threads.
        stages: depth of the loads' pipeline.
        registers: most of them per thread, so that programs share a multiprocessor; None = as the compiler chooses.
    """

    block_m: int
    block_n: int
    warps: int
    stages: int
    registers: int | None = None

    def options(self) -> dict[str, int]:
        """The compiler's options."""
        limit = {} if self.registers is None else {"maxnreg": self.registers}
        return {"STAGES": self.stages, "num_warps": self.warps, **limit}


WHOLE = Tiling(64, 64, 4, 1)
"""The tile of whole short sequences."""


@dataclass(frozen=True)
class FusedRows:
    """What one pass of the kernel gives, float32 but for the output.

    `stats` is (statistic, batch, head, row) in the order of STATISTICS; only those that a call has are written. Rows
    are all query rows, or those of the chosen blocks, one block after the other.
    """

    output: Float[Tensor, "batch head query dim"] | None
    stats: Float[Tensor, "statistic batch head row"]

    def __getitem__(self, name: str) -> Float[Tensor, "batch head row"]:
        """One statistic of every row, by its name in STATISTICS."""
        return self.stats[STATISTICS.index(name)]


def tiling_of(dim: int, itemsize: int, *, chosen: bool = False) -> Tiling:
    """The tile sizes for a head_dim and an element size; fixed, so that equal runs give equal bytes.

    Example:
        >>> tiling_of(64, 2)
        Tiling(block_m=128, block_n=64, warps=8, stages=3, registers=128)
    """
    wide = padded(dim)
    if itemsize == 4:
        return Tiling(64, 32, 4, 2) if wide <= 128 else Tiling(32, 32, 4, 1)
    tiling = Tiling(64, 64, 8, 2) if wide > 128 else Tiling(128, 64, 8, 3, None if wide > 64 else 128)
    return Tiling(64, tiling.block_n, 4, tiling.stages) if chosen else tiling


def fitting(tiling: Tiling, dim: int, itemsize: int, memory: int) -> Tiling:
    """The same tiling with as shallow a pipeline, then as few keys a step, as a GPU's shared memory holds.

    Example:
        >>> fitting(Tiling(128, 64, 8, 3), 128, 2, 101_376)  # a consumer GPU
        Tiling(block_m=128, block_n=64, warps=8, stages=2, registers=None)
    """
    m, n, stages = tiling.block_m, tiling.block_n, tiling.stages
    while (m + 2 * stages * n) * padded(dim) * itemsize > memory and (stages > 1 or n > 16):
        stages, n = (stages - 1, n) if stages > 1 else (stages, n // 2)
    return replace(tiling, block_n=n, stages=stages)


def padded(dim: int) -> int:
    """The head_dim that a tile has: a power of two, at least 16.

    Example:
        >>> padded(40), padded(128)
        (64, 128)
    """
    return max(16, 1 << (dim - 1).bit_length())


@torch.no_grad()
def fused_rows(
    attention: Attention,
    *,
    output: bool = True,
    chosen: Int[Tensor, "batch head block"] | None = None,
    tiling: Tiling | None = None,
    maximum: Maximum | None = None,
) -> FusedRows:
    """Run the kernel: entropy, log-sum-exp and the rest for every row, and the attention output where it is wanted.

    Args:
        attention: all tensors of one type, float16, bfloat16 or float32; frames of at least 16 tokens.
        output: whether the attention output, and its energy, are wanted.
        chosen: int32 numbers of the blocks of query rows to take, of the tiling's `block_m` rows each; no output then.
        tiling: tile sizes; None = `tiling_of`.
        maximum: what logits are taken relative to; None = "fixed" where there are FEW_KEYS or more. It is "running"
            in any case for float16, with a mask, and where a logit lies too far above the reference.
    """
    query, key = _dense_channels(attention.query), _dense_channels(attention.key)
    (batch, heads, n_queries, dim), n_keys = query.shape, key.shape[-2]
    value = _dense_channels(attention.value) if output else key
    plain = attention.mask is None and attention.video is None and chosen is None
    short = plain and n_queries == n_keys <= SHORT
    tiling = tiling or (WHOLE if short else tiling_of(dim, query.element_size(), chosen=chosen is not None))
    tiling = fitting(tiling, dim, query.element_size(), _shared_memory(query.device))
    slots = n_queries if chosen is None else chosen.shape[-1] * tiling.block_m
    number = 8 if attention.mask is not None else 6 if attention.video is not None else 3
    stats = torch.empty((number, batch, heads, slots), dtype=torch.float32, device=query.device)
    dense = replace(attention, query=query, key=key, value=value)
    rows = FusedRows(_like_layout(query) if output else None, stats)
    if short:
        _launch_short(dense, rows, tiling)
    else:
        maximum = maximum or ("fixed" if n_keys >= FEW_KEYS else "running")
        fixed = maximum == "fixed" and attention.mask is None and query.dtype in WIDE_RANGE
        _launch_long(dense, rows, chosen, tiling, fixed)
    return rows


def _launch_short(attention: Attention, rows: FusedRows, tiling: Tiling) -> None:
    from ieadapt.functional.kernels.short_rows import short_rows

    batch, heads, length, _ = attention.query.shape
    slots = max(tiling.block_m, 1 << (length - 1).bit_length())
    together = slots // length
    grid = (-(-batch * heads // together),)
    tensors, strides, constants = _common(attention, rows)
    short_rows[grid](
        *(*tensors, rows.stats, *strides, rows.stats.stride(0)),
        *(heads, batch * heads, attention.factor * log2(torch.e)),
        LENGTH=length,
        BLOCK_M=slots,
        num_warps=tiling.warps,
        **constants,
    )


def _launch_long(attention: Attention, rows: FusedRows, chosen: Tensor | None, tiling: Tiling, fixed: bool) -> None:
    from ieadapt.functional.kernels.fixed_reference_rows import fixed_reference_rows
    from ieadapt.functional.kernels.long_rows import long_rows

    query, mask, video, stats = attention.query, attention.mask, attention.video, rows.stats
    (batch, heads, n_queries, _), n_keys = query.shape, attention.key.shape[-2]
    blocks = -(-n_queries // tiling.block_m) if chosen is None else chosen.shape[-1]
    start, stop, positions = (0, 0, 0) if video is None else (video.start, video.stop, video.positions)
    sizes = (heads, n_queries, n_keys, stats.shape[-1], blocks, start, stop, positions)
    factor = attention.factor * log2(torch.e)
    tensors, strides, constants = _common(attention, rows)
    constants |= {
        "VIDEO": video is not None,
        "CHOSEN": chosen is not None,
        "BLOCK_M": tiling.block_m,
        # At most one frame may end in a step's block of keys: the kernels close one frame per block.
        "BLOCK_N": min(tiling.block_n, 1 << (positions.bit_length() - 1)) if positions else tiling.block_n,
        **tiling.options(),
    }
    grid = (blocks * batch * heads,)
    # A pointer that a kernel does not read still has to be one: the queries stand for what a call does not have.
    numbers = query if chosen is None else chosen.to(torch.int32).contiguous()
    entries, mask_strides = _mask_entries(mask, (batch, heads, n_queries, n_keys))
    if fixed:
        fixed_reference_rows[grid](*tensors, stats, numbers, *strides, stats.stride(0), *sizes, factor, **constants)
    long_rows[grid](
        *(*tensors[:3], query if entries is None else entries, tensors[3], stats, numbers),
        *(*strides, *mask_strides, stats.stride(0), *sizes, factor),
        MASK="none" if mask is None else "bool" if mask.dtype == torch.bool else "additive",
        REPAIR=fixed,
        **constants,
    )


def _common(attention: Attention, rows: FusedRows) -> tuple[tuple[Tensor, ...], list[int], dict[str, Any]]:
    """What every kernel takes: queries, keys, values and output, their strides, and what it is compiled for."""
    out = attention.query if rows.output is None else rows.output
    tensors = (attention.query, attention.key, attention.value, out)
    strides, align = _strides(*tensors)
    dim = attention.query.shape[-1]
    # float32 products are made of three TF32 ones, as PyTorch's memory-efficient attention does.
    precision = "tf32x3" if attention.query.dtype == torch.float32 else "tf32"
    constants = {"VALUE": rows.output is not None, "DIM": dim, "BLOCK_D": padded(dim)}
    return tensors, strides, {**constants, "PRECISION": precision, "ALIGN": align}


def _strides(*tensors: Tensor) -> tuple[list[int], int]:
    """Strides of batch, head and token, counted in as many elements as all are multiples of, up to 16 bytes.

    That number is known when a kernel is compiled. Triton sees by itself only that a stride is a multiple of 16: at a
    head_dim of 40 it would load 2 bytes at a time.
    """
    strides = [stride for tensor in tensors for stride in tensor.stride()[:3]]
    align = gcd(16 // tensors[0].element_size(), *strides)
    return [stride // align for stride in strides], align


def _shared_memory(device: torch.device) -> int:
    """Bytes that a program may have; without limit in the interpreter."""
    if device.type != "cuda":
        return sys.maxsize
    from triton.runtime import driver

    index = torch.cuda.current_device() if device.index is None else device.index
    return int(driver.active.utils.get_device_properties(index)["max_shared_mem"])


def _dense_channels(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _like_layout(query: Tensor) -> Tensor:
    """An empty output in memory as the queries are, so that merging the heads afterwards copies nothing."""
    batch, heads, tokens, dim = query.shape
    if query.stride(1) < query.stride(2):
        return query.new_empty((batch, tokens, heads, dim)).transpose(1, 2)
    return query.new_empty((batch, heads, tokens, dim))


def _mask_entries(mask: Tensor | None, shape: tuple[int, int, int, int]) -> tuple[Tensor | None, tuple[int, ...]]:
    """The mask's entries and the strides by which they are read, 0 along axes that it does not have."""
    if mask is None:
        return None, (0, 0, 0, 0)
    entries = mask.view(torch.uint8) if mask.dtype == torch.bool else mask
    return entries, entries.expand(shape).stride()
