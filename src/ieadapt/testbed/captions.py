"""Captions of `scenes`: plain English for everything that is an attribute.

One sentence: `OBJECT [in front of OBJECT [in front of OBJECT]] over BACKGROUND [while the camera CAMERA]`, where OBJECT
is `a SIZE COLOUR SHAPE MOTION`. A camera that is still is not mentioned.
"""

from __future__ import annotations

import re

from ieadapt.errors import UsageError
from ieadapt.testbed.scene import (
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    MOTIONS,
    SHAPES,
    SIZES,
    Scene,
    SceneBatch,
    SceneObject,
)

MOTION_WORDS = {motion: motion if motion.endswith("ing") else f"moving {motion}" for motion in MOTIONS}
BACKGROUND_WORDS = {name: f"a {name}" if name in ("starry sky", "honeycomb") else name for name in BACKGROUNDS}
CAMERA_WORDS = {
    camera: "" if camera == "still" else f" while the camera {'zooms' if camera in ('in', 'out') else 'pans'} {camera}"
    for camera in CAMERAS
}
LONGEST = 35
"""Tokens of the longest caption, a start and an end token included."""

_OBJECT = re.compile(
    rf"a ({'|'.join(SIZES)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)}) (?:moving )?({'|'.join(MOTIONS)})"
)
_SENTENCE = re.compile(
    rf"(?P<objects>.+) over (?:a )?(?P<background>{'|'.join(BACKGROUNDS)})"
    rf"(?: while the camera (?:pans|zooms) (?P<camera>{'|'.join(CAMERAS[1:])}))?"
)


def caption(scene: Scene) -> str:
    """What is said of a scene.

    Example:
        >>> star, ring = SceneObject("big", "red", "star", "left"), SceneObject("small", "blue", "ring", "growing")
        >>> caption(Scene((star, ring), "bricks", "in"))
        'a big red star moving left in front of a small blue ring growing over bricks while the camera zooms in'
    """
    return captions(SceneBatch.stack([scene]))[0]


def captions(batch: SceneBatch) -> list[str]:
    """The caption of every scene of a batch, which need not be a possible scene."""
    said = []
    for count, kinds, (background, camera) in zip(
        batch.count.tolist(), batch.kinds.tolist(), batch.setting.tolist(), strict=True
    ):
        things = [
            f"a {SIZES[size]} {COLOURS[colour]} {SHAPES[shape]} {MOTION_WORDS[MOTIONS[motion]]}"
            for size, colour, shape, motion in kinds[:count]
        ]
        setting = BACKGROUND_WORDS[BACKGROUNDS[background]] + CAMERA_WORDS[CAMERAS[camera]]
        said.append(f"{' in front of '.join(things)} over {setting}")
    return said


def words() -> list[str]:
    """Every word of the grammar, in alphabetical order.

    Example:
        >>> words()[:4]
        ['a', 'ball', 'big', 'blue']
    """
    said = [*SIZES, *COLOURS, *SHAPES, *MOTION_WORDS.values(), *BACKGROUND_WORDS.values(), *CAMERA_WORDS.values()]
    return sorted({word for text in (*said, "a in front of over") for word in text.split()})


def parse_caption(text: str) -> Scene:
    """The scene that a caption names, with every number at its middle value.

    Raises:
        UsageError: the text is not a sentence of the grammar, or names no possible scene.

    Example:
        >>> scene = parse_caption("a big red star spinning in front of a small blue ring moving up over a starry sky")
        >>> scene.objects[1].motion, scene.camera
        ('up', 'still')
    """
    found = _SENTENCE.fullmatch(" ".join(text.lower().rstrip(". ").split()))
    parts = [_OBJECT.fullmatch(part) for part in found["objects"].split(" in front of ")] if found else [None]
    if found is None or None in parts:
        raise UsageError(
            "not a caption of scenes",
            expected="'a SIZE COLOUR SHAPE MOTION [in front of ...] over BACKGROUND [while the camera ...]'",
            got=repr(text),
            where="parse_caption",
            remedy="write for example 'a big red star moving left in front of a small blue ring growing over bricks'",
        )
    objects = tuple(SceneObject(part[1], part[2], part[3], part[4]) for part in parts if part)
    return Scene(objects, found["background"], found["camera"] or "still")
