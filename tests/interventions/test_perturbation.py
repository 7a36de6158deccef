"""Perturbations act on every row of the call they are given, and check their amounts."""

from __future__ import annotations

import pytest
import torch

from ieadapt.attention import AttentionCall, AttentionSite, RowMap
from ieadapt.errors import UsageError
from ieadapt.functional import Attention
from ieadapt.interventions import Identity, Mix, Temperature, Uniform


def make_call(guidance: tuple[str, ...] = ("uncond", "cond"), repeats: int = 2, **changes: object) -> AttentionCall:
    """A spatial call with random tensors."""
    rows = len(guidance) * repeats
    query, key, value = torch.randn(3, rows, 2, 6, 4).unbind(0)
    output = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    settings = {
        "site": AttentionSite("block.attn1", "spatial", 0, 2),
        "step": 0,
        "steps": None,
        "attention": Attention(query, key, value, changes.pop("mask", None)),
        "layout": None,
        "rows": RowMap(guidance, ("none",) * len(guidance), tuple(range(len(guidance))), repeats),
        "attend": lambda: output,
    }
    return AttentionCall(**{**settings, **changes})


def test_all_rows() -> None:
    call = make_call()
    expected = call.value.mean(2, keepdim=True).expand_as(call.value)
    torch.testing.assert_close(Uniform()(call), expected)


def test_a_mask_of_one_row_per_batch_row_follows_its_rows() -> None:
    mask = torch.ones(4, 1, 1, 6, dtype=torch.bool)
    mask[3, ..., 2:] = False
    call = make_call(mask=mask)
    part = call.restricted([1])
    output = call.replaced([(part, Uniform()(part))])
    assert torch.equal(output[:2], call.output[:2])
    torch.testing.assert_close(output[2], call.value[2].mean(1, keepdim=True).expand(-1, 6, -1))
    torch.testing.assert_close(output[3], call.value[3, :, :2].mean(1, keepdim=True).expand(-1, 6, -1))


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_weights_outside_their_range_are_refused(weight: float) -> None:
    with pytest.raises(UsageError, match=r"weight of a mix is out of range; expected 0\.\.1"):
        Mix(weight)
    with pytest.raises(UsageError, match=r"weight of the identity is out of range; expected 0\.\.1"):
        Identity(weight)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_temperature_must_be_positive(value: float) -> None:
    with pytest.raises(UsageError, match="temperature of a softmax must be positive"):
        Temperature(value)


def test_a_part_of_rows_and_heads_is_put_back_where_it_came_from() -> None:
    call = make_call()
    part = call.restricted([1], [1])
    output = call.replaced([(part, Uniform()(part))])
    assert torch.equal(part.output, call.output[2:, 1:])
    assert torch.equal(output[:, 0], call.output[:, 0])
    assert torch.equal(output[:2], call.output[:2])
    mean = call.value[2:, 1].mean(1, keepdim=True)
    torch.testing.assert_close(output[2:, 1], mean.expand(-1, 6, -1))


def test_perturbations_say_what_they_are() -> None:
    assert repr(Mix(0.5, scope="all")) == "Mix(0.5, scope='all')"
    assert repr(Uniform()) == "Uniform(scope='video')"
