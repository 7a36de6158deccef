"""What a clip of `scenes` shows: objects, front to back, before a background, seen by a camera.

A scene has named attributes, which a caption says, and numbers, which it does not: where things are, how fast they go,
how the light falls, how the background is laid out and tinted. Lengths are in frame widths (1 = 128 pixels) of a camera
at rest, x grows to the right, y grows downwards, angles are in radians.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ieadapt.errors import UsageError

FRAMES, RESOLUTION = 16, 128
SIZES = ("big", "small")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
SHAPES = ("ball", "ring", "square", "triangle", "star", "cross")
ROUND = ("ball", "ring")
"""Shapes that look the same at every angle: they cannot be seen to spin."""
MOTIONS = ("left", "right", "up", "down", "growing", "shrinking", "spinning", "bouncing")
BACKGROUNDS = ("bricks", "waves", "hills", "checks", "stripes", "dots", "honeycomb", "starry sky")
CAMERAS = ("still", "left", "right", "up", "down", "in", "out")
"""What the camera does: nothing, pan towards a side, or zoom."""
OBJECT_ATTRIBUTES = {"size": SIZES, "colour": COLOURS, "shape": SHAPES, "motion": MOTIONS}
SCENE_ATTRIBUTES = {"background": BACKGROUNDS, "camera": CAMERAS}
MOST_OBJECTS = 3

OBJECT_NUMBERS = ("x", "y", "swell", "phase", "angle", "pace", "tint")
SCENE_NUMBERS = ("camera_pace", "light_start", "light_end", "light_side", "shift_x", "shift_y", "scale", "turn", "tone")
FIELD_NUMBERS = 9
"""Three waves of tint across the background, each with a direction, a phase and a hue."""
VARIATION = len(SCENE_NUMBERS) + FIELD_NUMBERS


Clip = Float[Tensor, "frame channel height width"]
"""Frames in [0, 1]."""
Split = Literal["train", "heldout", "all"]
Attributes = Mapping[str, tuple[str, ...]]
"""Name of an attribute -> the values that it may have."""


def can_be_seen(shape: str, motion: str) -> bool:
    """Whether a shape shows a motion: a round one that spins looks as if it stood still.

    Example:
        >>> can_be_seen("star", "spinning"), can_be_seen("ring", "spinning")
        (True, False)
    """
    return motion != "spinning" or shape not in ROUND


def check_attributes(value: object, attributes: Attributes) -> None:
    """Refuse a value with an attribute that is none of the known ones.

    Raises:
        UsageError: an unknown attribute value.
    """
    for name, known in attributes.items():
        if getattr(value, name) not in known:
            where = type(value).__name__
            raise UsageError(f"unknown {name}", expected=", ".join(known), got=getattr(value, name), where=where)


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Args:
        size: one of `SIZES`.
        colour: one of `COLOURS`.
        shape: one of `SHAPES`.
        motion: one of `MOTIONS`, relative to the background; a ball or a ring cannot be `spinning`.
        position: where the object is in the middle of the clip, (x, y).
        swell: where in its size's range of radii the radius lies, in [0, 1].
        phase: where in its cycle a bouncing object starts, in [0, 1).
        angle: tilt in the first frame.
        pace: how fast it moves, grows or turns, in [0, 1]; .5 is the nominal speed.
        tint: how dark or bright its colour is, in [0, 1]; .5 is the nominal colour.

    Raises:
        UsageError: an unknown attribute value, or a round shape that spins.

    Example:
        >>> SceneObject("big", "red", "star", "left").replace(colour="blue").colour
        'blue'
    """

    size: str
    colour: str
    shape: str
    motion: str
    position: tuple[float, float] = (0.5, 0.5)
    swell: float = 0.5
    phase: float = 0.0
    angle: float = 0.0
    pace: float = 0.5
    tint: float = 0.5

    def __post_init__(self) -> None:
        """Check the attributes."""
        check_attributes(self, OBJECT_ATTRIBUTES)
        if not can_be_seen(self.shape, self.motion):
            raise UsageError(
                "a round shape cannot be seen to spin",
                expected="a shape with corners",
                got=self.shape,
                where="SceneObject",
                remedy="choose another shape or motion",
            )

    def replace(self, **changes: Any) -> SceneObject:
        """The same object with some values changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Scene:
    """Objects before a background, seen by a camera.

    Args:
        objects: one to three, the one in front first; their colours differ, so that a colour names an object.
        background: one of `BACKGROUNDS`.
        camera: one of `CAMERAS`.
        variation: what no caption says of background, camera pace and light: `SCENE_NUMBERS`, then `FIELD_NUMBERS`
            numbers of the tint waves, all in [0, 1).

    Raises:
        UsageError: no object or more than three, two of one colour, an unknown attribute value, or another number of
            numbers in `variation`.

    Example:
        >>> star, ring = SceneObject("big", "red", "star", "left"), SceneObject("small", "blue", "ring", "growing")
        >>> scene = Scene((star, ring), "bricks", "right")
        >>> scene.replace(1, colour="green").objects[1].colour
        'green'
        >>> scene.replace(order=(1, 0)).objects[0].shape
        'ring'
    """

    objects: tuple[SceneObject, ...]
    background: str
    camera: str = "still"
    variation: tuple[float, ...] = (0.5,) * VARIATION

    def __post_init__(self) -> None:
        """Check what the scene is made of."""
        colours = [thing.colour for thing in self.objects]
        if not 1 <= len(colours) <= MOST_OBJECTS or len(set(colours)) < len(colours):
            raise UsageError(
                "a scene has one to three objects of different colours", got=colours or "none", where="Scene"
            )
        check_attributes(self, SCENE_ATTRIBUTES)
        if len(self.variation) != VARIATION:
            raise UsageError("variation has another length", expected=VARIATION, got=len(self.variation), where="Scene")

    def replace(self, index: int | None = None, /, *, order: Sequence[int] | None = None, **changes: Any) -> Scene:
        """The perfect edit: the same scene with some attributes changed and every number kept.

        Args:
            index: the object that `changes` are about, counted from the front; without it they are about the scene.
            order: the objects in another order of depth, as indices into `objects`; or fewer of them.
            **changes: attributes or numbers and their new values.
        """
        objects = self.objects
        if index is not None:
            changed = objects[index].replace(**changes)
            objects, changes = (*objects[:index], changed, *objects[index + 1 :]), {}
        if order is not None:
            objects = tuple(objects[place] for place in order)
        return dataclasses.replace(self, **({"objects": objects} | changes))


@dataclass(frozen=True)
class SceneBatch:
    """Scenes as tensors, so that thousands are sampled and rendered at once; slots past a scene's objects are unused.

    Args:
        count: objects of each scene.
        kinds: index of each attribute of each object, in the order of `OBJECT_ATTRIBUTES`.
        numbers: `OBJECT_NUMBERS` of each object.
        setting: index of each attribute of the scene, in the order of `SCENE_ATTRIBUTES`.
        variation: as in `Scene`.

    Example:
        >>> scene = Scene((SceneObject("big", "red", "star", "left"),), "waves")
        >>> SceneBatch.stack([scene]).scenes() == [scene]
        True
    """

    count: Int[Tensor, " scene"]
    kinds: Int[Tensor, "scene slot 4"]
    numbers: Float[Tensor, "scene slot 7"]
    setting: Int[Tensor, "scene 2"]
    variation: Float[Tensor, "scene variation"]

    @classmethod
    def stack(cls, scenes: Sequence[Scene]) -> SceneBatch:
        """Scenes to tensors."""
        spare = SceneObject("small", "white", "ball", "left")
        filled = [(*scene.objects, *[spare] * (MOST_OBJECTS - len(scene.objects))) for scene in scenes]
        kinds = [[_indices(thing, OBJECT_ATTRIBUTES) for thing in objects] for objects in filled]
        numbers = [
            [[*thing.position, *(getattr(thing, name) for name in OBJECT_NUMBERS[2:])] for thing in objects]
            for objects in filled
        ]
        return cls(
            torch.tensor([len(scene.objects) for scene in scenes]),
            torch.tensor(kinds),
            torch.tensor(numbers, dtype=torch.float32),
            torch.tensor([_indices(scene, SCENE_ATTRIBUTES) for scene in scenes]),
            torch.tensor([scene.variation for scene in scenes], dtype=torch.float32),
        )

    def scenes(self) -> list[Scene]:
        """Tensors to scenes."""
        rows = zip(*(value.tolist() for value in self.tensors()), strict=True)
        names = OBJECT_NUMBERS[2:]
        return [
            Scene(
                tuple(
                    SceneObject(
                        **_values(kind, OBJECT_ATTRIBUTES), position=(x, y), **dict(zip(names, rest, strict=True))
                    )
                    for kind, (x, y, *rest) in zip(kinds[:count], numbers, strict=False)
                ),
                **_values(setting, SCENE_ATTRIBUTES),
                variation=tuple(variation),
            )
            for count, kinds, numbers, setting, variation in rows
        ]

    def to(self, device: torch.device | str) -> SceneBatch:
        """The same batch on another device."""
        return SceneBatch(*(value.to(device) for value in self.tensors()))

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.count.device

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self.count)

    def __getitem__(self, rows: slice | Tensor) -> SceneBatch:
        """Some of the scenes."""
        return SceneBatch(*(value[rows] for value in self.tensors()))

    def tensors(self) -> tuple[Tensor, ...]:
        """The five tensors in their order."""
        return self.count, self.kinds, self.numbers, self.setting, self.variation

    @property
    def present(self) -> Bool[Tensor, "scene slot"]:
        """Which slots hold an object."""
        return torch.arange(MOST_OBJECTS, device=self.count.device) < self.count[:, None]

    def kind(self, name: str) -> Int[Tensor, "scene slot"]:
        """One attribute of every object."""
        return self.kinds[..., list(OBJECT_ATTRIBUTES).index(name)]

    def number(self, name: str) -> Float[Tensor, "scene slot"]:
        """One number of every object."""
        return self.numbers[..., OBJECT_NUMBERS.index(name)]

    def of_scene(self, name: str) -> Tensor:
        """An attribute's index or a number of every scene, shape (scene,)."""
        if name in SCENE_ATTRIBUTES:
            return self.setting[:, list(SCENE_ATTRIBUTES).index(name)]
        return self.variation[:, SCENE_NUMBERS.index(name)]


def _indices(value: object, attributes: Attributes) -> list[int]:
    return [known.index(getattr(value, name)) for name, known in attributes.items()]


def _values(indices: Sequence[int], attributes: Attributes) -> dict[str, Any]:
    return {name: known[index] for index, (name, known) in zip(indices, attributes.items(), strict=True)}
