"""Choosing sites by entropy, name or chance."""

from __future__ import annotations

import pytest

from ieadapt.attention import AttentionSite
from ieadapt.errors import UsageError
from ieadapt.methods import SiteChoice

SITES = [AttentionSite(f"{kind}.{i}", kind, i, 2) for i, kind in enumerate(["spatial", "temporal"] * 4)]
EP = {site.name: [90, 10, 40, 80, 70, 30, 60, 55][site.order] for site in SITES}


@pytest.mark.parametrize(
    ("text", "orders"),
    [
        ("top=1", [0, 3]),
        ("top=0.5", [0, 3, 4, 7]),
        ("bottom=1", [1, 2]),
        ("temporal:top=2", [3, 7]),
        ("temporal:top=0.3", [3, 7]),
        ("spatial:at-least=60", [0, 4, 6]),
        ("temporal:at-most=30", [1, 5]),
        ("temporal:top=99", [1, 3, 5, 7]),
        ("temporal", [1, 3, 5, 7]),
        ("spatial.0, temporal.7", [0, 7]),
    ],
)
def test_rules(text: str, orders: list[int]) -> None:
    assert [site.order for site in SiteChoice.parse(text).choose(SITES, EP)] == orders


def test_random_draws_the_same_sites_for_the_same_seed_and_needs_no_profile() -> None:
    first = SiteChoice.parse("temporal:random=2", seed=3).choose(SITES)
    assert first == SiteChoice.parse("temporal:random=2", seed=3).choose(SITES)
    assert len(first) == 2
    assert {site.kind for site in first} == {"temporal"}
    draws = {tuple(site.order for site in SiteChoice.parse("random=1", seed=s).choose(SITES)) for s in range(20)}
    assert len(draws) > 3


def test_entropy_rules_need_a_profile() -> None:
    with pytest.raises(UsageError, match="needs their entropy; got no profile"):
        SiteChoice.parse("top=2").choose(SITES)


def test_a_profile_of_another_model_is_refused() -> None:
    with pytest.raises(UsageError, match=r"a profile without spatial\.0 and 7 more"):
        SiteChoice.parse("top=2").choose(SITES, {"other": 1.0})


def test_a_threshold_that_no_site_meets_says_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"no site has EP at-least 95; got EP of spatial 40\.0 to 90\.0, temporal 10"):
        SiteChoice.parse("at-least=95").choose(SITES, EP)


@pytest.mark.parametrize("text", ["top=0", "random=0", "at-least=120"])
def test_amounts_out_of_range(text: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        SiteChoice.parse(text)
