"""Row maps, choices of guidance, windows of steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ieadapt.attention import Guidance, GuidanceChoice, RowMap, StepWindow
from ieadapt.attention.sites import guidance_branches
from ieadapt.errors import UsageError

ROWS = RowMap(("uncond", "uncond", "cond", "cond"), ("source", "target") * 2, (0, 1, 0, 1), repeats=3)


def test_rows_of_a_branch() -> None:
    assert ROWS.denoiser_rows(("cond",)) == [2, 3]
    assert ROWS.index([2, 3]) == slice(6, 12)


def test_rows_of_a_stream_of_a_branch() -> None:
    assert ROWS.denoiser_rows(("cond",), ("target",)) == [3]
    assert ROWS.denoiser_rows(stream=("source",)) == [0, 2]


def test_rows_that_are_no_neighbours_are_indices() -> None:
    index = ROWS.index([0, 2])
    assert isinstance(index, torch.Tensor)
    assert index.tolist() == [0, 1, 2, 6, 7, 8]


def test_rows_that_are_taken_know_where_they_were() -> None:
    assert ROWS.take([1, 3]).take([1]).batch == (3,)


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
