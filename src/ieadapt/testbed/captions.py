"""Captions: what is said of a scene, and what a caption says.

The grammar is one sentence: `a SIZE COLOUR SHAPE MOTION over BACKGROUND`, where a direction is said `moving left`.
"""

from __future__ import annotations

import itertools
import re

from ieadapt.errors import UsageError
from ieadapt.testbed.scenes import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, SIZES, Scene, can_be_seen

MOTION_WORDS = {motion: motion if motion.endswith("ing") else f"moving {motion}" for motion in MOTIONS}
BACKGROUND_WORDS = {name: f"a {name}" if name == "starry sky" else name for name in BACKGROUNDS}

_PATTERN = re.compile(
    rf"a (?P<size>{'|'.join(SIZES)}) (?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)}) "
    rf"(?:moving )?(?P<motion>{'|'.join(MOTIONS)}) over (?:a )?(?P<background>{'|'.join(BACKGROUNDS)})"
)


def sentence(size: str, colour: str, shape: str, motion: str, background: str) -> str:
    """The caption of five attribute values (see `ATTRIBUTES`); it does not ask whether such a scene can be."""
    return f"a {size} {colour} {shape} {MOTION_WORDS[motion]} over {BACKGROUND_WORDS[background]}"


def caption(scene: Scene) -> str:
    """What is said of a scene.

    Example:
        >>> caption(Scene("big", "red", "star", "left", "starry sky"))
        'a big red star moving left over a starry sky'
    """
    return sentence(scene.size, scene.colour, scene.shape, scene.motion, scene.background)


def parse_caption(text: str) -> Scene:
    """The scene that a caption names, at the middle of the frame.

    Raises:
        UsageError: the text is not a sentence of the grammar, or names a round shape that spins.

    Example:
        >>> parse_caption("a big red star spinning over bricks").motion
        'spinning'
    """
    found = _PATTERN.fullmatch(text.strip().lower().rstrip("."))
    if not found:
        raise UsageError(
            "not a caption of the testbed",
            expected="'a SIZE COLOUR SHAPE MOTION over BACKGROUND'",
            got=repr(text),
            where="parse_caption",
            remedy="write for example 'a big red star moving left over bricks'",
        )
    said = found.groupdict()
    return Scene(said["size"], said["colour"], said["shape"], said["motion"], said["background"])


def all_captions() -> list[str]:
    """Every sentence of the grammar, in the order of the attribute indices (spinning round shapes included)."""
    return [sentence(*values) for values in itertools.product(SIZES, COLOURS, SHAPES, MOTIONS, BACKGROUNDS)]


def possible_captions() -> list[str]:
    """Every sentence that describes a possible scene."""
    values = itertools.product(SIZES, COLOURS, SHAPES, MOTIONS, BACKGROUNDS)
    return [sentence(*chosen) for chosen in values if can_be_seen(chosen[2], chosen[3])]
