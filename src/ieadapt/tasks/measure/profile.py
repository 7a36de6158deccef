"""The entropy profile of a model: what its attention sites measured, as a table that can choose sites."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import polars as pl

from ieadapt.attention import AttentionSite
from ieadapt.errors import FailureError, UsageError
from ieadapt.files import read_record, record_text, write_atomically
from ieadapt.functional import EP_DEFINITION
from ieadapt.notation import counted
from ieadapt.tasks.measure.layer_choice import Head, SiteChoice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMAT = 1
_VALUES = (
    *("n_keys", "entropy", "ep", "text_ep", "all_ep", "temporal_entropy", "spatial_entropy", "temporal_ep"),
    *("spatial_ep", "text_mass", "energy", "text_energy", "energy_share", "resolution", "ep_error"),
)
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("site", "kind"), pl.String),
    "order": pl.Int32,
    "keys_of": pl.String,
    **dict.fromkeys(("head", "step"), pl.Int32),
    "branch": pl.String,
    "videos": pl.Int32,
    **dict.fromkeys(_VALUES, pl.Float64),
}
LATER = ("resolution", "ep_error", "keys_of", "text_ep", "all_ep", "text_energy")
"""Columns that earlier profiles do not have; they are read as unknown."""
KEY = ("site", "keys_of", "head", "step", "branch")
"""What tells one measured value from another."""
_MAY_BE_NULL = (*LATER, "temporal_entropy", "spatial_entropy", "temporal_ep", "spatial_ep", "text_mass")
_ROUNDING = 0.01
_TABLE, _DESCRIPTION = "profile.parquet", "profile.json"
EFFECTS_FILE = "effects.parquet"  # what a screen predicts
_METADATA = {
    "format": int,
    "sha256": str,
    "model": str,
    "pipeline": str,
    "denoiser": str,
    "prompts": list[str],
    "seed": int,
    "weights_sample": list[float] | None,
    "ep_definition": str,
    "latent_grid": list[int] | None,
}
_MAYBE = tuple(name for name in _METADATA if name != "format")
COLOURS = {
    **{"spatial": "#2563a8", "temporal": "#c2571a", "joint": "#2f7d4f", "cross": "#7a4ea3", "text": "#6b6b6b"},
    "unknown": "#333333",
}
_REMEDY = "`ieadapt measure MODEL --out DIR` writes one"


class EntropyProfile:
    """Entropy and energy of every site x head x step x guidance branch of a model.

    Attributes:
        table: polars table with the columns of `SCHEMA`. Entropies in nats; `ep` (and `temporal_ep`, `spatial_ep` of
            joint attention) in percent, 0 for the identity map and 100 for the uniform one; `text_mass` in [0, 1];
            `energy` per video. Where text shares the sequence these are of the video tokens, `text_ep` and
            `text_energy` of the text, `all_ep` of all tokens but padding. `energy_share` of all recorded sites of that
            step and branch, in [0, 1]; `resolution` in tokens per frame, null where the token layout is not known;
            `ep_error` the standard error of `ep` where only a sample of the rows was measured, null where it is exact;
            `keys_of` tells apart the attentions of a module that makes several.
        metadata: what was measured: model, prompts, seeds, steps, versions.
        effects: what a screen predicted of these sites (`site`, `effect`, `value`, ...), or None.

    Example:
        >>> row = dict(site="mid.attn1", kind="spatial", order=0, head=0, step=0, branch="cond", videos=1, n_keys=16.0,
        ...     entropy=1.386, ep=50.0, energy=2.0)
        >>> profile = EntropyProfile.from_rows([row])
        >>> profile.select(kind="spatial", at_least=40)
        [<spatial #0 mid.attn1, 1 heads>]
    """

    def __init__(
        self, table: pl.DataFrame, metadata: Mapping[str, Any] | None = None, effects: pl.DataFrame | None = None
    ) -> None:
        self.table = table
        self.metadata = dict(metadata or {})
        self.effects = effects

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]], metadata: Mapping[str, Any] | None = None) -> EntropyProfile:
        """Build a profile from a record's rows; energy shares are taken within each step and branch."""
        table = pl.DataFrame(list(rows), schema={name: kind for name, kind in SCHEMA.items() if name != "energy_share"})
        share = pl.col("energy") / pl.col("energy").sum().over("step", "branch")
        defined = {"ep_definition": EP_DEFINITION, **(metadata or {})}
        return cls(table.with_columns(energy_share=share).select(list(SCHEMA)), defined)

    @property
    def sites(self) -> list[AttentionSite]:
        """The measured sites, in order of execution."""
        heads = self.table.group_by("site", "kind", "order").agg(heads=pl.col("head").n_unique()).sort("order")
        return [AttentionSite(*row) for row in heads.iter_rows()]

    def by_site(self, branch: str | None = None) -> pl.DataFrame:
        """One row per site: means over steps and branches (or one branch); EP over heads too, energy summed over them.

        `ep_min` and `ep_max` are the extremes over heads; `ep_error` is the standard error of `ep`, null if exact.
        """
        table = self.table if branch is None else self.table.filter(pl.col("branch") == branch)
        if table.is_empty():
            known = sorted(self.table["branch"].unique())
            raise UsageError("the profile has no such branch", expected=f"one of {known}", got=branch)
        means = ["n_keys", "entropy", "ep", "text_ep", "all_ep", "temporal_ep", "spatial_ep", "text_mass"]
        summed = ["energy", "text_energy", "energy_share"]
        attention = ["order", "site", "kind", "keys_of"]
        heads = table.group_by(*attention, "head").agg(pl.col(means + summed).mean(), ep_error=_error_of_mean())
        return (
            heads.group_by(attention)
            .agg(
                pl.len().alias("heads"),
                *(pl.col(name).mean() for name in means),
                # A sum of nothing is 0; where there is no text it stays unknown.
                *(pl.when(pl.col(name).count() > 0).then(pl.col(name).sum()).alias(name) for name in summed),
                ep_min=pl.col("ep").min(),
                ep_max=pl.col("ep").max(),
                ep_error=_error_of_mean(),
            )
            .sort("order", "keys_of")
        )

    def for_choosing(self) -> pl.DataFrame:
        """The table by which sites are chosen: of each site its main attention, its only one or that to the text.

        Raises:
            UsageError: the profile's EP is of another definition.
        """
        defined = self.metadata.get("ep_definition", "all rows")
        if defined != EP_DEFINITION:
            raise UsageError(
                "sites cannot be chosen by a profile whose EP is of another definition",
                expected=f"EP of the {EP_DEFINITION}",
                got=f"EP of {defined}",
                remedy=f"measure again: ieadapt measure {self.metadata.get('model', 'MODEL')} --prompts FILE --out DIR",
            )
        return self.table.filter(pl.col("keys_of").fill_null("").is_in(["", "text"]))

    @property
    def ep(self) -> dict[str, float]:
        """Mean EP by site name."""
        return self.statistics["ep"]

    @property
    def head_ep(self) -> dict[Head, float]:
        """Mean EP by site name and head."""
        rows = self.for_choosing().group_by("site", "head").agg(pl.col("ep").mean())
        return {(site, head): ep for site, head, ep in rows.iter_rows()}

    @property
    def statistics(self) -> dict[str, dict[str, float]]:
        """What `SiteChoice.choose` compares, by site name: `ep`, `energy`, `resolution` in tokens per frame.

        From a screen also every effect that it predicts, mean over what the maps were replaced by.
        """
        rows = EntropyProfile(self.for_choosing()).by_site()
        resolutions = self.table.drop_nulls("resolution").group_by("site").agg(pl.col("resolution").max())
        return {
            "ep": dict(zip(rows["site"], rows["ep"], strict=True)),
            "energy": dict(zip(rows["site"], rows["energy"], strict=True)),
            "resolution": dict(resolutions.iter_rows()),
            **({} if self.effects is None else _means_by_site(self.effects)),
        }

    def select(
        self,
        *,
        kind: str | None = None,
        top: int | float | None = None,
        bottom: int | float | None = None,
        at_least: int | float | None = None,
        at_most: int | float | None = None,
        random: int | float | None = None,
        names: Sequence[str] | None = None,
        seed: int = 0,
    ) -> list[AttentionSite]:
        """Choose sites; at most one rule, see `SiteChoice`. Without a rule, all sites of the kind or names.

        Raises:
            UsageError: several rules, or nothing matches.
        """
        rules = {"top": top, "bottom": bottom, "at-least": at_least, "at-most": at_most, "random": random}
        given = {rule: amount for rule, amount in rules.items() if amount is not None}
        if len(given) > 1:
            raise UsageError("several rules for one choice of sites", expected="one", got=", ".join(given))
        rule, amount = next(iter(given.items()), ("all", 0.0))
        listed = tuple(names) if names else None
        return SiteChoice(rule, amount, kind, listed, seed).choose(self.sites, self.ep)  # type: ignore[arg-type]

    def save(self, folder: str | Path) -> Path:
        """Write `profile.parquet`, and `profile.json` with its hash, into a folder, each whole or not at all."""
        folder, buffer = Path(folder), io.BytesIO()
        self.table.write_parquet(buffer)
        content, effects = buffer.getvalue(), io.BytesIO()
        described = {"format": FORMAT, "sha256": hashlib.sha256(content).hexdigest(), **self.metadata}
        try:
            write_atomically(folder / _TABLE, content)
            write_atomically(folder / _DESCRIPTION, record_text(described).encode())
            if self.effects is not None:
                self.effects.write_parquet(effects)
                write_atomically(folder / EFFECTS_FILE, effects.getvalue())
        except OSError as error:
            raise FailureError("the profile cannot be written", got=error.strerror, where=folder) from error
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> EntropyProfile:
        """Read a profile that `save` wrote.

        Raises:
            UsageError: the folder holds no profile, one that this version cannot read, or a damaged one.
        """
        folder = Path(folder)
        try:
            path = folder / _DESCRIPTION
            metadata = read_record(path, _METADATA, what="the profile", remedy=_REMEDY, optional=_MAYBE)
            content = (folder / _TABLE).read_bytes()
        except OSError as error:
            expected = f"{_DESCRIPTION} and {_TABLE}"
            raise UsageError("not a profile", expected=expected, where=folder, remedy=_REMEDY) from error
        if metadata.pop("format") != FORMAT:
            expected, remedy = f"format {FORMAT}", "measure again"
            raise UsageError("a profile of another format", expected=expected, where=folder, remedy=remedy)
        digest = metadata.pop("sha256", None)
        changed = digest not in (None, hashlib.sha256(content).hexdigest())
        try:
            table = None if changed else pl.read_parquet(content)
        except (Exception, pl.exceptions.PanicException):  # as polars raises for a damaged file
            table = None
        problem = "other content than was measured" if table is None else _problem(table)
        if table is None or problem:
            raise UsageError(
                "the measured values of the profile are damaged", got=problem, where=folder / _TABLE, remedy=_REMEDY
            )
        metadata = {"ep_definition": "all rows", **metadata}
        return cls(_with_later(table).select(list(SCHEMA)), metadata, _read_effects(folder / EFFECTS_FILE))

    def plot(self) -> Figure:
        """Energy, energy share and EP per site in order of execution, one column per kind (the paper's figure 4)."""
        named = PurePath(str(self.metadata.get("model", ""))).name  # of a folder only its own name
        return plot_sites(self.by_site(), named or "Attention entropy and energy per site")

    def __repr__(self) -> str:
        kinds = ", ".join(f"{n} {kind}" for kind, n in self.by_site().group_by("kind").len().sort("kind").iter_rows())
        return f"EntropyProfile({kinds} sites, {counted(self.table['step'].n_unique(), 'step')})"


def _means_by_site(effects: pl.DataFrame) -> dict[str, dict[str, float]]:
    means = effects.group_by("effect", "site", maintain_order=True).agg(pl.col("value").mean())
    return {name: dict(rows.select("site", "value").rows()) for (name,), rows in means.group_by("effect")}


def _read_effects(path: Path) -> pl.DataFrame | None:
    if not path.exists():
        return None
    try:
        return pl.read_parquet(path).cast({"site": pl.String, "effect": pl.String, "value": pl.Float64})
    except (Exception, pl.exceptions.PanicException) as error:  # as polars raises for a damaged file
        raise UsageError("the effects beside the profile are damaged", where=path, remedy="screen again") from error


def _error_of_mean() -> pl.Expr:
    """The standard error of a mean of independent estimates; null where they are exact."""
    error = pl.col("ep_error")
    return pl.when(error.count() > 0).then(error.pow(2).sum().sqrt() / pl.len())


def _with_later(table: pl.DataFrame) -> pl.DataFrame:
    unknown = [pl.lit(None, SCHEMA[name]).alias(name) for name in LATER if name not in table.columns]
    return table.with_columns(unknown)


def _problem(table: pl.DataFrame) -> str:
    """What no measurement can have given; empty where all may be true."""
    table = _with_later(table)
    for name in {**SCHEMA, **table.schema}:
        if name not in SCHEMA:
            return f"a column {name!r}"
        if table.schema.get(name) != SCHEMA[name]:
            return f"no column {name!r} of {SCHEMA[name]}"
    if table.is_empty():
        return "no values"
    for name, kind in SCHEMA.items():
        values = table[name].drop_nulls()
        if name not in _MAY_BE_NULL and values.len() < table.height:
            return f"values of {name!r} are missing"
        if kind == pl.String or values.is_empty():
            continue
        low, high = float(values.min()), float(values.max())  # type: ignore[arg-type]
        most = 100 if name.endswith("ep") else 1 if name in ("text_mass", "energy_share") else math.inf
        if (kind == pl.Float64 and not values.is_finite().all()) or low < -_ROUNDING or high > most + _ROUNDING:
            return f"{name} from {low:g} to {high:g}" if values.is_not_nan().all() else f"{name} that is no number"
    if table.select(KEY).is_duplicated().any():
        return "values of one site, head, step and branch twice"
    if table.select("site", "kind", "order").unique().height != table["site"].n_unique():
        return "a site of two kinds or places"
    return ""


def plot_sites(sites: pl.DataFrame, title: str) -> Figure:
    """Three rows (energy, energy share, EP with the 50 % line), one column per kind of attention.

    Args:
        sites: one row per site, as `EntropyProfile.by_site` gives them. EP bars carry the range over heads.
        title: the heading.

    Source: the layout of figure 4 of arXiv 2504.12027, from its caption.
    """
    from matplotlib.figure import Figure

    kinds = [kind for kind in COLOURS if kind in set(sites["kind"])]
    counts = {kind: sites.filter(pl.col("kind") == kind).height for kind in kinds}
    widths = [max(counts[kind], 4) for kind in kinds]
    figure = Figure(figsize=(max(7.0, 1.5 + 0.27 * sum(widths)), 7.2), layout="constrained")
    axes = figure.subplots(
        3, len(kinds), squeeze=False, sharex="col", sharey="row", gridspec_kw={"width_ratios": widths}
    )
    for column, kind in enumerate(kinds):
        _plot_kind(axes[:, column], sites.filter(pl.col("kind") == kind), kind)
    for row, label in enumerate(("energy per video", "energy share", "EP (%)")):
        axes[row][0].set_ylabel(label)
    figure.suptitle(title, fontsize=11)
    return figure


def _plot_kind(axes: Any, rows: pl.DataFrame, kind: str) -> None:
    energy, share, entropy = axes
    positions = list(range(rows.height))
    energy.plot(positions, rows["energy"].to_list(), "o", color=COLOURS[kind], markersize=4)  # a log axis has no zero
    energy.set_yscale("log")
    energy.grid(axis="y", linewidth=0.4)
    energy.set_title(f"{kind} attention", fontsize=10)
    share.bar(positions, (100 * rows["energy_share"]).to_list(), color=COLOURS[kind])
    share.yaxis.set_major_formatter("{x:g} %")
    ep = rows["ep"].to_list()
    spread = [
        [max(0.0, mean - low) for mean, low in zip(ep, rows["ep_min"], strict=True)],
        [max(0.0, high - mean) for mean, high in zip(ep, rows["ep_max"], strict=True)],
    ]
    entropy.bar(positions, ep, color=COLOURS[kind], yerr=spread, error_kw={"elinewidth": 0.8, "ecolor": "#222222"})
    entropy.axhline(50, color="#c0392b", linewidth=1)
    entropy.set_ylim(0, 104)
    entropy.set_xticks(positions, [short_name(name) for name in rows["site"]], rotation=90, fontsize=6.5)
    for axis in (energy, share, entropy):
        tidy(axis)


def tidy(axis: Axes) -> None:
    """Draw two edges of a plot only, with small numbers."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=7)


def short_name(name: str) -> str:
    """A site's path without the words that every site of the kind shares.

    Example:
        >>> short_name("down_blocks.2.motion_modules.0.transformer_blocks.0.attn1")
        'down2.0.attn1'
    """
    shortened = name
    for long, short in (
        ("down_blocks.", "down"),
        ("up_blocks.", "up"),
        ("mid_block", "mid"),
        (".motion_modules.", "."),
        (".temp_attentions.", "."),
        (".attentions.", "."),
        (".transformer_blocks.0", ""),
        ("single_transformer_blocks.", "single"),
        ("transformer_blocks.", "block"),
        ("blocks.", "block"),
    ):
        shortened = shortened.replace(long, short)
    return shortened
