"""A stage of the sweep that was cut off compares like with like, and its records say so."""

from __future__ import annotations

import polars as pl
import pytest

from benchmarks.enhance_sweep import cut_off, leading, shared
from benchmarks.enhance_variants import PLAIN, VARIANTS
from ieadapt.errors import FailureError

DEFAULT = "temporal/joint:top=0.5, start 0.5"


def _table(**captions: str) -> pl.DataFrame:
    rows = [(variant, caption) for variant, texts in captions.items() for caption in texts]
    return pl.DataFrame(rows, schema=["variant", "caption"], orient="row")


def test_only_captions_that_every_variant_has_are_compared() -> None:
    table = _table(plain="aabbc", pag="aabb", seg="bbcc")
    assert shared(table).rows() == [(name, "b") for name in ("plain", "plain", "pag", "pag", "seg", "seg")]


def test_a_stage_that_is_complete_stays_as_it_is() -> None:
    table = _table(plain="ab", pag="ba")
    assert shared(table).rows() == table.rows()
    assert cut_off("report", table, shared(table)) == ""


def test_what_was_left_out_is_told() -> None:
    table = _table(plain="abc", pag="ab")
    assert cut_off("report", table, shared(table)) == (
        " The stage `report` was cut off: only the 2 captions that every row has are counted."
    )


def test_variants_without_a_common_caption_are_refused() -> None:
    with pytest.raises(FailureError, match="no caption has every variant; remedy: run the stage again"):
        shared(_table(plain="a", pag="b"))


def test_the_leading_rows_hold_both_variants_with_their_controls_once() -> None:
    chosen = "temporal/joint:top=0.5, mode direct, perturbation uniform, scale 0.2"
    rows = leading([{"variant": name, "captions": 2} for name in VARIANTS], DEFAULT, chosen)
    names = [str(row["variant"]) for row in rows]
    assert len(set(names)) == len(names)
    assert {PLAIN, f"{DEFAULT} (default)", chosen, *VARIANTS[DEFAULT].controls, *VARIANTS[chosen].controls} <= set(
        names
    )
    assert len(leading([{"variant": name} for name in VARIANTS], DEFAULT, DEFAULT)) == len(names) - 5
