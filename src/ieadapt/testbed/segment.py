"""Finding the object and the background in frames: what the scorer looks at before it judges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ieadapt.testbed.backgrounds import background_picture
from ieadapt.testbed.outlines import OUTLINES, SYMMETRY, area
from ieadapt.testbed.scenes import BACKGROUNDS, SHAPES

SHIFTS = 48
ANGLES = 24
PATCH = 48
SPAN = 1.1
"""Half width of the patch that shapes are compared in, in square roots of the object's area."""
CAP = 0.15
"""Largest error of a pixel that counts when the start of a background is sought."""
TRIM = 0.6
"""Share of the pixels, best first, by which a background is judged; the rest may be hidden by the object."""


@dataclass(frozen=True)
class Backdrop:
    """The best fit of one kind of background: its error (root mean square over the trimmed pixels) and its shift."""

    name: str
    error: float
    shift: float


@dataclass(frozen=True)
class Sighting:
    """The object as seen in each frame: cover, and centre and area in pixels; its colour over all frames."""

    cover: Float[Tensor, "frame height width"]
    x: Float[Tensor, " frame"]
    y: Float[Tensor, " frame"]
    area: Float[Tensor, " frame"]
    core: Float[Tensor, "pixel channel"]


@lru_cache(maxsize=4)
def _backdrop_bank(resolution: int) -> Float[Tensor, "kind shift channel height width"]:
    shifts = torch.arange(SHIFTS) / SHIFTS
    return torch.stack([F.avg_pool2d(background_picture(name, shifts, resolution), 2) for name in BACKGROUNDS])


def _errors(still: Tensor, pictures: Float[Tensor, "*kind channel height width"]) -> Float[Tensor, "*kind pixel"]:
    return (pictures - still).square().mean(-3).flatten(-2)


def _capped(errors: Float[Tensor, "*kind pixel"]) -> Float[Tensor, "*kind"]:
    """The mean error, capped in each pixel, so that what the object hides weighs the same for every shift."""
    return errors.clamp(max=CAP**2).mean(-1)


def _trimmed(errors: Float[Tensor, " pixel"]) -> float:
    kept = errors.topk(int(TRIM * len(errors)), largest=False, sorted=False).values
    return float(kept.mean().sqrt())


def fit_backdrops(frames: Float[Tensor, "frame channel height width"], named: str) -> dict[str, Backdrop]:
    """Fit every kind of background to the temporal median of the frames, whatever the object hides of it.

    The kind that fits best and the named one are fitted finely, the others to the nearest of 48 shifts.
    """
    resolution = frames.shape[-1]
    still = F.avg_pool2d(frames.median(0).values, 2)
    bank = _backdrop_bank(resolution)
    errors = torch.stack([_errors(still, pictures) for pictures in bank])
    chosen = _capped(errors).argmin(1)
    fits = {
        name: Backdrop(name, _trimmed(errors[kind, chosen[kind]]), float(chosen[kind]) / SHIFTS)
        for kind, name in enumerate(BACKGROUNDS)
    }
    best = min(fits.values(), key=lambda fit: fit.error).name
    return fits | {name: _refine(still, fits[name], resolution) for name in {best, named}}


def _refine(still: Tensor, fit: Backdrop, resolution: int) -> Backdrop:
    """Shift a picture by parts of a step."""
    error, shift = fit.error, fit.shift
    for reach in (1 / SHIFTS, 0.2 / SHIFTS):
        tried = (shift + reach * torch.linspace(-1, 1, 9)) % 1
        errors = _errors(still, F.avg_pool2d(background_picture(fit.name, tried, resolution), 2))
        found = int(_capped(errors).argmin())
        error, shift = _trimmed(errors[found]), float(tried[found])
    return Backdrop(fit.name, error, shift)


def sight(
    frames: Float[Tensor, "frame channel height width"], picture: Float[Tensor, "channel height width"]
) -> Sighting:
    """Separate the object from a known background."""
    mask = ((frames - picture).norm(dim=1) > 0.25).float()
    core = -F.max_pool2d(-mask[:, None], 5, stride=1, padding=2)[:, 0]
    chosen = core if core.sum() >= 20 else mask
    pixels = frames.movedim(1, -1)[chosen.bool()]
    colour = pixels.median(0).values if len(pixels) else frames.mean((0, 2, 3))
    axis = colour[:, None, None] - picture
    share = ((frames - picture) * axis).sum(1) / axis.square().sum(0).clamp(min=0.02)
    cover = ((share - 0.5) / 0.7 + 0.5).clamp(0, 1)
    x, y, size = _track(cover)
    return Sighting(cover, x, y, size, pixels)


