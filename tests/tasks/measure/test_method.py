"""Measuring every family."""

from __future__ import annotations

import pytest

from ieadapt.attention import find_sites
from ieadapt.errors import UsageError
from ieadapt.tasks.measure.method import measure
from tests.families import PROMPTS, every_family, tiny_pipeline
from tests.tasks.test_generate import config_for


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
    levels = profile.figures["level"]
    assert set(levels) == {site.name for site in find_sites(pipe) if site.kind != "text"}
    coarser = {rows * columns, ((rows + 1) // 2) * ((columns + 1) // 2)}
    assert set(levels.values()) == (coarser if family in ("animatediff", "modelscope") else {rows * columns})
    temporal = profile.by_site().filter(profile.by_site()["kind"] == "temporal")
    assert set(temporal["n_keys"]) <= {frames}
    assert len(profile.metadata["weights_sample"]) == 32
