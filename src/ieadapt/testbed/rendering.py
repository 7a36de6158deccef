"""From scenes to frames: patterns and objects with soft edges, shadows and light, whole batches at once, on any device.

A point of the plane is seen at ((point - camera) * zoom + 1/2); the camera is in the middle of the plane and zoom is 1
in the middle of the clip.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ieadapt.testbed.outlines import OUTLINES
from ieadapt.testbed.patterns import paint, tint
from ieadapt.testbed.scene import (
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    FRAMES,
    MOST_OBJECTS,
    MOTIONS,
    RESOLUTION,
    SHAPES,
    SIZES,
    Clip,
    Scene,
    SceneBatch,
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
EDGE = 1.5
"""Width of an object's soft edge in pixels."""
RADIUS = {"big": (0.185, 0.215), "small": (0.105, 0.13)}
"""Smallest and largest radius of each size in the middle of the clip (24-27.5 and 13.5-16.5 pixels)."""
PAN = 0.24
"""How far the camera pans, in frame widths."""
ZOOM = 0.45
"""Logarithm of how much larger things are at the end of a zoom in than at its start."""
PACES = (0.75, 1.25)
"""Slowest and fastest pace of objects and camera, as a multiple of the nominal one."""
TINTS = (0.85, 1.15)
LIGHTS = (0.75, 1.1)
"""Darkest and brightest light; it changes linearly over the clip."""
TURN = 0.25
"""The background is turned by at most this, radians."""
SCALES = (0.8, 1.25)
SHIFT_DOWN = 0.25
"""Range of the background's shift downwards; to the right it is 1."""
TONES = (0.85, 1.12)
LIGHT_SIDE = 1.0
"""The light comes from above or at most this far from it, radians."""
SHADING = 0.16
"""How much brighter the lit side of an object is than its middle, at one radius."""
SHADOW = 0.35
SHADOW_SOFT = 9.0
"""Width of a shadow's edge in pixels."""
SHADOW_REACH = 0.035


FrameNumbers = Int[Tensor, "scene frame"]
TRAVEL = 0.30
BOUNCE_HEIGHT = 0.26
BOUNCE_PERIOD = 8
GROWTH = 0.3
SPIN = math.radians(18.0)


class Trajectory(NamedTuple):
    """Where objects are in every frame; each field has the frame axis last."""

    x: Tensor
    y: Tensor
    radius: Tensor
    angle: Tensor


def follow(motion: Tensor, middle: Trajectory, phase: Tensor, frame: Tensor, pace: Tensor | float = 1.0) -> Trajectory:
    """Where objects are at given frames; all arguments broadcast.

    Left, right, up and down travel 0.30 of the frame at constant speed; growing goes from 0.7 to 1.3 times the radius
    and shrinking back; spinning turns 18 degrees a frame; bouncing rises and falls by 0.26 in 8 frames.

    Args:
        motion: index into `MOTIONS`.
        middle: position and radius in the middle of the clip, and the angle in the first frame.
        phase: where in its cycle a bouncing object starts.
        frame: which frames, 0 to 15.
        pace: distance, growth and turns as a multiple of the nominal ones.
    """
    progress = frame / (FRAMES - 1) - 0.5

    def is_a(name: str) -> Tensor:
        return (motion == MOTIONS.index(name)).to(progress.dtype) * pace

    height = (torch.pi * (frame / BOUNCE_PERIOD + phase)).sin().abs()
    return Trajectory(
        x=middle.x + TRAVEL * progress * (is_a("right") - is_a("left")),
        y=middle.y
        + TRAVEL * progress * (is_a("down") - is_a("up"))
        + BOUNCE_HEIGHT * (0.5 - height) * is_a("bouncing"),
        radius=middle.radius * (1 + 2 * GROWTH * progress * (is_a("growing") - is_a("shrinking"))),
        angle=middle.angle + SPIN * frame * is_a("spinning"),
    )


def palette(device: torch.device | str = "cpu") -> Float[Tensor, "colour channel"]:
    """The eight colours in the order of `COLOURS`, in [0, 1]."""
    return torch.tensor([PALETTE[name] for name in COLOURS], device=device)


def cover(
    shape: Int[Tensor, " scene"], path: Trajectory, resolution: int = RESOLUTION, soft: float = EDGE
) -> Float[Tensor, "scene frame height width"]:
    """How much of each pixel the object covers, in [0, 1].

    Args:
        shape: index into `SHAPES`, per scene.
        path: position, radius and angle, each (scene, frame), in frame widths and radians.
        resolution: height and width in pixels.
        soft: width of the object's soft edge in pixels.
    """
    centre = (torch.arange(resolution, device=shape.device) + 0.5) / resolution
    placed = Trajectory(*(part[..., None, None] for part in path))
    distance = signed_distance(shape, placed, centre[None, None, None, :], centre[None, None, :, None])
    return (0.5 - distance * resolution / soft).clamp(0, 1)


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


