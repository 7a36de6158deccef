"""Flicker and sharpness against their definitions, and the way they go under damage."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

from ieadapt.metrics.consistency import flicker
from ieadapt.metrics.quality import sharpness
from tests.metrics import clips

CLIP = clips.pan(48, 64, 8, 2, 1)


def test_flicker_is_what_vbench_measures() -> None:
    """VBench: mean absolute difference of neighbouring 8-bit frames, score (255 - mean) / 255."""
    pictures = (CLIP * 255).round()
    bytes_ = pictures.movedim(1, -1).numpy().astype(np.uint8)
    differences = [cv2.absdiff(a, b).mean() for a, b in pairwise(bytes_)]
    score = (255.0 - np.mean(differences)) / 255.0
    assert 1 - flicker(pictures / 255) / 255 == pytest.approx(score, abs=1e-6)


def test_flicker_rises_with_noise_flashing_jitter_and_shuffling() -> None:
    for worse in (
        [clips.noise(CLIP, deviation) for deviation in (0.02, 0.1, 0.3)],
        [clips.flashing(CLIP, depth) for depth in (0.05, 0.2, 0.4)],
        [clips.jittered_pan(48, 64, 1)],
        [clips.shuffled(CLIP)],
    ):
        values = [flicker(frames) for frames in (CLIP, *worse)]
        assert values == sorted(values)
        assert len(set(values)) == len(values)


def test_sharpness_is_the_variance_of_opencv_s_laplacian() -> None:
    pictures = (CLIP * 255).round()
    values = []
    for picture in pictures.movedim(1, -1).numpy():
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        values.append(cv2.Laplacian(grey.astype(np.float64), cv2.CV_64F, ksize=1)[1:-1, 1:-1].var())
    assert sharpness(pictures / 255) == pytest.approx(np.mean(values), rel=1e-4)


def test_a_chequerboard_by_hand() -> None:
    """Each white pixel has four black neighbours: Laplacian +-4 in units of 255."""
    board = ((torch.arange(10)[:, None] + torch.arange(10)) % 2.0).expand(2, 3, 10, 10)
    assert sharpness(board) == pytest.approx((4 * 255) ** 2, rel=1e-6)
    assert sharpness((torch.arange(10) / 10).expand(2, 3, 10, 10)) == pytest.approx(0.0, abs=1e-6)


def test_blur_lowers_sharpness_and_noise_raises_it() -> None:
    blurred = [sharpness(clips.blur(CLIP, sigma)) for sigma in (3.0, 1.5, 0.7)]
    noisy = [sharpness(clips.noise(CLIP, deviation)) for deviation in (0.02, 0.1, 0.3)]
    values = [*blurred, sharpness(CLIP), *noisy]
    assert values == sorted(values)


def test_the_order_of_frames_is_nothing_to_sharpness() -> None:
    assert sharpness(clips.shuffled(CLIP)) == pytest.approx(sharpness(CLIP))
