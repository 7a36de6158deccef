"""Schedules of the scale."""

from __future__ import annotations

import pytest

from ieadapt.errors import UsageError
from ieadapt.tasks.enhance.schedules import Schedule


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("linear:1:0", [1, 0.75, 0.5, 0.25, 0]),
        ("linear:0.5:1.5", [0.5, 0.75, 1, 1.25, 1.5]),
        ("cosine", [1, 0.853553, 0.5, 0.146447, 0]),
        ("cosine:0:2", [0, 0.292893, 1, 1.707107, 2]),
        ("1, 0.5, 0, 0, 2", [1, 0.5, 0, 0, 2]),
    ],
)
def test_factors(text: str, expected: list[float]) -> None:
    assert Schedule.parse(text).factors(5) == pytest.approx(expected, abs=1e-6)


def test_a_run_of_one_step_has_the_first_factor() -> None:
    assert Schedule.parse("linear:3:0").factors(1) == [3]


def test_a_list_of_another_length() -> None:
    with pytest.raises(UsageError, match="another length than the run; expected 3 factors, one per step; got 2"):
        Schedule.parse("1,0.5").factors(3)


@pytest.mark.parametrize("text", ["linear", "linear:1", "linear:1:2:3", "sine", "1,much", "", "cosine:a:b"])
def test_no_schedule(text: str) -> None:
    with pytest.raises(UsageError, match="unknown schedule of the scale; expected constant, linear:A:B"):
        Schedule.parse(text)


@pytest.mark.parametrize("text", ["linear:1:-1", "1,-0.5", "1,inf", "linear:nan:1"])
def test_factors_out_of_range(text: str) -> None:
    with pytest.raises(UsageError, match=r"factor of the scale's schedule is out of range; expected >= 0"):
        Schedule.parse(text)
