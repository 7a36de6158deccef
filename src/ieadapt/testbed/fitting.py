"""Analysis by synthesis: the numbers of a scene with which its picture comes closest to a clip.

The attributes of a scene (what a caption says) are kept; its numbers (where, how fast, in which light) are moved down
the gradient of the squared error of some frames. Several scenes are fitted to one clip at once, so that what a clip
shows can be read by asking which of several scenes explains it best. How well a clip is drawn is measured beside the
picture of the fitted scene, so that motion, occlusion and light are no faults of it; what another object hides does not
count.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.testbed.rendering import masks_batch, render_batch
from ieadapt.testbed.scene import FRAMES, OBJECT_NUMBERS, RESOLUTION, SCENE_NUMBERS, Clip, Scene, SceneBatch

FITTED_FRAMES = (0, 3, 6, 9, 12, 15)
"""Frames whose error is brought down; the figures are of all 16."""
STEP = 0.02
"""Size of the first steps, in the numbers' own units; they shrink along a cosine."""
FAR = 0.02
"""Error (root mean square, colours in [0, 1]) from which on steps are of full size."""
SLACK = 0.25
"""How far beyond [0, 1] a number may go: a clip that is somewhat faster or darker than any scene is still explained."""
FREE = {"x", "y", "angle", "phase", "shift_x"}
"""Numbers that are no shares of a range."""
COARSE = 4
"""Pixels that are averaged in the first steps, so that thin lines that lie side by side are drawn together ..."""
HALF = RESOLUTION // 2
"""... at half the resolution, which is four times as quick ..."""
COARSE_SHARE = 0.5
"""... and the share of the steps that are so taken."""
HIGHEST = 50.0
"""Decibels above which closeness is not told apart (an error of less than a step of 8 bits)."""

SOLID = 0.9
"""How much of a pixel an object must show for the pixel to count as the object's."""
LEAST_PIXELS = 12
"""Pixels that an object must show in a frame for the frame to count."""


@dataclass(frozen=True)
class Fit:
    """A scene brought as close to a clip as it comes.

    Args:
        scene: its attributes as they were, its numbers as fitted.
        psnr: closeness of its picture to the clip over all frames, dB; higher is closer, `HIGHEST` at most.
    """

    scene: Scene
    psnr: float


def fit_scenes(
    clip: Float[Tensor, "*scene frame channel height width"], starts: Sequence[Scene], iterations: int = 60
) -> list[Fit]:
    """Fit scenes to a clip, or each to a clip of its own, on the device of the clips.

    Args:
        clip: 16 frames of 128 x 128 pixels in [0, 1], one for all scenes or one a scene.
        starts: scenes; those of one clip usually differ in an attribute and share their numbers.
        iterations: steps down the gradient; 0 measures the starts as they are.

    Raises:
        UsageError: the clip has another shape, or there is no scene.

    Example:
        >>> from ieadapt.testbed import render, sample_scenes
        >>> scene = sample_scenes(1, seed=0)[0]
        >>> fit_scenes(render(scene), [scene], iterations=0)[0].psnr
        50.0
    """
    one = (FRAMES, 3, RESOLUTION, RESOLUTION)
    if tuple(clip.shape) not in (one, (len(starts), *one)) or not starts:
        raise UsageError(
            "nothing to fit",
            expected=f"a clip of shape ({FRAMES}, 3, {RESOLUTION}, {RESOLUTION}) and at least one scene",
            got=f"{tuple(clip.shape)} and {len(starts)} scenes",
            where="fit_scenes",
        )
    clips = clip.detach().float().clamp(0, 1).expand(len(starts), *one)
    batch = SceneBatch.stack(starts).to(clip.device)
    if iterations:
        batch = _descend(clips, batch, iterations)
    with torch.no_grad():
        pictures = (render_batch(batch[slice(row, row + 1)])[0] for row in range(len(batch)))
        errors = [
            float((picture - clip).square().mean((1, 2, 3)).mean())
            for picture, clip in zip(pictures, clips, strict=True)
        ]
    closeness = [min(HIGHEST, -10 * math.log10(max(error, 1e-12))) for error in errors]
    return [Fit(*each) for each in zip(batch.scenes(), closeness, strict=True)]


def _descend(clips: Tensor, batch: SceneBatch, iterations: int) -> SceneBatch:
    numbers, variation = batch.numbers.clone().requires_grad_(), batch.variation.clone().requires_grad_()
    frame = torch.tensor(FITTED_FRAMES, device=clips.device).expand(len(batch), -1)
    optimizer = torch.optim.Adam([numbers, variation], lr=STEP, betas=(0.9, 0.95))
    fitted = clips[:, list(FITTED_FRAMES)]
    halved = F.interpolate(fitted.flatten(0, 1), size=(HALF, HALF), mode="area").unflatten(0, frame.shape)
    with torch.no_grad():  # a fit is never worse than its start
        best = (render_batch(batch, frame) - fitted).square().mean((1, 2, 3, 4))
    kept = numbers.detach().clone(), variation.detach().clone()
    for iteration in range(iterations + 1):
        optimizer.param_groups[0]["lr"] = STEP * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * iteration / iterations)))
        moved = dataclasses.replace(batch, numbers=numbers, variation=variation)
        coarse = iteration < COARSE_SHARE * iterations
        difference = render_batch(moved, frame, HALF) - halved if coarse else render_batch(moved, frame) - fitted
        if coarse:
            difference = F.avg_pool2d(difference.flatten(0, 1), COARSE // 2).unflatten(0, frame.shape)
        error = difference.square().mean((1, 2, 3, 4))
        better = (error.detach() < best) & (not coarse)
        best = torch.where(better, error.detach(), best)
        for stored, value in zip(kept, (numbers, variation), strict=True):
            stored[better] = value.detach()[better]
        optimizer.zero_grad()
        # each scene's own share of its error, so that a scene that is far off is no faster than one that is near
        (error / error.detach().clamp(min=1e-6)).sum().backward()
        before = numbers.detach().clone(), variation.detach().clone()
        optimizer.step()
        # Adam's steps are as long near the goal as far from it: a scene that is near would be led away
        share = (error.detach().sqrt() / FAR).clamp(max=1)
        with torch.no_grad():
            for value, old in zip((numbers, variation), before, strict=True):
                value.copy_(old + (value - old) * share.view(-1, *(1,) * (value.dim() - 1)))
        _keep_in_range(numbers, OBJECT_NUMBERS)
        _keep_in_range(variation[:, : len(SCENE_NUMBERS)], SCENE_NUMBERS)
    return dataclasses.replace(batch, numbers=kept[0], variation=kept[1])


@torch.no_grad()
def _keep_in_range(values: Float[Tensor, "... number"], names: Sequence[str]) -> None:
    for column, name in enumerate(names):
        if name not in FREE:
            values[..., column].clamp_(-SLACK, 1 + SLACK)


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


@torch.no_grad()
def quality_of(clip: Clip, fit: Fit) -> Quality:
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


def _constancy(difference: Clip, masks: Float[Tensor, "object frame height width"]) -> float:
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
