"""Which background a clip shows, and how it lies: patterns slid over the middle frame.

In the middle of a clip the camera is where every camera passes, so that a pattern's turn, scale and shift can be sought
in one frame, whatever the camera does. Slow colours (tint, shadow, light) are taken off first.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ieadapt.testbed.patterns import paint
from ieadapt.testbed.rendering import SCALES, SHIFT_DOWN, TURN, View, move_camera
from ieadapt.testbed.scene import BACKGROUNDS, CAMERAS, FRAMES, SCENE_NUMBERS, VARIATION, Clip

UNIT = 60
"""Pixels to a frame width in the plane of the patterns."""
CANVAS = 96
"""Height and width of a warped frame in that plane: 1.6 frame widths."""
DOWN = round(SHIFT_DOWN / 2 * UNIT)
"""The largest shift downwards or upwards, in pixels of the plane."""
TURNS, ZOOMS = 17, 15
"""How many turns and scales are tried."""
SLOW = 6.0
"""Deviation in pixels of the blur that is taken off."""
STRONGEST = 0.12
"""Contrast above which more does not count: edges of objects are stronger than those of patterns."""


@dataclass(frozen=True)
class Placement:
    """How a pattern lies in a clip.

    Args:
        match: correlation of the pattern with the middle frame, slow colours taken off, in [-1, 1]; higher is closer.
        turn: as in a scene's `variation`, in [0, 1].
        scale: likewise.
        shift_x: likewise.
        shift_y: likewise.
    """

    match: float
    turn: float
    scale: float
    shift_x: float
    shift_y: float

    def within(self, variation: tuple[float, ...]) -> tuple[float, ...]:
        """A scene's `variation` with its pattern laid so."""
        numbers = dict(zip(SCENE_NUMBERS, variation, strict=False))
        numbers |= {name: getattr(self, name) for name in ("turn", "scale", "shift_x", "shift_y")}
        return (*numbers.values(), *variation[len(numbers) :])

    def variation(self, camera_pace: float = 0.5) -> tuple[float, ...]:
        """The `variation` of a scene whose pattern lies so, every other number at its middle value."""
        numbers = dict.fromkeys(SCENE_NUMBERS, 0.5) | {"camera_pace": camera_pace}
        return self.within((*numbers.values(), *(0.5,) * (VARIATION - len(numbers))))


