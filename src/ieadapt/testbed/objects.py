"""Which objects a clip shows: a colour is found in every frame, then every shape and motion is fitted to where it is.

A colour names an object, and colours of objects are far from those of backgrounds whatever the light. What lies under
another object's colour is unknown, so that what is hidden does not count.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ieadapt.testbed.outlines import SYMMETRY
from ieadapt.testbed.outlines import area as area_of
from ieadapt.testbed.rendering import Trajectory, View, follow, palette, seen, signed_distance
from ieadapt.testbed.scene import COLOURS, FRAMES, MOTIONS, SHAPES, Clip, can_be_seen

Grid = Float[Tensor, "frame channel row column"]
"""Frames in [0, 1] at the size at which colours are sought."""
Plane = Float[Tensor, "frame row column"]
"""One number of each pixel of such frames."""
Numbers = Float[Tensor, "candidate 6"]
"""x, y, log radius, angle, phase and pace of every candidate."""
Errors = Float[Tensor, " candidate"]

GRID = 64
"""Height and width of the frames in which colours are sought."""
BRIGHTNESS = (0.42, 1.5)
"""Darkest and brightest multiple of its nominal value in which a colour is known again."""
NEAR = 0.13
"""Largest distance of a pixel from a colour's ray."""
APART = 0.18
"""Least distance of an object's pixel from the background behind it ..."""
NEARER = 0.6
"""... of which its distance from the colour's ray is at most this share."""
DARKEST = 0.58
"""Median brightness below which a colour is a shade of the background: dimmest light times darkest tint is .64."""
WHOLE = 0.6
"""Error of the best fit above which a colour is scattered over the clip, and no object."""
LEAST = 16.0
"""Pixels of the grid that a colour must cover on average to be an object."""
SOFT = 1.6
"""Width of an object's soft edge in pixels of the grid."""
POINTS = 20
"""Points across the window around an object in which shapes are compared; as many down."""
ITERATIONS = 30
TRIAL, GOING_ON = 10, 16
"""After how many steps of a fit hopeless candidates are left as they are, and how many go on at least."""
PHASES, ANGLES = 4, 3
"""Starts of a fit: where a bounce begins, and how a spinning shape is turned."""


@dataclass(frozen=True)
class Candidate:
    """One shape in one motion, fitted to an object.

    Args:
        shape: one of `SHAPES`.
        motion: one of `MOTIONS`.
        error: squared difference of covers as a share of the object's own, 0 at a perfect fit and about 1 at none.
        position: in the middle of the clip, in frame widths.
        radius: likewise.
        angle: in the first frame, radians.
        phase: where a bounce starts.
        pace: as a multiple of the nominal one.
    """

    shape: str
    motion: str
    error: float
    position: tuple[float, float]
    radius: float
    angle: float
    phase: float
    pace: float


@dataclass(frozen=True)
class Sighting:
    """An object of one colour.

    Args:
        colour: one of `COLOURS`.
        area: mean pixels of the grid that show it.
        seen: share of the frames in which enough of it shows, or in which another object may hide it.
        candidates: every shape and motion, fitted.
    """

    colour: str
    area: float
    seen: float
    candidates: tuple[Candidate, ...]

    def best(self, **named: str) -> Candidate:
        """The candidate with the least error, of those with the named shape or motion."""
        named_so = (each for each in self.candidates if all(getattr(each, key) == named[key] for key in named))
        return min(named_so, key=lambda candidate: candidate.error)

    def error(self, **named: str) -> float:
        """The least error of the candidates with the named shape or motion."""
        return self.best(**named).error


def at_grid(clip: Clip) -> Float[Tensor, "frame channel row column"]:
    """The clip at the size at which colours are sought."""
    return F.interpolate(clip, size=(GRID, GRID), mode="area")


