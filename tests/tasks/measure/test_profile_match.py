"""A profile of another model or size is refused with the difference, unless it is forced."""

from __future__ import annotations

import pytest
import torch

from ieadapt.errors import UsageError
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.method import enhancement
from ieadapt.tasks.measure.method import measure
from ieadapt.tasks.measure.profile import EntropyProfile
from tests.families import PROMPTS, run, tiny_pipeline
from tests.tasks.test_generate import config_for
from tests.tiny import build

CONFIG = EnhanceConfig(start=0, sites="temporal/joint:top=1")


def _profile(family: str = "wan") -> EntropyProfile:
    return measure(tiny_pipeline(family), PROMPTS[0], config_for(family))


def test_the_same_model_in_another_precision_is_the_same() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        enhancement(build("wan").to(dtype), CONFIG, _profile()).__enter__()


def test_other_weights_are_another_model() -> None:
    with pytest.raises(UsageError, match="profile was measured on another model; expected the weights of WanPipeline"):
        enhancement(build("wan", seed=5), CONFIG, _profile()).__enter__()


def test_other_sites_are_another_model() -> None:
    profile = _profile()
    profile.metadata = {}
    profile.table = profile.table.filter(profile.table["head"] == 0)
    with pytest.raises(UsageError, match=r"expected 2 heads; got blocks.0.attn1 with 1 heads"):
        enhancement(tiny_pipeline("wan"), CONFIG, profile).__enter__()


def test_another_size_is_refused_when_the_run_shows_it() -> None:
    profile = _profile()
    assert profile.metadata["latent_grid"] == [3, 4, 6]
    with (
        pytest.raises(
            UsageError,
            match="measured at another size; expected 2 frames of 4 x 6 tokens; got 3 frames of 4 x 6 tokens; remedy",
        ),
        enhancement(tiny_pipeline("wan"), CONFIG, profile),
    ):
        run("wan", num_frames=5)
    with enhancement(tiny_pipeline("wan"), CONFIG, profile, force=True) as told:
        run("wan", num_frames=5)
    assert told.weak_passes == 2


def test_another_model_can_be_forced() -> None:
    pipe = build("wan", seed=5)
    with enhancement(pipe, EnhanceConfig(start=0, sites="joint:top=1", scale=0), _profile(), force=True) as told:
        assert len(told.sites) == 1
