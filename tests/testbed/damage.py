"""Kinds of damage that an eye notices, each at a strength in [0, 1]; what each should lower is for the tests to say."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ieadapt.testbed import Scene, render_masks

Damage = Callable[[Tensor, Scene, float], Tensor]


def blur(clip: Tensor, scene: Scene, strength: float) -> Tensor:
    """A Gaussian blur of up to 3 pixels."""
    sigma = 3 * strength
    steps = torch.arange(-9, 10).float()
    kernel = (-steps.square() / (2 * sigma**2)).exp()
    kernel = (kernel / kernel.sum()).view(1, 1, -1, 1)
    rows = F.pad(clip.flatten(0, 1)[:, None], (9, 9, 9, 9), mode="reflect")
    return F.conv2d(F.conv2d(rows, kernel), kernel.transpose(2, 3))[:, 0].view_as(clip)


def noise(clip: Tensor, scene: Scene, strength: float) -> Tensor:
    """Noise of its own in every frame."""
    generator = torch.Generator().manual_seed(0)
    return (clip + 0.1 * strength * torch.randn(clip.shape, generator=generator)).clamp(0, 1)


def flicker(clip: Tensor, scene: Scene, strength: float) -> Tensor:
    """Every other frame darker."""
    dark = 1 - 0.2 * strength * (torch.arange(len(clip)) % 2)
    return clip * dark[:, None, None, None]


def missing_texture(clip: Tensor, scene: Scene, strength: float) -> Tensor:
    """The background drawn towards its own mean colour: bricks lose their joints."""
    free = 1 - render_masks(scene).sum(0)[:, None]
    mean = (clip * free).sum((2, 3), keepdim=True) / free.sum((2, 3), keepdim=True)
    return torch.lerp(clip, mean.expand_as(clip), strength * free)


def holes(clip: Tensor, scene: Scene, strength: float) -> Tensor:
    """Square holes in the first object that show grey."""
    steps = torch.arange(128)
    inside = ((steps // 6 % 2 == 0)[:, None] & (steps // 6 % 2 == 0)[None]).float()
    return torch.lerp(clip, torch.full_like(clip, 0.5), strength * inside * render_masks(scene)[0][:, None])


def frozen(clip: Tensor, scene: Scene, strength: float) -> Tensor:
    """Nothing moves any more after some frame."""
    last = round(15 * (1 - 0.8 * strength))
    return clip[torch.arange(16).clamp(max=last)]


def wandering_colour(clip: Tensor, scene: Scene, strength: float) -> Tensor:
    """The first object's colour swings over time."""
    swing = 0.3 * strength * torch.sin(torch.arange(16) * 0.9)
    tint = torch.stack([swing, -swing, swing], 1)[:, :, None, None]
    return (clip + tint * render_masks(scene)[0][:, None]).clamp(0, 1)


def leaked_colour(clip: Tensor, scene: Scene, strength: float) -> Tensor:
    """The second object takes on the first one's colour from its left side on."""
    first, second = render_masks(scene)[:2]
    colour = (clip * first[:, None]).sum((0, 2, 3)) / first.sum()
    columns = torch.arange(128).float()
    middle = (second.sum(1) @ columns) / second.sum((1, 2)).clamp(min=1)
    half = (second.sum((1, 2)) / torch.pi).sqrt()
    reach = columns < (middle + (2 * strength - 1) * half)[:, None]
    return torch.lerp(clip, colour[:, None, None].expand_as(clip), (second * reach[:, None])[:, None])


DAMAGES: dict[str, Damage] = {
    "blur": blur,
    "noise": noise,
    "flicker": flicker,
    "missing texture": missing_texture,
    "holes": holes,
    "frozen frames": frozen,
    "wandering colour": wandering_colour,
    "leaked colour": leaked_colour,
}
