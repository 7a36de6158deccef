"""Every round of the timings runs every variant once, and the first round does not count."""

from __future__ import annotations

from functools import partial

from benchmarks.cost import seconds_of_rounds


def test_variants_take_turns_and_the_first_round_does_not_count() -> None:
    ran: list[str] = []
    seconds = seconds_of_rounds({name: partial(ran.append, name) for name in ("plain", "measured")}, 2)
    assert ran == ["plain", "measured"] * 3
    assert {name: len(each) for name, each in seconds.items()} == {"plain": 2, "measured": 2}
