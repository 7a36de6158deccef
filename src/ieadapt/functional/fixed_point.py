"""Fixed points: where a map leads to where it began, by Anderson acceleration."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

DEPTH = 3
"""Earlier differences that a guess is mixed from: more are slower to forget how a curved map looked elsewhere."""
ASTRAY = 4.0
"""A move so many times the least one starts again from there."""
RIDGE = 1e-10
"""Added to the normal equations, relative to their diagonal."""

Follow = Callable[[Tensor], tuple[Tensor, float]]


def fixed_point(start: Tensor, follow: Follow, iterations: int, tolerance: float) -> Tensor:
    """Where the best guess leads, after as many guesses as it takes.

    Plain iteration goes where the last guess led. It needs many rounds, or never ends, where the map hardly contracts
    or turns; Anderson acceleration takes the mix of the last few guesses whose moves cancel each other best.

    Args:
        start: the first guess.
        follow: where a guess leads, and how far that is from it; the move that `tolerance` bounds.
        iterations: most guesses that are followed; 0 gives the start back.
        tolerance: the move at which a guess is taken for the fixed point.

    Returns:
        The place that the guess with the least move leads to; the start if none leads anywhere finite.

    Source: Anderson acceleration as in Walker & Ni, SIAM J. Numer. Anal. 49(4), 2011; for inverting diffusion models
    Pan et al., ICCV 2023 (arXiv 2309.04907).

    Example:
        >>> turn = torch.tensor([[0.0, -0.99], [0.99, 0.0]])  # plain iteration would need 700 rounds
        >>> def follow(guess):
        ...     led = turn @ guess + 1
        ...     return led, float((led - guess).norm())
        >>> fixed_point(torch.zeros(2), follow, iterations=5, tolerance=1e-4)
        tensor([0.0051, 1.0050])
    """
    guess = best = arrived = start
    least, share = float("inf"), 1.0
    history: list[tuple[Tensor, Tensor]] = []
    for _ in range(iterations):
        led, move = follow(guess)
        astray = not move < ASTRAY * least  # or not finite
        if move < least:
            best, arrived, least = guess, led, move
        if least < tolerance:
            break
        if astray:  # go from the best guess again, half as far each time
            share /= 2
            history = []
            guess = best + share * (arrived - best)
            continue
        history = [*history[-DEPTH:], (_flat(guess), _flat(led))]
        guess = _mixed(history).view_as(led).to(led)
    return arrived


def _flat(place: Tensor) -> Tensor:
    return place.double().cpu().flatten()


def _mixed(history: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The mix of places led to whose moves, were the map linear, would cancel best."""
    guesses, led = map(torch.stack, zip(*history, strict=True))
    if len(history) == 1:
        return led[-1]
    moves = led - guesses
    turns = moves.diff(dim=0)
    normal = turns @ turns.T
    normal += RIDGE * normal.diagonal().mean() * torch.eye(len(normal), dtype=normal.dtype)
    weights = torch.linalg.lstsq(normal, turns @ moves[-1]).solution
    return led[-1] - weights @ led.diff(dim=0)
