"""Fixed points are found where plain iteration crawls, turns or runs away, and nothing is made worse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ieadapt.functional.fixed_point import Follow, fixed_point

POINT = torch.linspace(-1, 1, 6, dtype=torch.float64).view(1, 2, 3)


def linear(matrix: Tensor) -> Callable[[Tensor], Tensor]:
    """A linear map around POINT."""
    return lambda guess: POINT + (matrix @ (guess - POINT).flatten()).view_as(POINT)


def counted(leads: Callable[[Tensor], Tensor], seen: list[Tensor]) -> Follow:
    def follow(guess: Tensor) -> tuple[Tensor, float]:
        seen.append(guess)
        led = leads(guess)
        return led, float((led - guess).norm())

    return follow


MATRICES = {
    "contracts slowly": torch.diag(torch.tensor([0.99, 0.9, 0.2, 0.0, 0.0, 0.0])),
    "runs away": torch.diag(torch.tensor([-1.3, 0.5, 0.0, 0.0, 0.0, 0.0])),
    "turns": torch.block_diag(torch.tensor([[0.0, -0.99], [0.99, 0.0]]), torch.zeros(4, 4)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_hard_maps_take_few_rounds(name: str) -> None:
    leads, seen, plain = linear(MATRICES[name].double()), [], torch.zeros_like(POINT)  # type: ignore[var-annotated]
    found = fixed_point(torch.zeros_like(POINT), counted(leads, seen), 10, 1e-6)
    for _ in range(10):
        plain = leads(plain)
    assert (found - POINT).norm() < 1e-5
    assert (plain - POINT).norm() > 0.3
    assert len(seen) <= 7
    assert found.shape == POINT.shape


def test_an_easy_map_is_followed_as_plain_iteration_would() -> None:
    seen: list[Tensor] = []
    leads = linear(torch.eye(6).double() * 1e-3)
    found = fixed_point(torch.zeros_like(POINT), counted(leads, seen), 10, 0.01)
    assert len(seen) == 2
    assert torch.equal(seen[1], leads(seen[0]))
    assert torch.equal(found, leads(seen[1]))


def test_no_rounds_give_the_start_back() -> None:
    assert torch.equal(fixed_point(POINT, counted(lambda guess: guess + 1, []), 0, 1e-3), POINT)


def test_a_place_that_is_not_finite_halves_the_way() -> None:
    seen: list[Tensor] = []

    def leads(guess: Tensor) -> Tensor:
        return torch.full_like(guess, torch.nan) if guess.norm() > 0.6 else guess + 1 / (1 + guess.norm())

    found = fixed_point(torch.zeros(1), counted(leads, seen), 3, 1e-3)
    assert [float(guess) for guess in seen] == [0.0, 1.0, 0.5]
    assert torch.isfinite(found).all()


def test_where_nothing_is_finite_the_start_remains() -> None:
    found = fixed_point(POINT, counted(lambda guess: guess * torch.nan, []), 4, 1e-3)
    assert torch.equal(found, POINT)


def test_the_best_guess_counts_not_the_last() -> None:
    moves = iter([1.0, 0.2, 0.7, 0.7])
    places = iter(torch.arange(1.0, 5.0))
    found = fixed_point(torch.zeros(1), lambda guess: (next(places).view(1), next(moves)), 4, 0.1)
    assert float(found) == 2.0
