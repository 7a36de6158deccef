"""The score of a clip of `scenes`: accuracy (does it show what its caption says) and quality (is it well drawn).

Objects, background and camera are judged by what explains them best. Nothing is known of a clip but its pixels and its
caption. The background is sought among all patterns, the camera among all movements, and every colour of which enough
is seen is an object, to which every shape and motion is fitted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.testbed.backdrop import CameraFit, Placement, fit_cameras, place_patterns, view_of
from ieadapt.testbed.captions import parse_caption
from ieadapt.testbed.fitting import Quality, fit_scenes, quality_of
from ieadapt.testbed.objects import GRID, Grid, Sighting, Spot, at_grid, find_colours, fit_objects, spot
from ieadapt.testbed.rendering import PACES, RADIUS, View, backdrops
from ieadapt.testbed.scene import COLOURS, FRAMES, MOST_OBJECTS, RESOLUTION, Clip, Scene, SceneBatch, SceneObject

COMPONENTS = ("presence", "binding", "count", "shape", "size", "motion", "camera", "background")
MARGIN = 0.25
"""For full marks the logarithm of the named value's error must be by so much below that of the best other one."""
BLUR = 0.03
"""Error of a fit that sampling alone leaves; differences below it say nothing."""
LOOSE = 0.45
"""Error of a fit at which a shape or motion gets half its mark even if no other one fits better."""

AT_ONCE = 32
"""Clips that are scored together: what a GPU needs to be busy."""
ITERATIONS = 40
"""Steps by which the scene that was found is brought closer to the clip."""


@dataclass(frozen=True)
class Accuracy:
    """What a clip shows of its caption; every component lies in [0, 1], higher is better.

    Args:
        presence: share of the named objects that are seen, frame by frame.
        binding: does each named colour have its own shape and motion, and not those of another named object.
        count: 1 if as many objects are seen as are named, less the share by which the number is off.
        shape: does the named shape fit best, the mean over objects.
        size: is the radius on the named size's side, likewise.
        motion: does the named motion fit best, likewise; motions are relative to the background.
        camera: does the named movement lay the frames over each other best.
        background: does the named pattern match best.
        mean: of these eight.
    """

    presence: float
    binding: float
    count: float
    shape: float
    size: float
    motion: float
    camera: float
    background: float

    @property
    def mean(self) -> float:
        """The mean of all components."""
        return sum(asdict(self).values()) / len(COMPONENTS)


@dataclass(frozen=True)
class Seen:
    """What was found in a clip, whatever its caption says.

    Args:
        cameras: how well each movement explains it.
        patterns: how well each background does.
        objects: by colour, the largest first.
    """

    cameras: Mapping[str, CameraFit]
    patterns: Mapping[str, Placement]
    objects: Mapping[str, Sighting]

    @property
    def camera(self) -> str:
        """The movement that explains the clip best."""
        return min(self.cameras, key=lambda name: self.cameras[name].error)

    @property
    def background(self) -> str:
        """The pattern that matches best."""
        return max(self.patterns, key=lambda name: self.patterns[name].match)


def accuracy_of(seen: Seen, scene: Scene) -> Accuracy:
    """Compare what was seen in a clip with what a scene's attributes say."""
    named = [(thing, seen.objects.get(thing.colour)) for thing in scene.objects]
    shown = [(thing, sighting) for thing, sighting in named if sighting is not None]

    def mean(values: list[float]) -> float:
        return sum(values) / len(named)

    return Accuracy(
        presence=mean([sighting.seen for _, sighting in shown]),
        binding=mean([_binding(sighting, thing, scene) for thing, sighting in shown]),
        count=max(0.0, 1 - abs(len(seen.objects) - len(named)) / len(named)),
        shape=mean([_fits(sighting, "shape", thing.shape) for thing, sighting in shown]),
        size=mean([_size(sighting, thing) for thing, sighting in shown]),
        motion=mean([_fits(sighting, "motion", thing.motion) for thing, sighting in shown]),
        camera=_camera(seen.cameras, scene.camera),
        background=_background(seen.patterns, scene.background),
    )


def checked_clip(clip: Tensor) -> Clip:
    """The clip in float32, in [0, 1].

    Raises:
        UsageError: a clip of another shape, or one with values that are no numbers.
    """
    shape = (FRAMES, 3, RESOLUTION, RESOLUTION)
    if tuple(clip.shape) != shape or not bool(clip.isfinite().all()):
        raise UsageError(
            "not a clip of the test bed",
            expected=f"finite numbers of shape {shape}",
            got=tuple(clip.shape),
            where="score",
        )
    return clip.detach().float().clamp(0, 1)


