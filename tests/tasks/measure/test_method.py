"""Measuring every family; a profile of another model or size is refused, unless it is forced."""

from __future__ import annotations

import pytest
import torch

from ieadapt.attention import find_sites
from ieadapt.errors import UsageError
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.method import enhancement
from ieadapt.tasks.measure.method import measure
from ieadapt.tasks.measure.profile import EntropyProfile
from tests.families import PROMPTS, every_family, run, tiny_pipeline
from tests.tasks.test_generate import config_for
from tests.tiny import build


@every_family
def test_a_profile_holds_every_site_step_and_branch(family: str) -> None:
    pipe = tiny_pipeline(family)
    profile = measure(pipe, PROMPTS, config_for(family), seed=3)
    assert profile.sites == find_sites(pipe)
    assert set(profile.table["step"]) == {0, 1}
    assert profile.table["ep"].is_between(0, 100).all()
    assert profile.table["energy"].gt(0).all()
    assert set(profile.table["videos"]) == {2}
    assert profile.metadata["prompts"] == PROMPTS
    assert profile.metadata["seed"] == 3


def test_only_the_sites_asked_for() -> None:
    profile = measure(tiny_pipeline("wan"), PROMPTS[0], config_for("wan"), sites="cross")
    assert {site.kind for site in profile.sites} == {"cross"}


def test_the_memory_limit_does_not_change_the_figures() -> None:
    pipe, config = tiny_pipeline("cogvideox"), config_for("cogvideox")
    wide, narrow = (measure(pipe, PROMPTS[0], config, memory_limit=limit) for limit in (2**28, 2**16))
    assert (wide.table["ep"] - narrow.table["ep"]).abs().max() < 1e-3


def test_sites_that_match_nothing() -> None:
    with pytest.raises(UsageError, match="matches no attention site"):
        measure(tiny_pipeline("wan"), PROMPTS[0], config_for("wan"), sites="temporal")


@every_family
def test_a_profile_knows_resolutions_size_and_weights(family: str) -> None:
    pipe = tiny_pipeline(family)
    profile = measure(pipe, PROMPTS[0], config_for(family))
    frames, rows, columns = profile.metadata["latent_grid"]
    levels = profile.statistics["resolution"]
    assert set(levels) == {site.name for site in find_sites(pipe) if site.kind != "text"}
    coarser = {rows * columns, ((rows + 1) // 2) * ((columns + 1) // 2)}
    assert set(levels.values()) == (coarser if family in ("animatediff", "modelscope") else {rows * columns})
    temporal = profile.by_site().filter(profile.by_site()["kind"] == "temporal")
    assert set(temporal["n_keys"]) <= {frames}
    assert len(profile.metadata["weights_sample"]) == 32


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
