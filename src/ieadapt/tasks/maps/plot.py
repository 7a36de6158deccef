"""Pictures of attention maps: heat maps over frames, between frames, and per word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ieadapt.tasks.maps.method import AttentionMaps

COLUMNS = 8
BLANK = "#e6eaf0"
MARK = "#19c3ff"
BAR = "#2563a8"
SPARE = "#9aa3b2"


def plot_maps(maps: AttentionMaps, threshold: float | None) -> dict[str, Figure]:
    """Every picture that the site's kind has, by name: `looks`, `frames`, `words` or one `words-step-N` per step."""
    figures: dict[str, Figure] = {}
    if "video" in maps.parts:
        figures["looks"] = _plot_looks(maps, threshold)
    if "frames" in maps.parts:
        figures["frames"] = _plot_frames(maps, threshold)
    if "word_maps" in maps.parts:
        for index, step in enumerate(maps.steps):
            figures[f"words-step-{step}"] = _plot_words(maps, index, threshold)
    elif "words" in maps.parts:
        figures["words"] = _plot_word_bars(maps)
    return figures


def _plot_looks(maps: AttentionMaps, threshold: float | None) -> Figure:
    """The video on top, then one row per step and, with a threshold, one below it with the small weights blank."""
    from matplotlib.figure import Figure

    weights = maps.part("video")
    if weights.shape[1] == 1:
        return _plot_one_frame(maps, weights[:, 0], threshold)
    shown = _columns(maps, weights.shape[1])
    views = [None] if threshold is None else [None, threshold]
    rows = 1 + len(views) * len(maps.steps)
    figure = Figure(figsize=_size(len(shown), rows, maps), layout="constrained")
    axes = figure.subplots(rows, len(shown), squeeze=False)
    _draw_video(figure, axes[0], maps, shown)
    for index, step in enumerate(maps.steps):
        for offset, cut in enumerate(views):
            row = 1 + index * len(views) + offset
            label = f"step {step}" if cut is None else f"step {step}\n≥ {100 * cut:g} % of max"
            _draw_row(figure, axes[row], weights[index][shown], label, cut)
            _mark_query(axes[row], maps, shown)
    figure.suptitle(_title(maps), fontsize=9)
    return figure


def _plot_one_frame(
    maps: AttentionMaps, weights: Float[np.ndarray, "step height width"], threshold: float | None
) -> Figure:
    """A token that looks at its own frame only: the frame, then one column per step."""
    from matplotlib.figure import Figure

    views = [None] if threshold is None else [None, threshold]
    columns = 1 + len(maps.steps)
    figure = Figure(figsize=(0.6 + 2.0 * columns, 0.8 + 2.0 * len(views)), layout="constrained")
    axes = figure.subplots(len(views), columns, squeeze=False)
    for row, cut in enumerate(views):
        if row == 0:
            _draw_video(figure, axes[0][:1], maps, [0])
        else:
            axes[row][0].set_axis_off()
        for index, step in enumerate(maps.steps):
            axis = axes[row][1 + index]
            _draw_row(figure, [axis], weights[index][None], "", cut)
            _mark_query([axis], maps, [0])
            axis.set_title(f"step {step}" if cut is None else f"≥ {100 * cut:g} % of max", fontsize=8)
    figure.suptitle(_title(maps), fontsize=9)
    return figure


def _plot_frames(maps: AttentionMaps, threshold: float | None) -> Figure:
    """Between frames: rows look, columns are looked at; one column of pictures per step."""
    from matplotlib.figure import Figure

    weights = maps.part("frames")
    views = [None] if threshold is None else [None, threshold]
    figure = Figure(figsize=(1.2 + 2.6 * len(maps.steps), 0.7 + 2.5 * len(views)), layout="constrained")
    axes = figure.subplots(len(views), len(maps.steps), squeeze=False)
    for row, cut in enumerate(views):
        for index, step in enumerate(maps.steps):
            axis = axes[row][index]
            drawn = axis.imshow(_cut(weights[index], cut), cmap=_colours(), vmin=0, vmax=weights[index].max())
            figure.colorbar(drawn, ax=axis, shrink=0.8).ax.tick_params(labelsize=6)
            axis.set_title(f"step {step}" if cut is None else f"≥ {100 * cut:g} % of max", fontsize=8)
            axis.tick_params(labelsize=6)
            axis.set_xlabel("frame looked at", fontsize=7)
            axis.set_ylabel("frame that looks", fontsize=7)
    figure.suptitle(_title(maps), fontsize=9)
    return figure


def _plot_words(maps: AttentionMaps, index: int, threshold: float | None) -> Figure:
    """One step: the video on top, then for every word the weight that each video token gives it."""
    from matplotlib.figure import Figure

    weights, totals = maps.part("word_maps"), maps.part("words")
    shown = _columns(maps, weights.shape[2])
    views = [None] if threshold is None else [None, threshold]
    rows = 1 + len(views) * len(maps.words.labels)
    figure = Figure(figsize=_size(len(shown), rows, maps), layout="constrained")
    axes = figure.subplots(rows, len(shown), squeeze=False)
    _draw_video(figure, axes[0], maps, shown)
    for word, name in enumerate(maps.words.labels):
        for offset, cut in enumerate(views):
            label = f"{name.replace(', ', ',' + chr(10))}\n{100 * totals[index, word]:.1f} %"
            row = axes[1 + word * len(views) + offset]
            _draw_row(figure, row, weights[index, word][shown], label if cut is None else f"≥ {100 * cut:g} %", cut)
    figure.suptitle(f"{_title(maps)}, step {maps.steps[index]}", fontsize=9)
    return figure


def _plot_word_bars(maps: AttentionMaps) -> Figure:
    """The share of each word, one row of bars per step."""
    from matplotlib.figure import Figure

    weights, labels = maps.part("words"), maps.words.labels
    figure = Figure(figsize=(max(5.0, 1 + 0.55 * len(labels)), 0.9 + 1.3 * len(maps.steps)), layout="constrained")
    axes = figure.subplots(len(maps.steps), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    places = range(len(labels))
    for index, step in enumerate(maps.steps):
        axes[index].bar(places, 100 * weights[index], color=[BAR] * len(maps.words.words) + [SPARE])
        axes[index].set_ylabel(f"step {step}\n% of weight", fontsize=7)
        axes[index].tick_params(labelsize=7)
        axes[index].spines[["top", "right"]].set_visible(False)
    axes[-1].set_xticks(places, labels, rotation=35, ha="right", fontsize=8)
    figure.suptitle(_title(maps), fontsize=9)
    return figure


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
