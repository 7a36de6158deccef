"""Rows, means and sums of an attention map against the dense map, and the memory they take."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.functional import Attention, cross_frame_intensity, map_rows, map_sums, mean_map_rows

LIMITS = [2**12, 2**28]
MASKS = ["none", "keys", "keys per head", "rows", "additive"]


def qkv(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 3, 11, 8).to(dtype), torch.randn(2, 3, 7, 8).to(dtype)


def attention(mask: Tensor | None = None) -> Attention:
    query, key = qkv()
    return Attention(query, key, key, mask)


def make_mask(name: str) -> Tensor | None:
    torch.manual_seed(1)
    keep = torch.rand(2, 3, 11, 7) > 0.4
    keep[..., 0] = True
    return {
        "none": None,
        "keys": keep[:1, :1, :1],
        "keys per head": keep[:1, :, :1],
        "rows": keep,
        "additive": torch.where(keep[:, :1], 0.3, -1e4),
    }[name]


def dense(query: Tensor, key: Tensor, mask: Tensor | None, scale: float = 8**-0.5) -> Tensor:
    logits = query.double() @ key.double().transpose(-1, -2) * scale
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask.double()
    return logits.softmax(-1)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("name", MASKS)
def test_rows_are_those_of_the_dense_map(name: str, limit: int) -> None:
    (query, key), mask = qkv(), make_mask(name)
    found = map_rows(Attention(query, key, key, mask, memory_limit=limit), [5, 0, 5])
    torch.testing.assert_close(found.double(), dense(query, key, mask)[:, :, [5, 0, 5]], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("name", MASKS)
def test_means_are_those_of_the_dense_map(name: str, limit: int) -> None:
    (query, key), mask = qkv(), make_mask(name)
    found = mean_map_rows(Attention(query, key, key, mask, 0.7, memory_limit=limit), [slice(0, 11), slice(2, 4)])
    whole = dense(query, key, mask, 0.7)
    expected = torch.stack([whole.mean(2), whole[:, :, 2:4].mean(2)], 2)
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("name", MASKS)
def test_sums_are_those_of_the_dense_map(name: str, limit: int) -> None:
    (query, key), mask = qkv(), make_mask(name)
    groups = torch.zeros(7, 2)
    groups[[1, 4], 0], groups[6, 1] = 1, 1
    found = map_sums(Attention(query, key, key, mask, memory_limit=limit), groups)
    torch.testing.assert_close(found.double(), dense(query, key, mask) @ groups.double(), atol=1e-6, rtol=1e-5)


def test_half_precision_is_computed_in_float32() -> None:
    query, key = qkv(torch.bfloat16)
    found = map_rows(Attention(query, key, key), range(11))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), dense(query, key, None), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rows", [[11], [-1], []])
def test_a_row_that_is_no_query_is_refused(rows: list[int]) -> None:
    with pytest.raises(UsageError, match=r"no rows of the attention map; expected at least one index in 0\.\.10"):
        map_rows(attention(), rows)


@pytest.mark.parametrize("span", [slice(3, 3), slice(8, 12)])
def test_a_span_outside_the_queries_is_refused(span: slice) -> None:
    with pytest.raises(UsageError, match=r"no such span of queries; expected within 0\.\.11"):
        mean_map_rows(attention(), [span])


def test_groups_of_other_keys_are_refused() -> None:
    with pytest.raises(UsageError, match="groups do not fit the keys; expected 7 keys; got 8"):
        map_sums(attention(), torch.ones(8, 2))


def test_a_limit_below_one_row_is_refused() -> None:
    with pytest.raises(UsageError, match="memory limit holds less than one row"):
        map_rows(replace(attention(), memory_limit=64), [0])


def test_a_row_without_keys_is_zero() -> None:
    mask = torch.ones(11, 7, dtype=torch.bool)
    mask[3] = False
    sums = map_rows(attention(mask), [3, 4]).sum(-1)
    torch.testing.assert_close(sums, torch.tensor([0.0, 1.0]).expand(2, 3, 2))
    assert mean_map_rows(attention(mask), [slice(3, 4)]).sum() == 0
    assert map_sums(attention(mask), torch.ones(7, 1))[:, :, 3].sum() == 0


MEASURE = """
import dataclasses, resource, sys, torch
torch.set_num_threads(1)
from ieadapt.functional import Attention, map_rows, map_sums, mean_map_rows
query, key = torch.randn(1, 1, 17776, 64), torch.randn(1, 1, 17776, 64)
small = [each[..., :64, :] for each in (query, key, key)]
attention = Attention(query, key, key)
map_rows(Attention(*small), [0])  # first calls load kernels
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.argv[1] == "row":
    row = map_rows(dataclasses.replace(attention, memory_limit=2**20), [226])
    assert row.shape == (1, 1, 1, 17776) and abs(row.sum().item() - 1) < 1e-4
else:
    attention = dataclasses.replace(attention, memory_limit=2**24)
    mean_map_rows(attention, [slice(226, 226 + 1350)])
    map_sums(attention.of_rows(slice(0, 1350)), torch.ones(17776, 3))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize(("what", "megabytes"), [("row", 24), ("mean", 48)])
def test_a_head_of_cogvideox_takes_little_memory(what: str, megabytes: float) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, what], capture_output=True, text=True, check=True, timeout=300
    )
    assert float(done.stdout) < megabytes  # the map alone would take 1,264


def _tokens(seed: int, frames: int = 4) -> torch.Tensor:
    return torch.randn(2, 3, frames, 5, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("memory_limit", [1, 2**30])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_it_is_the_mean_off_the_diagonal(memory_limit: int, scale: float | None) -> None:
    query, key = _tokens(0), _tokens(1)
    found = cross_frame_intensity(query, key, scale=scale, memory_limit=memory_limit)
    for row in range(2):
        entries = []
        for head in range(3):
            for position in range(5):
                logits = query[row, head, :, position] @ key[row, head, :, position].T * (scale or 8**-0.5)
                weights = logits.softmax(dim=-1)
                entries += [float(weights[i, j]) for i in range(4) for j in range(4) if i != j]
        assert float(found[row]) == pytest.approx(sum(entries) / len(entries), rel=1e-5)


def test_its_ends() -> None:
    same = torch.zeros(1, 1, 4, 2, 8)
    assert cross_frame_intensity(same, same).tolist() == pytest.approx([0.25])
    sharp = 50 * torch.eye(4).reshape(1, 1, 4, 1, 4)
    assert cross_frame_intensity(sharp, sharp).tolist() == pytest.approx([0.0], abs=1e-6)
    assert cross_frame_intensity(_tokens(0, frames=1), _tokens(1, frames=1)).tolist() == [0.0, 0.0]
