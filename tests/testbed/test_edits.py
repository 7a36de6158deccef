"""Pairs differ in one thing only, hold an unseen combination, and never change."""

from __future__ import annotations

import hashlib

import pytest

from ieadapt.errors import UsageError
from ieadapt.testbed import Scene, caption
from ieadapt.testbed.edits import ALL_KINDS, EDIT_KINDS, EditPair, edit_pairs, kept_region
from ieadapt.testbed.sampling import held_out
from ieadapt.testbed.scene import SceneBatch

PAIRS = edit_pairs(20, ALL_KINDS)


def _unseen(scene: Scene) -> bool:
    return bool(held_out(SceneBatch.stack([scene])))


def _changed_back(pair: EditPair) -> Scene:
    """The target with the one thing as it was."""
    if pair.kind == "order":
        return pair.target.replace(order=(1, 0, *range(2, len(pair.target.objects))))
    if pair.object is None:
        return pair.target.replace(**{pair.kind: getattr(pair.source, pair.kind)})
    before = getattr(pair.source.objects[pair.object], pair.kind)
    return pair.target.replace(pair.object, **{pair.kind: before})


def test_every_kind_in_its_turn() -> None:
    pairs = edit_pairs(3)
    assert [pair.name for pair in pairs] == [f"{kind}-{number:03d}" for kind in EDIT_KINDS for number in range(3)]


def test_a_pair_differs_in_one_thing() -> None:
    for pair in PAIRS:
        assert _changed_back(pair) == pair.source != pair.target
        assert pair.prompt == caption(pair.target) != pair.source_prompt


def test_one_scene_of_each_pair_was_never_trained_on() -> None:
    for pair in PAIRS:
        assert _unseen(pair.source if pair.number % 2 == 0 else pair.target)


def test_both_halves_have_every_kind_and_direction_alike() -> None:
    for kind in ALL_KINDS:
        for direction in (0, 1):
            halves = [pair.half for pair in PAIRS if pair.kind == kind and pair.number % 2 == direction]
            assert abs(halves.count("choose") - halves.count("report")) <= 1


def test_pairs_are_the_same_every_time_and_a_short_list_begins_a_long_one() -> None:
    assert edit_pairs(3, ["shape"]) == [pair for pair in PAIRS if pair.kind == "shape"][:3]
    words = "\n".join(f"{pair.source_prompt} > {pair.prompt}" for pair in PAIRS)
    assert hashlib.sha256(words.encode()).hexdigest()[:12] == "b4ff79b32dc9"


def test_scenes_are_not_drawn_twice() -> None:
    assert len({pair.source for pair in PAIRS}) == len(PAIRS)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_what_is_kept_is_the_rest_of_the_picture(kind: str) -> None:
    pair = next(pair for pair in PAIRS if pair.kind == kind)
    source, perfect = pair.source_frames, pair.perfect
    kept = kept_region(source, perfect)
    assert 0.0005 < kept.float().mean() < 0.999
    spread = kept[:, None].expand_as(source)
    assert (source - perfect)[spread].abs().max() < 1 / 512
    assert (source - perfect).abs().amax(dim=1)[~kept].min() >= 1 / 512


def test_unknown_kinds_and_empty_lists_are_refused() -> None:
    with pytest.raises(UsageError, match=r"no such edits; expected 1 or more of colour, shape.*got 5 of texture"):
        edit_pairs(5, ["texture"])
    with pytest.raises(UsageError, match="got 0 of colour"):
        edit_pairs(0, ["colour"])
