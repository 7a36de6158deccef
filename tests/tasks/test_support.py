"""The table of the docs says what works for which pipeline, and why not where it does not."""

from __future__ import annotations

import pytest

from tests import support


@pytest.mark.slow
def test_the_table_of_the_docs_is_what_was_tried() -> None:
    """`python -m tests.support` writes it."""
    assert support.table([support.row_of(name) for name in support.names()]) == support.written()
