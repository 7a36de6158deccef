"""From scenes to frames: anti-aliased signed distances over a background, whole batches at once, on any device."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ieadapt.testbed.backgrounds import background_picture
from ieadapt.testbed.outlines import OUTLINES
from ieadapt.testbed.scenes import (
    BACKGROUNDS,
    COLOURS,
    RESOLUTION,
    SHAPES,
    Scene,
    SceneTensors,
    Trajectory,
    trajectories,
)

PALETTE = {
    "red": (0.86, 0.10, 0.10),
    "orange": (0.98, 0.52, 0.05),
    "yellow": (0.97, 0.90, 0.15),
    "green": (0.10, 0.68, 0.16),
    "cyan": (0.10, 0.83, 0.87),
    "blue": (0.12, 0.20, 0.88),
    "purple": (0.58, 0.14, 0.74),
    "white": (0.95, 0.95, 0.95),
}
SHADING = 0.08
"""How much brighter the top of an object is than its middle."""
EDGE = 1.5
"""Width of an object's soft edge in pixels."""


def palette(device: torch.device | str = "cpu") -> Float[Tensor, "colour channel"]:
    """The eight colours in the order of `COLOURS`, in [0, 1]."""
    return torch.tensor([PALETTE[name] for name in COLOURS], device=device)


def cover(
    shape: Int[Tensor, " scene"], path: Trajectory, resolution: int = RESOLUTION, soft: float = EDGE
) -> tuple[Float[Tensor, "scene frame height width"], Float[Tensor, "scene frame height width"]]:
    """How much of each pixel the object covers, in [0, 1], and the height above its centre in radii.

    Args:
        shape: index into `SHAPES`, per scene.
        path: position, radius and angle, each (scene, frame), in frame widths and radians.
        resolution: height and width in pixels.
        soft: width of the object's soft edge in pixels.
    """
    centre = (torch.arange(resolution, device=shape.device) + 0.5) / resolution
    placed = Trajectory(*(part[..., None, None] for part in path))
    distance = signed_distance(shape, placed, centre[None, None, None, :], centre[None, None, :, None])
    height = -(centre[None, None, :, None] - placed.y) / placed.radius
    return (0.5 - distance * resolution / soft).clamp(0, 1), height.expand_as(distance)


def signed_distance(shape: Int[Tensor, " scene"], path: Trajectory, x: Tensor, y: Tensor) -> Float[Tensor, "scene ..."]:
    """How far points are from the outlines of objects, in frame widths, negative inside.

    Args:
        shape: index into `SHAPES`, per scene.
        path: position, radius and angle of each object; they broadcast with the points, scenes first.
        x: of the points, in frame widths.
        y: likewise.
    """
    dx, dy = (x - path.x) / path.radius, (y - path.y) / path.radius
    across, down = path.angle.cos() * dx - path.angle.sin() * dy, path.angle.sin() * dx + path.angle.cos() * dy
    distance = torch.empty_like(across)
    for index, name in enumerate(SHAPES):
        rows = (shape == index).nonzero()[:, 0]
        if len(rows):
            distance[rows] = OUTLINES[name](across[rows], down[rows])
    return distance * path.radius


def backdrop(
    background: Int[Tensor, " scene"], shift: Float[Tensor, " scene"], resolution: int = RESOLUTION
) -> Float[Tensor, "scene channel height width"]:
    """The background pictures of a batch, in [0, 1]."""
    pictures = torch.empty(len(shift), 3, resolution, resolution, device=shift.device)
    for index, name in enumerate(BACKGROUNDS):
        rows = (background == index).nonzero()[:, 0]
        if len(rows):
            pictures[rows] = background_picture(name, shift[rows], resolution)
    return pictures


def compose(
    pictures: Float[Tensor, "scene channel height width"],
    mask: Float[Tensor, "scene frame height width"],
    height: Float[Tensor, "scene frame height width"],
    colour: Float[Tensor, "scene channel"],
) -> Float[Tensor, "scene frame channel height width"]:
    """Objects of one colour, lit from above, over their backgrounds."""
    light = (1 + SHADING * height.clamp(-1.4, 1.4))[:, :, None]
    body = (colour[:, None, :, None, None] * light).clamp(0, 1)
    return torch.lerp(pictures[:, None].expand(*mask.shape[:2], -1, -1, -1), body, mask[:, :, None])


def render_batch(
    scenes: SceneTensors, resolution: int = RESOLUTION
) -> Float[Tensor, "scene frame channel height width"]:
    """Render many scenes at once, on the device of their tensors.

    Returns:
        Frames in [0, 1].

    Example:
        >>> from ieadapt.testbed.scenes import sample_tensors
        >>> render_batch(sample_tensors(2, torch.Generator().manual_seed(0)), resolution=32).shape
        torch.Size([2, 16, 3, 32, 32])
    """
    mask, height = cover(scenes.attribute("shape"), trajectories(scenes), resolution)
    pictures = backdrop(scenes.attribute("background"), scenes.continuous[:, 5], resolution)
    return compose(pictures, mask, height, palette(mask.device)[scenes.attribute("colour")])


def render_frames(
    scenes: SceneTensors, frame: Int[Tensor, " scene"], resolution: int = RESOLUTION
) -> Float[Tensor, "scene channel height width"]:
    """One chosen frame of each scene, in [0, 1]."""
    x, y, radius, angle = (part.gather(1, frame[:, None]) for part in trajectories(scenes))
    path = Trajectory(x, y, radius, angle)
    mask, height = cover(scenes.attribute("shape"), path, resolution)
    pictures = backdrop(scenes.attribute("background"), scenes.continuous[:, 5], resolution)
    return compose(pictures, mask, height, palette(mask.device)[scenes.attribute("colour")])[:, 0]


def render(scene: Scene) -> Float[Tensor, "frame channel height width"]:
    """Render a scene: 16 frames of 128 x 128 pixels in [0, 1].

    Example:
        >>> render(Scene("big", "red", "star", "left", "bricks")).shape
        torch.Size([16, 3, 128, 128])
    """
    return render_batch(scene.tensors())[0]


def render_mask(scene: Scene) -> Float[Tensor, "frame height width"]:
    """How much of each pixel the object covers, in [0, 1]: the ground truth of where it is."""
    batch = scene.tensors()
    return cover(batch.attribute("shape"), trajectories(batch))[0][0]
