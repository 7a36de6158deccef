"""Token layouts."""

from __future__ import annotations

import pytest
import torch

from ieadapt.attention import AttentionSite, LatentGrid, TokenLayout, intercept
from ieadapt.attention.layouts import token_layout
from ieadapt.errors import FailureError
from tests.families import captured, predict

GRID = LatentGrid(batch=2, frames=5, resolutions=((4, 6), (2, 3)))


def _site(kind: str) -> AttentionSite:
    return AttentionSite(f"block.{kind}", kind, 0, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "repeats", "queries", "keys", "text", "expected"),
    [
        ("spatial", 5, 24, 24, "none", TokenLayout(1, 4, 6)),
        ("spatial", 5, 6, 6, "none", TokenLayout(1, 2, 3)),
        ("temporal", 6, 5, 5, "none", TokenLayout(5, 1, 1)),
        ("cross", 5, 24, 77, "none", TokenLayout(1, 4, 6)),
        ("cross", 1, 120, 77, "none", TokenLayout(5, 4, 6)),
        ("joint", 1, 130, 130, "before", TokenLayout(5, 4, 6, start=10, text=10)),
        ("joint", 1, 130, 130, "after", TokenLayout(5, 4, 6, start=0, text=10)),
        ("joint", 1, 120, 120, "none", TokenLayout(5, 4, 6)),
        ("text", 1, 32, 32, "after", TokenLayout(0, 0, 0, text=32)),
    ],
)
def test_layouts(kind: str, repeats: int, queries: int, keys: int, text: str, expected: TokenLayout) -> None:
    layout = token_layout(_site(kind), GRID, repeats, queries, keys, text)  # type: ignore[arg-type]
    assert layout == expected
    assert layout.tokens == queries


@pytest.mark.parametrize(("kind", "repeats", "queries"), [("spatial", 24, 5), ("temporal", 5, 24), ("joint", 1, 119)])
def test_a_call_of_another_kind_is_refused(kind: str, repeats: int, queries: int) -> None:
    with pytest.raises(FailureError, match=rf"this call is not {kind} attention over the model's latents"):
        token_layout(_site(kind), GRID, repeats, queries, queries, "none")


def test_coordinates_are_frame_row_column_in_sequence_order() -> None:
    coordinates = TokenLayout(2, 2, 3, start=4, text=4).coordinates()
    assert coordinates.shape == (12, 3)
    index = (coordinates * torch.tensor([6, 3, 1])).sum(1)
    assert index.tolist() == list(range(12))


@pytest.mark.parametrize(
    ("family", "kind", "expected"),
    [
        ("animatediff", "temporal", {TokenLayout(5, 1, 1)}),
        ("animatediff", "spatial", {TokenLayout(1, 4, 6), TokenLayout(1, 2, 3)}),
        ("modelscope", "cross", {TokenLayout(1, 4, 6), TokenLayout(1, 2, 3)}),
        ("cogvideox", "joint", {TokenLayout(3, 4, 6, start=32, text=32)}),
        ("wan", "joint", {TokenLayout(3, 4, 6)}),
        ("wan", "cross", {TokenLayout(3, 4, 6)}),
        ("hunyuanvideo", "joint", {TokenLayout(3, 4, 6, text=32)}),
        ("ltx", "joint", {TokenLayout(3, 4, 8)}),
    ],
)
def test_layouts_of_real_calls(family: str, kind: str, expected: set[TokenLayout]) -> None:
    seen = set()
    with intercept(captured(family)[0], lambda call: seen.add(call.layout), sites=kind):
        predict(family)
    assert seen == expected


def test_mochi_drops_padded_text_row_by_row() -> None:
    texts = []
    with intercept(captured("mochi")[0], lambda call: texts.append((len(call.rows), call.layout.text)), sites="joint"):
        predict("mochi")
    assert {rows for rows, _ in texts} == {1}
    assert len({text for _, text in texts}) > 1
