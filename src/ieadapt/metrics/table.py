"""The table of metrics: one row each, in the order in which they are shown, and how to choose among them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ieadapt.errors import UsageError
from ieadapt.metrics.aesthetic import AESTHETIC
from ieadapt.metrics.brisque import BRISQUE
from ieadapt.metrics.clip_consistency import CLIP_CONSISTENCY
from ieadapt.metrics.clip_pairs import CLIP_PAIRS
from ieadapt.metrics.clip_text import CLIP_TEXT
from ieadapt.metrics.dino_consistency import DINO_CONSISTENCY
from ieadapt.metrics.dynamic_degree import DYNAMIC_DEGREE
from ieadapt.metrics.flicker import FLICKER
from ieadapt.metrics.lpips_alex import LPIPS_ALEX
from ieadapt.metrics.lpips_vgg import LPIPS_VGG
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.mobilenet_consistency import MOBILENET_CONSISTENCY
from ieadapt.metrics.mobilenet_pairs import MOBILENET_PAIRS
from ieadapt.metrics.motion import MOTION
from ieadapt.metrics.ms_ssim import MS_SSIM
from ieadapt.metrics.niqe import NIQE
from ieadapt.metrics.pickscore import PICKSCORE
from ieadapt.metrics.psnr import PSNR
from ieadapt.metrics.rife_smoothness import RIFE_SMOOTHNESS
from ieadapt.metrics.sharpness import SHARPNESS
from ieadapt.metrics.ssim import SSIM
from ieadapt.metrics.st_lpips import ST_LPIPS
from ieadapt.metrics.temporal_information import TEMPORAL_INFORMATION
from ieadapt.metrics.vmaf import VMAF
from ieadapt.metrics.warp_error import WARP_ERROR
from ieadapt.metrics.warp_error_raft import WARP_ERROR_RAFT
from ieadapt.metrics.weights import NOWHERE, Places

_ROWS = (
    PSNR,
    SSIM,
    MS_SSIM,
    VMAF,
    ST_LPIPS,
    LPIPS_ALEX,
    LPIPS_VGG,
    WARP_ERROR,
    WARP_ERROR_RAFT,
    FLICKER,
    RIFE_SMOOTHNESS,
    MOBILENET_CONSISTENCY,
    MOBILENET_PAIRS,
    CLIP_CONSISTENCY,
    CLIP_PAIRS,
    DINO_CONSISTENCY,
    MOTION,
    DYNAMIC_DEGREE,
    TEMPORAL_INFORMATION,
    SHARPNESS,
    NIQE,
    BRISQUE,
    AESTHETIC,
    CLIP_TEXT,
    PICKSCORE,
)

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _ROWS})
"""Every metric by its name."""


def select_metrics(names: Sequence[str] | None = None, places: Places = NOWHERE) -> list[Metric]:
    """The metrics of these names.

    Args:
        names: names, or one string of names with commas; None for every metric whose weights are installed
            (`missing_metrics` lists the others).
        places: where the weights are that only a user can give, by their keys.

    Returns:
        Each once, in the order asked for.

    Raises:
        UsageError: an unknown name (near names are given), no name at all, or weights that are not installed (the
            command that brings them is given).

    Example:
        >>> select_metrics(["ssim", "motion"])
        [Metric(ssim), Metric(motion)]
    """
    if names is None:
        return [metric for each in METRICS.values() if (metric := each.at(places)).available]
    asked = names.split(",") if isinstance(names, str) else names
    cleaned = list(dict.fromkeys(name.strip() for name in asked if name.strip()))
    if not cleaned:
        raise UsageError("the choice of metrics is empty", expected=", ".join(METRICS))
    chosen = [_named(name).at(places) for name in cleaned]
    for metric in chosen:
        if metric.weights is not None:
            metric.weights.check(metric.name)
    return chosen


def missing_metrics(places: Places = NOWHERE) -> list[Metric]:
    """The metrics whose weights are not there; `metric.weights.command` brings them."""
    return [metric for each in METRICS.values() if not (metric := each.at(places)).available]


def _named(name: str) -> Metric:
    if name not in METRICS:
        near = difflib.get_close_matches(name, METRICS, n=3, cutoff=0.5)
        raise UsageError(
            f"there is no metric {name!r}",
            expected=f"a name such as {', '.join(near)}" if near else None,
            remedy=f"choose among {', '.join(METRICS)}",
        )
    return METRICS[name]
