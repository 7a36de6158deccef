"""Ground-truth fidelity: does a clip show what its caption says?

Positions are fitted, so the caption alone is enough; every component is 1 for a clip rendered from the caption.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.testbed.backgrounds import background_picture
from ieadapt.testbed.captions import parse_caption
from ieadapt.testbed.motion import MotionFit, Track, fit_motion
from ieadapt.testbed.outlines import SYMMETRY, area
from ieadapt.testbed.render import compose, cover, palette
from ieadapt.testbed.scenes import COLOURS, RADIUS, RESOLUTION, SHAPES, Scene, Trajectory
from ieadapt.testbed.segment import Backdrop, Sighting, fit_backdrops, shape_overlaps, sight

SHAPE_MARGIN = 0.04
"""The named shape must beat the next best by so much overlap for full marks."""
BACKGROUND_TOLERANCE = 0.12
"""Error of the named background (root mean square, colours in [0, 1]) that halves its mark."""
VISIBLE = 30.0
"""Pixels that an object must cover in a frame for its motion to count there."""
COMPONENTS = ("size", "colour", "background", "shape", "motion")


@dataclass(frozen=True)
class Score:
    """What a clip shows of its caption.

    Args:
        size: is the mean radius on the named size's side of the middle, in [0, 1].
        colour: share of the object's pixels that are nearest to the named colour, in [0, 1].
        background: does the named background fit, and better than the others, in [0, 1].
        shape: share of the frames in which the named shape fits best, with margin, in [0, 1].
        motion: does the track follow the named motion, in [0, 1].
        fidelity: the mean of these five.
        iou: intersection over union of the object and the named shape, size and place fitted, in [0, 1].
        fit: PSNR to the ideal clip at the fitted positions, dB.
        jitter: root mean square of the second differences of centre and radius off the ideal track, pixels.
        flicker: mean change of the background from frame to frame, in 255ths.
        sharpness: gradient at the object's edge against the ideal clip's; 1 is as sharp.
    """

    size: float
    colour: float
    background: float
    shape: float
    motion: float
    fidelity: float
    iou: float
    fit: float
    jitter: float
    flicker: float
    sharpness: float

    def as_dict(self) -> dict[str, float]:
        """The measures by name."""
        return asdict(self)


@torch.no_grad()
def score(frames: Float[Tensor, ...], scene_or_caption: Scene | str) -> Score:
    """Score a clip against a caption, or against a scene's five attributes.

    Args:
        frames: 16 frames of 128 x 128 pixels in [0, 1].
        scene_or_caption: what they should show; positions are fitted in either case.

    Raises:
        UsageError: frames of another shape, or a text outside the grammar.

    Example:
        >>> from ieadapt.testbed import Scene, render, score
        >>> clip = render(Scene("big", "red", "star", "left", "bricks"))
        >>> score(clip, "a big red star moving left over bricks").fidelity > 0.95
        True
    """
    clip = _checked(frames)
    scene = parse_caption(scene_or_caption) if isinstance(scene_or_caption, str) else scene_or_caption
    backdrops = fit_backdrops(clip, scene.background)
    seen_behind = min(backdrops.values(), key=lambda fit: fit.error)
    sighting = sight(clip, _picture(seen_behind))
    overlaps = shape_overlaps(sighting)
    track = _track(sighting, scene.shape, overlaps[scene.shape][1])
    motion = fit_motion(track, scene.motion)
    parts = {
        "size": _size(track, scene.size),
        "colour": _colour(sighting, scene.colour),
        "background": _background(backdrops, scene.background),
        "shape": _shape({name: overlap for name, (overlap, _) in overlaps.items()}, scene.shape),
        "motion": motion.score * float((sighting.area > VISIBLE).float().mean()),
    }
    return Score(
        **parts,
        fidelity=sum(parts.values()) / len(parts),
        iou=float(overlaps[scene.shape][0].mean()),
        jitter=_jitter(motion),
        flicker=_flicker(clip, sighting),
        **_against_ideal(clip, scene, sighting, track, backdrops[scene.background]),
    )


def _checked(frames: Tensor) -> Float[Tensor, "frame channel height width"]:
    if frames.dim() != 4 or tuple(frames.shape[1:]) != (3, RESOLUTION, RESOLUTION) or len(frames) < 4:
        raise UsageError(
            "not a clip of the testbed",
            expected=f"(frame >= 4, 3, {RESOLUTION}, {RESOLUTION})",
            got=tuple(frames.shape),
            where="score",
        )
    return frames.detach().float().cpu().clamp(0, 1)


def _picture(backdrop: Backdrop) -> Float[Tensor, "channel height width"]:
    return background_picture(backdrop.name, torch.tensor([backdrop.shift]), RESOLUTION)[0]


def _track(sighting: Sighting, shape: str, angle: Tensor) -> Track:
    return Track(sighting.x, sighting.y, (sighting.area / area(shape)).sqrt(), angle, SYMMETRY[shape])


def _size(track: Track, size: str) -> float:
    """Half a mark in the middle between the sizes, nearly full marks from the size's own range on."""
    middle = RESOLUTION * math.sqrt(RADIUS["small"][1] * RADIUS["big"][0])
    big = 1 / (1 + (middle / float(track.radius.mean().clamp(min=0.1))) ** 19)
    return {"big": big, "small": 1 - big}[size]


