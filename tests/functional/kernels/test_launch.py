"""How the kernel is launched: in what its strides are counted."""

from __future__ import annotations

import pytest
import torch

from ieadapt.functional.kernels.launch import _strides


@pytest.mark.parametrize(
    ("dim", "dtype", "align"),
    [
        (40, torch.bfloat16, 8),  # 16 bytes
        (40, torch.float32, 4),
        (64, torch.float16, 8),
        (36, torch.bfloat16, 4),
        (3, torch.float32, 1),
    ],
)
def test_strides_are_counted_in_what_is_read_at_once(dim: int, dtype: torch.dtype, align: int) -> None:
    tensors = [torch.zeros(2, 5, 4, dim, dtype=dtype).transpose(1, 2) for _ in range(4)]
    strides, found = _strides(*tensors)
    assert found == align
    assert [stride * align for stride in strides] == [stride for tensor in tensors for stride in tensor.stride()[:3]]


def test_one_odd_stride_is_enough() -> None:
    even, odd = torch.zeros(1, 2, 4, 16), torch.zeros(1, 2, 4, 17)[..., :16]
    assert _strides(even, even)[1] == 4
    assert _strides(even, odd)[1] == 1