@torch.no_grad()
def look_at(clips: Float[Tensor, "clip frame channel height width"]) -> list[Seen]:
    """Find camera, background and objects of clips, on the device that they are on."""
    found = [_look_around(clip) for clip in clips]
    sightings = iter(fit_objects([one for _, spots in found for one in spots]))
    seen = []
    for around, spots in found:
        objects = sorted(
            (one for one in (next(sightings) for _ in spots) if one is not None), key=lambda one: -one.area
        )
        seen.append(replace(around, objects={one.colour: one for one in objects}))
    return seen


def _look_around(clip: Clip) -> tuple[Seen, list[Spot]]:
    """Camera and background of a clip, and where its colours are."""
    seen = Seen(fit_cameras(clip), place_patterns(clip), {})
    frames, camera = at_grid(clip), view_of(seen.camera, seen.cameras[seen.camera].pace, clip.device)
    behind = predict_backdrop(frames, seen.background, seen.patterns[seen.background], camera)
    colours = find_colours(frames, behind)
    spots = [spot(frames, behind, colours, index, camera) for index in range(len(COLOURS))]
    return seen, [one for one in spots if one is not None]


def predict_backdrop(frames: Grid, background: str, placement: Placement, camera: View) -> Grid:
    """The background alone, in the clip's light and tint.

    Each frame's channels are a gain times the pattern plus a slow field, fitted so that what is far off (objects)
    counts little.
    """
    stand_in = SceneObject("small", "white", "ball", "left")
    scene = Scene((stand_in,), background, "still", placement.variation())
    pattern = backdrops(SceneBatch.stack([scene]).to(frames.device), camera, GRID)[0]
    frames = frames.movedim(1, -1)
    steps = torch.linspace(-1, 1, GRID, device=frames.device)
    down, across = torch.meshgrid(steps, steps, indexing="ij")
    slow = torch.stack([torch.ones_like(down), down, across, down * across, down**2, across**2], -1)
    slow = slow.flatten(0, 1).expand(len(frames), 3, -1, -1)
    design = torch.cat([pattern.flatten(1, 2).transpose(1, 2)[..., None], slow], -1)
    target = frames.flatten(1, 2).transpose(1, 2)[..., None]
    weight = torch.ones_like(target)
    eye = 1e-3 * torch.eye(design.shape[-1], device=frames.device)
    for _ in range(6):
        normal = design.transpose(-1, -2) @ (weight * design) + eye
        values = torch.linalg.solve(normal, design.transpose(-1, -2) @ (weight * target))
        apart = (design @ values - target).square().mean(1, keepdim=True)
        weight = (1 / (1 + apart / 0.05**2)).expand_as(target)
    return (design @ values)[..., 0].view(len(frames), 3, GRID, GRID)


def _advantage(own: float, other: float, floor: float = BLUR) -> float:
    """Full marks where the named value's error is below the best other one's by `MARGIN`, half where they are alike."""
    gap = math.log((other + floor) / (own + floor))
    return min(1.0, max(0.0, 0.5 + gap / (2 * MARGIN)))


def _fits(sighting: Sighting, attribute: str, named: str) -> float:
    """Does the named shape or motion fit best, and does it fit at all."""
    others = {getattr(one, attribute) for one in sighting.candidates} - {named}
    own = sighting.error(**{attribute: named})
    other = min(sighting.error(**{attribute: value}) for value in others)
    return _advantage(own, other) * _tight(own)


def _tight(error: float) -> float:
    return 1 / (1 + (error / LOOSE) ** 3)


def _binding(sighting: Sighting, thing: SceneObject, scene: Scene) -> float:
    """Does the colour show its own shape in its own motion rather than those of another named object."""
    own = sighting.error(shape=thing.shape, motion=thing.motion)
    rivals = [
        sighting.error(shape=other.shape, motion=other.motion)
        for other in scene.objects
        if (other.shape, other.motion) != (thing.shape, thing.motion)
    ]
    return (_advantage(own, min(rivals)) if rivals else 1.0) * _tight(own)


def _size(sighting: Sighting, thing: SceneObject) -> float:
    """Half a mark in the middle between the sizes, nearly full marks from the size's own range on."""
    fit = sighting.best(shape=thing.shape)
    middle = math.sqrt(RADIUS["small"][1] * RADIUS["big"][0])
    big = 1 / (1 + (middle / fit.radius) ** 24)
    return (big if thing.size == "big" else 1 - big) * _tight(fit.error)


def _camera(cameras: Mapping[str, CameraFit], named: str) -> float:
    other = min(fit.error for name, fit in cameras.items() if name != named)
    return _advantage(cameras[named].error, other, floor=1e-4)


def _background(patterns: Mapping[str, Placement], named: str) -> float:
    own = patterns[named].match
    other = max(fit.match for name, fit in patterns.items() if name != named)
    return min(1.0, max(0.0, 0.5 + (own - other) / 0.1)) * min(1.0, max(0.0, own / 0.25))


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