def find_colours(frames: Grid, behind: Grid) -> Int[Tensor, "frame row column"]:
    """The colour of every pixel, as an index into `COLOURS`, or -1 for background.

    Args:
        frames: of the clip, at the grid's size.
        behind: the background alone, in light.
    """
    frames, behind = frames.movedim(1, -1), behind.movedim(1, -1)
    rays = palette(frames.device)
    scale = (frames @ rays.T / rays.square().sum(1)).clamp(*BRIGHTNESS)
    least, nearest = (frames[..., None, :] - scale[..., None] * rays).norm(dim=-1).min(-1)
    apart = (frames - behind).norm(dim=-1)
    return torch.where((least < NEAR) & (apart > APART) & (least < NEARER * apart), nearest, -1)


class Fits(NamedTuple):
    """Shapes in motions that are fitted, a row each, and what each is fitted to.

    Attributes:
        shape: index into `SHAPES`.
        motion: index into `MOTIONS`.
        numbers: where the fit starts.
        grid: points around the object in every frame.
        shown: how much its colour covers each point, in [0, 1].
        weight: of each point; 0 where another object may hide it, and outside the frame.
        x: of the clip's camera in every frame.
        y: likewise.
        zoom: likewise.
    """

    shape: Int[Tensor, " candidate"]
    motion: Int[Tensor, " candidate"]
    numbers: Numbers
    grid: Float[Tensor, "candidate frame point 2"]
    shown: Float[Tensor, "candidate frame point"]
    weight: Float[Tensor, "candidate frame point"]
    x: Float[Tensor, "candidate frame"]
    y: Float[Tensor, "candidate frame"]
    zoom: Float[Tensor, "candidate frame"]


@dataclass(frozen=True)
class Spot:
    """Where a colour is in a clip, before shapes and motions are fitted to it.

    Args:
        colour: one of `COLOURS`.
        area: mean pixels of the grid that show it.
        seen: as of a `Sighting`.
        fits: every shape in every motion, where it is seen.
    """

    colour: str
    area: float
    seen: float
    fits: Fits


def spot(
    frames: Grid, behind: Grid, colours: Int[Tensor, "frame row column"], colour: int, camera: View
) -> Spot | None:
    """Where a colour is, or None where there is too little of it.

    Args:
        frames: of the clip, at the grid's size.
        behind: the background alone.
        colours: of every pixel.
        colour: index into `COLOURS`.
        camera: how the clip's camera moves, each part of shape (1, frame).
    """
    own = _largest_part(colours == colour)
    area = own.sum((1, 2))
    ray = palette(frames.device)[colour]
    if float(area.mean()) < LEAST:
        return None
    if float((frames.movedim(1, -1)[own.bool()] @ ray / ray.square().sum()).median()) < DARKEST:
        return None
    others = F.max_pool2d(((colours >= 0) & (colours != colour)).float()[:, None], 3, 1, 1)[:, 0]
    x, y = _centres(own)
    grid = _window(x, y, 2.4 * math.sqrt(float(area.max()) / math.pi) / GRID + 0.04)
    shown = _sample(_cover(frames, behind, own, ray), grid)
    known = 1 - _sample(others, grid).clamp(0, 1)
    inside = ((grid > 0) & (grid < 1)).all(-1).float()
    enough = (area > 0.35 * area.median()) | (others.sum((1, 2)) > 0.5 * area.median())
    starts = _starts(x, y, area, camera)
    around = (grid, shown, known * inside, *(part[0] for part in camera))
    fits = Fits(*starts, *(part.expand(len(starts[0]), *part.shape) for part in around))
    return Spot(COLOURS[colour], float(area.mean()), float(enough.float().mean()), fits)


def _largest_part(mask: Bool[Tensor, "frame row column"]) -> Plane:
    """The pixels that lie near where most of the colour is, so that a speck elsewhere is no part of the object."""
    soft = F.avg_pool2d(mask.float()[:, None], 5, 1, 2)[:, 0]
    return (mask & (soft > 0.45)).float()