def _track(cover: Float[Tensor, "frame height width"]) -> tuple[Tensor, Tensor, Tensor]:
    """Centre and area in pixels, first of the solid parts, then of all that lies near them."""
    steps = torch.arange(cover.shape[-1]) + 0.5
    solid = (F.avg_pool2d(cover[:, None], 5, stride=1, padding=2)[:, 0] > 0.5).float() * cover
    weight = torch.where(solid.sum((1, 2), keepdim=True) > 8, solid, cover) + 1e-6
    for _ in range(3):
        size = weight.sum((1, 2))
        x, y = (weight.sum(1) @ steps) / size, (weight.sum(2) @ steps) / size
        far = torch.hypot(steps[None, None, :] - x[:, None, None], steps[None, :, None] - y[:, None, None])
        weight = cover * (far < 2.2 * (size / math.pi).sqrt()[:, None, None]) + 1e-6
    return x, y, weight.sum((1, 2))


@lru_cache(maxsize=1)
def _templates() -> dict[str, Float[Tensor, "angle pixel"]]:
    """Every shape of area 1 at the angles at which it looks different."""
    at = (torch.arange(PATCH) + 0.5) / PATCH * 2 * SPAN - SPAN
    bank = {}
    for name in SHAPES:
        angles = template_angles(name)[:, None, None]
        x, y = at[None, None, :].expand(1, PATCH, PATCH), at[None, :, None].expand(1, PATCH, PATCH)
        scale = math.sqrt(area(name))
        across, down = angles.cos() * x - angles.sin() * y, angles.sin() * x + angles.cos() * y
        distance = OUTLINES[name](across * scale, down * scale) / scale
        bank[name] = (0.5 - distance * PATCH / (2 * SPAN)).clamp(0, 1).flatten(1)
    return bank


def template_angles(shape: str) -> Float[Tensor, " angle"]:
    """The angles at which a shape is tried, radians."""
    count = SYMMETRY[shape]
    return torch.arange(ANGLES) / ANGLES * 2 * math.pi / count if count else torch.zeros(1)


def shape_overlaps(sighting: Sighting) -> dict[str, tuple[Float[Tensor, " frame"], Float[Tensor, " frame"]]]:
    """For every shape, the intersection over union with the object at the best angle, and that angle, frame by frame.

    Size and place are taken from the object, so that only its outline counts.
    """
    resolution = sighting.cover.shape[-1]
    at = (torch.arange(PATCH) + 0.5) / PATCH * 2 * SPAN - SPAN
    reach = sighting.area.clamp(min=4).sqrt()[:, None, None]
    x = (sighting.x[:, None, None] + at[None, None, :] * reach).expand(-1, PATCH, -1)
    y = (sighting.y[:, None, None] + at[None, :, None] * reach).expand(-1, -1, PATCH)
    grid = torch.stack([x, y], -1) / resolution * 2 - 1
    patch = F.grid_sample(sighting.cover[:, None], grid, align_corners=False)[:, 0].flatten(1)
    found = {}
    for name, bank in _templates().items():
        shared = torch.minimum(patch[:, None], bank[None]).sum(-1)
        overlap = shared / (patch.sum(-1)[:, None] + bank.sum(-1)[None] - shared)
        best = overlap.max(1)
        found[name] = best.values, _between(overlap, best.indices, name)
    return found


def _between(overlap: Float[Tensor, "frame angle"], best: Tensor, shape: str) -> Float[Tensor, " frame"]:
    """The best angle, refined by a parabola through its neighbours."""
    angles = template_angles(shape)
    if len(angles) == 1:
        return torch.zeros(len(best))
    left, middle, right = (overlap.gather(1, ((best + step) % ANGLES)[:, None])[:, 0] for step in (-1, 0, 1))
    bend = (left - 2 * middle + right).clamp(max=-1e-6)
    return angles[best] + (0.5 * (left - right) / bend).clamp(-0.5, 0.5) * (angles[1] - angles[0])
