"""What a clip shows: one object on one background, doing one thing; a value with the ground truth of everything.

A scene has five named attributes, which a caption can say, and a few continuous ones, which it cannot. Lengths are in
frame widths (1 = 128 pixels), x grows to the right, y grows downwards, angles are in radians.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ieadapt.errors import UsageError

FRAMES = 16
RESOLUTION = 128

SIZES = ("big", "small")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
SHAPES = ("ball", "ring", "square", "triangle", "star", "cross")
MOTIONS = ("left", "right", "up", "down", "growing", "shrinking", "spinning", "bouncing")
BACKGROUNDS = ("bricks", "waves", "hills", "checks", "stripes", "starry sky")
ATTRIBUTES = {"size": SIZES, "colour": COLOURS, "shape": SHAPES, "motion": MOTIONS, "background": BACKGROUNDS}
ROUND = ("ball", "ring")
"""Shapes that look the same at every angle: they cannot be seen to spin."""

RADIUS = {"big": (0.22, 0.24), "small": (0.132, 0.145)}
"""Smallest and largest radius of each size (28-31 and 17-18.5 pixels)."""

TRAVEL = 0.30
BOUNCE_HEIGHT = 0.26
BOUNCE_PERIOD = 8
GROWTH = 0.3
SPIN = math.radians(18.0)
TILT = 0.2
REACH = 1.35

Split = Literal["train", "heldout", "all"]
Attributes = Mapping[str, tuple[str, ...]]
"""Name of an attribute -> the values that it may have."""


def check_attributes(value: object, attributes: Attributes) -> None:
    """Refuse a value with an attribute that is none of the known ones.

    Raises:
        UsageError: an unknown attribute value.
    """
    for name, known in attributes.items():
        if getattr(value, name) not in known:
            where = type(value).__name__
            raise UsageError(f"unknown {name}", expected=", ".join(known), got=getattr(value, name), where=where)


def can_be_seen(shape: str, motion: str) -> bool:
    """Whether a shape shows a motion: a round one that spins looks as if it stood still.

    Example:
        >>> can_be_seen("star", "spinning"), can_be_seen("ring", "spinning")
        (True, False)
    """
    return motion != "spinning" or shape not in ROUND


def check_spin(value: Any) -> None:
    """Refuse a value whose `shape` does not show its `motion`.

    Raises:
        UsageError: a round shape that spins.
    """
    if not can_be_seen(value.shape, value.motion):
        raise UsageError(
            "a round shape cannot be seen to spin",
            expected="a shape with corners",
            got=value.shape,
            where=type(value).__name__,
            remedy="choose another shape or motion",
        )


def attribute_indices(value: object, attributes: Attributes) -> list[int]:
    """Where each attribute of a value stands among the known ones."""
    return [known.index(getattr(value, name)) for name, known in attributes.items()]


class Trajectory(NamedTuple):
    """Where the object is in every frame; each field has the frame axis last."""

    x: Tensor
    y: Tensor
    radius: Tensor
    angle: Tensor


@dataclass(frozen=True)
class Scene:
    """One object, one motion, one background.

    Args:
        size: one of `SIZES`.
        colour: one of `COLOURS`.
        shape: one of `SHAPES`.
        motion: one of `MOTIONS`; a ball or a ring cannot be `spinning`.
        background: one of `BACKGROUNDS`.
        position: centre of the trajectory, (x, y) in frame widths.
        swell: where in the size's range of radii the radius lies, in [0, 1].
        phase: where in its cycle a bouncing object starts, in [0, 1).
        angle: tilt of the object in the first frame, radians.
        shift: where in its period the background starts, in [0, 1).

    Raises:
        UsageError: an unknown attribute value, or a round shape that spins.

    Example:
        >>> scene = Scene("big", "red", "star", "left", "bricks")
        >>> scene.replace(colour="blue").colour
        'blue'
        >>> scene.trajectory().x.shape
        torch.Size([16])
    """

    size: str
    colour: str
    shape: str
    motion: str
    background: str
    position: tuple[float, float] = (0.5, 0.5)
    swell: float = 0.5
    phase: float = 0.0
    angle: float = 0.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        """Check the five attributes."""
        check_attributes(self, ATTRIBUTES)
        check_spin(self)

    def replace(self, **changes: object) -> Scene:
        """The same scene with some attributes changed: the perfect edit."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def tensors(self) -> SceneTensors:
        """This scene as a batch of one."""
        return SceneTensors.stack([self])

    def trajectory(self) -> Trajectory:
        """Position, radius and angle in each of the 16 frames, each a tensor of shape (16,)."""
        x, y, radius, angle = trajectories(self.tensors())
        return Trajectory(x[0], y[0], radius[0], angle[0])


