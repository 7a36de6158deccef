"""Pairs differ in one attribute only, stay inside the frame, hold an unseen combination, and never change."""

from __future__ import annotations

import hashlib

import pytest
import torch

from ieadapt.errors import UsageError
from ieadapt.testbed import caption
from ieadapt.testbed.edits import ALL_KINDS, EDIT_KINDS, edit_pairs, kept_region
from ieadapt.testbed.scenes import BACKGROUNDS, COLOURS, SHAPES, Scene, held_out

PAIRS = edit_pairs(50, ALL_KINDS)


def _unseen(scene: Scene) -> bool:
    indices = (COLOURS.index(scene.colour), SHAPES.index(scene.shape), BACKGROUNDS.index(scene.background))
    return bool(held_out(*map(torch.tensor, indices)))


def test_two_hundred_pairs_of_four_kinds() -> None:
    pairs = edit_pairs()
    assert len(pairs) == len({pair.name for pair in pairs}) == 200
    assert [pair.kind for pair in pairs[::50]] == list(EDIT_KINDS)


def test_a_pair_differs_in_its_kind_only() -> None:
    for pair in PAIRS:
        changed = getattr(pair.target, pair.kind)
        assert changed != getattr(pair.source, pair.kind)
        assert pair.source.replace(**{pair.kind: changed}) == pair.target
        assert pair.prompt == caption(pair.target) != pair.source_prompt


def test_one_scene_of_each_pair_was_never_trained_on() -> None:
    for pair in PAIRS:
        assert _unseen(pair.source if pair.number % 2 == 0 else pair.target)


def test_both_halves_have_every_kind_and_direction_alike() -> None:
    for kind in ALL_KINDS:
        for direction in (0, 1):
            halves = [pair.half for pair in PAIRS if pair.kind == kind and pair.number % 2 == direction]
            assert abs(halves.count("choose") - halves.count("report")) <= 1


def test_objects_stay_inside_the_frame() -> None:
    for pair in PAIRS:
        for scene in (pair.source, pair.target):
            path = scene.trajectory()
            for centre in (path.x, path.y):
                assert (centre - path.radius).min() > 0
                assert (centre + path.radius).max() < 1


def test_pairs_are_the_same_every_time_and_a_short_list_begins_a_long_one() -> None:
    assert edit_pairs(3, ["shape"]) == [pair for pair in PAIRS if pair.kind == "shape"][:3]
    words = "\n".join(f"{pair.source_prompt} > {pair.prompt} {pair.source.position[0]:.4f}" for pair in edit_pairs())
    assert hashlib.sha256(words.encode()).hexdigest()[:12] == "c94b75627354"


def test_scenes_are_not_drawn_twice() -> None:
    assert len({pair.source for pair in PAIRS}) == len(PAIRS)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_what_is_kept_is_the_rest_of_the_picture(kind: str) -> None:
    pair = next(pair for pair in PAIRS if pair.kind == kind)
    source, perfect = pair.source_frames, pair.perfect
    kept = kept_region(source, perfect)
    assert 0.02 < kept.float().mean() < 0.98
    spread = kept[:, None].expand_as(source)
    assert (source - perfect)[spread].abs().max() < 1 / 512
    assert (source - perfect).abs().amax(dim=1)[~kept].min() >= 1 / 512


def test_unknown_kinds_and_empty_lists_are_refused() -> None:
    with pytest.raises(UsageError, match=r"no such edits; expected 1 or more of size, colour.*got 5 of texture"):
        edit_pairs(5, ["texture"])
    with pytest.raises(UsageError, match="got 0 of colour"):
        edit_pairs(0, ["colour"])
