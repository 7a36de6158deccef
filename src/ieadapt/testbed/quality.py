"""What an eye sees of a clip, beside the scene that explains it best: closeness, edges and texture, constancy, flicker.

Every figure compares a clip with the picture of a fitted scene (`fitting`), so that motion, occlusion and light are no
faults of it. What another object hides does not count.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ieadapt.testbed.fitting import Fit, fit_scenes
from ieadapt.testbed.rendering import masks_batch, render_batch
from ieadapt.testbed.scene import Scene, SceneBatch

SOLID = 0.9
"""How much of a pixel an object must show for the pixel to count as the object's."""
LEAST_PIXELS = 12
"""Pixels that an object must show in a frame for the frame to count."""


@dataclass(frozen=True)
class Quality:
    """How well a clip is drawn, whatever it shows.

    Args:
        fit: PSNR to the picture of the scene that explains the clip best, dB; higher is better.
        detail: share of that picture's gradients that the clip has too, in [0, 1]; higher is better. Blurred edges and
            missing texture lower it; gradients of its own do not raise it.
        constancy: how still an object's colour stays over time, 1 at no change beyond the fitted light and 0 at a
            standard deviation of .1 or more of colours in [0, 1]; the mean over objects.
        flicker: mean change of the difference to the fitted picture from frame to frame, in 255ths; lower is better.
    """

    fit: float
    detail: float
    constancy: float
    flicker: float


def judge_quality(
    clip: Float[Tensor, "frame channel height width"], scene: Scene, iterations: int = 60
) -> tuple[Quality, Fit]:
    """Fit a scene to a clip and measure the clip beside it.

    Args:
        clip: 16 frames of 128 x 128 pixels in [0, 1].
        scene: where the fit starts; its attributes are kept.
        iterations: of the fit; 0 where the scene's numbers are known.

    Returns:
        The figures, and the fit they rest on.

    Raises:
        UsageError: the clip has another shape.

    Example:
        >>> from ieadapt.testbed import render, sample_scenes
        >>> scene = sample_scenes(1, seed=0)[0]
        >>> judge_quality(render(scene), scene, iterations=0)[0]
        Quality(fit=50.0, detail=1.0, constancy=1.0, flicker=0.0)
    """
    fit = fit_scenes(clip, [scene], iterations)[0]
    return quality_of(clip, fit), fit


@torch.no_grad()
def quality_of(clip: Float[Tensor, "frame channel height width"], fit: Fit) -> Quality:
    """Measure a clip beside the scene that was fitted to it."""
    clip = clip.detach().float().clamp(0, 1)
    batch = SceneBatch.stack([fit.scene]).to(clip.device)
    ideal, masks = render_batch(batch)[0], masks_batch(batch)[0, : len(fit.scene.objects)]
    difference = clip - ideal
    flicker = 255 * float(difference.diff(dim=0).abs().mean())
    return Quality(fit.psnr, _detail(clip, ideal), _constancy(difference, masks), flicker)


def _detail(clip: Tensor, ideal: Tensor) -> float:
    """Share of the ideal's gradients that is in the clip: sum of min(projection of its gradient, ideal) over ideal."""
    shared = whole = 0.0
    for axis in (-1, -2):
        steep, own = ideal.diff(dim=axis), clip.diff(dim=axis)
        size = steep.abs()
        # weighted by the ideal's own gradient: where it is flat, the clip's noise says nothing of lost detail
        shared += float((torch.minimum(own * steep.sign(), size).clamp(min=0) * size).sum())
        whole += float(size.square().sum())
    return shared / max(whole, 1e-12)


def _constancy(
    difference: Float[Tensor, "frame channel height width"], masks: Float[Tensor, "object frame height width"]
) -> float:
    values = []
    for mask in masks:
        solid = (mask > SOLID).float()
        pixels = solid.sum((1, 2))
        frames = pixels >= LEAST_PIXELS
        if frames.sum() < 2:
            continue
        colour = (difference * solid[:, None]).sum((2, 3))[frames] / pixels[frames, None]
        values.append(max(0.0, 1 - float(colour.std(0, correction=0).norm()) / 0.1))
    return sum(values) / len(values) if values else 0.0
