"""A perfect edit has full scores; a copy of the source keeps everything and changes nothing."""

from __future__ import annotations

import pytest
import torch

from ieadapt.metrics.structure import psnr, region_psnr
from ieadapt.tasks.demo.run import score_edit
from ieadapt.testbed import render
from ieadapt.testbed.edits import ALL_KINDS, edit_pairs
from ieadapt.testbed.scene import SCENE_NUMBERS

QUICK = ("colour", "motion")
PAIRS = {kind: edit_pairs(1, [kind])[0] for kind in ALL_KINDS}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow) for kind in ALL_KINDS]
)
def test_the_perfect_edit_and_the_copy(kind: str) -> None:
    pair = PAIRS[kind]
    perfect = score_edit(pair.perfect, pair)
    assert (perfect.psnr, perfect.kept, perfect.success) == (100.0, 100.0, 1.0)
    assert perfect.ssim == pytest.approx(1.0, abs=1e-4)
    assert perfect.preserved > 0.9
    copy = score_edit(pair.source_frames, pair)
    assert copy.kept > 55
    assert copy.success == 0.0
    assert copy.psnr < 30
    assert copy.preserved > 0.6


def test_a_new_background_may_lie_anywhere() -> None:
    pair = PAIRS["background"]
    shift = SCENE_NUMBERS.index("shift_x")
    variation = list(pair.target.variation)
    variation[shift] = (variation[shift] + 0.37) % 1
    shifted = render(pair.target.replace(variation=tuple(variation)))
    scores = score_edit(shifted, pair)
    assert scores.psnr > psnr(shifted, pair.perfect) + 3
    assert scores.success == 1.0


def test_noise_outside_the_change_lowers_what_is_kept() -> None:
    pair = PAIRS["colour"]
    noise = 0.1 * torch.randn(pair.perfect.shape, generator=torch.Generator().manual_seed(0))
    scores = score_edit((pair.perfect + noise).clamp(0, 1), pair)
    assert 20 <= scores.kept < 22.5
    assert scores.success == 1.0


def test_a_region_that_is_empty_is_kept_whole() -> None:
    clip = torch.rand(2, 3, 4, 4)
    assert region_psnr(clip, 1 - clip, torch.zeros(2, 4, 4, dtype=torch.bool)) == 100.0
