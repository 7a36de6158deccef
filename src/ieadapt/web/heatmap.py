"""The heat map of a profile: per kind of attention, one row per layer and one cell per step, coloured by EP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from ieadapt.tasks.measure.plot import COLOURS, short_name
from ieadapt.tasks.measure.profile import EntropyProfile

_PAPER = (244, 246, 250)


@dataclass(frozen=True)
class LayerRow:
    """One layer of the heat map.

    Attributes:
        site: its whole name.
        label: the short one.
        mean: EP over all steps, in percent.
        steps: EP at each step, in percent.
        colours: of each step.
    """

    site: str
    label: str
    mean: float
    steps: Sequence[float]
    colours: Sequence[str]

    @property
    def cells(self) -> str:
        """The cells as one CSS background, so that a large model costs no more elements than it has layers."""
        width = 100 / len(self.colours)
        stops = (f"{c} {width * i:.3f}% {width * (i + 1):.3f}%" for i, c in enumerate(self.colours))
        return f"linear-gradient(90deg, {', '.join(stops)})"


@dataclass(frozen=True)
class KindMap:
    """The layers of one kind of attention, in order of execution.

    Attributes:
        kind: of the attention.
        steps: numbers of the denoising steps.
        rows: one per layer.
        ramp: colours of EP 0, 25, ... 100, for the legend.
    """

    kind: str
    steps: Sequence[int]
    rows: Sequence[LayerRow]
    ramp: str


def heat_maps(profile: EntropyProfile) -> list[KindMap]:
    """One map per kind of attention of a profile, in the colour that plots and reports give it; the shortest first.

    Example:
        >>> row = dict(site="mid_block.attn1", kind="spatial", order=0, head=0, step=0, branch="cond", videos=1,
        ...     n_keys=16.0, entropy=1.386, ep=50.0, energy=2.0)
        >>> found = heat_maps(EntropyProfile.from_rows([row, row | {"step": 1, "ep": 100.0}]))
        >>> found[0].kind, found[0].rows[0].steps, found[0].rows[0].colours[1]
        ('spatial', (50.0, 100.0), '#2563a8')
    """
    table = profile.table.group_by("kind", "site", "order", "step").agg(pl.col("ep").mean()).sort("order", "step")
    maps: list[KindMap] = []
    for kind in COLOURS:
        part = table.filter(pl.col("kind") == kind)
        if part.is_empty():
            continue
        rows = []
        for (site,), layer in part.group_by("site", maintain_order=True):
            values = tuple(float(value) for value in layer["ep"])
            mean = sum(values) / len(values)
            rows.append(LayerRow(str(site), short_name(str(site)), mean, values, [colour(kind, ep) for ep in values]))
        ramp = ", ".join(colour(kind, ep) for ep in range(0, 101, 25))
        maps.append(KindMap(kind, part["step"].unique().sort().to_list(), rows, f"linear-gradient(90deg, {ramp})"))
    return sorted(maps, key=lambda each: len(each.rows))


def colour(kind: str, ep: int | float) -> str:
    """The colour of an EP: from paper (0) to the colour of the kind (100).

    Example:
        >>> colour("temporal", 0), colour("temporal", 100)
        ('#f4f6fa', '#c2571a')
    """
    share = min(max(ep / 100, 0.0), 1.0)
    full = (int(COLOURS[kind][start : start + 2], 16) for start in (1, 3, 5))
    return "#" + "".join(f"{round(low + share * (high - low)):02x}" for low, high in zip(_PAPER, full, strict=True))
