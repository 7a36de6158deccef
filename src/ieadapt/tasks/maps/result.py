"""Attention maps as values: their numbers, and their pictures over frames, between frames and per word."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import AttentionSite
from ieadapt.errors import UsageError
from ieadapt.tasks.maps.record import PromptWords, StepMap, Token

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 8
BLANK = "#e6eaf0"
MARK = "#19c3ff"
BAR = "#2563a8"
SPARE = "#9aa3b2"


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
        maps: one per step; weights in [0, 1].
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
    maps: tuple[StepMap, ...]
    frames: int
    clip: Float[Tensor, "frame channel height width"]

    @property
    def first_frame(self) -> int:
        """Frame of the first video map: a token of a spatial site looks at its own frame only."""
        return self.query.frame if self.query is not None and self.site.kind == "spatial" else 0

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of `StepMap` that this kind of site has."""
        return tuple(name for name, _ in self.maps[0].tensors())

    def part(self, name: str) -> Float[np.ndarray, "step ..."]:
        """One part of `StepMap` over all steps.

        Raises:
            UsageError: the site has no such part.
        """
        if name not in self.parts:
            raise UsageError(f"{self.site.kind} maps have no such part", expected=", ".join(self.parts), got=name)
        return np.stack([getattr(each, name).numpy() for each in self.maps])

    def npz(self) -> bytes:
        """The numbers as a compressed NumPy archive: `steps`, `words` (labels) and the parts as `weights_PART`."""
        parts: dict[str, Any] = {f"weights_{name}": self.part(name) for name in self.parts}
        labels: dict[str, Any] = {"words": np.array(self.words.labels)} if "words" in self.parts else {}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, steps=np.array(self.steps), **labels, **parts)
        return buffer.getvalue()

    def figures(self, threshold: float | None = None) -> dict[str, Figure]:
        """The maps as pictures: `looks`, `frames`, `words` or one `words-step-N` per step, by the kind of site.

        Args:
            threshold: share of the largest weight of a map, in (0, 1); each map is then shown also with the weights
                below it left blank.
        """
        figures: dict[str, Figure] = {}
        if "video" in self.parts:
            rows = [(f"step {step}", weights) for step, weights in zip(self.steps, self.part("video"), strict=True)]
            figures["looks"] = _plot_rows(self, rows, threshold)
        if "frames" in self.parts:
            figures["frames"] = _plot_frames(self, threshold)
        if "word_maps" in self.parts:
            totals = self.part("words")
            for index, step in enumerate(self.steps):
                names = [name.replace(", ", ",\n") for name in self.words.labels]
                labels = [f"{name}\n{100 * share:.1f} %" for name, share in zip(names, totals[index], strict=True)]
                rows = list(zip(labels, self.part("word_maps")[index], strict=True))
                figures[f"words-step-{step}"] = _plot_rows(self, rows, threshold, f", step {step}")
        elif "words" in self.parts:
            figures["words"] = _plot_word_bars(self)
        return figures


def _plot_rows(
    maps: AttentionMaps,
    rows: Sequence[tuple[str, Float[np.ndarray, "frame height width"]]],
    threshold: float | None,
    title: str = "",
) -> Figure:
    """The video on top, then a row per map and, with a threshold, one below it with the small weights blank."""
    from matplotlib.figure import Figure

    shown, views = _columns(maps, rows[0][1].shape[0]), _views(threshold)
    number = 1 + len(views) * len(rows)
    figure = Figure(figsize=_size(len(shown), number, maps), layout="constrained")
    axes = figure.subplots(number, len(shown), squeeze=False)
    _draw_video(figure, axes[0], maps, shown)
    for index, (label, weights) in enumerate(rows):
        for offset, cut in enumerate(views):
            row = axes[1 + index * len(views) + offset]
            _draw_row(figure, row, weights[shown], _label(label, cut), cut)
            _mark_query(row, maps, shown)
    figure.suptitle(f"{_title(maps)}{title}", fontsize=9)
    return figure


def _plot_frames(maps: AttentionMaps, threshold: float | None) -> Figure:
    """Between frames: rows look, columns are looked at; one column of pictures per step."""
    from matplotlib.figure import Figure

    weights, views = maps.part("frames"), _views(threshold)
    figure = Figure(figsize=(1.2 + 2.6 * len(maps.steps), 0.7 + 2.5 * len(views)), layout="constrained")
    axes = figure.subplots(len(views), len(maps.steps), squeeze=False)
    for row, cut in enumerate(views):
        for index, step in enumerate(maps.steps):
            axis = axes[row][index]
            drawn = axis.imshow(_cut(weights[index], cut), cmap=_colours(), vmin=0, vmax=weights[index].max())
            figure.colorbar(drawn, ax=axis, shrink=0.8).ax.tick_params(labelsize=6)
            axis.set_title(_label(f"step {step}", cut), fontsize=8)
            axis.tick_params(labelsize=6)
            axis.set_xlabel("frame looked at", fontsize=7)
            axis.set_ylabel("frame that looks", fontsize=7)
    figure.suptitle(_title(maps), fontsize=9)
    return figure


