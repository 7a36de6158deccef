"""Marks of an edited clip whose perfect edit is known."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from ieadapt.metrics.structure import CEILING, psnr, ssim
from ieadapt.testbed import render, score
from ieadapt.testbed.edits import EditPair, kept_region
from ieadapt.testbed.scorer import COMPONENTS
from ieadapt.testbed.segment import fit_backdrops

READ = 0.5
"""The scorer's mark from which an attribute counts as read."""


@dataclass(frozen=True)
class EditMarks:
    """How good an edit is; higher is better in every mark.

    Attributes:
        psnr: to the perfect edit, dB.
        ssim: to the perfect edit, in [-1, 1].
        kept: PSNR in the region that the perfect edit leaves as it is, dB.
        change: the scorer's mark of the changed attribute, in [0, 1].
        success: 1 where that mark is 0.5 or more: the new value is read; else 0.
        preserved: mean mark of the four other attributes, in [0, 1].
    """

    psnr: float
    ssim: float
    kept: float
    change: float
    success: float
    preserved: float

    def as_dict(self) -> dict[str, float]:
        """The marks by name."""
        return asdict(self)


def mark_edit(frames: Float[Tensor, "frame channel height width"], pair: EditPair) -> EditMarks:
    """Mark an edited clip of a pair.

    No sentence says where in its period a new background begins. A clip whose background is edited is therefore held
    against the perfect edit with the start that fits it best.

    Args:
        frames: the edit, in [0, 1].
        pair: what was to be changed.

    Raises:
        UsageError: frames of another shape than the pair's.

    Example:
        >>> from ieadapt.testbed.edits import edit_pairs
        >>> pair = edit_pairs(1, ["colour"])[0]
        >>> marks = mark_edit(pair.perfect, pair)
        >>> marks.psnr, marks.success
        (100.0, 1.0)
    """
    source, perfect = pair.source_frames, fitting_perfect(frames, pair)
    shown = score(frames, pair.target)
    marks = {name: float(getattr(shown, name)) for name in COMPONENTS}
    change = marks.pop(pair.kind)
    return EditMarks(
        psnr=psnr(frames, perfect),
        ssim=ssim(frames, perfect),
        kept=region_psnr(frames, perfect, kept_region(source, perfect)),
        change=change,
        success=float(change >= READ),
        preserved=sum(marks.values()) / len(marks),
    )


def fitting_perfect(
    frames: Float[Tensor, "frame channel height width"], pair: EditPair
) -> Float[Tensor, "frame channel height width"]:
    """The perfect edit; where the background is new, with the start of its period that fits the clip best."""
    if pair.kind != "background":
        return pair.perfect
    name = pair.target.background
    fitted = render(pair.target.replace(shift=fit_backdrops(frames, name)[name].shift))
    errors = [float((clip - frames).square().mean()) for clip in (fitted, pair.perfect)]
    return fitted if errors[0] < errors[1] else pair.perfect


def region_psnr(
    frames: Float[Tensor, "frame channel height width"],
    reference: Float[Tensor, "frame channel height width"],
    region: Bool[Tensor, "frame height width"],
) -> float:
    """PSNR over some pixels of every frame, in dB up to 100; an empty region reads 100.

    Example:
        >>> import torch
        >>> black, white = torch.zeros(1, 3, 1, 2), torch.ones(1, 3, 1, 2)
        >>> white[..., 0] = 0.1
        >>> round(region_psnr(white, black, torch.tensor([[[True, False]]])), 3)
        20.0
    """
    errors = (frames.double() - reference.double()).square().mean(dim=1)[region]
    error = float(errors.mean()) if len(errors) else 0.0
    return min(-10 * math.log10(max(error, 1e-12)), CEILING)
