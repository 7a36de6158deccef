"""The source's map on the target's values, against whole maps in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.functional import Attention, VideoTokens, inject_output
from tests.functional import dense

VIDEO = VideoTokens(5, 4, 6)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def call(seed: int, size: int = VIDEO.stop) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(random(2, 3, size, 8, seed=seed + index) for index in range(3))  # type: ignore[return-value]


@pytest.mark.parametrize("video", [None, VIDEO])
def test_the_whole_map(video: VideoTokens | None) -> None:
    own, source = Attention(*call(0), video=video), Attention(*call(10), video=video)
    found = inject_output(own, source=source, scope="all")
    assert (found - dense.attention_map(source.query, source.key) @ own.value.double()).abs().max() < 1e-5


@pytest.mark.parametrize("source_start", [5, 2])
def test_only_the_video_block_keeps_the_targets_masses(source_start: int) -> None:
    source_video = VideoTokens(source_start, 4, 6)
    own = Attention(*call(0), video=VIDEO)
    source = Attention(*call(10, source_video.stop), video=source_video)
    output = own.output()
    found = inject_output(own, output, source=source)
    expected = dense.attention_map(own.query, own.key)
    rows, where = VIDEO.slice, source_video.slice
    foreign = dense.logits(source.query, source.key)[..., where, where].softmax(dim=-1)
    expected[..., rows, rows] = expected[..., rows, rows].sum(dim=-1, keepdim=True) * foreign
    assert (found - expected @ own.value.double()).abs().max() < 1e-5
    assert torch.equal(found[..., : VIDEO.start, :], output[..., : VIDEO.start, :])
    assert torch.allclose(inject_output(own, source=source), found, atol=1e-6)


def test_refusals() -> None:
    own = Attention(*call(0), video=VIDEO)
    with pytest.raises(UsageError, match="no such scope; expected video or all"):
        inject_output(own, source=own, scope="video-renormalised")
    with pytest.raises(UsageError, match=r'differ in their number of tokens; .* remedy: use scope="video"'):
        inject_output(own, source=Attention(*call(10, 26)), scope="all")