def _cover(frames: Tensor, behind: Tensor, own: Tensor, ray: Tensor) -> Plane:
    """How much of each pixel the object covers: the share of the way from the background to the object's colour."""
    scale = ((frames * ray[:, None, None]).sum(1) / ray.square().sum() * own).sum((1, 2)) / own.sum((1, 2)).clamp(min=1)
    target = scale[:, None, None, None] * ray[:, None, None]
    axis = target - behind
    share = ((frames - behind) * axis).sum(1) / axis.square().sum(1).clamp(min=0.02)
    near = F.max_pool2d(own[:, None], 3, 1, 1)[:, 0]
    soft = ((share - 0.5) / 0.8 + 0.5).clamp(0, 1)
    return torch.maximum(soft * near, own * (share > 0.3))


def _centres(own: Plane) -> tuple[Tensor, Tensor]:
    """Centre of the pixels of each frame in frame widths; a frame without any takes those around it."""
    steps = (torch.arange(GRID, device=own.device) + 0.5) / GRID
    size = own.sum((1, 2))
    x, y = (own.sum(1) @ steps) / size.clamp(min=1), (own.sum(2) @ steps) / size.clamp(min=1)
    shown = (size >= LEAST / 3).nonzero()[:, 0]
    if not len(shown):
        return x, y
    frames = torch.arange(len(own), device=own.device)
    nearest = shown[(frames[:, None] - shown[None]).abs().argmin(1)]
    return x[nearest], y[nearest]


def _window(x: Tensor, y: Tensor, half: float) -> Float[Tensor, "frame point 2"]:
    steps = torch.linspace(-half, half, POINTS, device=x.device)
    down, across = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x[:, None] + across.flatten(), y[:, None] + down.flatten()], -1)


def _sample(values: Plane, grid: Float[Tensor, "frame point 2"]) -> Tensor:
    return F.grid_sample(values[:, None], (2 * grid - 1)[:, None], align_corners=False)[:, 0, 0]


def _starts(x: Tensor, y: Tensor, area: Tensor, camera: View) -> list[Tensor]:
    """Shape, motion and numbers of every shape in every motion, where the object is seen."""
    zoom = camera.zoom[0]
    plane_x, plane_y = (x - 0.5) / zoom + 0.5 + camera.x[0], (y - 0.5) / zoom + 0.5 + camera.y[0]
    shown = area > 0.5 * area.median()
    middle_x, middle_y = float(plane_x[shown].mean()), float(plane_y[shown].mean())
    size = float((area / zoom.square())[shown].quantile(0.6))
    rows = []
    for (shape, name), (motion, kind) in itertools.product(enumerate(SHAPES), enumerate(MOTIONS)):
        if can_be_seen(name, kind):
            radius = math.log(math.sqrt(size / area_of(name)) / GRID)
            phases = [step / PHASES for step in range(PHASES if kind == "bouncing" else 1)]
            turns = [step / ANGLES * 2 * math.pi for step in range(ANGLES if kind == "spinning" else 1)]
            for phase, turn in itertools.product(phases, turns):
                angle = turn / (SYMMETRY[name] or 1)
                rows.append((shape, motion, [middle_x, middle_y, radius, angle, phase, 1.0]))
    return [torch.tensor(values, device=x.device) for values in zip(*rows, strict=True)]


def fit_objects(spots: Sequence[Spot]) -> list[Sighting | None]:
    """Fit every shape and motion to each spot; None where none fits, so that it is no object.

    Spots of several clips are fitted together, which is quicker on a GPU and the same on a CPU.
    """
    if not spots:
        return []
    owner = [index for index, one in enumerate(spots) for _ in one.fits.shape]
    fits = Fits(*(torch.cat(parts) for parts in zip(*(one.fits for one in spots), strict=True)))
    candidates = _candidates(owner, fits, *_fit(owner, fits))
    return [
        Sighting(one.colour, one.area, one.seen, fitted) if min(each.error for each in fitted) <= WHOLE else None
        for one, fitted in zip(spots, candidates, strict=True)
    ]


@torch.enable_grad()
def _fit(owner: Sequence[int], fits: Fits) -> tuple[Numbers, Errors]:
    """Bring every candidate closer to what is shown; the numbers of each, and how far off it stays.

    After `TRIAL` steps only those go on that may still explain their object best.
    """
    numbers, errors = _descend(fits, range(TRIAL))
    going_on = _promising(owner, fits, errors)
    left = Fits(*(part[going_on] for part in fits._replace(numbers=numbers)))
    later, closer = _descend(left, range(TRIAL, ITERATIONS))
    numbers[going_on] = torch.where((closer < errors[going_on])[:, None], later, numbers[going_on])
    errors[going_on] = torch.minimum(closer, errors[going_on])
    return numbers, errors


