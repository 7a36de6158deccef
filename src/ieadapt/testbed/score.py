"""The score of a clip of `scenes`: accuracy (does it show what its caption says) and quality (is it well drawn)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ieadapt.testbed.accuracy import Accuracy, Seen, accuracy_of, checked_clip, look_at
from ieadapt.testbed.captions import parse_caption
from ieadapt.testbed.fitting import fit_scenes
from ieadapt.testbed.objects import Sighting
from ieadapt.testbed.quality import Quality, quality_of
from ieadapt.testbed.rendering import PACES, RADIUS
from ieadapt.testbed.scene import MOST_OBJECTS, Scene, SceneObject

AT_ONCE = 32
"""Clips that are scored together: what a GPU needs to be busy."""
ITERATIONS = 40
"""Steps by which the scene that was found is brought closer to the clip."""


@dataclass(frozen=True)
class SceneScore:
    """Both halves of the score.

    Args:
        accuracy: eight components in [0, 1] and their mean; higher is better.
        quality: fit in dB, detail, constancy, flicker.
        scene: the scene that explains the clip best, whatever its caption says.
    """

    accuracy: Accuracy
    quality: Quality
    scene: Scene

    def as_dict(self) -> dict[str, float]:
        """Every figure by name; `accuracy` is the mean of its components."""
        return {"accuracy": self.accuracy.mean, **asdict(self.accuracy), **asdict(self.quality)}


def score_scene(clip: Float[Tensor, ...], scene_or_caption: Scene | str, iterations: int = ITERATIONS) -> SceneScore:
    """Score a clip against a caption, or against a scene's attributes.

    Args:
        clip: 16 frames of 128 x 128 pixels in [0, 1].
        scene_or_caption: what it should show; a scene's numbers are not looked at.
        iterations: of the fit on which quality rests.

    Raises:
        UsageError: a clip of another shape, or a text that is no caption.

    Example:
        >>> from ieadapt.testbed import Scene, SceneObject, render
        >>> scene = Scene((SceneObject("big", "red", "star", "left"),), "bricks", "right")
        >>> score_scene(render(scene), scene, iterations=0).quality.fit > 30
        True
    """
    return score_scenes([clip], [scene_or_caption], iterations)[0]


def score_scenes(
    clips: Tensor | Sequence[Float[Tensor, ...]],
    scenes_or_captions: Sequence[Scene | str],
    iterations: int = ITERATIONS,
) -> list[SceneScore]:
    """Score many clips, several at a time on the device that they are on; arguments and errors as of `score_scene`."""
    named = [parse_caption(one) if isinstance(one, str) else one for one in scenes_or_captions]
    checked = [checked_clip(clip) for clip in clips]
    scores = []
    for start in range(0, len(checked), AT_ONCE):
        together = torch.stack(checked[start : start + AT_ONCE])
        group, seen = named[start : start + AT_ONCE], look_at(together)
        found = [_found_scene(*each) for each in zip(together, seen, group, strict=True)]
        fits = fit_scenes(together, found, iterations)
        for clip, scene, what, fit in zip(together, group, seen, fits, strict=True):
            scores.append(SceneScore(accuracy_of(what, scene), quality_of(clip, fit), fit.scene))
    return scores


@torch.no_grad()
def _found_scene(clip: Tensor, seen: Seen, named: Scene) -> Scene:
    """The scene that was seen, objects in the order of depth that fits best; the named objects where none was seen."""
    placement, pace = seen.patterns[seen.background], seen.cameras[seen.camera].pace
    variation = placement.variation(camera_pace=_share(pace, PACES))
    objects = tuple(_object(sighting) for sighting in list(seen.objects.values())[:MOST_OBJECTS]) or named.objects
    scene = Scene(objects, seen.background, seen.camera, variation)
    orders = [scene.replace(order=order) for order in itertools.permutations(range(len(objects)))]
    if len(orders) == 1:
        return scene
    closeness = [fit.psnr for fit in fit_scenes(clip, orders, iterations=0)]
    return orders[closeness.index(max(closeness))]


def _object(sighting: Sighting) -> SceneObject:
    best = sighting.best()
    size = min(RADIUS, key=lambda name: abs(best.radius - sum(RADIUS[name]) / 2))
    thing = SceneObject(size, sighting.colour, best.shape, best.motion, best.position)
    return replace(
        thing,
        swell=_share(best.radius, RADIUS[size]),
        phase=best.phase,
        angle=best.angle,
        pace=_share(best.pace, PACES),
    )


def _share(value: float, bounds: tuple[float, float]) -> float:
    """Where a value lies between its bounds, 0 to 1."""
    return min(1.0, max(0.0, (value - bounds[0]) / (bounds[1] - bounds[0])))