@dataclass(frozen=True)
class SceneTensors:
    """A batch of scenes as tensors, so that thousands are sampled and rendered at once.

    `attributes` holds, per scene, the index of each of the five attributes in the order of `ATTRIBUTES`;
    `continuous` holds x, y, swell, phase, angle, shift.
    """

    attributes: Int[Tensor, "scene attribute"]
    continuous: Float[Tensor, "scene value"]

    @classmethod
    def stack(cls, scenes: list[Scene]) -> SceneTensors:
        """Scenes to tensors."""
        rows = [attribute_indices(scene, ATTRIBUTES) for scene in scenes]
        values = [[*scene.position, scene.swell, scene.phase, scene.angle, scene.shift] for scene in scenes]
        return cls(torch.tensor(rows), torch.tensor(values, dtype=torch.float32))

    def scenes(self) -> list[Scene]:
        """Tensors to scenes."""
        rows = zip(self.attributes.tolist(), self.continuous.tolist(), strict=True)
        names = list(ATTRIBUTES.values())
        said = [
            ([names[column][index] for column, index in enumerate(chosen)], (x, y), rest)
            for chosen, (x, y, *rest) in rows
        ]
        return [
            Scene(size, colour, shape, motion, background, place, swell, phase, angle, shift)
            for (size, colour, shape, motion, background), place, (swell, phase, angle, shift) in said
        ]

    def to(self, device: torch.device | str) -> SceneTensors:
        """The same batch on another device."""
        return SceneTensors(self.attributes.to(device), self.continuous.to(device))

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.attributes.device

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self.attributes)

    def __getitem__(self, rows: slice | Tensor) -> SceneTensors:
        """Some of the scenes."""
        return SceneTensors(self.attributes[rows], self.continuous[rows])

    def attribute(self, name: str) -> Int[Tensor, " scene"]:
        """The index of one attribute for every scene."""
        return self.attributes[:, list(ATTRIBUTES).index(name)]

    def radius(self) -> Float[Tensor, " scene"]:
        """The radius at the middle of the clip, in frame widths."""
        bounds = torch.tensor([RADIUS[size] for size in SIZES], device=self.continuous.device)[self.attribute("size")]
        return bounds[:, 0] + self.continuous[:, 2] * (bounds[:, 1] - bounds[:, 0])


def held_out(colour: Tensor, shape: Tensor, background: Tensor) -> Tensor:
    """Whether a combination of colour, shape and background is kept from training: one in twelve is.

    Args:
        colour: index into `COLOURS`; colour + 2 shape + 3 background = 7 (mod 12) is held out.
        shape: index into `SHAPES`.
        background: index into `BACKGROUNDS`.
    """
    return (colour + 2 * shape + 3 * background) % 12 == 7


