"""Selecting sites, branches of guidance, windows of steps."""

from __future__ import annotations

from typing import Any

import pytest

from ieadapt.attention import AttentionSite, Guidance, GuidanceChoice, StepWindow, select_sites
from ieadapt.attention.sites import guidance_branches
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
        ("#3, #0", [0, 3]),
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


@pytest.mark.parametrize(
    ("choice", "branches"),
    [("cond", ("cond",)), ("all", ("uncond", "cond", "unknown")), (("weak", "cond"), ("weak", "cond"))],
)
def test_choices_of_guidance(choice: GuidanceChoice, branches: tuple[Guidance, ...]) -> None:
    assert guidance_branches(choice) == branches


@pytest.mark.parametrize("choice", ["none", "both", (), ("cond", "none"), None, 3])
def test_other_choices_of_guidance_are_refused(choice: Any) -> None:
    with pytest.raises(UsageError, match=r"not a choice of guidance; expected uncond, cond, weak, unknown, all"):
        guidance_branches(choice)


@pytest.mark.parametrize("steps", [(0.5, 0.5), (-0.1, 1), "0.8:0.2", (0, 1.5), "half", ("a", "b"), (1,), None, 3, {}])
def test_windows_outside_the_run_are_refused(steps: Any) -> None:
    with pytest.raises(UsageError, match=r"not a window of steps; expected fractions 0 <= start < stop <= 1"):
        StepWindow.of(steps)


@pytest.mark.parametrize("first", [0, 2, 5])
@pytest.mark.parametrize("window", ["0:1", "0.3:0.7", "0.5:1", "0.6:0.7"])
def test_a_later_start_keeps_the_steps_of_a_window(window: str, first: int) -> None:
    inside = StepWindow.of(window)
    expected = [step for step in inside.steps(10) if step >= first]
    later = inside.after(first, 10)
    assert [first + step for step in later.steps(10 - first)] == expected


def test_a_window_without_a_step_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no denoising step begins inside the window; got window 0.3:0.4 of 2 steps"):
        StepWindow(0.3, 0.4).steps(2)
    with pytest.raises(UsageError, match=r"got window 0:0.5 of 4 steps, of which the first 2 are left out"):
        StepWindow(0, 0.5).after(2, 4)


def test_a_selection_prints_and_counts_what_it_chose() -> None:
    chosen = select_sites(SITES, "temporal")
    assert chosen.assert_count_is(2) == SITES[2:]
    assert repr(chosen).splitlines()[1:] == [
        "   2 temporal down_blocks.0.motion_modules.0.attn1, 4 heads",
        "   3 temporal up_blocks.0.motion_modules.0.attn1, 4 heads",
    ]
    with pytest.raises(UsageError, match="another number of attention sites; expected 1; got 2 attention sites"):
        chosen.assert_count_is(1)
