"""What an enhancement can change, and the methods of the literature as its settings, checked against their source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

COMBINATION_FORMS = ("interval", "apg:RADIUS:ETA:MOMENTUM", "cfg-zero:STEPS", "fdg:LOW:HIGH")
MID = "spatial/joint:middle=1"
"""The mid block's spatial attention of a U-Net; the middle block of a transformer."""


@dataclass(frozen=True)
class Preset:
    """A method by name.

    Attributes:
        name: as `--preset` takes it.
        source: paper, and what the formula was checked against.
        about: what it does, and what differs from its source.
        settings: of `EnhanceConfig`, where they are not its defaults.
    """

    name: str
    source: str
    about: str
    settings: Mapping[str, Any] = field(default_factory=dict)


_ROWS = (
    Preset(
        "pag",
        "PAG, arXiv 2403.17377; diffusers' pag_utils.py and joint PAG processors",
        "identity map in the mid block's spatial attention; on joint attention the softmax over own token and text",
        {"start": 0.0, "sites": MID, "scale": 3.0, "scope": "video-renormalised"},
    ),
    Preset(
        "softpag",
        "SoftPAG, arXiv 2506.10978, equation 7 and appendix B (weight 0.5)",
        "half the way from the map to the identity, sites and scale as in pag. The source searches heads of Stable "
        "Diffusion 3 by a score of the pictures (HeadHunter); say yours with heads",
        {
            "start": 0.0,
            "perturbation": "identity:0.5",
            "sites": MID,
            "scale": 3.0,
            "scope": "video-renormalised",
        },
    ),
    Preset(
        "seg",
        "SEG, arXiv 2408.00760; SusungHong/SEG-SDXL pipeline_seg.py",
        "queries of the mid block's spatial attention blurred over the rows and columns of each frame; sigma infinite, "
        "as its default is. On joint attention text queries stay",
        {"start": 0.0, "perturbation": "blur:inf", "sites": MID, "scale": 3.0, "scope": "all"},
    ),
    Preset(
        "tpg",
        "TPG, arXiv 2506.10036; TaatiTeam/Token-Perturbation-Guidance pipeline_sdxl_tpg.py",
        "video tokens of the first third of the spatial layers shuffled, by a new order in every layer and step; scale "
        "3. The source shuffles what blocks 6 to 23 of Stable Diffusion XL's encoder are given, residual path "
        "included; here it is what their attention gives",
        {
            "start": 0.0,
            "perturbation": "shuffle",
            "sites": "spatial/joint:depth-bottom=0.33",
            "scale": 3.0,
            "scope": "all",
        },
    ),
    Preset(
        "stg-a",
        "STG, arXiv 2411.18664; junhahyung/STGuidance at 51f3620 (Mochi and LTX, mode STG-A)",
        "identity map in one layer, on joint attention the softmax over own token and text; scale 1. The source picks "
        "a layer per model by trying; here it is the middle one, spatial and temporal",
        {"start": 0.0, "sites": "spatial+temporal/joint:middle=1", "scope": "video-renormalised"},
    ),
    Preset(
        "stg-r",
        "STG, arXiv 2411.18664; junhahyung/STGuidance (forward_with_stg: the block returns its inputs)",
        "one transformer block left out of the weak pass; scale 1, rescaling off as there. The layer as in stg-a",
        {"start": 0.0, "perturbation": "skip-block", "sites": "spatial+temporal/joint:middle=1"},
    ),
    Preset(
        "enhance-a-video",
        "Enhance-A-Video, arXiv 2502.07508; NUS-HPC-AI-Lab/Enhance-A-Video enhance.py and models/",
        "attention results of the video tokens times max(1, (frames + 4) * cross-frame intensity), in every temporal "
        "or joint attention; the mean is per video, not per batch",
        {"start": 0.0, "mode": "direct", "perturbation": "cross-frame:4", "sites": "temporal/joint"},
    ),
    Preset(
        "slg",
        "skip-layer guidance; diffusers' SkipLayerGuidance and Stable Diffusion 3.5's scale and window",
        "three middle transformer blocks left out of the weak pass in the first fifth of the steps. The source leaves "
        "out 7 to 9 of 24; layers of other models were not tried there",
        {
            "start": 0.01,
            "stop": 0.2,
            "perturbation": "skip-block",
            "sites": "spatial+temporal/joint:middle=3",
            "scale": 2.8,
        },
    ),
    Preset(
        "s2",
        "S2-Guidance, arXiv 2508.12880, equation 4 and its settings for Stable Diffusion 3 and Wan, as others give "
        "them; its authors' code is not out",
        "a tenth of the transformer blocks left out of the weak pass, drawn anew in every step, in the middle four "
        "fifths of the steps; scale 0.25. The source never draws the first block; here the first twentieth is kept, "
        "where there are twenty blocks or more",
        {
            "start": 0.1,
            "stop": 0.9,
            "perturbation": "random-block:0.1",
            "sites": "spatial+temporal/joint:depth-top=0.95",
            "scale": 0.25,
        },
    ),
    Preset(
        "erg",
        "entropy rectifying guidance, arXiv 2504.13987, algorithm and settings for class-conditional DiT (temperature "
        "0.01 of the logits' factor, 3 of 28 layers, after 0.3 of the steps), as others give them; no code of its "
        "authors is out",
        "attention in three middle layers softened to a temperature of 100: the source's update with one step of size "
        "1. In the source the weak pass stands in for the unconditional one and its text encoder is softened too; "
        "here it stands beside it, the text is whole, and in joint attention text queries are softened as well. The "
        "scale is ours",
        {
            "start": 0.3,
            "perturbation": "temperature:100",
            "sites": "spatial/joint:middle=3",
            "scale": 1.0,
            "scope": "all",
        },
    ),
    Preset(
        "emag",
        "EMAG, arXiv 2512.17303, in its faster form EMAG-Q; drkkgy/EMAG emag_util.py and quickstart.py (Stable "
        "Diffusion 3)",
        "queries of that one of three middle layers which has moved most become their running average (0.988), after a "
        "fifth of the steps; scale 1.5. One layer is chosen per video, not per batch",
        {
            "start": 0.2,
            "perturbation": "average-queries:0.988",
            "sites": "spatial/joint:middle=3",
            "scale": 1.5,
        },
    ),
    Preset(
        "interval",
        "guidance interval, arXiv 2404.07724",
        "classifier-free guidance in the middle half of the steps only, none before and after. The source gives noise "
        "levels per model; the half is ours",
        {"mode": "combine", "perturbation": "interval", "start": 0.25, "stop": 0.75},
    ),
    Preset(
        "apg",
        "APG, arXiv 2410.02416; diffusers' normalized_guidance, the source's values for Stable Diffusion XL",
        "of the difference of the two predictions what is orthogonal to the conditional one, at most 15 long; half of "
        "the sum of earlier steps is taken off",
        {"start": 0.0, "mode": "combine", "perturbation": "apg:15:0:-0.5"},
    ),
    Preset(
        "cfg-zero",
        "CFG-Zero*, arXiv 2503.18886; diffusers' cfg_zero_star_scale",
        "the unconditional prediction scaled to fit the conditional one. The source's zero first steps are for flow "
        "matching: write cfg-zero:1 there",
        {"start": 0.0, "mode": "combine", "perturbation": "cfg-zero:0"},
    ),
    Preset(
        "fdg",
        "frequency-decoupled guidance, arXiv 2506.19713; diffusers' FrequencyDecoupledGuidance (scales 10 and 5)",
        "fine structure guided twice as much as coarse, about the pipeline's own scale; a reconstruction of two levels",
        {"start": 0.0, "mode": "combine", "perturbation": "fdg:0.67:1.33"},
    ),
    Preset(
        "freeu",
        "FreeU, arXiv 2309.11497; diffusers' own enable_freeu, values for Stable Diffusion 1.5",
        "backbone features up, low frequencies of skip features down; U-Nets only",
        {"start": 0.0, "mode": "direct", "perturbation": "freeu:0.9:0.2:1.5:1.6"},
    ),
)

