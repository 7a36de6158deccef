"""The scenes of the benchmark are fixed, held out, and none that a setting was chosen on."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.scene_sets import scene_set
from benchmarks.testbed.scenes import SCENES, bench_pairs, bench_scenes
from ieadapt.testbed import caption, sample_scenes
from ieadapt.testbed.edits import EDIT_KINDS, edit_pairs


def test_scenes_are_different_held_out_and_fresh() -> None:
    captions = [scene.caption for scene in bench_scenes()]
    assert len(set(captions)) == SCENES
    assert not set(captions) & {caption(scene) for scene in scene_set("choosing")}
    assert not set(captions) & {caption(scene) for scene in sample_scenes(2_000, 5, "train")}


@pytest.mark.slow
def test_pairs_change_one_attribute_each_and_are_fresh() -> None:
    pairs = bench_pairs()
    assert Counter(pair.kind for pair in pairs) == dict.fromkeys(EDIT_KINDS, SCENES // len(EDIT_KINDS))
    used = {(pair.source_prompt, pair.prompt) for pair in edit_pairs() if pair.half == "choose"}
    assert not used & {(pair.source_prompt, pair.prompt) for pair in pairs}
    assert len({pair.name for pair in pairs}) == SCENES


@pytest.mark.slow
def test_a_part_is_the_beginning_of_the_whole() -> None:
    assert bench_scenes(5) == bench_scenes()[:5]
    assert bench_pairs(6) == bench_pairs()[:6]


def test_the_sets_to_choose_and_to_confirm_on_share_nothing() -> None:
    first, second = ({caption(scene) for scene in scene_set(name, 40)} for name in ("choosing", "confirming"))
    assert (len(first), len(second), len({*first, *second})) == (40, 40, 80)