class View(NamedTuple):
    """Where the camera is and how much it enlarges, each of shape (scene, frame)."""

    x: Tensor
    y: Tensor
    zoom: Tensor


def between(bounds: tuple[float, float], share: Tensor) -> Tensor:
    """The value at a share of the way from the lower bound to the upper one."""
    return bounds[0] + (bounds[1] - bounds[0]) * share


def all_frames(batch: SceneBatch) -> FrameNumbers:
    """The numbers of all 16 frames for every scene."""
    return torch.arange(FRAMES, device=batch.count.device).expand(len(batch), FRAMES)


def view(batch: SceneBatch, frame: FrameNumbers) -> View:
    """The camera of every scene at given frames."""
    pace = between(PACES, batch.of_scene("camera_pace"))[:, None]
    return move_camera(batch.of_scene("camera")[:, None], pace, frame)


def move_camera(camera: Int[Tensor, "scene 1"], pace: Tensor | float, frame: FrameNumbers) -> View:
    """A camera at given frames.

    Args:
        camera: index into `CAMERAS`.
        pace: as a multiple of the nominal one.
        frame: which frames.
    """
    progress = (frame / (FRAMES - 1) - 0.5) * pace

    def towards(one: str, other: str) -> Tensor:
        return (camera == CAMERAS.index(one)).float() - (camera == CAMERAS.index(other)).float()

    return View(
        PAN * progress * towards("right", "left"),
        PAN * progress * towards("down", "up"),
        (ZOOM * progress * towards("in", "out")).exp(),
    )


def world_paths(batch: SceneBatch, frame: FrameNumbers) -> Trajectory:
    """Where every object is in the plane, each field of shape (scene, slot, frame)."""
    bounds = torch.tensor([RADIUS[size] for size in SIZES], device=frame.device)[batch.kind("size")]
    radius = bounds[..., 0] + batch.number("swell") * (bounds[..., 1] - bounds[..., 0])
    middle = Trajectory(
        *(value[..., None] for value in (batch.number("x"), batch.number("y"), radius, batch.number("angle")))
    )
    return follow(
        batch.kind("motion")[..., None],
        middle,
        batch.number("phase")[..., None],
        frame[:, None],
        between(PACES, batch.number("pace"))[..., None],
    )


def seen(path: Trajectory, camera: View) -> Trajectory:
    """Paths in the plane as they appear in the frame."""
    x, y, zoom = (value[:, None] for value in camera)
    return Trajectory((path.x - 0.5 - x) * zoom + 0.5, (path.y - 0.5 - y) * zoom + 0.5, path.radius * zoom, path.angle)


def paths(batch: SceneBatch, frame: FrameNumbers) -> Trajectory:
    """Where every object appears in the frame, each field of shape (scene, slot, frame)."""
    return seen(world_paths(batch, frame), view(batch, frame))


def backdrops(
    batch: SceneBatch, camera: View, resolution: int = RESOLUTION
) -> Float[Tensor, "scene frame height width channel"]:
    """The backgrounds as the camera sees them, in [0, 1], before light."""
    centre = (torch.arange(resolution, device=batch.count.device) + 0.5) / resolution - 0.5
    x = centre[None, None, None, :] / camera.zoom[..., None, None] + camera.x[..., None, None]
    y = centre[None, None, :, None] / camera.zoom[..., None, None] + camera.y[..., None, None]
    x, y = torch.broadcast_tensors(x, y)
    turn, scale, right, down = (
        value[:, None, None, None]
        for value in (
            TURN * (2 * batch.of_scene("turn") - 1),
            between(SCALES, batch.of_scene("scale")),
            batch.of_scene("shift_x"),
            SHIFT_DOWN * (batch.of_scene("shift_y") - 0.5),
        )
    )
    across = (turn.cos() * x - turn.sin() * y) * scale + 0.5 + right
    along = (turn.sin() * x + turn.cos() * y) * scale + 0.5 + down
    colours = torch.empty(*x.shape, 3, device=x.device)
    for index, name in enumerate(BACKGROUNDS):
        rows = (batch.of_scene("background") == index).nonzero()[:, 0]
        if len(rows):
            colours[rows] = paint(name, across[rows], along[rows])
    tone = between(TONES, batch.of_scene("tone"))[:, None, None, None, None]
    return (colours * tone + tint(x, y, batch.variation[:, -9:])).clamp(0, 1)