PRESETS: Mapping[str, Preset] = {row.name: row for row in _ROWS}


@dataclass(frozen=True)
class Adaptation:
    """One way in which an enhancement can change a model.

    Attributes:
        modes: the modes of an enhancement that have it.
        description: what is changed, with `{change}` for the perturbation and `{sites}` for the sites.
        fixed: options that it does not read, with the one value that they may have.
        acts_on: the chosen attention `sites`, or the `network` as a whole.
    """

    modes: tuple[str, ...]
    description: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    acts_on: Literal["sites", "network"] = "sites"


_WHOLE_SITES = {"heads": "all", "weighting": "even", "scope": "video", "sharpen": 1.0}
_WHOLE_NETWORK = _WHOLE_SITES | {"sites": "auto", "schedule": "constant", "branch": "both", "entropy": "profile"}
ADAPTATIONS: Mapping[str, Adaptation] = {
    "maps": Adaptation(("guidance", "direct"), "the attention maps became {change} at {sites}"),
    "skip-block": Adaptation(("guidance",), "the transformer blocks around {sites} were left out", _WHOLE_SITES),
    "random-block": Adaptation(
        ("guidance",),
        "some of the transformer blocks around {sites} were left out, others in every step ({change})",
        _WHOLE_SITES,
    ),
    "average-queries": Adaptation(
        ("guidance",),
        "queries became their average over the steps so far ({change}) at one of {sites}",
        _WHOLE_SITES | {"entropy": "profile"},
    ),
    "cross-frame": Adaptation(
        ("direct",),
        "attention counted for more where frames look at each other ({change}) at {sites}",
        _WHOLE_SITES,
    ),
    "freeu": Adaptation(
        ("direct",),
        "backbone and skip connections of the U-Net were reweighted ({change})",
        _WHOLE_NETWORK | {"start": 0.0, "stop": 1.0},
        acts_on="network",
    ),
    **{
        form.partition(":")[0]: Adaptation(
            ("combine",),
            "the conditional and the unconditional prediction were combined by {change}",
            _WHOLE_NETWORK,
            acts_on="network",
        )
        for form in COMBINATION_FORMS
    },
}
"""By the name of the perturbation; every perturbation of `ieadapt.interventions` changes `maps`."""
