"""Cross-frame intensity, against one map at a time."""

from __future__ import annotations

import pytest
import torch

from ieadapt.functional import cross_frame_intensity


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
