"""Which calls the kernel measures, by device, variable and argument; and in what its strides are counted."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.functional import Attention, VideoTokens, attention_statistics, measured_attention
from ieadapt.functional.kernels import uses_kernel
from ieadapt.functional.kernels.launch import _strides
from ieadapt.interventions import Record
from tests.functional.test_statistics import random
from tests.interventions.test_perturbation import make_call


def runs(query: Tensor, choice: Any = "on", **changed: Any) -> bool:
    attention = Attention(**{"query": query, "key": query, "value": query, "scale": 1.0, **changed})
    return uses_kernel(attention, output=True, choice=choice)


def test_auto_means_cuda(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    query = random(1, 1, 4, 8)
    monkeypatch.delenv("IEADAPT_KERNEL", raising=False)
    assert not runs(query, None)
    assert not runs(query, "auto")
    assert runs(query.to(device), "auto") == (device.type == "cuda")
    assert runs(query.to(device), "on")


def test_the_argument_goes_before_the_variable(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    query = random(1, 1, 4, 8).to(device)
    monkeypatch.setenv("IEADAPT_KERNEL", "on")
    assert runs(query, None)
    assert not runs(query, "off")
    monkeypatch.setenv("IEADAPT_KERNEL", "fast")
    with pytest.raises(UsageError, match=r"no such choice of kernel; expected auto, on or off; got fast"):
        runs(query, None)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"scale": -1.0}, "not positive"),
        ({"video": VideoTokens(0, 2, 2)}, "frames have 2 tokens, fewer than 16"),
        ({"value": torch.zeros(1, 1, 4, 16)}, "values have another"),
        ({"value": torch.zeros(1, 1, 4, 8).double()}, "are not one of"),
        ({"mask": torch.zeros(4, 4, dtype=torch.int8)}, "a mask of torch.int8"),
    ],
)
def test_what_it_cannot_do_is_said(changed: dict[str, Any], why: str, device: torch.device) -> None:
    there = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in changed.items()}
    with pytest.warns(UserWarning, match=f"measured without the fused kernel: .*{why}"):
        assert not runs(random(1, 1, 4, 8).to(device), **there)


def test_long_heads_doubles_and_gradients_are_refused() -> None:
    for query in (random(1, 1, 4, 300), random(1, 1, 4, 8).double(), random(1, 1, 4, 8).requires_grad_()):
        with pytest.warns(UserWarning, match="without the fused kernel"):
            assert not runs(query)


def test_it_is_said_once() -> None:
    query = random(1, 1, 4, 300)
    with warnings.catch_warnings(record=True) as said:
        warnings.resetwarnings()
        for _ in range(3):
            runs(query)
    assert len(said) == 1


def test_the_ordinary_output_where_it_does_not_run() -> None:
    query = random(1, 2, 8, 8)
    attention = Attention(query, query, query)
    output, statistics = measured_attention(attention, lambda: query, kernel="off")
    assert output is query
    assert torch.equal(statistics.ep, attention_statistics(attention).ep)


def test_recording_gives_the_model_the_kernels_output_once(device: torch.device) -> None:
    query, key, value = (random(4, 2, 6, 8, seed=seed).to(device) for seed in range(3))
    asked: list[int] = []

    def attend() -> Tensor:
        asked.append(1)
        return torch.nn.functional.scaled_dot_product_attention(query, key, value)

    whole = {"attention": Attention(query, key, value), "attend": attend}
    call, plain = make_call(**whole, own=True), make_call(**whole)
    record, usual = Record(kernel="on"), Record(kernel="off")
    record(call)
    assert not asked
    assert torch.allclose(call.output, plain.output, atol=1e-5)
    usual(plain)
    assert asked == [1]
    for fused, streamed in zip(record.records(), usual.records(), strict=True):
        assert fused["ep"] == pytest.approx(streamed["ep"], abs=1e-3)
        assert fused["energy"] == pytest.approx(streamed["energy"], rel=1e-4)


def test_an_output_that_is_already_there_is_kept() -> None:
    for call in (make_call(own=True), make_call(own=True).with_output(torch.ones(4, 2, 6, 4))):
        before = call.output
        Record(kernel="on")(call)
        assert call.output is before


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