def trajectories(scenes: SceneTensors) -> Trajectory:
    """Position, radius and angle of every scene in every frame, each of shape (scene, frame).

    Left, right, up and down travel 0.30 of the frame at constant speed; growing goes from 0.7 to 1.3 times the radius
    and shrinking back; spinning turns 18 degrees a frame; bouncing rises and falls by 0.26 in 8 frames.
    """
    x, y, _, phase, angle, _ = (value[:, None] for value in scenes.continuous.unbind(1))
    middle = Trajectory(x, y, scenes.radius()[:, None], angle)
    frame = torch.arange(FRAMES, device=x.device)[None, :]
    return follow(scenes.attribute("motion")[:, None], middle, phase, frame)


def follow(motion: Tensor, middle: Trajectory, phase: Tensor, frame: Tensor, pace: Tensor | float = 1.0) -> Trajectory:
    """Where objects are at given frames; all arguments broadcast.

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


def sample_tensors(n: int, generator: torch.Generator, split: Split = "train") -> SceneTensors:
    """Sample `n` scenes as tensors on the CPU; see `sample_scenes`."""
    kept: list[SceneTensors] = []
    while sum(map(len, kept)) < n:
        batch = _sample_any(max(64, 2 * n if split != "heldout" else 16 * n), generator)
        kept.append(batch[_allowed(batch, split)])
    joined = SceneTensors(torch.cat([k.attributes for k in kept]), torch.cat([k.continuous for k in kept]))
    return joined[slice(0, n)]


def sample_scenes(n: int, seed: int, split: Split | str = "train") -> list[Scene]:
    """Sample scenes, the same for the same seed.

    Args:
        n: how many.
        seed: of the random numbers.
        split: `train` leaves out one in twelve combinations of colour, shape and background (see `held_out`),
            `heldout` has only those, `all` has both.

    Raises:
        UsageError: no such split.

    Example:
        >>> [scene.shape for scene in sample_scenes(2, seed=0)] == [scene.shape for scene in sample_scenes(2, seed=0)]
        True
    """
    if split not in ("train", "heldout", "all"):
        raise UsageError("unknown split", expected="train, heldout, all", got=split, where="sample_scenes")
    return sample_tensors(n, torch.Generator().manual_seed(seed), split).scenes()


def _allowed(scenes: SceneTensors, split: Split) -> Tensor:
    """Which sampled rows are possible scenes of the split."""
    shape = scenes.attribute("shape")
    spins = scenes.attribute("motion") == MOTIONS.index("spinning")
    possible = ~(spins & torch.isin(shape, torch.tensor([SHAPES.index(name) for name in ROUND])))
    unseen = held_out(scenes.attribute("colour"), shape, scenes.attribute("background"))
    wanted = {"train": ~unseen, "heldout": unseen, "all": torch.ones_like(possible)}
    return possible & wanted[split]


def _sample_any(n: int, generator: torch.Generator) -> SceneTensors:
    """Uniform attributes; positions such that the object stays inside the frame."""
    columns = [torch.randint(len(known), (n,), generator=generator) for known in ATTRIBUTES.values()]
    attributes = torch.stack(columns, 1)
    u = torch.rand(n, 6, generator=generator)
    scenes = SceneTensors(attributes, u)
    motion = scenes.attribute("motion")

    def moves(*names: str) -> Tensor:
        return torch.isin(motion, torch.tensor([MOTIONS.index(name) for name in names])).float()

    reach = scenes.radius() * REACH * (1 + GROWTH * moves("growing", "shrinking"))
    half_x = TRAVEL / 2 * moves("left", "right")
    half_y = TRAVEL / 2 * moves("up", "down") + BOUNCE_HEIGHT / 2 * moves("bouncing")
    x = 0.5 + (u[:, 0] - 0.5) * (1 - 2 * (reach + half_x)).clamp(min=0.0)
    y = 0.5 + (u[:, 1] - 0.5) * (1 - 2 * (reach + half_y)).clamp(min=0.0)
    spins = moves("spinning")
    angle = (2 * u[:, 4] - 1) * (spins * torch.pi + (1 - spins) * TILT)
    return SceneTensors(attributes, torch.stack([x, y, u[:, 2], u[:, 3], angle, u[:, 5]], 1))
