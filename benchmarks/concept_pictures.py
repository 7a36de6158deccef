"""Draw the pictures of docs/concepts.md: maps and EP of the bundled model, and joint maps of a small example.

    python -m benchmarks.concept_pictures

Everything is computed by the package's own functions; a map is the attention output for the values e_1 ... e_n.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import ieadapt
from ieadapt.attention import AttentionCall, denoisers_of, family_of, find_sites
from ieadapt.functional import VideoTokens, identity_output, uniform_output

IMAGES = Path(__file__).parents[1] / "docs" / "images"
CAPTION = "a big red star moving left over bricks"
SETTINGS = ieadapt.GenerationConfig(num_inference_steps=8, guidance_scale=3.0)
VIDEO = VideoTokens(start=4, frames=4, positions=6)
KIND_COLOURS = {"spatial": "#3b6ea5", "temporal": "#d1642b", "cross": "#7a8c99"}


class _Maps:
    """Keeps, of the last call at each site, the map of its first row and head whose entropy is nearest the mean."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[float, Tensor]] = {}

    def __call__(self, call: AttentionCall) -> None:
        logits = (call.query.float() @ call.key.float().transpose(-1, -2)) * call.scale
        maps = logits.softmax(-1).flatten(0, 1)
        ep = 100 * -(maps * maps.clamp_min(1e-30).log()).sum(-1).mean(-1) / math.log(maps.shape[-1])
        nearest = int((ep - ep.mean()).abs().argmin())
        self.found[call.site.name] = float(ep[nearest]), maps[nearest]


