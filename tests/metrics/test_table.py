"""The table of metrics, the choice among them, `evaluate`, and what every metric refuses."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import get_args

import pytest
import torch

import ieadapt.metrics.table
from ieadapt.errors import UsageError
from ieadapt.metrics import METRICS, Metric, evaluate, missing_metrics, select_metrics
from ieadapt.metrics.metric import Aspect, Better, Compares
from tests.metrics import clips

FREE = [name for name, metric in METRICS.items() if metric.weights is None]
LEAST = {
    "psnr": (1, 1, 1),
    "ssim": (1, 11, 11),
    "ms_ssim": (1, 176, 176),
    "vmaf": (1, 32, 32),
    "st_lpips": (1, 8, 8),
    "lpips_alex": (1, 64, 64),
    "lpips_vgg": (1, 32, 32),
    "warp_error": (2, 12, 12),
    "warp_error_raft": (2, 128, 128),
    "flicker": (2, 1, 1),
    "rife_smoothness": (3, 16, 16),
    "mobilenet_consistency": (2, 8, 8),
    "mobilenet_pairs": (2, 8, 8),
    "clip_consistency": (2, 8, 8),
    "clip_pairs": (2, 8, 8),
    "dino_consistency": (2, 8, 8),
    "motion": (2, 12, 12),
    "dynamic_degree": (3, 128, 128),
    "temporal_information": (2, 1, 1),
    "sharpness": (1, 3, 3),
    "niqe": (1, 288, 288),
    "brisque": (1, 32, 32),
    "aesthetic": (1, 8, 8),
    "clip_text": (1, 8, 8),
    "pickscore": (1, 8, 8),
}
CLIP = clips.pan(16, 24, 3, 1, 0)
SMALL = [name for name in FREE if LEAST[name][1] <= 16]
SINGLE = ["warp_error", "flicker", "motion", "temporal_information", "sharpness"]


def _call(metric: Metric, frames: torch.Tensor) -> float:
    return metric(frames, frames) if metric.compares == "pair" else metric(frames)


@pytest.mark.parametrize("name", METRICS)
def test_every_row_says_what_it_is(name: str) -> None:
    metric = METRICS[name]
    assert metric.name == name
    assert all([metric.definition, metric.range, metric.source, metric.cost])
    assert metric.better in get_args(Better)
    assert metric.compares in get_args(Compares)
    assert metric.aspect in get_args(Aspect)
    assert getattr(sys.modules[metric.__module__], name) is metric, "a metric stands on its page under its name"
    assert "Returns:" in (metric.__doc__ or "")


def test_names_have_one_style() -> None:
    """As the columns of recorded studies, and as keys of `--weights`."""
    given = [each.key for metric in METRICS.values() for each in getattr(metric.weights, "sets", ())]
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in [*METRICS, *given])


def test_every_metric_is_tested_here() -> None:
    assert list(LEAST) == list(METRICS)


@pytest.mark.parametrize("name", FREE)
def test_the_smallest_clip_it_states_is_accepted(name: str) -> None:
    frames, height, width = LEAST[name]
    value = _call(METRICS[name], torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(0)))
    assert torch.isfinite(torch.tensor(value))


@pytest.mark.parametrize("name", METRICS)
def test_a_smaller_clip_is_refused(name: str) -> None:
    """With weights and without: a clip is looked at before any weights are."""
    frames, height, width = LEAST[name]
    smaller = [(frames - 1, height, width)] * (frames > 1)
    smaller += [(frames, height - 1, width), (frames, height, width - 1)] if height > 1 else []
    for size in smaller:
        text = f"too small; expected at least {frames} frames? of {width}x{height} pixels; got {size[0]} frame"
        with pytest.raises(UsageError, match=f"{text}s? of {size[2]}x{size[1]} pixels; in the metric {name}"):
            _call(METRICS[name], torch.zeros(size[0], 3, *size[1:]))


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    ("frames", "text"),
    [
        (torch.full((3, 3, 16, 24), 255.0), "colours are between 0 and 1; got values from 255 to 255; .*divide 8-bit"),
        (torch.full((3, 3, 16, 24), -1.0), "got values from -1 to -1"),
        (torch.full((3, 3, 16, 24), float("nan")), "a clip holds NaN"),
        (torch.full((3, 3, 16, 24), float("inf")), "got values from inf to inf"),
        (torch.zeros(3, 4, 16, 24), "red, green and blue; got 4 channels; .*drop the alpha channel"),
        (torch.zeros(3, 1, 16, 24), "got 1 channels; .*repeat grey three times"),
    ],
)
def test_what_is_not_a_clip_is_refused(name: str, frames: torch.Tensor, text: str) -> None:
    _, height, width = LEAST[name]
    large = frames.repeat(1, 1, -(-height // 16), -(-width // 24))
    with pytest.raises(UsageError, match=text):
        _call(METRICS[name], large)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.compares == "pair"])
def test_a_pair_of_different_sizes_is_refused(name: str) -> None:
    """Before any weights are looked for."""
    text = "same size; got 3 frames of 24x16 pixels and 2 frames of 24x16 pixels; .*resize or trim"
    with pytest.raises(UsageError, match=text):
        evaluate(CLIP, CLIP[:2], [METRICS[name]])


def test_a_choice_keeps_its_order_and_counts_once() -> None:
    assert [metric.name for metric in select_metrics(["motion", "psnr", "motion"])] == ["motion", "psnr"]
    assert select_metrics("motion, psnr") == select_metrics(["motion", "psnr"])
    assert {*FREE} <= {metric.name for metric in select_metrics()}
    assert {metric.name for metric in [*select_metrics(), *missing_metrics()]} == set(METRICS)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (
            ["ssmi"],
            "no metric 'ssmi'; expected a name such as ssim, ms_ssim; remedy: choose among psnr, ssim, ms_ssim",
        ),
        (["st-lpips"], "no metric 'st-lpips'; expected a name such as st_lpips"),
        (["zzz"], "no metric 'zzz'; remedy: choose among"),
        ([], "the choice of metrics is empty; expected psnr, ssim"),
        ("", "the choice of metrics is empty"),
    ],
)
def test_an_unknown_or_empty_choice_is_refused(names: list[str] | str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        select_metrics(names)


def test_evaluate_with_a_reference_gives_changes_and_pairs() -> None:
    noisy = clips.noise(CLIP, 0.1)
    values = evaluate(noisy, CLIP, SMALL)
    assert set(values) == {"psnr", "ssim", *SINGLE, *(f"{name}_change" for name in SINGLE)}
    alone, before = evaluate(noisy, metrics=SMALL), evaluate(CLIP, metrics=SMALL)
    for name in SINGLE:
        assert values[f"{name}_change"] == pytest.approx(alone[name] - before[name])
    same = evaluate(CLIP, CLIP, select_metrics(SMALL))
    assert all(same[f"{name}_change"] == 0 for name in SINGLE)


def test_evaluate_without_a_reference_gives_single_metrics() -> None:
    assert set(evaluate(CLIP, metrics=FREE)) == set(SINGLE)
    with pytest.raises(UsageError, match="compare two clips; got psnr, ssim; remedy: pass a reference"):
        evaluate(CLIP, metrics=["psnr", "ssim"])


def test_the_values_of_a_reference_need_not_be_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy, known = clips.noise(CLIP, 0.1), evaluate(CLIP, metrics=SMALL)
    seen = []

    def watched(metric: Metric) -> Metric:
        function: Callable[..., float] = metric.function
        return replace(metric, function=wraps(function)(lambda *clips: (seen.append(clips), function(*clips))[1]))

    rows = [watched(METRICS[name]) for name in ("flicker", "motion")]
    assert evaluate(noisy, CLIP, rows, reference_values=known) == evaluate(noisy, CLIP, ["flicker", "motion"])
    assert [len(arguments) for arguments in seen] == [1, 1]


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        ieadapt.metrics.table.METRICS["psnr"] = None


def test_importing_the_table_brings_neither_opencv_nor_torchmetrics() -> None:
    code = "import sys, ieadapt.metrics; print([m for m in ('cv2', 'torchmetrics', 'torchvision') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_metrics_run_without_torchvision() -> None:
    """Whatever torchmetrics and OpenCV import on the way, torchvision is not among it."""
    evaluate(CLIP, CLIP, SMALL)
    assert not [name for name in sys.modules if name.split(".")[0] == "torchvision"]
