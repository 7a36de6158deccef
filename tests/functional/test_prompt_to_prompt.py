"""Columns of a cross-attention map taken from another map, against the maps written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.functional import Attention, prompt_to_prompt_output


def _parts(seed: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, 3, n, 8, generator=generator) for n in (10, keys, keys))  # type: ignore[return-value]


def _map(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
    logits = query.double() @ key.double().mT * query.shape[-1] ** -0.5
    return (logits if mask is None else logits.masked_fill(~mask, -torch.inf)).softmax(-1)


@pytest.mark.parametrize("memory_limit", [1, 10_000, 2**28])
def test_equals_the_maps_written_out(memory_limit: int) -> None:
    query, key, value = _parts(0, 5)
    source_query, source_key, _ = _parts(1, 6)
    mask = torch.tensor([True, True, True, True, False])
    taken, factors = torch.tensor([0, 5, -1, 2, -1]), torch.tensor([1.0, 1.0, 2.5, 0.0, 1.0])
    own, foreign = _map(query, key, mask), _map(source_query, source_key)
    columns = [foreign[..., 0], foreign[..., 5], 2.5 * own[..., 2], 0 * own[..., 3], own[..., 4]]
    own_attention, source = Attention(query, key, value, mask), Attention(source_query, source_key, source_key)
    found = prompt_to_prompt_output(
        own_attention, source=source, taken=taken, factors=factors, memory_limit=memory_limit
    )
    torch.testing.assert_close(found.double(), torch.stack(columns, -1) @ value.double(), rtol=1e-4, atol=1e-5)


def test_a_key_that_the_source_lacks() -> None:
    query, key, value = _parts(0, 5)
    with pytest.raises(UsageError, match="a key that the source lacks; expected below 5; got 7"):
        own = Attention(query, key, value)
        prompt_to_prompt_output(own, source=own, taken=torch.tensor([7, -1, -1, -1, -1]), factors=torch.ones(5))
