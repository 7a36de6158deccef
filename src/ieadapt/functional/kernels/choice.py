"""Whether an attention call is measured by the fused kernel: by device, by what it can do, by what the user says."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Literal, get_args

import torch

from ieadapt.errors import UsageError
from ieadapt.functional.attention import Attention

KernelChoice = Literal["auto", "on", "off"]
"""auto: on CUDA devices; on: wherever Triton runs (its interpreter too); off: never."""

VARIABLE = "IEADAPT_KERNEL"
MAX_DIM = 256
LEAST_POSITIONS = 16
"""Tokens that a frame must have: at most one frame ends in a block of keys, and no block is smaller."""

OFFSETS = 2**31
"""Elements past which the kernel's 32-bit offsets within one head do not reach."""


def uses_kernel(attention: Attention, *, output: bool, choice: KernelChoice | None = None) -> bool:
    """Tell whether the fused kernel measures this call; says once, as a warning, why it does not where it might.

    Args:
        attention: the call.
        output: whether its output is wanted too.
        choice: auto, on or off; None = what the variable IEADAPT_KERNEL says, auto where it is not set.

    Raises:
        UsageError: a choice that does not exist.
    """
    choice = kernel_choice(choice)
    if choice == "off" or (choice == "auto" and not attention.query.is_cuda):
        return False
    reason = next(_obstacles(attention, output), None)
    if reason is not None:
        warnings.warn(f"measured without the fused kernel: {reason}", stacklevel=2)
    return reason is None


def kernel_choice(choice: KernelChoice | None) -> KernelChoice:
    """Return the choice that applies: the argument, else the variable, else auto.

    Raises:
        UsageError: neither auto, on nor off.

    Example:
        >>> kernel_choice("off")
        'off'
    """
    asked = choice or os.environ.get(VARIABLE) or "auto"
    for known in get_args(KernelChoice):
        if asked == known:
            return known
    raise UsageError("no such choice of kernel", expected="auto, on or off", got=asked, where=f"kernel, {VARIABLE}")


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
    if {tensor.dtype for tensor in tensors} - {query.dtype} or query.dtype not in _DTYPES:
        yield f"{', '.join(str(tensor.dtype) for tensor in tensors)} are not one of {_DTYPES}"
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
    if mask is not None and mask.dtype not in (torch.bool, *_DTYPES):
        yield f"a mask of {mask.dtype}"


_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
