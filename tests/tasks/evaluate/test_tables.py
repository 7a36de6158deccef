"""A comparison gives every measure with its interval, and says no more than the interval allows."""

from __future__ import annotations

import pytest

from ieadapt.errors import UsageError
from ieadapt.tasks.evaluate.tables import (
    MEASURES,
    MetricSummary,
    answer,
    compare,
    plot_pairs,
    summary_table,
    verdict,
)
from ieadapt.testbed import Scene, SceneObject, SceneScore
from ieadapt.testbed.fitting import Quality
from ieadapt.testbed.score import Accuracy

SCENE = Scene((SceneObject("big", "red", "star", "left"),), "bricks")


def _score(motion: float = 0.8, fit: float = 25.0) -> SceneScore:
    accuracy = Accuracy(1.0, 0.9, 1.0, 0.8, 0.9, motion, 1.0, 0.7)
    return SceneScore(accuracy, Quality(fit, 0.4, 0.5, 2.0), SCENE)


def _scores(**changes: list[float]) -> list[SceneScore]:
    count = len(next(iter(changes.values())))
    return [_score(**{name: values[i] for name, values in changes.items()}) for i in range(count)]


def test_every_measure_of_a_score_is_compared() -> None:
    assert set(MEASURES) == set(_score().as_dict())


def test_means_and_paired_differences() -> None:
    plain, enhanced = _scores(motion=[0.5, 0.7], fit=[20.0, 30.0]), _scores(motion=[0.6, 0.8], fit=[19.0, 29.0])
    rows = {row.metric: row for row in compare(plain, enhanced)}
    assert (rows["motion"].reference, rows["motion"].mean) == pytest.approx((0.6, 0.7))
    assert rows["motion"].difference == pytest.approx(0.1)
    assert (rows["motion"].difference_low, rows["motion"].difference_high) == pytest.approx((0.1, 0.1))
    assert rows["fit"].difference == pytest.approx(-1.0)
    assert rows["shape"].difference == 0
    assert rows["accuracy"].difference == pytest.approx(0.1 / 8)
    assert rows["motion"].videos == 2


def test_unequal_numbers_are_refused() -> None:
    with pytest.raises(UsageError, match="in pairs"):
        compare([_score(), _score()], [_score()])


@pytest.mark.parametrize(
    ("better", "low", "high", "words"),
    [
        ("higher", 0.1, 0.3, "better with enhancement"),
        ("higher", -0.3, -0.1, "worse with enhancement"),
        ("lower", -0.3, -0.1, "better with enhancement"),
        ("lower", 0.1, 0.3, "worse with enhancement"),
        ("higher", -0.1, 0.3, "do not settle it"),
    ],
)
def test_a_verdict_says_no_more_than_the_interval(better: str, low: float, high: float, words: str) -> None:
    row = MetricSummary("flicker", "255ths", better, 96, 1.2, 1.1, 1.3, 1.0, (low + high) / 2, low, high)
    assert verdict(row).endswith(words + ".")


def test_a_handful_of_captions_settles_nothing() -> None:
    row = MetricSummary("motion", "", "higher", 8, 0.6, 0.5, 0.7, 0.5, 0.1, 0.05, 0.2)
    assert verdict(row).endswith("so few captions settle nothing.")
    assert verdict(MetricSummary("motion", "", "higher", 8, 0.6, 0.5, 0.7)) == "motion: compared with nothing."


def test_the_table_names_units_and_signs() -> None:
    table = summary_table(compare([_score()] * 3, _scores(fit=[24.0, 24.0, 24.0])), "enhanced", "plain")
    assert table.headings == ("metric", "better", "pairs", "plain", "enhanced", "difference", "95 % interval")
    fit = next(row for row in table.rows if row[0].startswith("fit"))
    assert fit == ["fit (dB)", "higher", "3", "25.00", "24.00", "-1.000", "[-1.000, -1.000]"]


def test_the_answer_comes_first_and_says_no_more_than_the_intervals() -> None:
    def row(name: str, better: str, low: float, high: float) -> MetricSummary:
        return MetricSummary(name, "", better, 30, 1.0, 0.9, 1.1, 0.8, (low + high) / 2, low, high)

    rows = [row("ssim", "higher", 0.1, 0.3), row("flicker", "lower", 0.1, 0.3), row("fit", "higher", -0.1, 0.3)]
    assert answer(rows, 30) == "Better: ssim. Worse: flicker. By 30 pairs; every interval is in the table."
    rows = [row("motion", "context", 0.1, 0.3)]
    assert answer(rows, 30).startswith("Better: nothing. Worse: nothing. Changed, which is neither: motion.")
    assert answer(rows, 2) == "2 videos settle nothing: with fewer than 20 the intervals are too narrow."


def test_from_fewer_than_three_pairs_there_is_no_interval() -> None:
    two, three = (
        summary_table([MetricSummary("ssim", "", "higher", n, 0.9, 0.8, 1.0, 0.8, 0.1, 0.0, 0.2)], "b", "a")
        for n in (2, 3)
    )
    assert (two.rows[0][-1], three.rows[0][-1]) == ("–", "[+0.000, +0.200]")


def test_every_pair_is_a_line_of_its_metrics_panel() -> None:
    rows = [MetricSummary("flicker", "255ths", "lower", 2, 2.0, 1.0, 3.0, 1.5, 0.5, 0.0, 1.0)]
    figure = plot_pairs(rows, [{"flicker": 1.0, "flicker_change": 0.5}, {"flicker": 3.0, "flicker_change": None}])
    lines = figure.axes[0].lines
    assert [line.get_ydata().tolist() for line in lines] == [[0.5, 1.0], [1.5, 2.0]]
