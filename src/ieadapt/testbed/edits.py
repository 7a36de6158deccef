"""Edits whose perfect result is known: pairs of scenes that differ in one attribute, with the region that stays."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.testbed.captions import caption
from ieadapt.testbed.render import render
from ieadapt.testbed.scenes import ATTRIBUTES, REACH, Scene, can_be_seen, sample_scenes

EDIT_KINDS = ("colour", "background", "shape", "size")
"""Attributes whose edits leave every object where it is."""
MOTION_KIND = "motion"
"""Reported apart: the perfect edit moves the object, which no map of the source shows."""
ALL_KINDS = (*EDIT_KINDS, MOTION_KIND)

Half = Literal["choose", "report"]
HALVES: tuple[Half, Half] = ("choose", "report")
"""Settings are chosen on the first and reported on the second."""

_UNCHANGED = 1 / 512
"""Less than half a step of 8 bits."""


@dataclass(frozen=True)
class EditPair:
    """A scene, and the same scene with one attribute changed.

    Attributes:
        kind: the attribute.
        number: of the pair within its kind.
        source: before.
        target: after.

    Example:
        >>> pair = EditPair("colour", 0, Scene("big", "red", "star", "left", "hills"),
        ...                 Scene("big", "blue", "star", "left", "hills"))
        >>> pair.name, pair.prompt
        ('colour-000', 'a big blue star moving left over hills')
    """

    kind: str
    number: int
    source: Scene
    target: Scene

    @property
    def name(self) -> str:
        """As in tables and file names."""
        return f"{self.kind}-{self.number:03d}"

    @property
    def half(self) -> Half:
        """`choose` or `report`; both halves have as many pairs of each kind and direction."""
        return HALVES[self.number // 2 % 2]

    @property
    def source_prompt(self) -> str:
        """What the source shows."""
        return caption(self.source)

    @property
    def prompt(self) -> str:
        """What the edit should show."""
        return caption(self.target)

    @property
    def source_frames(self) -> Float[Tensor, "frame channel height width"]:
        """The source, in [0, 1]."""
        return render(self.source)

    @property
    def perfect(self) -> Float[Tensor, "frame channel height width"]:
        """The perfect edit, in [0, 1]."""
        return render(self.target)


def kept_region(
    source: Float[Tensor, "frame channel height width"], perfect: Float[Tensor, "frame channel height width"]
) -> Bool[Tensor, "frame height width"]:
    """The pixels that the perfect edit leaves as they are.

    Example:
        >>> source = torch.zeros(1, 3, 2, 2)
        >>> perfect = source.clone()
        >>> perfect[:, 0, 0] = 1.0
        >>> kept_region(source, perfect).tolist()
        [[[False, False], [True, True]]]
    """
    return (source - perfect).abs().amax(dim=1) < _UNCHANGED


def edit_pairs(each: int = 50, kinds: Sequence[str] = EDIT_KINDS, seed: int = 2026) -> list[EditPair]:
    """Fixed pairs, the same for the same seed, kind by kind.

    One scene of every pair is a combination of colour, shape and background that training never saw: the source of the
    even pairs, the target of the odd ones. (Where the edit keeps all three, both are.) Object and edited object stay
    inside the frame.

    Args:
        each: pairs of every kind; the first of a longer list are those of a shorter one.
        kinds: attributes to change.
        seed: of scenes and changes.

    Raises:
        UsageError: an unknown kind, or no pair.

    Example:
        >>> [pair.half for pair in edit_pairs(4, ["colour"])]
        ['choose', 'choose', 'report', 'report']
    """
    unknown = [kind for kind in kinds if kind not in ATTRIBUTES]
    if unknown or each < 1:
        raise UsageError(
            "no such edits", expected=f"1 or more of {', '.join(ATTRIBUTES)}", got=f"{each} of {', '.join(kinds)}"
        )
    pairs = []
    for kind in kinds:
        changes = _changes(kind, seed)
        for number in range(each):
            unseen, other = next(changes)
            source, target = (unseen, other) if number % 2 == 0 else (other, unseen)
            pairs.append(EditPair(kind, number, source, target))
    return pairs


def _changes(kind: str, seed: int) -> Iterator[tuple[Scene, Scene]]:
    """Held-out scenes, each with one attribute changed by chance."""
    block = 16 * list(ATTRIBUTES).index(kind) + 1_000 * seed
    for batch in range(10**6):
        chance = random.Random(f"{kind} {seed} {batch}")  # noqa: S311 - which edits, not a secret
        for scene in sample_scenes(64, block + 1_000_000 * batch, "heldout"):
            choices = [value for value in ATTRIBUTES[kind] if value != getattr(scene, kind)]
            changed = _changed(scene, kind, chance.choice(choices))
            if changed is not None and _inside(scene) and _inside(changed):
                yield scene, changed


def _changed(scene: Scene, kind: str, value: str) -> Scene | None:
    """The scene with another value, or None where there is no such scene."""
    shape, motion = (value if kind == name else getattr(scene, name) for name in ("shape", "motion"))
    return scene.replace(**{kind: value}) if can_be_seen(shape, motion) else None


def _inside(scene: Scene) -> bool:
    """Whether the whole object is in every frame."""
    path = scene.trajectory()
    reach = path.radius * REACH
    centre = torch.stack([path.x, path.y])
    return bool(((centre - reach) >= 0).all() and ((centre + reach) <= 1).all())
