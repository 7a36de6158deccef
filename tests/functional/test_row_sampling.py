"""Entropy from a sample of the query rows: unbiased, with an honest standard error, the same from kernel and stream."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ieadapt.errors import UsageError
from ieadapt.functional import RowSample, VideoTokens, row_sample
from tests.functional.dense import measure
from tests.functional.test_statistics import random

VIDEO = VideoTokens(start=26, frames=5, positions=200)


def varied(tokens: int, seed: int = 0) -> torch.Tensor:
    return random(1, 3, tokens, 8, seed=seed) * torch.linspace(0.2, 3, tokens)[:, None]


@pytest.mark.parametrize("tokens", [640, 700, 1026])
def test_means_lie_within_their_standard_errors(tokens: int) -> None:
    query, key = varied(tokens), random(1, 3, tokens, 8, seed=1)
    exact = measure(query, key).ep
    apart, errors = [], []
    for seed in range(40):
        found = measure(query, key, sample=RowSample(0.3, seed))
        assert found.ep_error is not None
        apart.append(found.ep - exact)
        errors.append(found.ep_error)
    spread, told = torch.stack(apart), torch.stack(errors)
    assert spread.mean().abs() < 3 * told.mean() / 120**0.5  # unbiased
    assert 0.8 < spread.std() / told.square().mean().sqrt() < 1.25  # a trend along the sequence is no error


def test_two_blocks_tell_an_error_too() -> None:
    query, key = random(1, 3, 640, 8), random(1, 3, 640, 8, seed=1)
    exact = measure(query, key).ep
    found = [measure(query, key, sample=RowSample(0.2, seed)) for seed in range(60)]
    spread = torch.stack([each.ep - exact for each in found]).square().mean().sqrt()
    told = torch.stack([each.ep_error for each in found if each.ep_error is not None]).square().mean().sqrt()
    assert 0.7 < spread / told < 1.4


@pytest.mark.parametrize(
    "mask", [None, random(1026, 1026, seed=4) > -1, torch.arange(1026) < 900], ids=["no", "all", "keys"]
)
def test_a_sample_of_nearly_all_rows_is_nearly_exact(mask: torch.Tensor | None) -> None:
    query, key = random(1, 3, 1026, 8, spread=2), random(1, 3, 1026, 8, seed=1)
    exact = dataclasses.asdict(measure(query, key, video=VIDEO, mask=mask))
    found = dataclasses.asdict(measure(query, key, video=VIDEO, mask=mask, sample=RowSample(0.94)))
    for name, value in found.items():
        if name not in ("ep_error", "text_ep") and value is not None:
            assert torch.allclose(value, exact[name], rtol=2e-2, atol=3e-3), name
    assert found["ep_error"].max() < 0.2


def test_rows_keep_their_own_masks() -> None:
    query, mask = random(1, 1, 300, 8), torch.ones(300, 300, dtype=torch.bool).tril()
    expected = measure(query, query, mask=mask, sample=RowSample(0.5))
    found = measure(query, query, mask=torch.where(mask, 0.0, -torch.inf), sample=RowSample(0.5))
    assert torch.equal(found.n_keys, expected.n_keys)
    assert torch.allclose(found.ep, expected.ep, atol=1e-4)
    assert expected.n_keys.item() != 300


def test_short_sequences_are_exact() -> None:
    query = random(1, 2, 100, 8)
    found = measure(query, query, sample=RowSample(0.05))
    assert found.ep_error is None
    assert torch.equal(found.ep, measure(query, query).ep)


def test_drawing_leaves_the_global_random_state_alone() -> None:
    query, state = random(1, 2, 640, 8), torch.get_rng_state()
    first = RowSample(0.3, seed=1).blocks(query)
    assert torch.equal(torch.get_rng_state(), state)
    again, other = RowSample(0.3, seed=1).blocks(query), RowSample(0.3, seed=2).blocks(query)
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(len(set(blocks)) == 3 for blocks in first.flatten(0, 1).tolist())


def test_choices_of_rows() -> None:
    assert row_sample("all") is None
    assert row_sample("sample:0.2") == RowSample(0.2)
    for rows in ("some", "sample", "sample:much", "all:0.1"):
        with pytest.raises(UsageError, match=rf"unknown choice of rows; expected all, sample:FRACTION; got {rows}"):
            row_sample(rows)
    with pytest.raises(UsageError, match=r"not a part of the rows; expected 0 < fraction < 1; got 2.0"):
        row_sample("sample:2")
