"""Clips that cannot be edited are refused before anything is computed, with what would fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.models.memory import memory_estimate
from ieadapt.tasks.edit.clip_check import check_clip
from ieadapt.tasks.edit.inversion import invert
from ieadapt.tasks.edit.method import edit
from tests.families import every_family, tiny_pipeline
from tests.tasks.edit.fixture import SOURCE, clip


@every_family
def test_a_clip_that_fits(family: str) -> None:
    frames = clip(family)
    assert check_clip(tiny_pipeline(family), frames) == (len(frames), *frames.shape[2:])


@pytest.mark.parametrize(
    ("family", "frames", "message"),
    [
        (
            "wan",
            torch.rand(9, 1, 32, 48),
            r"not a clip; expected frames of shape \(frame, 3, height, width\); got \(9, 1,",
        ),
        ("wan", torch.rand(1, 3, 32, 48), "a clip needs frames; expected at least 2; got 1"),
        ("wan", torch.rand(0, 3, 32, 48), "a clip needs frames; expected at least 2; got 0"),
        ("wan", 2 * torch.ones(9, 3, 32, 48), r"colours out of range; expected finite values in \[0, 1\]; got up to 2"),
        ("wan", torch.full((9, 3, 32, 48), torch.nan), "colours out of range"),
        (
            "wan",
            torch.rand(8, 3, 32, 50),
            r"cannot take a clip of this size; expected height and width in multiples of 16, 1 more than a multiple of "
            r"4 frames; got 8 frames of 50x32; in WanPipeline; remedy: the nearest size below it is 5 frames of 48x32",
        ),
        (
            "animatediff",
            torch.rand(33, 3, 16, 24),
            r"any number of frames, at most 32; got 33 frames of 24x16.*nearest size below it is 32 frames of 24x16",
        ),
    ],
)
def test_clips_that_do_not_fit(family: str, frames: Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_clip(tiny_pipeline(family), frames)


def test_edit_and_invert_refuse_before_they_begin() -> None:
    for refused in (
        lambda frames: edit(tiny_pipeline("wan"), frames, "a cube", source_prompt=SOURCE),
        lambda frames: invert(tiny_pipeline("wan"), frames, SOURCE),
    ):
        with pytest.raises(UsageError, match="cannot take a clip of this size"):
            refused(clip("wan")[:-1])


def test_a_clip_too_large_for_the_memory_is_refused_with_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ieadapt.tasks.edit.clip_check.free_memory", lambda device: 2**21)
    huge = torch.zeros(9, 3, 32, 48).expand(9, 3, 32, 48)
    assert memory_estimate(tiny_pipeline("wan"), 9, 32, 48) < 2**21
    check_clip(tiny_pipeline("wan"), huge)
    huge = torch.zeros(1).expand(9, 3, 320, 480)
    with pytest.raises(
        UsageError,
        match=r"too large for the memory; expected at most 0.0 GiB, which is free on cpu; got about 0\.\d GiB for 9",
    ):
        check_clip(tiny_pipeline("wan"), huge)


@every_family
def test_the_estimate_grows_with_the_clip(family: str) -> None:
    pipe, (frames, _, height, width) = tiny_pipeline(family), clip(family).shape
    small = memory_estimate(pipe, frames, height, width)
    assert memory_estimate(pipe, frames, 8 * height, 8 * width) == pytest.approx(64 * small, rel=0.01)


def test_the_estimate_of_a_known_model() -> None:
    """The bundled model's VAE on 16 frames of 128x128 holds feature maps of 32 channels at full resolution."""
    from ieadapt import load

    assert memory_estimate(load("shapes"), 16, 128, 128) == 16 * 128 * 128 * 32 * 4 * 6
