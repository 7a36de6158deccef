"""The world `scenes`: one to three objects that cross, a moving camera, structured backgrounds and changing light."""

from ieadapt.testbed.world.captions import caption, parse_caption
from ieadapt.testbed.world.rendering import render, render_batch, render_masks
from ieadapt.testbed.world.sampling import sample_scenes
from ieadapt.testbed.world.scene import (
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    MOTIONS,
    SHAPES,
    SIZES,
    Scene,
    SceneObject,
)

__all__ = [
    "BACKGROUNDS",
    "CAMERAS",
    "COLOURS",
    "MOTIONS",
    "SHAPES",
    "SIZES",
    "Scene",
    "SceneObject",
    "caption",
    "parse_caption",
    "render",
    "render_batch",
    "render_masks",
    "sample_scenes",
]
