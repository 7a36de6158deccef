"""PSNR, SSIM, MS-SSIM and VMAF: against their formulas where they have one, and the way they go under damage."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ieadapt.errors import FailureError, UsageError
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.structure import ms_ssim, psnr, ssim, vmaf
from ieadapt.metrics.weights import PackagedWeights
from tests.metrics import clips
from tests.metrics.needs import needs

CLIP = clips.pan(48, 64, 8, 2, 1)

WORSE = {
    "blur": [clips.blur(CLIP, sigma) for sigma in (0.7, 1.5, 3.0)],
    "noise": [clips.noise(CLIP, deviation) for deviation in (0.02, 0.1, 0.3)],
    "jitter": [clips.jittered_pan(48, 64, reach) for reach in (1, 2, 4)],
    "shuffle": [clips.shuffled(CLIP)],
}

MOVING = clips.pan(64, 96, 4, 2, 1)


def _psnr_by_formula(frames: Tensor, reference: Tensor) -> float:
    error = np.mean((frames.double().numpy() - reference.double().numpy()) ** 2)
    return 10 * math.log10(1 / error)


def _ssim_by_windows(first: np.ndarray, second: np.ndarray) -> float:
    """Wang et al. 2004, equations 13-17: every place of the window by itself; one channel of one frame."""
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for row in range(first.shape[0] - 10):
        for column in range(first.shape[1] - 10):
            a, b = (picture[row : row + 11, column : column + 11] for picture in (first, second))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            variance_a, variance_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
            values.append(luminance * (2 * covariance + 9e-4) / (variance_a + variance_b + 9e-4))
    return float(np.mean(values))


def test_psnr_is_its_formula() -> None:
    frames, reference = torch.rand(2, 5, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    assert psnr(frames, reference) == pytest.approx(_psnr_by_formula(frames, reference), abs=1e-6)


def test_psnr_averages_the_error_before_the_logarithm() -> None:
    """One frame equal and one off by 0.1 everywhere: half of the squared error 0.01."""
    reference = torch.full((2, 3, 4, 4), 0.5)
    frames = reference + torch.tensor([0.0, 0.1]).view(2, 1, 1, 1)
    assert psnr(frames, reference) == pytest.approx(10 * math.log10(200), abs=1e-4)


def test_ssim_is_its_formula_at_every_window() -> None:
    frames = clips.texture(16, 24)[None]
    reference = clips.noise(clips.blur(frames, 0.8), 0.1)
    by_windows = [_ssim_by_windows(a, b) for a, b in zip(frames[0].numpy(), reference[0].numpy(), strict=True)]
    assert ssim(frames, reference) == pytest.approx(np.mean(by_windows), abs=1e-4)


def test_ssim_is_the_mean_over_all_frames() -> None:
    """Eleven frames, more than are read at once."""
    frames = clips.pan(16, 24, 11, 1, 0)
    reference = clips.noise(frames, 0.1)
    alone = [ssim(a[None], b[None]) for a, b in zip(frames, reference, strict=True)]
    assert ssim(frames, reference) == pytest.approx(np.mean(alone), abs=1e-6)


def _window_means(picture: np.ndarray) -> np.ndarray:
    """Gaussian means at the places where the 11x11 window fits, one axis after the other."""
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()
    for axis in (0, 1):
        picture = np.apply_along_axis(lambda line: np.convolve(line, taps, mode="valid"), axis, picture)
    return picture


def _ms_ssim_by_formula(first: np.ndarray, second: np.ndarray) -> float:
    """Wang et al. 2003, equation 7, for one channel; each scale is the last one averaged over 2x2 pixels."""
    product = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        a, b = _window_means(first), _window_means(second)
        variances = _window_means(first**2) - a**2 + _window_means(second**2) - b**2
        contrast = (2 * (_window_means(first * second) - a * b) + 9e-4) / (variances + 9e-4)
        luminance = (2 * a * b + 1e-4) / (a**2 + b**2 + 1e-4) if scale == 4 else 1.0
        product *= np.mean(luminance * contrast) ** weight
        rows, columns = (length // 2 * 2 for length in first.shape)
        halves = [
            picture[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3))
            for picture in (first, second)
        ]
        first, second = halves
    return product


def test_ms_ssim_is_its_formula() -> None:
    """One channel three times, so that the mean over channels before the powers changes nothing."""
    reference = clips.texture(180, 190)[:1].expand(3, -1, -1)[None]
    frames = clips.noise(clips.blur(reference, 0.8), 0.1)[:, :1].expand(-1, 3, -1, -1)
    by_formula = _ms_ssim_by_formula(frames[0, 0].double().numpy(), reference[0, 0].double().numpy())
    assert ms_ssim(frames, reference) == pytest.approx(by_formula, abs=2e-3)


def test_ms_ssim_falls_with_damage() -> None:
    clip = clips.pan(176, 180, 2, 2, 1)
    worse = [clips.noise(clip, deviation) for deviation in (0.02, 0.1, 0.3)]
    values = [ms_ssim(frames, clip) for frames in (clip, *worse)]
    assert values[0] == pytest.approx(1.0, abs=1e-5)
    assert values == sorted(values, reverse=True)


def test_equal_clips_and_opposite_clips() -> None:
    black, white = torch.zeros(2, 3, 16, 24), torch.ones(2, 3, 16, 24)
    assert psnr(CLIP, CLIP) == 100.0
    assert psnr(black, white) == 0.0
    assert ssim(CLIP, CLIP) == pytest.approx(1.0, abs=1e-6)
    assert ssim(black, white) == pytest.approx(1e-4, abs=1e-5)
    assert ssim(CLIP, 1 - CLIP) < 0


@pytest.mark.parametrize("damage", WORSE)
@pytest.mark.parametrize("metric", [psnr, ssim])
def test_more_damage_reads_lower(metric: object, damage: str) -> None:
    values = [metric(frames, CLIP) for frames in (CLIP, *WORSE[damage])]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_both_are_symmetric(metric: object) -> None:
    other = clips.noise(CLIP, 0.1)
    assert metric(CLIP, other) == pytest.approx(metric(other, CLIP), rel=1e-6)


@needs("vmaf")
@pytest.mark.parametrize("damage", [clips.blur, clips.noise])
def test_more_damage_lowers_vmaf(damage: object) -> None:
    values = [vmaf(frames, MOVING) for frames in (MOVING, damage(MOVING, 0.2), damage(MOVING, 1.0))]
    assert values == sorted(values, reverse=True)
    assert values[0] > 97
    assert 0 <= values[-1] < 90


@needs("vmaf")
def test_vmaf_takes_odd_sizes_and_repeats() -> None:
    assert vmaf(MOVING, MOVING) == vmaf(MOVING, MOVING)
    assert vmaf(MOVING[:, :, :33, :35], MOVING[:, :, :33, :35]) > 90, "odd sizes too"


def _program(folder: Path, monkeypatch: pytest.MonkeyPatch, lines: str) -> Metric:
    package = folder / "an_ffmpeg"
    (package / "binaries").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "binaries" / "ffmpeg-here").write_text(f"#!/bin/sh\n{lines}\n")
    (package / "binaries" / "ffmpeg-here").chmod(0o755)
    monkeypatch.syspath_prepend(folder)
    return replace(vmaf, weights=PackagedWeights("an_ffmpeg", "x==1", "binaries/ffmpeg-*", "-", "a build"))


@pytest.mark.parametrize(
    ("lines", "text"), [("echo no such filter >&2; exit 8", "no such filter"), ("exit 0", "no message")]
)
def test_a_program_that_fails_is_said(lines: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = _program(tmp_path, monkeypatch, lines)
    with pytest.raises(
        FailureError, match=f"ffmpeg cannot compute VMAF; got {text}; in .*ffmpeg-here; remedy: run make"
    ):
        metric(MOVING, MOVING)


def test_a_missing_program_is_said_with_the_command() -> None:
    metric = replace(vmaf, weights=replace(vmaf.weights, package="no_such"))
    text = r"needs a build of ffmpeg with libvmaf not yet installed; .*pip install --no-deps imageio-ffmpeg=="
    with pytest.raises(UsageError, match=text):
        metric(MOVING, MOVING)
