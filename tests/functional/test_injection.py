"""The source's map on the target's values, against whole maps in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ieadapt.errors import UsageError
from ieadapt.functional import VideoTokens, inject_output
from tests.functional import dense

VIDEO = VideoTokens(5, 4, 6)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def call(seed: int, size: int = VIDEO.stop) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(random(2, 3, size, 8, seed=seed + index) for index in range(3))  # type: ignore[return-value]


@pytest.mark.parametrize("video", [None, VIDEO])
def test_the_whole_map(video: VideoTokens | None) -> None:
    (query, key, value), (source_query, source_key, _) = call(0), call(10)
    found = inject_output(
        query, key, value, value, source_query=source_query, source_key=source_key, video=video, scope="all"
    )
    assert (found - dense.attention_map(source_query, source_key) @ value.double()).abs().max() < 1e-5


@pytest.mark.parametrize("source_start", [5, 2])
def test_only_the_video_block_keeps_the_targets_masses(source_start: int) -> None:
    source_video = VideoTokens(source_start, 4, 6)
    (query, key, value), (source_query, source_key, _) = call(0), call(10, source_video.stop)
    output = F.scaled_dot_product_attention(query, key, value)
    found = inject_output(
        query,
        key,
        value,
        output,
        source_query=source_query,
        source_key=source_key,
        source_video=source_video,
        video=VIDEO,
    )
    expected = dense.attention_map(query, key)
    rows, where = VIDEO.slice, source_video.slice
    source = dense.logits(source_query, source_key)[..., where, where].softmax(dim=-1)
    expected[..., rows, rows] = expected[..., rows, rows].sum(dim=-1, keepdim=True) * source
    assert (found - expected @ value.double()).abs().max() < 1e-5
    assert torch.equal(found[..., : VIDEO.start, :], output[..., : VIDEO.start, :])


def test_refusals() -> None:
    query, key, value = call(0)
    with pytest.raises(UsageError, match="no such scope; expected video or all"):
        inject_output(
            query, key, value, value, source_query=query, source_key=key, video=VIDEO, scope="video-renormalised"
        )
    with pytest.raises(UsageError, match="no causal order"):
        inject_output(query, key, value, value, source_query=query, source_key=key, is_causal=True)
