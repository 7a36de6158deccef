"""Attention maps as values: their numbers, and their pictures over frames, between frames and per word."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ieadapt.attention import AttentionSite
from ieadapt.errors import UsageError
from ieadapt.runs.report import figure_png
from ieadapt.tasks.maps.record import PromptWords, Token
from ieadapt.tasks.measure.profile import tidy

COLUMNS = 8
COLOURS = colormaps["magma"].with_extremes(bad="#e6eaf0")
MARK, BAR, SPARE = "#19c3ff", "#2563a8", "#9aa3b2"
BARE: Any = {"xticks": [], "yticks": []}


@dataclass(frozen=True)
class AttentionMaps:
    """The maps of one site at some steps of one run, and the video that the run made.

    Attributes:
        site: where.
        prompt: what the video shows.
        seed: of its noise.
        query: the token that looks; None for the mean over all.
        head: one head; None for the mean over heads.
        steps: denoising steps, rising.
        words: the words of the prompt and their tokens.
        weights: attention weights in [0, 1] over all steps, by part; a kind of site has some of the parts.
            `video` (step, frame, height, width): the weight on every video token. Spatial: sums to 1 in each frame.
            Temporal: at every position, the weight on each frame. Joint: sums to 1 together with `words`.
            `frames` (step, query_frame, key_frame): mean weight of the tokens of one frame on all tokens of another.
            `words` (step, label): weight on each word, the last one for all other text tokens.
            `word_maps` (step, label, frame, height, width): the weight that every video token gives each word.
        frames: frames of the site's grid (latent frames), of which each stands for one or more of the video's.
        clip: the generated video, in [0, 1].
    """

    site: AttentionSite
    prompt: str
    seed: int
    query: Token | None
    head: int | None
    steps: tuple[int, ...]
    words: PromptWords
    weights: Mapping[str, Float[np.ndarray, "step ..."]]
    frames: int
    clip: Float[Tensor, "frame channel height width"]

    @property
    def first_frame(self) -> int:
        """Frame of the first video map: a token of a spatial site looks at its own frame only."""
        return self.query.frame if self.query is not None and self.site.kind == "spatial" else 0

    def part(self, name: str) -> Float[np.ndarray, "step ..."]:
        """One part of the weights over all steps.

        Raises:
            UsageError: the site has no such part.
        """
        if name not in self.weights:
            raise UsageError(f"{self.site.kind} maps have no such part", expected=", ".join(self.weights), got=name)
        return self.weights[name]

    def npz(self) -> bytes:
        """The numbers as a compressed NumPy archive: `steps`, `words` (labels) and the parts as `weights_PART`."""
        content: dict[str, Any] = {f"weights_{name}": weights for name, weights in self.weights.items()}
        if "words" in self.weights:
            content["words"] = np.array(self.words.labels)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, steps=np.array(self.steps), **content)
        return buffer.getvalue()

    def figures(self, threshold: float | None = None) -> dict[str, Figure]:
        """The maps as pictures: `looks`, `frames`, `words` or one `words-step-N` per step, by the kind of site.

        Args:
            threshold: share of the largest weight of a map, in (0, 1); each map is then shown also with the weights
                below it left blank.
        """
        figures: dict[str, Figure] = {}
        if "video" in self.weights:
            labels = [f"step {step}" for step in self.steps]
            figures["looks"] = _plot_maps(self, labels, self.weights["video"], threshold)
        if "frames" in self.weights:
            figures["frames"] = _plot_frames(self, threshold)
        if "word_maps" in self.weights:
            names = [name.replace(", ", ",\n") for name in self.words.labels]
            for step, shares, maps in zip(self.steps, self.weights["words"], self.weights["word_maps"], strict=True):
                labels = [f"{name}\n{100 * share:.1f} %" for name, share in zip(names, shares, strict=True)]
                figures[f"words-step-{step}"] = _plot_maps(self, labels, maps, threshold, f", step {step}")
        elif "words" in self.weights:
            figures["words"] = _plot_word_bars(self)
        return figures

    def pictures(self, threshold: float | None = None) -> dict[str, bytes]:
        """`figures` as PNG."""
        return {name: figure_png(figure) for name, figure in self.figures(threshold).items()}


def _plot_maps(
    maps: AttentionMaps,
    labels: Sequence[str],
    weights: Float[np.ndarray, "row frame height width"],
    threshold: float | None,
    title: str = "",
) -> Figure:
    """The video on top, then a row per map and, with a threshold, one below it with the small weights blank."""
    shown = _columns(maps, weights.shape[1])
    views = [view for row in zip(labels, weights[:, shown], strict=True) for view in _views(*row, threshold)]
    height, width = maps.clip.shape[-2:]
    size = max(4.2, 1.5 + 1.15 * len(shown)), 0.7 + (1 + len(views)) * (1.15 * min(height / width, 1.3) + 0.1)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1 + len(views), len(shown), squeeze=False, subplot_kw=BARE)
    _draw_video(figure, axes[0], maps, shown)
    for row, (label, frames) in zip(axes[1:], views, strict=True):
        top = float(np.nanmax(frames)) or 1.0  # one scale for the row
        for axis, each, frame in zip(row, frames, shown, strict=True):
            drawn = axis.imshow(each, cmap=COLOURS, vmin=0, vmax=top, interpolation="nearest")
            if maps.query is not None and frame + maps.first_frame == maps.query.frame:
                corner = (maps.query.column - 0.5, maps.query.row - 0.5)
                axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=MARK, linewidth=1.4))
        row[0].set_ylabel(label, fontsize=7)
        _colour_bar(figure, row, drawn, ticks=[0, top]).ax.set_yticklabels(["0", f"{top:.2g}"], fontsize=6)
    figure.suptitle(f"{_title(maps)}{title}", fontsize=9)
    return figure


def _draw_video(figure: Figure, axes: Any, maps: AttentionMaps, shown: Sequence[int]) -> None:
    """The generated frames that the columns are of; a latent frame stands for several of the video."""
    clip = maps.clip.permute(0, 2, 3, 1).numpy()
    for axis, frame in zip(axes, shown, strict=True):
        number = frame + maps.first_frame
        drawn = axis.imshow(clip[round(number / max(maps.frames - 1, 1) * (len(clip) - 1))])
        axis.set_title(f"frame {number}", fontsize=7)
    axes[0].set_ylabel("video", fontsize=7)
    _colour_bar(figure, axes, drawn).ax.set_visible(False)  # as wide as the maps below


def _colour_bar(figure: Figure, axes: Any, drawn: Any, **options: Any) -> Any:
    return figure.colorbar(drawn, ax=list(axes), fraction=0.02 if len(axes) > 1 else 0.05, pad=0.01, **options)


def _plot_frames(maps: AttentionMaps, threshold: float | None) -> Figure:
    """Between frames: rows look, columns are looked at; one column of pictures per step."""
    columns = [
        _views(f"step {step}", weights, threshold)
        for step, weights in zip(maps.steps, maps.part("frames"), strict=True)
    ]
    figure = Figure(figsize=(1.2 + 2.6 * len(columns), 0.7 + 2.5 * len(columns[0])), layout="constrained")
    axes = figure.subplots(len(columns[0]), len(columns), squeeze=False)
    for axis, (label, weights) in zip(axes.T.flat, itertools.chain(*columns), strict=True):
        drawn = axis.imshow(weights, cmap=COLOURS, vmin=0, vmax=np.nanmax(weights))
        figure.colorbar(drawn, ax=axis, shrink=0.8).ax.tick_params(labelsize=6)
        axis.set_title(label, fontsize=8)
        axis.tick_params(labelsize=6)
        axis.set_xlabel("frame looked at", fontsize=7)
        axis.set_ylabel("frame that looks", fontsize=7)
    figure.suptitle(_title(maps), fontsize=9)
    return figure


def _plot_word_bars(maps: AttentionMaps) -> Figure:
    """The share of each word, one row of bars per step."""
    labels = maps.words.labels
    figure = Figure(figsize=(max(5.0, 1 + 0.55 * len(labels)), 0.9 + 1.3 * len(maps.steps)), layout="constrained")
    axes = figure.subplots(len(maps.steps), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    for axis, step, weights in zip(axes, maps.steps, maps.part("words"), strict=True):
        axis.bar(range(len(labels)), 100 * weights, color=[BAR] * len(maps.words.words) + [SPARE])
        axis.set_ylabel(f"step {step}\n% of weight", fontsize=7)
        tidy(axis)
    axes[-1].set_xticks(range(len(labels)), labels, rotation=35, ha="right", fontsize=8)
    figure.suptitle(_title(maps), fontsize=9)
    return figure


def _views(label: str, weights: np.ndarray, threshold: float | None) -> list[tuple[str, np.ndarray]]:
    """A map as it is and, with a threshold, a second time with the weights below its share of the largest blank."""
    if threshold is None:
        return [(label, weights)]
    cut = np.where(weights >= threshold * weights.max(), weights, np.nan)
    return [(label, weights), (f"≥ {100 * threshold:g} % of max", cut)]


def _columns(maps: AttentionMaps, frames: int) -> list[int]:
    """Evenly spaced frames of the map, first, last and the query's among them."""
    even = np.linspace(0, frames - 1, min(COLUMNS, frames)).round().astype(int).tolist()
    if maps.query is None or frames == 1 or maps.query.frame in even:
        return even
    own = maps.query.frame
    nearest = min(even[1:-1] or even, key=lambda frame: abs(frame - own))
    return sorted({own if frame == nearest else frame for frame in even})


def _title(maps: AttentionMaps) -> str:
    who = "mean over all tokens" if maps.query is None else f"token {maps.query} (frame,row,column)"
    who = {"cross": "video tokens on words", "text": "words on words"}.get(maps.site.kind, who)
    heads = "mean over heads" if maps.head is None else f"head {maps.head}"
    return f"{maps.site.name} ({maps.site.kind})\n{who}, {heads}"
