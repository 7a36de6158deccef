"""What a study may ask."""

from __future__ import annotations

import pytest

from ieadapt.errors import UsageError
from ieadapt.tasks.study.config import StudyConfig


def test_perturbations_have_one_name_each() -> None:
    config = StudyConfig(perturb=" identity,mix:0.50, mix:.5,temperature:2.0")
    assert config.perturbations == ("identity", "mix:0.5", "temperature:2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"perturb": "identiy"}, "unknown perturbation; expected identity, identity:WEIGHT, uniform"),
        ({"perturb": " , "}, "a study needs a perturbation"),
        ({"perturb": "mix"}, "unknown perturbation; expected identity"),
        ({"perturb": "mix:2"}, "weight of a mix is out of range"),
        ({"perturb": "temperature:0"}, "must be positive"),
        ({"metrics": "psnrr"}, "there is no metric 'psnrr'"),
        ({"metrics": ""}, "choice of metrics is empty"),
        ({"window": "0.5"}, "not a window of steps; expected fractions"),
        ({"window": "0.5:0.5"}, "not a window of steps"),
        ({"window": "-0.1:1"}, "not a window of steps"),
        ({"window": "0:1.5"}, "not a window of steps"),
        ({"window": "nan:1"}, "not a window of steps"),
        ({"window": "a:b"}, "not a window of steps"),
        ({"branch": "uncond"}, "unknown branch of a study; expected both, cond"),
        ({"mode": "all"}, "unknown mode of a study; expected each, cumulative, per-head"),
        ({"seeds": 0}, "a study needs seeds; expected >= 1; got 0"),
        ({"seed": -1}, "a seed cannot be negative"),
    ],
)
def test_what_cannot_be_asked(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        StudyConfig(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("window", "number", "steps"),
    [("0:1", 5, (0, 5)), ("0.5:1", 5, (3, 5)), ("0:0.5", 4, (0, 2)), ("0.2:0.4", 10, (2, 4))],
)
def test_steps_of_a_window(window: str, number: int, steps: tuple[int, int]) -> None:
    assert StudyConfig(window=window).perturbed.steps(number) == range(*steps)


def test_a_window_between_two_steps() -> None:
    with pytest.raises(UsageError, match=r"no denoising step begins inside the window; got window 0.6:0.7 of 2 steps"):
        StudyConfig(window="0.6:0.7").perturbed.steps(2)
