"""VMAF by ffmpeg: the way it goes under damage, a pair with a known value, and what is said where ffmpeg fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ieadapt.errors import FailureError, UsageError
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.structure import vmaf
from ieadapt.metrics.weights import PackagedWeights
from tests.metrics import clips
from tests.metrics.needs import needs

CLIP = clips.pan(64, 96, 4, 2, 1)


@needs("vmaf")
@pytest.mark.parametrize("damage", [clips.blur, clips.noise])
def test_more_damage_reads_lower(damage: object) -> None:
    values = [vmaf(frames, CLIP) for frames in (CLIP, damage(CLIP, 0.2), damage(CLIP, 1.0))]
    assert values == sorted(values, reverse=True)
    assert values[0] > 97
    assert 0 <= values[-1] < 90


@needs("vmaf")
def test_values_of_another_clip_do_not_leak() -> None:
    assert vmaf(CLIP, CLIP) == vmaf(CLIP, CLIP)
    assert vmaf(CLIP[:, :, :33, :35], CLIP[:, :, :33, :35]) > 90, "odd sizes too"


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
        metric(CLIP, CLIP)


def test_a_missing_program_is_said_with_the_command() -> None:
    metric = replace(vmaf, weights=replace(vmaf.weights, package="no_such"))
    text = r"needs a build of ffmpeg with libvmaf not yet installed; .*pip install --no-deps imageio-ffmpeg=="
    with pytest.raises(UsageError, match=text):
        metric(CLIP, CLIP)
