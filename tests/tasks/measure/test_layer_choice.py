"""Choosing sites by entropy, name or chance."""

from __future__ import annotations

import pytest

from ieadapt.attention import AttentionSite
from ieadapt.errors import UsageError
from ieadapt.tasks.measure.layer_choice import HeadChoice, SiteChoice

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


U_NET = [
    AttentionSite(name, kind, order, 2)
    for order, (name, kind) in enumerate(
        (f"{block}.{kind}", kind)
        for block in ("down_blocks.0", "mid_block", "up_blocks.0", "up_blocks.1", "up_blocks.2")
        for kind in ("spatial", "temporal")
    )
]
LEVELS = {site.name: 16 if "mid" in site.name or "0" in site.name else 64 for site in U_NET}
U_NET_EP = {site.name: float(site.order) for site in U_NET}


@pytest.mark.parametrize(
    ("text", "orders"),
    [
        ("spatial/joint:middle=1", [2]),
        ("spatial+temporal/joint:middle=1", [2, 3]),
        ("joint/temporal:middle=3", [1, 3, 5]),
        ("joint/temporal", [1, 3, 5, 7, 9]),
        ("spatial+joint", [0, 2, 4, 6, 8]),
        ("temporal+spatial:top=1", [8, 9]),
    ],
)
def test_kinds_and_the_middle(text: str, orders: list[int]) -> None:
    assert [site.order for site in SiteChoice.parse(text).choose(U_NET, U_NET_EP)] == orders


def test_the_middle_of_a_transformer() -> None:
    blocks = [AttentionSite(f"blocks.{i}", "joint", i, 2) for i in range(5)]
    assert [site.order for site in SiteChoice.parse("spatial/joint:middle=1").choose(blocks)] == [2]
    assert [site.order for site in SiteChoice.parse("joint:middle=3").choose(blocks)] == [1, 2, 3]


def test_within_one_resolution() -> None:
    ranked = SiteChoice.parse("temporal:resolution-top=0.5").choose(U_NET, U_NET_EP, resolution=LEVELS)
    assert [site.order for site in ranked] == [3, 5, 9]
    for seed in range(5):
        drawn = SiteChoice.parse("temporal:level-random=1", seed).choose(U_NET, resolution=LEVELS)
        assert sorted(LEVELS[site.name] for site in drawn) == [16, 64]


def test_by_energy() -> None:
    energy = {site.name: -ep for site, ep in zip(U_NET, U_NET_EP.values(), strict=True)}
    choice = SiteChoice.parse("temporal:energy-top=2")
    assert [site.order for site in choice.choose(U_NET, U_NET_EP, energy)] == [1, 3]
    both = SiteChoice.parse("temporal:level-energy-bottom=1").choose(U_NET, U_NET_EP, energy, LEVELS)
    assert [site.order for site in both] == [5, 9]


@pytest.mark.parametrize("by", ["structure", "quality", "motion", "flicker"])
def test_by_what_a_screen_predicts(by: str) -> None:
    values = {site.name: (site.order - 5.0) ** 2 for site in U_NET}
    most = SiteChoice.parse(f"temporal:{by}-top=2").choose(U_NET, U_NET_EP, **{by: values})
    assert [site.order for site in most] == [1, 9]
    least = SiteChoice.parse(f"temporal:resolution-{by}-bottom=1").choose(U_NET, None, None, LEVELS, **{by: values})
    assert [site.order for site in least] == [5, 7]
    with pytest.raises(
        UsageError, match=rf"needs their {by}; got no screen; remedy: pass the folder of `ieadapt screen`"
    ):
        SiteChoice.parse(f"{by}-top=2").choose(U_NET, U_NET_EP)


def test_by_depth_needs_no_profile() -> None:
    choice = SiteChoice.parse("depth-top=2")
    assert not choice.needs_entropy
    assert [site.order for site in choice.choose(U_NET)] == [6, 7, 8, 9]
    with pytest.raises(UsageError, match="only ranks go by depth; expected depth-top or depth-bottom; got random"):
        SiteChoice.parse("depth-random=2")


