"""Signed distances of the shapes, in units of the radius, negative inside, centred on the centroid.

Source: the closed forms for 2D primitives collected by Inigo Quilez (https://iquilezles.org/articles/distfunctions2d).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Points = Float[Tensor, "*batch"]
Outline = Callable[[Points, Points], Points]


def _length(x: Points, y: Points) -> Points:
    """Euclidean length with a gradient at zero too, where it is off by 1e-6: scenes are fitted by descent."""
    return (x.square() + y.square() + 1e-12).sqrt()


def ball(x: Points, y: Points) -> Points:
    """A disc of radius 1."""
    return _length(x, y) - 1.0


def ring(x: Points, y: Points) -> Points:
    """A ring of outer radius 1.1 and inner radius 0.55."""
    return (_length(x, y) - 0.825).abs() - 0.275


def square(x: Points, y: Points) -> Points:
    """A square of half side 0.92."""
    qx, qy = x.abs() - 0.92, y.abs() - 0.92
    return _length(qx.clamp(min=0), qy.clamp(min=0)) + torch.maximum(qx, qy).clamp(max=0)


def triangle(x: Points, y: Points) -> Points:
    """An equilateral triangle of circumradius 1.35, pointing up."""
    half, k = 1.35 * math.sqrt(3) / 2, math.sqrt(3)
    px, py = x.abs() - half, -y + half / k
    beyond = px + k * py > 0
    px, py = torch.where(beyond, (px - k * py) / 2, px), torch.where(beyond, (-k * px - py) / 2, py)
    px = px - px.clamp(-2 * half, 0)
    return -_length(px, py) * py.sign()


def star(x: Points, y: Points) -> Points:
    """A five-pointed star of circumradius 1.35, pointing up."""
    radius, inner = 1.35, 0.45
    kx, ky = math.cos(math.pi / 5), -math.sin(math.pi / 5)
    px, py = x.abs(), -y
    for fold in (kx, -kx):
        past = 2 * (fold * px + ky * py).clamp(min=0)
        px, py = px - past * fold, py - past * ky
    px, py = px.abs(), py - radius
    bx, by = -ky * inner, kx * inner - 1
    along = ((px * bx + py * by) / (bx * bx + by * by)).clamp(0, radius)
    return _length(px - bx * along, py - by * along) * (py * bx - px * by).sign()


def cross(x: Points, y: Points) -> Points:
    """An upright cross of half length 1.1 and half width 0.38."""
    length, width = 1.1, 0.38
    long, short = torch.maximum(x.abs(), y.abs()), torch.minimum(x.abs(), y.abs())
    qx, qy = long - length, short - width
    k = torch.maximum(qx, qy)
    outside = _length(qx.clamp(min=0), qy.clamp(min=0))
    inside = _length((width - long).clamp(min=0), (-k).clamp(min=0))
    return torch.where(k > 0, outside, -inside)


OUTLINES: dict[str, Outline] = {
    "ball": ball,
    "ring": ring,
    "square": square,
    "triangle": triangle,
    "star": star,
    "cross": cross,
}

SYMMETRY = {"ball": 0, "ring": 0, "square": 4, "triangle": 3, "star": 5, "cross": 4}
"""How often a shape looks the same in one turn; 0 for always."""


def area(shape: str) -> float:
    """Area of a shape of radius 1, from its closed form."""
    return {
        "ball": math.pi,
        "ring": math.pi * (1.1**2 - 0.55**2),
        "square": 4 * 0.92**2,
        "triangle": 3 * math.sqrt(3) / 4 * 1.35**2,
        "star": 5 * 0.45 * math.sin(math.pi / 5) * 1.35**2,
        "cross": 8 * 1.1 * 0.38 - 4 * 0.38**2,
    }[shape]
