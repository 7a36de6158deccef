"""Edits whose perfect result is known: pairs of scenes that differ in one thing, with the region that stays."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Bool
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.testbed.captions import caption
from ieadapt.testbed.rendering import render
from ieadapt.testbed.sampling import sample_scenes
from ieadapt.testbed.scene import OBJECT_ATTRIBUTES, SCENE_ATTRIBUTES, Clip, Scene, can_be_seen

Half = Literal["choose", "report"]
HALVES: tuple[Half, Half] = ("choose", "report")
"""Settings are chosen on the first and reported on the second."""
EDIT_KINDS = ("colour", "shape", "size", "background", "order")
"""Edits that leave every object and the camera where they are."""
MOTION_KINDS = ("motion", "camera")
"""Reported apart: the perfect edit moves things, which no map of the source shows."""
ALL_KINDS = (*EDIT_KINDS, *MOTION_KINDS)

_UNCHANGED = 1 / 512
"""Less than half a step of 8 bits."""


@dataclass(frozen=True)
class EditPair:
    """A scene, and the same scene with one thing changed.

    Attributes:
        kind: what changes: an attribute of one object or of the scene, or `order`, which object is in front.
        number: of the pair within its kind.
        source: before.
        target: after.
        object: which object changes, counted from the front; None where none does.

    Example:
        >>> from ieadapt.testbed.scene import SceneObject
        >>> source = Scene((SceneObject("big", "red", "star", "left"),), "hills")
        >>> pair = EditPair("colour", 0, source, source.replace(0, colour="blue"), 0)
        >>> pair.name, pair.prompt
        ('colour-000', 'a big blue star moving left over hills')
    """

    kind: str
    number: int
    source: Scene
    target: Scene
    object: int | None = None

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
    def source_frames(self) -> Clip:
        """The clip to edit, in [0, 1]."""
        return render(self.source)

    @property
    def perfect(self) -> Clip:
        """The perfect edit, in [0, 1]."""
        return render(self.target)


def kept_region(source: Clip, perfect: Clip) -> Bool[Tensor, "frame height width"]:
    """The pixels that the perfect edit leaves as they are.

    Example:
        >>> import torch
        >>> source = torch.zeros(1, 3, 2, 2)
        >>> perfect = source.clone()
        >>> perfect[:, 0, 0] = 1.0
        >>> kept_region(source, perfect).tolist()
        [[[False, False], [True, True]]]
    """
    return (source - perfect).abs().amax(dim=1) < _UNCHANGED


def edit_pairs(each: int = 50, kinds: Sequence[str] = EDIT_KINDS, seed: int = 2026) -> list[EditPair]:
    """Fixed pairs, the same for the same seed, kind by kind.

    One scene of every pair is a combination that training never saw: the source of even pairs, the target of odd ones.

    Args:
        each: pairs of every kind; the first of a longer list are those of a shorter one.
        kinds: of `ALL_KINDS`.
        seed: of scenes and changes.

    Raises:
        UsageError: an unknown kind, or no pair.

    Example:
        >>> [pair.half for pair in edit_pairs(4, ["colour"])]
        ['choose', 'choose', 'report', 'report']
    """
    if not set(kinds) <= set(ALL_KINDS) or each < 1:
        raise UsageError(
            "no such edits", expected=f"1 or more of {', '.join(ALL_KINDS)}", got=f"{each} of {', '.join(kinds)}"
        )
    pairs = []
    for kind in kinds:
        changes = _changes(kind, seed)
        for number in range(each):
            pair = dataclasses.replace(next(changes), number=number)
            if number % 2:
                pair = dataclasses.replace(pair, source=pair.target, target=pair.source)
            pairs.append(pair)
    return pairs


def _changes(kind: str, seed: int) -> Iterator[EditPair]:
    """Held-out scenes, each with one thing changed by chance."""
    block = 16 * ALL_KINDS.index(kind) + 1_000 * seed
    for batch in range(10**6):
        chance = random.Random(f"{kind} {seed} {batch}")  # noqa: S311 - which edits, not a secret
        for scene in sample_scenes(32, block + 1_000_000 * batch, "heldout"):
            pair = _CHANGES[kind](kind, scene, chance)
            if pair is not None:
                yield pair


def _change_attribute(kind: str, scene: Scene, chance: random.Random) -> EditPair | None:
    """One object, or the scene itself, with another value; None where there is no such scene."""
    index = chance.randrange(len(scene.objects)) if kind in OBJECT_ATTRIBUTES else None
    owner = scene if index is None else scene.objects[index]
    taken = {each.colour for each in scene.objects} if kind == "colour" else {getattr(owner, kind)}
    known = {**OBJECT_ATTRIBUTES, **SCENE_ATTRIBUTES}[kind]
    changes: dict[str, Any] = {kind: chance.choice([value for value in known if value not in taken])}
    if index is not None:
        shape, motion = (changes.get(name, getattr(owner, name)) for name in ("shape", "motion"))
        if not can_be_seen(shape, motion):
            return None
    return EditPair(kind, 0, scene, scene.replace(index, **changes), index)


def _change_order(kind: str, scene: Scene, chance: random.Random) -> EditPair | None:
    """The two objects in front change places; None where that cannot be seen."""
    if len(scene.objects) < 2:
        return None
    target = scene.replace(order=(1, 0, *range(2, len(scene.objects))))
    shown = float((render(scene) - render(target)).abs().amax(1).gt(0.1).float().mean())
    return EditPair(kind, 0, scene, target) if shown > 0.002 else None


_CHANGES: Mapping[str, Callable[[str, Scene, random.Random], EditPair | None]] = {
    **dict.fromkeys((*OBJECT_ATTRIBUTES, *SCENE_ATTRIBUTES), _change_attribute),
    "order": _change_order,
}