def test_a_control_draws_as_many_sites_at_each_resolution_as_the_choice_takes() -> None:
    chosen = SiteChoice.parse("temporal:top=3").choose(U_NET, U_NET_EP)
    assert sorted(LEVELS[site.name] for site in chosen) == [16, 64, 64]
    draws = set()
    for seed in range(20):
        control = SiteChoice.parse("random-as:temporal:top=3", seed)
        assert control.needs_entropy
        drawn = control.choose(U_NET, U_NET_EP, resolution=LEVELS)
        assert {site.kind for site in drawn} == {"temporal"}
        assert sorted(LEVELS[site.name] for site in drawn) == [16, 64, 64]
        assert drawn == control.choose(U_NET, U_NET_EP, resolution=LEVELS)
        draws.add(tuple(site.order for site in drawn))
    assert len(draws) == 3  # either of two small ones, both large ones out of two: down 0, mid, up 0
    with pytest.raises(UsageError, match="needs their resolution; got no profile"):
        SiteChoice.parse("random-as:depth-top=1").choose(U_NET, U_NET_EP)


def test_figures_that_are_missing() -> None:
    with pytest.raises(UsageError, match=r"needs their energy; got no profile"):
        SiteChoice.parse("energy-top=2").choose(U_NET, U_NET_EP)
    with pytest.raises(UsageError, match=r"needs their resolution; got a profile without down_blocks.0.spatial and 9"):
        SiteChoice.parse("level-top=2").choose(U_NET, U_NET_EP, resolution={"x": 1})
    assert SiteChoice.parse("level-random=2").needs_entropy
    assert not SiteChoice.parse("temporal:middle=2").needs_entropy


@pytest.mark.parametrize("text", ["energy-random=2", "energy-at-least=5", "level-at-least=50", "level-middle=1"])
def test_rules_that_do_not_go_together(text: str) -> None:
    with pytest.raises(UsageError, match="only ranks"):
        SiteChoice.parse(text)


HEAD_EP = {(site.name, head): 10.0 * site.order + head for site in U_NET for head in range(2)}


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("top=3", {8: (1,), 9: (0, 1)}),
        ("bottom=1", {7: (0,)}),
        ("at-least=81", {8: (1,), 9: (0, 1)}),
        ("at-most=70", {7: (0,)}),
        ("top=0.6", {8: (0, 1), 9: (0, 1)}),
    ],
)
def test_heads_are_ranked_among_all_heads_of_the_sites(text: str, chosen: dict[int, tuple[int, ...]]) -> None:
    temporal = [AttentionSite(f"t.{i}", "temporal", i, 2) for i in (7, 8, 9)]
    ep = {(f"t.{i}", head): 10.0 * i + head for i in (7, 8, 9) for head in range(2)}
    expected = {f"t.{i}": heads for i, heads in chosen.items()}
    assert HeadChoice.parse(text).choose(temporal, ep) == expected


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("1", {7: (1,), 8: (1,), 9: (1,)}),
        ("0, 1", {7: (0, 1), 8: (0, 1), 9: (0, 1)}),
        ("#7:0,t.9:1", {7: (0,), 9: (1,)}),
        ("t.*:0,#8:1", {7: (0,), 8: (0, 1), 9: (0,)}),
    ],
)
def test_heads_by_number_need_no_entropy(text: str, chosen: dict[int, tuple[int, ...]]) -> None:
    temporal = [AttentionSite(f"t.{i}", "temporal", i, 2) for i in (7, 8, 9)]
    choice = HeadChoice.parse(text)
    assert not choice.needs_entropy
    assert choice.choose(temporal, {}) == {f"t.{i}": heads for i, heads in chosen.items()}


def test_heads_that_are_not_there() -> None:
    with pytest.raises(UsageError, match=r"the site has no such head; expected 0\.\.1; got 2; in down_blocks"):
        HeadChoice.parse("2").choose(U_NET, {})
    with pytest.raises(UsageError, match="nowhere"):
        HeadChoice.parse("nowhere:0").choose(U_NET, {})


def test_random_heads_depend_on_the_seed_alone() -> None:
    first = HeadChoice.parse("random=4", 1).choose(U_NET, HEAD_EP)
    assert first == HeadChoice.parse("random=4", 1).choose(U_NET, HEAD_EP)
    assert sum(len(heads) for heads in first.values()) == 8
    assert first != HeadChoice.parse("random=4", 2).choose(U_NET, HEAD_EP)


def test_bad_heads() -> None:
    for text in ("most", "middle=1", "temporal:top=1", "level-top=1"):
        with pytest.raises(UsageError, match="unknown choice of heads; expected all, top=N"):
            HeadChoice.parse(text)
    with pytest.raises(UsageError, match=r"no head has EP at-least 99; got EP of 0.0 to 91.0"):
        HeadChoice.parse("at-least=99").choose(U_NET, HEAD_EP)
    with pytest.raises(UsageError, match=r"needs their entropy; got none of head 0; in down_blocks.0.spatial"):
        HeadChoice.parse("top=1").choose(U_NET, {})