def maps_of_rising_entropy() -> Figure:
    """Temporal maps of the bundled model from the lowest to the highest EP, between I and U."""
    pipe = ieadapt.load("scenes")
    maps = _Maps()
    with ieadapt.intercept(pipe, maps, sites="temporal", steps=(0.5, 0.6), guidance="all"):
        pipe(CAPTION, num_inference_steps=2, guidance_scale=3.0, generator=torch.Generator().manual_seed(0))
    ranked = sorted(maps.found.values(), key=lambda pair: pair[0])
    frames = ranked[0][1].shape[-1]
    shown = [(0.0, torch.eye(frames)), ranked[0], ranked[len(ranked) // 2], ranked[-1]]
    shown += [(100.0, torch.full((frames, frames), 1 / frames))]
    figure = Figure(figsize=(9, 2.3), layout="constrained")
    names = ("identity I", "lowest", "middle", "highest", "uniform U")
    for axes, name, (ep, weights) in zip(figure.subplots(1, 5), names, shown, strict=True):
        axes.imshow(weights, cmap="magma", vmin=0)
        _bare(axes, f"{name}\nEP {ep:.0f} %")
    figure.axes[0].set_ylabel("frame that looks")
    figure.supxlabel("frame looked at", fontsize="medium")
    return figure


def ep_by_site() -> Figure:
    """EP of every site of the bundled model in order of execution, with the range over heads."""
    rows = ieadapt.measure(ieadapt.load("scenes"), CAPTION, SETTINGS).by_site()
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots()
    for kind, colour in KIND_COLOURS.items():
        part = rows.filter(rows["kind"] == kind)
        spread = np.stack([part["ep"] - part["ep_min"], part["ep_max"] - part["ep"]])
        axes.errorbar(part["order"], part["ep"], yerr=spread, fmt="o", color=colour, label=kind, elinewidth=1)
    axes.set(xlabel="site, in order of execution", ylabel="EP, %", ylim=(0, 102))
    axes.legend(loc="lower left", ncols=3, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def scopes() -> Figure:
    """What each scope replaces in a joint map."""
    call, plain = _joint_call()
    variants = {
        "the model's map": plain,
        "I, scope video": identity_output(**call, output=plain, scope="video"),
        "U, scope video": uniform_output(**call, output=plain, scope="video"),
        "I, video-renormalised": identity_output(**call, output=plain, scope="video-renormalised"),
        "I, scope all": identity_output(**call, output=plain, scope="all"),
    }
    figure = Figure(figsize=(9, 2.4), layout="constrained")
    for axes, (name, weights) in zip(figure.subplots(1, 5), variants.items(), strict=True):
        axes.imshow(weights[0, 0].sqrt(), cmap="magma", vmin=0)
        for place in (axes.axhline, axes.axvline):
            place(VIDEO.start - 0.5, color="white", linewidth=0.8)
        _bare(axes, name)
    figure.axes[0].set_ylabel("token that looks")
    figure.supxlabel("token looked at: text, then video", fontsize="medium")
    return figure


def chain_rule() -> Figure:
    """One row of a joint map: its mass on text and frames, and where within the frames."""
    _, plain = _joint_call()
    weights = plain[0, 0, VIDEO.start + 8]
    inside = weights[VIDEO.start :].view(VIDEO.frames, 2, 3)
    figure = Figure(figsize=(9, 2.2), layout="constrained")
    left, *right = figure.subplots(1, 1 + VIDEO.frames, width_ratios=[2.2, *[1] * VIDEO.frames])
    names = ["text", *(f"frame {number}" for number in range(1, VIDEO.frames + 1))]
    left.bar(names, [float(weights[: VIDEO.start].sum()), *inside.sum((1, 2)).tolist()], color="#3b6ea5")
    left.set_title("mass: gives the temporal entropy", fontsize="medium")
    left.tick_params(axis="x", labelsize="x-small")
    left.spines[["top", "right"]].set_visible(False)
    for number, (axes, frame) in enumerate(zip(right, inside, strict=True), start=1):
        axes.imshow(frame / frame.sum(), cmap="magma", vmin=0)
        _bare(axes, f"within frame {number}")
    return figure


def prefix() -> Figure:
    """Which blocks of the bundled model a weak pass computes, for choices of sites."""
    pipe = ieadapt.load("scenes")
    denoiser = next(iter(denoisers_of(pipe).values()))
    stages = family_of(denoiser).stages(denoiser)
    names = {module: name for name, module in denoiser.named_modules()}
    prefixes = [names[stage] for stage in stages]
    choices = {
        "plain pass": [],
        "last up block": ["up_blocks.2.*"],
        "middle block": ["mid_block.*"],
        "every temporal site": ["temporal"],
    }
    figure = Figure(figsize=(9, 2.1), layout="constrained")
    axes = figure.subplots()
    for row, patterns in enumerate(choices.values()):
        perturbed = {site.name for site in ieadapt.select_sites(find_sites(pipe), patterns)} if patterns else set()
        first = next((i for i, start in enumerate(prefixes) if any(n.startswith(start) for n in perturbed)), 0)
        for column, start in enumerate(prefixes):
            touched = any(name.startswith(start) for name in perturbed)
            colour = "#d1642b" if touched else "#dde3e8" if column < first else "#3b6ea5"
            axes.barh(row, 0.92, left=column, color=colour, height=0.7)
    axes.set_yticks(range(len(choices)), list(choices))
    axes.set_xticks([column + 0.46 for column in range(len(prefixes))], prefixes, fontsize="small")
    axes.invert_yaxis()
    axes.set_title("blue: computed   orange: computed, with replaced maps   grey: replayed", fontsize="medium")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def _joint_call() -> tuple[dict[str, Any], Tensor]:
    """A joint call of 4 text tokens and 4 frames of 2 x 3 with unit vectors as values; its output is its map."""
    generator = torch.Generator().manual_seed(3)
    tokens = VIDEO.start + VIDEO.frames * VIDEO.positions
    base = torch.randn(1, 1, tokens, 8, generator=generator)
    query, key = base + 0.7 * torch.randn(base.shape, generator=generator), 1.2 * base
    value = torch.eye(tokens)[None, None]
    return (
        {"query": query, "key": key, "value": value, "video": VIDEO},
        torch.nn.functional.scaled_dot_product_attention(query, key, value),
    )


def _bare(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize="small")
    axes.set_xticks([])
    axes.set_yticks([])


def overview() -> Figure:
    """What the tool shows, in one picture: EP of every site, and the video with one kind of attention replaced."""
    pipe = ieadapt.load("scenes")
    rows = ieadapt.measure(pipe, CAPTION, SETTINGS).by_site()
    videos = {"as it is": ieadapt.generate(pipe, [CAPTION], SETTINGS)[0]}
    for kind in ("temporal", "spatial"):
        with ieadapt.intercept(pipe, ieadapt.Identity(), sites=kind, guidance="all"):
            videos[f"{kind} off"] = ieadapt.generate(pipe, [CAPTION], SETTINGS)[0]
    figure = Figure(figsize=(11, 3.3), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.15], squeeze=False)[0]
    axes = left.subplots()
    for kind, colour in KIND_COLOURS.items():
        part = rows.filter(rows["kind"] == kind)
        axes.scatter(part["order"], part["ep"], color=colour, label=kind)
    axes.set(xlabel="attention site, in order of execution", ylabel="EP: entropy, % of its maximum", ylim=(0, 102))
    axes.legend(loc="lower left", ncols=3, frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    grid = right.subplots(len(videos), 6)
    for line, (name, frames) in zip(grid, videos.items(), strict=True):
        for place, frame in zip(line, frames[::3], strict=True):
            place.imshow(frame.permute(1, 2, 0))
            _bare(place, "")
        line[0].set_ylabel(name, fontsize="small")
    return figure


PICTURES: Mapping[str, Any] = {
    "overview": overview,
    "maps-entropy": maps_of_rising_entropy,
    "ep-by-site": ep_by_site,
    "joint-scopes": scopes,
    "joint-chain-rule": chain_rule,
    "prefix-reuse": prefix,
}


def main() -> int:
    """Write every picture into docs/images."""
    for name, draw in PICTURES.items():
        draw().savefig(IMAGES / f"{name}.png", dpi=120, bbox_inches="tight")
        print(f"wrote docs/images/{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
