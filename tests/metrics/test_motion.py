"""Flow, motion and warp error on clips whose motion is known, and the way they go under damage."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ieadapt.errors import FailureError
from ieadapt.metrics.consistency import flicker, warp_error, warped_difference
from ieadapt.metrics.flow import optical_flow
from ieadapt.metrics.motion import motion
from tests.metrics import clips

CLIP = clips.pan(64, 64, 8, 2, 1)
STILL = CLIP[:1].repeat(8, 1, 1, 1)


@pytest.mark.parametrize(
    ("height", "width", "right", "down", "within"),
    [
        (16, 24, 1, 0, 0.05),
        (16, 24, 2, 1, 0.1),
        (32, 32, 3, -2, 0.1),
        (64, 64, 1, 0, 0.02),
        (64, 64, 6, 2, 0.05),
        (96, 160, 12, -5, 0.1),
        (144, 256, -9, 7, 0.1),
    ],
)
def test_a_pan_has_the_motion_it_was_made_with(height: int, width: int, right: int, down: int, within: float) -> None:
    clip = clips.pan(height, width, 3, right, down)
    middle = optical_flow(clip).median(dim=-1).values.median(dim=-1).values
    assert torch.allclose(middle, torch.tensor([[float(right), float(down)]]).expand(2, 2), atol=within)
    assert motion(clip) == pytest.approx(math.hypot(right, down), rel=0.03)


def test_a_zoom_moves_each_pixel_by_its_distance_from_the_centre() -> None:
    picture, scale = clips.texture(96, 96), 1.06
    axis = (2 * torch.arange(96) + 1) / 96 - 1
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)[None] / scale
    closer = F.grid_sample(picture[None], grid, mode="bicubic", padding_mode="border", align_corners=False).clamp(0, 1)
    flow = optical_flow(torch.cat((picture[None], closer)))[0]
    distance = (torch.arange(96) - 47.5) * (scale - 1)
    inner = slice(12, 84)
    assert (flow[0] - distance[None, :])[inner, inner].abs().mean() < 0.05
    assert (flow[1] - distance[:, None])[inner, inner].abs().mean() < 0.05


def test_a_flow_depends_on_its_two_frames_alone() -> None:
    whole = optical_flow(CLIP)
    assert torch.equal(whole[4:], optical_flow(CLIP[4:]))
    assert torch.equal(whole, optical_flow(CLIP))


def test_a_still_clip_reads_nothing() -> None:
    assert motion(STILL) == flicker(STILL) == 0.0
    assert warp_error(STILL) == pytest.approx(0.0, abs=1e-4), "sampling rounds"


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


def test_jitter_and_shuffling_are_motion() -> None:
    values = [motion(CLIP), *(motion(clips.jittered_pan(64, 64, reach)) for reach in (1, 2, 3))]
    assert values == sorted(values)
    assert motion(clips.shuffled(CLIP)) > 2 * motion(CLIP)
    assert warp_error(clips.jittered_pan(64, 64, 2)) < 1, "flow follows a jitter of the whole frame"


def test_dropped_frames_freeze_the_motion() -> None:
    assert motion(CLIP[[0, 0, 0, 0, 4, 4, 4, 4]]) < 0.7 * motion(CLIP)


def test_a_flow_that_leaves_everywhere_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ieadapt.metrics.consistency.optical_flow", lambda frames: torch.full((7, 2, 64, 64), 99.0))
    with pytest.raises(FailureError, match="flow leaves the frame everywhere; in the metric warp_error"):
        warp_error(CLIP)
