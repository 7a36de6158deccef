"""Flow and motion on clips whose motion is known, and temporal information against its definition."""

from __future__ import annotations

import itertools
import math
import re
import subprocess

import pytest
import torch
from torch.nn import functional as F

from ieadapt.metrics.consistency import (
    flicker,
    warp_error,
)
from ieadapt.metrics.flow import optical_flow
from ieadapt.metrics.motion import motion, temporal_information
from ieadapt.metrics.structure import vmaf
from tests.metrics import clips
from tests.metrics.needs import needs

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


def test_jitter_and_shuffling_are_motion() -> None:
    values = [motion(CLIP), *(motion(clips.jittered_pan(64, 64, reach)) for reach in (1, 2, 3))]
    assert values == sorted(values)
    assert motion(clips.shuffled(CLIP)) > 2 * motion(CLIP)
    assert warp_error(clips.jittered_pan(64, 64, 2)) < 1, "flow follows a jitter of the whole frame"


def test_dropped_frames_freeze_the_motion() -> None:
    assert motion(CLIP[[0, 0, 0, 0, 4, 4, 4, 4]]) < 0.7 * motion(CLIP)


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
