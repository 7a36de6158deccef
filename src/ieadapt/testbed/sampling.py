"""Scenes by chance: which combinations are kept from training, and where objects may be."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.testbed.rendering import Trajectory, all_frames, paths, view, world_paths
from ieadapt.testbed.scene import (
    COLOURS,
    MOST_OBJECTS,
    MOTIONS,
    OBJECT_ATTRIBUTES,
    OBJECT_NUMBERS,
    ROUND,
    SCENE_ATTRIBUTES,
    SHAPES,
    VARIATION,
    Scene,
    SceneBatch,
    Split,
)

COUNTS = (0.15, 0.65, 0.2)
"""How often a scene has one, two and three objects."""
REACH = 1.35
"""Farthest point of any shape from its centre, in radii."""
TILT = 0.2
"""Largest tilt of an object that does not spin, radians."""
INSIDE = 0.8
"""Share of an object's reach that stays inside the frame."""
LEAST_SEEN = 0.55
"""Least mean share of an object's width, over the clip, that the objects in front of it leave free."""
CROSSING = 0.35
"""Share of the sampled scenes of objects that never touch which are kept."""


def held_out(batch: SceneBatch) -> Bool[Tensor, " scene"]:
    """Whether a scene's combination of coloured shapes and background is kept from training: one in twelve is.

    The rule is sum over objects (colour + 2 shape) + 3 background = 7 (mod 12), so that it does not look at depth.
    """
    parts = (batch.kind("colour") + 2 * batch.kind("shape")) * batch.present
    return (parts.sum(1) + 3 * batch.of_scene("background")) % 12 == 7


def sample_batch(n: int, generator: torch.Generator, split: Split = "train") -> SceneBatch:
    """Sample `n` scenes as tensors on the CPU; see `sample_scenes`."""
    kept: list[SceneBatch] = []
    while sum(map(len, kept)) < n:
        drawn = _draw(max(64, 3 * n if split != "heldout" else 30 * n), generator)
        kept.append(drawn[_allowed(drawn, split, generator)])
    joined = SceneBatch(*(torch.cat(parts) for parts in zip(*(batch.tensors() for batch in kept), strict=True)))
    return joined[slice(0, n)]


def sample_scenes(n: int, seed: int, split: Split | str = "train") -> list[Scene]:
    """Sample scenes, the same for the same seed.

    Args:
        n: how many.
        seed: of the random numbers.
        split: `train` leaves out one in twelve combinations of coloured shapes and background (see `held_out`),
            `heldout` has only those, `all` has both.

    Raises:
        UsageError: no such split.

    Example:
        >>> sample_scenes(2, seed=0) == sample_scenes(2, seed=0)
        True
    """
    if split not in ("train", "heldout", "all"):
        raise UsageError("unknown split", expected="train, heldout, all", got=split, where="sample_scenes")
    return sample_batch(n, torch.Generator().manual_seed(seed), split).scenes()


def _draw(n: int, generator: torch.Generator) -> SceneBatch:
    """Uniform attributes and numbers; positions such that objects stay in view."""

    def choice(known: int, *shape: int) -> Int[Tensor, ...]:
        return torch.randint(known, (n, *shape), generator=generator)

    count = 1 + torch.multinomial(torch.tensor(COUNTS), n, replacement=True, generator=generator)
    kinds = torch.stack([choice(len(known), MOST_OBJECTS) for known in OBJECT_ATTRIBUTES.values()], -1)
    shades = torch.rand(n, len(COLOURS), generator=generator).argsort(1)
    kinds[..., list(OBJECT_ATTRIBUTES).index("colour")] = shades[:, :MOST_OBJECTS]
    numbers = torch.rand(n, MOST_OBJECTS, len(OBJECT_NUMBERS), generator=generator)
    spins = (kinds[..., 3] == MOTIONS.index("spinning")).float()
    angle = OBJECT_NUMBERS.index("angle")
    numbers[..., angle] = (2 * numbers[..., angle] - 1) * (spins * torch.pi + (1 - spins) * TILT)
    setting = torch.stack([choice(len(known)) for known in SCENE_ATTRIBUTES.values()], -1)
    batch = SceneBatch(count, kinds, numbers, setting, torch.rand(n, VARIATION, generator=generator))
    _place(batch)
    return batch


def _place(batch: SceneBatch) -> None:
    """Turn uniform x and y into positions at which the object stays in view in every frame, in place."""
    share = batch.numbers[..., :2].clone()
    batch.numbers[..., :2] = 0.5
    frame = all_frames(batch)
    camera, path = view(batch, frame), world_paths(batch, frame)
    room = 0.5 / camera.zoom[:, None] - INSIDE * REACH * path.radius
    for axis, (moved, centre) in enumerate(((path.x, camera.x), (path.y, camera.y))):
        drift = moved - 0.5 - centre[:, None]
        low, high = (-room - drift).amax(-1), (room - drift).amin(-1)
        middle, half = (low + high) / 2, ((high - low) / 2).clamp(min=0)
        batch.numbers[..., axis] = 0.5 + middle + (2 * share[..., axis] - 1) * half


def _allowed(batch: SceneBatch, split: Split, generator: torch.Generator) -> Bool[Tensor, " scene"]:
    """Which sampled rows are possible scenes of the split in which every object can be seen."""
    turning = torch.isin(batch.kind("shape"), torch.tensor([SHAPES.index(name) for name in ROUND]))
    turning &= batch.kind("motion") == MOTIONS.index("spinning")
    possible = ~(turning & batch.present).any(1)
    free, touching = _overlaps(paths(batch, all_frames(batch)), batch.present)
    alone = (batch.count == 1) | touching
    kept = alone | (torch.rand(len(batch), generator=generator) < CROSSING)
    unseen = held_out(batch)
    wanted = {"train": ~unseen, "heldout": unseen, "all": torch.ones_like(unseen)}
    return possible & (free > LEAST_SEEN) & kept & wanted[split]


def _overlaps(path: Trajectory, present: Bool[Tensor, "scene slot"]) -> tuple[Tensor, Bool[Tensor, " scene"]]:
    """How much of the most hidden object is free, as a share of its width, and whether any two objects touch."""
    free, touching = torch.ones(len(present)), torch.zeros(len(present), dtype=torch.bool)
    for front, back in itertools.combinations(range(MOST_OBJECTS), 2):
        both = present[:, front] & present[:, back]
        gap = torch.hypot(path.x[:, front] - path.x[:, back], path.y[:, front] - path.y[:, back])
        beyond = (gap - path.radius[:, front] + path.radius[:, back]) / (2 * path.radius[:, back])
        free = torch.where(both, torch.minimum(free, beyond.clamp(0, 1).mean(1)), free)
        touching |= both & (beyond < 1).any(1)
    return free, touching