def render_batch(
    batch: SceneBatch, frame: FrameNumbers | None = None, resolution: int = RESOLUTION
) -> Float[Tensor, "scene frame channel height width"]:
    """Render many scenes at once, on the device of their tensors.

    Args:
        batch: the scenes.
        frame: which frames of each; all 16 without it.
        resolution: height and width in pixels.

    Returns:
        Frames in [0, 1].

    Example:
        >>> from ieadapt.testbed.sampling import sample_batch
        >>> render_batch(sample_batch(2, torch.Generator().manual_seed(0)), resolution=32).shape
        torch.Size([2, 16, 3, 32, 32])
    """
    frame = all_frames(batch) if frame is None else frame
    camera = view(batch, frame)
    picture = backdrops(batch, camera, resolution).movedim(-1, 2).contiguous()
    where = seen(world_paths(batch, frame), camera)
    side = (LIGHT_SIDE * (2 * batch.of_scene("light_side") - 1))[:, None]
    for slot in reversed(range(MOST_OBJECTS)):
        rows = batch.present[:, slot].nonzero()[:, 0]
        if not len(rows):
            continue
        path = Trajectory(*(value[rows, slot] for value in where))
        shape, towards, reach = batch.kind("shape")[rows, slot], side[rows], SHADOW_REACH * camera.zoom[rows]
        fallen = Trajectory(path.x - reach * towards.sin(), path.y + reach * towards.cos(), path.radius, path.angle)
        shadow = cover(shape, fallen, resolution, SHADOW_SOFT * resolution / RESOLUTION)
        mask = cover(shape, path, resolution)
        colour = palette(frame.device)[batch.kind("colour")[rows, slot]]
        colour = colour * between(TINTS, batch.number("tint")[rows, slot])[:, None]
        body = (colour[:, None, :, None, None] * _shading(path, towards, resolution)[:, :, None]).clamp(0, 1)
        behind = picture[rows] * (1 - SHADOW * shadow)[:, :, None]
        picture[rows] = torch.lerp(behind, body, mask[:, :, None])
    start, end = (between(LIGHTS, batch.of_scene(name))[:, None] for name in ("light_start", "light_end"))
    light = torch.lerp(start.expand(frame.shape), end.expand(frame.shape), frame / (FRAMES - 1))
    return (picture * light[..., None, None, None]).clamp(0, 1)


def _shading(
    path: Trajectory, side: Float[Tensor, "scene 1"], resolution: int
) -> Float[Tensor, "scene frame height width"]:
    """How bright an object's surface is in every pixel, 1 in its middle."""
    centre = (torch.arange(resolution, device=side.device) + 0.5) / resolution
    x, y, radius = (value[..., None, None] for value in path[:3])
    dx, dy = (centre - x) / radius, (centre[:, None] - y) / radius
    side = side[..., None, None]
    return 1 + SHADING * (side.sin() * dx - side.cos() * dy).clamp(-1.4, 1.4)


def masks_batch(
    batch: SceneBatch, frame: FrameNumbers | None = None, resolution: int = RESOLUTION
) -> Float[Tensor, "scene slot frame height width"]:
    """How much of each pixel shows each object, what hides it taken off, in [0, 1]; unused slots are 0."""
    frame = all_frames(batch) if frame is None else frame
    where = paths(batch, frame)
    free = torch.ones(*frame.shape, resolution, resolution, device=frame.device)
    shown = []
    for slot in range(MOST_OBJECTS):
        mask = cover(batch.kind("shape")[:, slot], Trajectory(*(value[:, slot] for value in where)), resolution)
        mask = mask * batch.present[:, slot, None, None, None]
        shown.append(mask * free)
        free = free * (1 - mask)
    return torch.stack(shown, 1)


def render(scene: Scene) -> Clip:
    """Render a scene: 16 frames of 128 x 128 pixels in [0, 1].

    Example:
        >>> from ieadapt.testbed.scene import SceneObject
        >>> render(Scene((SceneObject("big", "red", "star", "left"),), "bricks")).shape
        torch.Size([16, 3, 128, 128])
    """
    return render_batch(SceneBatch.stack([scene]))[0]


def render_masks(scene: Scene) -> Float[Tensor, "object frame height width"]:
    """How much of each pixel shows each object of a scene, in [0, 1]: the ground truth of where they are."""
    return masks_batch(SceneBatch.stack([scene]))[0, : len(scene.objects)]
