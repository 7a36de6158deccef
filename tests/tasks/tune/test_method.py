"""The rules of a tune against slow, obvious references."""

from __future__ import annotations

import hashlib
import itertools
import math
import random

import numpy as np
import pytest

from ieadapt.metrics.intervals import Interval
from ieadapt.tasks.tune.method import Comparison, best_of, detectable, halves, judge, prompts_for, rounds

BETTER, NONE, WORSE = (tuple(mean + 0.01 * (-1) ** index for index in range(20)) for mean in (0.1, 0.0, -0.1))
PLAIN, GUIDED, RANDOM = "plain at equal passes", "plain at guidance 6", "random sites"


def test_halves_do_not_depend_on_order_and_keep_equal_prompts_together() -> None:
    prompts = [f"prompt {number}" for number in range(21)]
    one, two = halves(prompts)
    shuffled = prompts + prompts[:5]
    random.Random(0).shuffle(shuffled)
    assert halves(shuffled) == (one, two)
    assert sorted(one + two) == sorted(prompts)
    assert (len(one), len(two)) == (11, 10)
    assert max(hashlib.sha256(each.encode()).hexdigest() for each in one) < min(
        hashlib.sha256(each.encode()).hexdigest() for each in two
    )


@pytest.mark.parametrize(("candidates", "prompts"), [(2, 6), (3, 6), (4, 7), (16, 30), (33, 100)])
def test_each_round_has_half_the_candidates_and_the_last_sees_every_prompt(candidates: int, prompts: int) -> None:
    made = rounds(candidates, prompts)
    assert made[0].candidates == candidates
    assert made[-1].prompts == prompts
    assert made[-1].candidates <= 3
    for earlier, later in itertools.pairwise(made):
        assert later.candidates == max(3, earlier.candidates // 2)
        assert earlier.prompts <= later.prompts <= 2 * earlier.prompts
        assert earlier.prompts >= 2


def test_the_best_are_those_of_largest_mean() -> None:
    gains = {"a": [0.0, 0.2], "b": [0.5, 0.5], "c": [0.1, 0.1], "d": [-1.0, 0.0]}
    assert best_of(gains, 3) == ["b", "a", "c"]


def test_what_n_shows_is_found_in_four_of_five_experiments() -> None:
    drawn, spread, prompts = np.random.default_rng(0), 0.3, 60
    effect = detectable(spread, prompts)
    means = drawn.normal(effect, spread / math.sqrt(prompts), size=20_000)
    assert (means > 1.959964 * spread / math.sqrt(prompts)).mean() == pytest.approx(0.8, abs=0.01)
    assert prompts_for(effect, spread) in (prompts, prompts + 1)


def _verdict(*gains: tuple[float, ...], worse: float = 0.0, draws: tuple[float, ...] | None = None) -> tuple[str, str]:
    tests = [Comparison(name, each) for name, each in zip((PLAIN, GUIDED), gains, strict=False)]
    guards = {"flicker": Interval(worse, worse, worse)}
    found = judge(tests, guards, 0.1, 0.05, draws=None if draws is None else Comparison(RANDOM, draws))
    return found.word, found.sites


@pytest.mark.parametrize(
    ("gains", "more", "expected"),
    [
        ((BETTER, BETTER), {"draws": BETTER}, ("confirmed", "the sites matter")),
        ((BETTER, BETTER), {"draws": NONE}, ("confirmed", "not shown to matter")),
        ((BETTER,), {}, ("confirmed", "")),
        ((BETTER, BETTER), {"worse": 0.2}, ("undecided", "")),
        ((BETTER, NONE), {"draws": BETTER}, ("refuted", "")),
        ((NONE, BETTER), {"draws": BETTER}, ("refuted", "")),
        ((WORSE, BETTER), {}, ("refuted", "")),
    ],
)
def test_each_comparison_counts_only_if_the_one_before_holds(
    gains: tuple[tuple[float, ...], ...], more: dict, expected: tuple[str, str]
) -> None:
    assert _verdict(*gains, **more) == expected


def test_too_few_prompts_say_how_many_would_do() -> None:
    noisy = tuple(0.04 + (-1) ** index * 0.4 for index in range(16))
    found = judge([Comparison(PLAIN, noisy)], {}, 0.4, 0.1)
    assert found.word == "undecided"
    assert f"16 prompts show gains from {detectable(0.4, 16):.3g} on" in found.sentence
    assert f"{prompts_for(0.1, 0.4) - 16} more would show 0.1" in found.sentence
