"""Procedural clips with ground truth, their scorer, and the small text-to-video model trained on them."""

from ieadapt.testbed.captions import caption, parse_caption
from ieadapt.testbed.model import load_pipeline, model_folder
from ieadapt.testbed.render import render, render_mask
from ieadapt.testbed.scenes import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, SIZES, Scene, sample_scenes
from ieadapt.testbed.scorer import Score, score

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "MOTIONS",
    "SHAPES",
    "SIZES",
    "Scene",
    "Score",
    "caption",
    "load_pipeline",
    "model_folder",
    "parse_caption",
    "render",
    "render_mask",
    "sample_scenes",
    "score",
]