def _descend(fits: Fits, iterations: range) -> tuple[Numbers, Errors]:
    """The closest that each candidate comes in some steps of the whole fit, and its error there."""
    numbers = fits.numbers.clone().requires_grad_()
    step = torch.tensor([0.02, 0.02, 0.06, 0.06, 0.04, 0.08], device=numbers.device)
    optimizer = torch.optim.Adam([numbers], lr=1.0, betas=(0.85, 0.95))
    own = (fits.weight * fits.shown.square()).sum((1, 2)).clamp(min=1e-6)
    best, kept = torch.full_like(own, math.inf), fits.numbers.clone()
    for iteration in (*iterations, None):
        error = (fits.weight * (_covers(fits, numbers) - fits.shown).square()).sum((1, 2)) / own
        better = error.detach() < best
        best = torch.where(better, error.detach(), best)
        kept = torch.where(better[:, None], numbers.detach(), kept)
        if iteration is None:
            break
        optimizer.zero_grad()
        error.sum().backward()
        before = numbers.detach().clone()
        optimizer.param_groups[0]["lr"] = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * iteration / ITERATIONS))
        optimizer.step()
        with torch.no_grad():  # each number in steps of its own size
            numbers.copy_(before + (numbers - before) * step)
            numbers[:, 5].clamp_(0.5, 1.5)
    return kept, best


def _promising(owner: Sequence[int], fits: Fits, errors: Errors) -> Int[Tensor, " kept"]:
    """Of every object the `GOING_ON` candidates nearest so far, and the nearest of every shape and of every motion."""
    shape, motion = fits.shape.tolist(), fits.motion.tolist()
    counted: Counter[tuple[int, str, int]] = Counter()
    rows = []
    for row in errors.argsort().tolist():
        kinds = [(owner[row], "any", 0), (owner[row], "shape", shape[row]), (owner[row], "motion", motion[row])]
        if counted[kinds[0]] < GOING_ON or not counted[kinds[1]] or not counted[kinds[2]]:
            rows.append(row)
        counted.update(kinds)
    return torch.tensor(sorted(rows), device=errors.device)


def _candidates(owners: Sequence[int], fits: Fits, numbers: Numbers, errors: Errors) -> list[tuple[Candidate, ...]]:
    """The best candidate of each shape and motion, object by object."""
    best: list[dict[tuple[int, int], Candidate]] = [{} for _ in set(owners)]
    rows = (part.tolist() for part in (fits.shape, fits.motion, errors, numbers))
    for owner, shape, motion, error, row in zip(owners, *rows, strict=True):
        other = best[owner].get((shape, motion))
        if other is None or error < other.error:
            best[owner][shape, motion] = Candidate(
                SHAPES[shape], MOTIONS[motion], error, (row[0], row[1]), math.exp(row[2]), row[3], row[4], row[5]
            )
    return [tuple(found.values()) for found in best]


def _covers(fits: Fits, numbers: Numbers) -> Float[Tensor, "candidate frame point"]:
    """How much each candidate covers each point."""
    x, y, radius, angle, phase, pace = (part[:, None] for part in numbers.unbind(1))
    middle = Trajectory(x, y, radius.exp(), angle)
    frames = torch.arange(FRAMES, device=numbers.device)[None]
    path = follow(fits.motion[:, None], middle, phase, frames, pace)
    appearing = seen(Trajectory(*(part[:, None] for part in path)), View(fits.x, fits.y, fits.zoom))
    placed = Trajectory(*(part[:, 0, :, None] for part in appearing))
    distance = signed_distance(fits.shape, placed, fits.grid[..., 0], fits.grid[..., 1])
    return (0.5 - distance * GRID / SOFT).clamp(0, 1)
