"""Held-out scenes that methods are compared on, always the same; settings are chosen on `benchmarks.scene_sets`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from diffusers import DiffusionPipeline

from benchmarks.scene_sets import scene_set
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.generate import Progress
from ieadapt.tasks.measure.method import measure
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.testbed import caption, sample_scenes
from ieadapt.testbed.edits import EDIT_KINDS, EditPair, edit_pairs

SCENES = 200
"""Scenes, and pairs of scenes, of the whole benchmark."""
BENCH_SEED = 2027
PROFILE_PROMPTS, PROFILE_STEPS = 8, 8


@dataclass(frozen=True)
class Asked:
    """A video that is asked for.

    Attributes:
        name: of the scene, in tables and file names.
        caption: what it shows.
        seed: of its noise.
    """

    name: str
    caption: str
    seed: int


@lru_cache(maxsize=2)
def bench_scenes(number: int = SCENES) -> tuple[Asked, ...]:
    """Different held-out captions, none of which a setting was chosen on; the first of a longer list are a shorter one.

    Example:
        >>> bench_scenes(2)[0].name, len({scene.caption for scene in bench_scenes()})
        ('scene-000', 200)
    """
    used = {caption(scene) for scene in scene_set("choosing")}
    drawn = dict.fromkeys(caption(scene) for scene in sample_scenes(10 * SCENES, BENCH_SEED, "heldout"))
    fresh = [text for text in drawn if text not in used]
    return tuple(Asked(f"scene-{index:03d}", text, index) for index, text in enumerate(fresh[:number]))


@lru_cache(maxsize=2)
def bench_pairs(number: int = SCENES) -> tuple[EditPair, ...]:
    """Pairs of scenes, kinds of edit taking turns, none of which a setting was chosen on.

    Example:
        >>> [pair.name for pair in bench_pairs(5)]
        ['colour-000', 'shape-000', 'size-000', 'background-000', 'order-000']
    """
    used = {_words(pair) for pair in edit_pairs() if pair.half == "choose"}
    spare = len(used) // len(EDIT_KINDS)
    each = -(-number // len(EDIT_KINDS))
    kinds: list[Sequence[EditPair]] = []
    for kind in EDIT_KINDS:
        fresh = [pair for pair in edit_pairs(each + spare, [kind], BENCH_SEED) if _words(pair) not in used]
        kinds.append(fresh[:each])
    return tuple(pair for turn in zip(*kinds, strict=True) for pair in turn)[:number]


def _words(pair: EditPair) -> tuple[str, str]:
    return pair.source_prompt, pair.prompt


def training_profile(
    pipe: DiffusionPipeline, generation: GenerationConfig, progress: Progress | None = None
) -> EntropyProfile:
    """A testbed model's entropy profile on captions that it was trained on."""
    prompts = [caption(scene) for scene in sample_scenes(PROFILE_PROMPTS, 1, "train")]
    return measure(pipe, prompts, generation, progress=progress)