def _plot_word_bars(maps: AttentionMaps) -> Figure:
    """The share of each word, one row of bars per step."""
    from matplotlib.figure import Figure

    weights, labels = maps.part("words"), maps.words.labels
    figure = Figure(figsize=(max(5.0, 1 + 0.55 * len(labels)), 0.9 + 1.3 * len(maps.steps)), layout="constrained")
    axes = figure.subplots(len(maps.steps), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    positions = range(len(labels))
    for index, step in enumerate(maps.steps):
        axes[index].bar(positions, 100 * weights[index], color=[BAR] * len(maps.words.words) + [SPARE])
        axes[index].set_ylabel(f"step {step}\n% of weight", fontsize=7)
        axes[index].tick_params(labelsize=7)
        axes[index].spines[["top", "right"]].set_visible(False)
    axes[-1].set_xticks(positions, labels, rotation=35, ha="right", fontsize=8)
    figure.suptitle(_title(maps), fontsize=9)
    return figure


def _views(threshold: float | None) -> list[float | None]:
    """Every map is drawn whole and, with a threshold, a second time without the weights below it."""
    return [None] if threshold is None else [None, threshold]


def _label(label: str, cut: float | None) -> str:
    return label if cut is None else f"≥ {100 * cut:g} % of max"


def _columns(maps: AttentionMaps, frames: int) -> list[int]:
    """Evenly spaced frames of the map, first, last and the query's among them."""
    even = np.linspace(0, frames - 1, min(COLUMNS, frames)).round().astype(int).tolist()
    if maps.query is None or frames == 1 or maps.query.frame in even:
        return even
    inner = even[1:-1] or even
    nearest = min(inner, key=lambda frame: abs(frame - maps.query.frame))  # type: ignore[union-attr]
    return sorted({maps.query.frame if frame == nearest else frame for frame in even})


def _draw_video(figure: Figure, axes: Any, maps: AttentionMaps, shown: Sequence[int]) -> None:
    """The generated frames that the columns are of; a latent frame stands for several of the video."""
    clip = maps.clip.permute(0, 2, 3, 1).numpy()
    for axis, frame in zip(axes, shown, strict=True):
        number = frame + maps.first_frame
        drawn = axis.imshow(clip[round(number / max(maps.frames - 1, 1) * (len(clip) - 1))])
        axis.set_title(f"frame {number}", fontsize=7)
        _bare(axis)
    axes[0].set_ylabel("video", fontsize=7)
    figure.colorbar(drawn, ax=list(axes), **_bar(axes)).ax.set_visible(False)  # as wide as the maps below


def _draw_row(
    figure: Figure, axes: Any, weights: Float[np.ndarray, "frame ..."], label: str, cut: float | None
) -> None:
    """Heat maps in one scale, from 0 to the largest weight of the row."""
    top = float(weights.max()) or 1.0
    for axis, each in zip(axes, weights, strict=True):
        drawn = axis.imshow(_cut(each, cut, top), cmap=_colours(), vmin=0, vmax=top, interpolation="nearest")
        _bare(axis)
    axes[0].set_ylabel(label, fontsize=7)
    bar = figure.colorbar(drawn, ax=list(axes), **_bar(axes), ticks=[0, top])
    bar.ax.set_yticklabels(["0", f"{top:.2g}"], fontsize=6)


def _bar(axes: Any) -> dict[str, Any]:
    return {"fraction": 0.02 if len(axes) > 1 else 0.05, "pad": 0.01}


def _mark_query(axes: Any, maps: AttentionMaps, shown: Sequence[int]) -> None:
    from matplotlib.patches import Rectangle

    if maps.query is None:
        return
    for axis, frame in zip(axes, shown, strict=True):
        if frame + maps.first_frame == maps.query.frame:
            corner = (maps.query.column - 0.5, maps.query.row - 0.5)
            axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=MARK, linewidth=1.4))


def _cut(weights: np.ndarray, threshold: float | None, top: float | None = None) -> np.ndarray:
    """The weights, those below the threshold's share of the largest as not-a-number."""
    if threshold is None:
        return weights
    return np.where(weights >= threshold * (weights.max() if top is None else top), weights, np.nan)


def _colours() -> Any:
    from matplotlib import colormaps

    return colormaps["magma"].with_extremes(bad=BLANK)


def _size(columns: int, rows: int, maps: AttentionMaps) -> tuple[float, float]:
    height, width = maps.clip.shape[-2:]
    cell = 1.15
    return max(4.2, 1.5 + cell * columns), 0.7 + rows * (cell * min(height / width, 1.3) + 0.1)


def _title(maps: AttentionMaps) -> str:
    who = "mean over all tokens" if maps.query is None else f"token {maps.query} (frame,row,column)"
    who = {"cross": "video tokens on words", "text": "words on words"}.get(maps.site.kind, who)
    heads = "mean over heads" if maps.head is None else f"head {maps.head}"
    return f"{maps.site.name} ({maps.site.kind})\n{who}, {heads}"


def _bare(axis: Axes) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