def _colour(sighting: Sighting, colour: str) -> float:
    if not len(sighting.core):
        return 0.0
    nearest = torch.cdist(sighting.core, palette()).argmin(1)
    return float((nearest == COLOURS.index(colour)).float().mean())


def _background(backdrops: dict[str, Backdrop], name: str) -> float:
    own = backdrops[name].error
    other = min(fit.error for fit in backdrops.values() if fit.name != name)
    return 1 / (1 + (own / max(other, 1e-6)) ** 4) / (1 + (own / BACKGROUND_TOLERANCE) ** 4)


def _shape(overlaps: dict[str, Float[Tensor, " frame"]], name: str) -> float:
    others = torch.stack([overlaps[other] for other in SHAPES if other != name]).amax(0)
    return float((0.5 + (overlaps[name] - others) / (2 * SHAPE_MARGIN)).clamp(0, 1).mean())


def _jitter(motion: MotionFit) -> float:
    left = torch.stack([motion.x, motion.y, motion.radius])
    return float(left.diff(n=2, dim=1).square().sum(0).mean().sqrt())


def _flicker(clip: Tensor, sighting: Sighting) -> float:
    """Change of the pixels that the object is in neither frame near to; of all where it seems to be everywhere."""
    steps = torch.arange(RESOLUTION) + 0.5
    dx, dy = steps[None, None, :] - sighting.x[:, None, None], steps[None, :, None] - sighting.y[:, None, None]
    near = torch.hypot(dx, dy) < 1.7 * (sighting.area / math.pi).sqrt()[:, None, None] + 4
    still = ~(near[1:] | near[:-1])
    still = (still | ~still.any()).float()
    change = clip.diff(dim=0).abs().mean(1)
    return float(255 * (change * still).sum() / still.sum())


def _against_ideal(
    clip: Tensor, scene: Scene, sighting: Sighting, track: Track, backdrop: Backdrop
) -> dict[str, float]:
    """PSNR and edge sharpness against the clip that the caption asks for, at the fitted positions."""
    x, y, radius = (part[None] / RESOLUTION for part in (track.x, track.y, track.radius))
    path = Trajectory(x, y, radius, track.angle[None])
    mask, height = cover(torch.tensor([SHAPES.index(scene.shape)]), path)
    colour = palette()[COLOURS.index(scene.colour)][None]
    ideal = compose(_picture(backdrop)[None], mask, height, colour)[0]
    error = float((ideal - clip).square().mean())
    edge = F.max_pool2d(((mask[0] > 0.02) & (mask[0] < 0.98)).float()[:, None], 3, stride=1, padding=1)[:, 0]
    soft, sharp = _steepness(sighting.cover, edge), _steepness(((mask[0] - 0.5) / 0.7 + 0.5).clamp(0, 1), edge)
    return {"fit": -10 * math.log10(max(error, 1e-10)), "sharpness": soft / max(sharp, 1e-6)}


def _steepness(image: Float[Tensor, "frame height width"], where: Float[Tensor, "frame height width"]) -> float:
    """Mean squared gradient over some pixels: steep edges count for more than wide ones."""
    dx, dy = image.diff(dim=-1)[:, :-1], image.diff(dim=-2)[:, :, :-1]
    inside = where[:, :-1, :-1]
    return float(((dx.square() + dy.square()) * inside).sum() / inside.sum().clamp(min=1))
