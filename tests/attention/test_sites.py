"""Selecting sites."""

from __future__ import annotations

import pytest

from ieadapt.attention import AttentionSite, select_sites
from ieadapt.errors import UsageError

SITES = [
    AttentionSite("down_blocks.0.attentions.0.attn1", "spatial", 0, 2),
    AttentionSite("down_blocks.0.attentions.0.attn2", "cross", 1, 2),
    AttentionSite("down_blocks.0.motion_modules.0.attn1", "temporal", 2, 4),
    AttentionSite("up_blocks.0.motion_modules.0.attn1", "temporal", 3, 4),
]


@pytest.mark.parametrize(
    ("selection", "orders"),
    [
        (None, [0, 1, 2, 3]),
        ("temporal", [2, 3]),
        ("down_blocks.0.attentions.0.attn1", [0]),
        ("down_blocks.*", [0, 1, 2]),
        ("up_blocks.*, spatial", [0, 3]),
        (["cross", SITES[3]], [1, 3]),
        (SITES[2], [2]),
        (lambda site: site.heads == 4, [2, 3]),
    ],
)
def test_selections_name_sites_in_order_of_execution(selection: object, orders: list[int]) -> None:
    assert [site.order for site in select_sites(SITES, selection)] == orders


def test_a_selection_that_matches_nothing_lists_near_names_and_kinds() -> None:
    with pytest.raises(
        UsageError, match=r"matches no attention site.*down_blocks\.0\.motion_modules\.0\.attn1"
    ) as caught:
        select_sites(SITES, "down_blocks.0.motion_modules.0.attn3")
    assert "spatial (1), temporal (2), cross (1)" in str(caught.value)


def test_one_bad_entry_among_good_ones_is_an_error() -> None:
    with pytest.raises(UsageError, match="'jont'"):
        select_sites(SITES, "temporal, jont")


def test_an_empty_selection_is_an_error() -> None:
    with pytest.raises(UsageError, match="selection of attention sites is empty"):
        select_sites(SITES, [])


def test_a_predicate_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match="the selection matches no attention site"):
        select_sites(SITES, lambda site: False)
