"""The test bed: clips whose content is known exactly, a score that needs no human, and models trained on them.

One to three objects that cross, a moving camera, patterned backgrounds and changing light.
"""

from ieadapt.testbed.captions import caption, parse_caption
from ieadapt.testbed.rendering import render, render_masks
from ieadapt.testbed.sampling import sample_scenes
from ieadapt.testbed.scene import BACKGROUNDS, CAMERAS, COLOURS, MOTIONS, SHAPES, SIZES, Scene, SceneObject
from ieadapt.testbed.score import SceneScore, score_scene, score_scenes

__all__ = [
    "BACKGROUNDS",
    "CAMERAS",
    "COLOURS",
    "MOTIONS",
    "SHAPES",
    "SIZES",
    "Scene",
    "SceneObject",
    "SceneScore",
    "caption",
    "parse_caption",
    "render",
    "render_masks",
    "sample_scenes",
    "score_scene",
    "score_scenes",
]
