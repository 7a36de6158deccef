"""Row maps."""

from __future__ import annotations

from ieadapt.attention import RowMap

ROWS = RowMap(("uncond", "uncond", "cond", "cond"), ("source", "target") * 2, (0, 1, 0, 1), repeats=3)


def test_rows_of_a_branch() -> None:
    assert ROWS.select(guidance=("cond",)).tolist() == [6, 7, 8, 9, 10, 11]


def test_rows_of_a_stream_of_a_branch() -> None:
    assert ROWS.select(("cond",), ("target",)).tolist() == [9, 10, 11]


def test_no_rows() -> None:
    assert ROWS.select(guidance=("weak",)).tolist() == []


def test_length_counts_attention_rows() -> None:
    assert len(ROWS) == 12