@torch.no_grad()
def place_patterns(clip: Clip) -> dict[str, Placement]:
    """The best placement of every pattern in a clip.

    Args:
        clip: frames in [0, 1].

    Example:
        >>> from ieadapt.testbed import Scene, SceneObject, render
        >>> scene = Scene((SceneObject("small", "red", "ball", "left"),), "honeycomb")
        >>> placements = place_patterns(render(scene))
        >>> max(placements, key=lambda name: placements[name].match)
        'honeycomb'
    """
    middle = clip[FRAMES // 2 - 1 : FRAMES // 2 + 1].float().mean((0, 1))
    frame = F.interpolate(middle[None, None], size=(UNIT, UNIT), mode="area")
    quick = _without_slow(frame).clamp(-STRONGEST, STRONGEST)
    turns = torch.linspace(0, 1, TURNS)
    scales = torch.linspace(0, 1, ZOOMS)
    grid = _grid(clip.device)
    warped = F.grid_sample(quick.expand(len(grid), -1, -1, -1), 2 * grid, align_corners=False)[:, 0]
    warped = warped * _inside(clip.device)
    strength = warped.square().sum((1, 2)).clamp(min=1e-6)
    found = {}
    for name in BACKGROUNDS:
        patches, own = _patches(name, clip.device)
        match = warped.flatten(1) @ patches.T / (own * strength[:, None]).sqrt()
        best = int(match.argmax())
        row, shift = divmod(best, match.shape[1])
        down, right = divmod(shift, UNIT)
        found[name] = Placement(
            float(match.flatten()[best]),
            float(turns[row // ZOOMS]),
            float(scales[row % ZOOMS]),
            right / UNIT,
            down / (2 * DOWN),
        )
    return found


def _without_slow(picture: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1 height width"]:
    steps = torch.arange(-int(2 * SLOW), int(2 * SLOW) + 1, device=picture.device).float()
    kernel = (-steps.square() / (2 * SLOW**2)).exp()
    kernel = (kernel / kernel.sum()).view(1, 1, -1, 1)
    margin = len(steps) // 2
    padded = F.pad(picture, (margin, margin, margin, margin), mode="reflect")
    return picture - F.conv2d(F.conv2d(padded, kernel), kernel.transpose(2, 3))


@functools.cache
def _grid(device: torch.device) -> Float[Tensor, "row height width 2"]:
    """Where in the frame each point of the patterns' plane is at every turn and scale, from the frame's middle."""
    at = (torch.arange(CANVAS, device=device) + 0.5 - CANVAS / 2) / UNIT
    angle = (TURN * torch.linspace(-1, 1, TURNS, device=device)).repeat_interleave(ZOOMS)[:, None, None]
    scale = torch.linspace(*SCALES, ZOOMS, device=device).repeat(TURNS)[:, None, None]
    across, along = at[None, None, :] / scale, at[None, :, None] / scale
    return torch.stack([angle.cos() * across + angle.sin() * along, angle.cos() * along - angle.sin() * across], -1)


def _inside(device: torch.device) -> Float[Tensor, "row height width"]:
    return (_grid(device).abs().amax(-1) < 0.5).float()


@functools.cache
def _patches(name: str, device: torch.device) -> tuple[Float[Tensor, "shift pixel"], Float[Tensor, "row shift"]]:
    """A pattern without slow colours at every shift, and how strong it is where a frame lies."""
    height, width = CANVAS + 2 * DOWN, CANVAS + UNIT - 1
    x = (torch.arange(width, device=device) + 0.5 - CANVAS / 2) / UNIT + 0.5
    y = (torch.arange(height, device=device) + 0.5 - CANVAS / 2 - DOWN) / UNIT + 0.5
    # as soft as a frame of UNIT pixels: the mean of four points a pixel
    finer = [
        paint(name, *torch.broadcast_tensors(x[None, :] + dx / UNIT, y[:, None] + dy / UNIT)).mean(-1)
        for dx in (-0.25, 0.25)
        for dy in (-0.25, 0.25)
    ]
    plane = _without_slow(torch.stack(finer).mean(0)[None, None]).clamp(-STRONGEST, STRONGEST)[0, 0]
    patches = plane.unfold(0, CANVAS, 1).unfold(1, CANVAS, 1).reshape(-1, CANVAS**2)
    return patches, (_inside(device).flatten(1) @ patches.square().T).clamp(min=1e-6)


PACES = (0.5, 0.75, 1.0, 1.25)
"""Paces of the camera that are tried, as multiples of the nominal one."""
VIVID = 0.3
"""Range of a pixel's three channels above which it belongs to an object."""
SLOW_SHARE = 0.2
"""Weight of slow colours beside the pattern when frames are laid over each other; .4 and .7 tell less on 50 clips."""
MUCH = 0.1
"""Difference of a pixel above which more does not count when frames are laid over each other."""


@dataclass(frozen=True)
class CameraFit:
    """One movement of the camera, as it lays the frames of a clip over each other.

    Args:
        error: mean difference of the frames so laid, slow colours taken off, `MUCH` at most; lower is closer.
        pace: the pace at which that is so.
    """

    error: float
    pace: float


@torch.no_grad()
def fit_cameras(clip: Clip) -> dict[str, CameraFit]:
    """How well every movement of the camera explains a clip, whatever its background is.

    Example:
        >>> from ieadapt.testbed import Scene, SceneObject, render
        >>> cameras = fit_cameras(render(Scene((SceneObject("small", "red", "ball", "left"),), "bricks", "in")))
        >>> min(cameras, key=lambda name: cameras[name].error)
        'in'
    """
    frames = F.interpolate(clip.float(), size=(UNIT, UNIT), mode="area")
    quick = _without_slow(frames.mean(1, keepdim=True)).clamp(-STRONGEST, STRONGEST)
    free = _away_from_objects(frames)
    # diagonal stripes move alike to the right and downwards: only the slow colours over them tell these apart
    slow = frames - torch.cat([_without_slow(frames[:, channel : channel + 1]) for channel in range(3)], 1)
    seen = torch.cat([quick, slow / slow.mean((1, 2, 3), keepdim=True), free], 1)
    tried = [(name, pace) for name in CAMERAS for pace in (PACES if name != "still" else (1.0,))]
    errors = torch.stack([_misfit(seen, view_of(name, pace, clip.device)) for name, pace in tried]).tolist()
    fits = [(name, CameraFit(error, pace)) for (name, pace), error in zip(tried, errors, strict=True)]
    return {name: min((fit for other, fit in fits if other == name), key=lambda fit: fit.error) for name in CAMERAS}


def view_of(camera: str, pace: float, device: torch.device | str = "cpu") -> View:
    """The view of every frame, each part of shape (1, frame)."""
    kind = torch.tensor([[CAMERAS.index(camera)]], device=device)
    return move_camera(kind, pace, torch.arange(FRAMES, device=device)[None])


def _away_from_objects(frames: Clip) -> Float[Tensor, "frame 1 height width"]:
    """1 where no pixel nearby is as vivid as objects are: backgrounds are muted. White objects are not told apart."""
    vivid = (frames.amax(1) - frames.amin(1) > VIVID).float()[:, None]
    return 1 - F.max_pool2d(vivid, 5, 1, 2)


def _misfit(seen: Clip, camera: View) -> Float[Tensor, ""]:
    """Mean difference of frames a few apart, each laid where the middle of the clip sees its points.

    The last channel of `seen` says what counts; those between are slow colours.
    """
    at = (torch.arange(UNIT, device=seen.device) + 0.5) / UNIT - 0.5
    x = (at[None, None, :] - camera.x[0, :, None, None]) * camera.zoom[0, :, None, None]
    y = (at[None, :, None] - camera.y[0, :, None, None]) * camera.zoom[0, :, None, None]
    where = torch.stack(torch.broadcast_tensors(x, y), -1)
    laid = F.grid_sample(seen, 2 * where, align_corners=False)
    inside = (where.abs().amax(-1) < 0.5) * laid[:, -1]
    # neighbours three frames apart: far enough to see the movement, near enough to lie over each other
    both = inside[3:] * inside[:-3]
    difference = (laid[3:, :-1] - laid[:-3, :-1]).abs().clamp(max=MUCH)
    apart = difference[:, 0] + SLOW_SHARE * difference[:, 1:].mean(1)
    return (apart * both).sum() / both.sum().clamp(min=1)
