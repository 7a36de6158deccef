"""Attention sites: where attention happens in a denoiser, and how a caller names some of them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from ieadapt.errors import UsageError

Kind = Literal["spatial", "temporal", "joint", "cross", "text", "unknown"]

KINDS: tuple[Kind, ...] = ("spatial", "temporal", "joint", "cross", "text", "unknown")


@dataclass(frozen=True)
class AttentionSite:
    """One attention module of a denoiser.

    Attributes:
        name: module path inside the denoiser (with the component's name in front if a pipeline has two denoisers).
        kind: what the tokens are. `spatial`: the positions of one frame; `temporal`: the frames of one position;
            `joint`: all video tokens, with or without text tokens among them; `cross`: video queries, text keys;
            `text`: text tokens only; `unknown`: the model has no row in the family table.
        order: position in the order of execution, from 0.
        heads: number of attention heads.

    Example:
        >>> AttentionSite("mid_block.attentions.0.transformer_blocks.0.attn1", "spatial", order=3, heads=8)
        <spatial #3 mid_block.attentions.0.transformer_blocks.0.attn1, 8 heads>
    """

    name: str
    kind: Kind
    order: int
    heads: int

    def __repr__(self) -> str:
        return f"<{self.kind} #{self.order} {self.name}, {self.heads} heads>"


Selection = str | AttentionSite | Sequence[str | AttentionSite] | Callable[[AttentionSite], bool] | None


def select_sites(sites: Sequence[AttentionSite], selection: Selection = None) -> list[AttentionSite]:
    """The sites that a selection names, in order of execution.

    Args:
        sites: the sites of one model, as `find_sites` returns them.
        selection: None for all; a kind (`"temporal"`), a name, a shell pattern (`"up_blocks.*"`), a site, a sequence
            of these, a comma-separated string of these, or a predicate over sites.

    Raises:
        UsageError: an entry matches no site; near names and the kinds that the model has are listed.

    Example:
        >>> a, b = AttentionSite("down.attn1", "spatial", 0, 2), AttentionSite("up.attn1", "temporal", 1, 2)
        >>> select_sites([a, b], "temporal")
        [<temporal #1 up.attn1, 2 heads>]
    """
    if selection is None:
        return list(sites)
    if callable(selection):
        chosen = {site for site in sites if selection(site)}
        if not chosen:
            raise UsageError("the selection matches no attention site", got=selection, remedy=_what_there_is(sites))
    else:
        chosen = {site for entry in _entries(selection) for site in _matching(sites, entry)}
    return [site for site in sites if site in chosen]


def _entries(selection: str | AttentionSite | Iterable[str | AttentionSite]) -> list[str | AttentionSite]:
    if isinstance(selection, AttentionSite):
        return [selection]
    if isinstance(selection, str):
        return [part.strip() for part in selection.split(",") if part.strip()] or [selection]
    entries = list(selection) if isinstance(selection, Iterable) else [selection]
    wrong = [entry for entry in entries if not isinstance(entry, str | AttentionSite)]
    if wrong:
        raise UsageError(
            "not a selection of attention sites",
            expected="names, patterns or kinds, sites that find_sites returned, or a function of a site",
            got=f"{type(wrong[0]).__name__} {wrong[0]!r}",
        )
    if not entries:
        raise UsageError(
            "the selection of attention sites is empty", remedy="name at least one site, or pass None for all"
        )
    return entries


def _matching(sites: Sequence[AttentionSite], entry: str | AttentionSite) -> list[AttentionSite]:
    name = entry.name if isinstance(entry, AttentionSite) else entry
    found = [site for site in sites if site.kind == name or site.name == name or fnmatchcase(site.name, name)]
    if not found:
        near = difflib.get_close_matches(name, [site.name for site in sites], n=3, cutoff=0.3)
        raise UsageError(
            "the selection matches no attention site",
            got=repr(name),
            expected=f"a name or pattern such as {', '.join(near)}" if near else None,
            remedy=_what_there_is(sites),
        )
    return found


def _what_there_is(sites: Sequence[AttentionSite]) -> str:
    counts = ", ".join(f"{kind} ({n})" for kind in KINDS if (n := sum(site.kind == kind for site in sites)))
    return f"this model has the kinds {counts}; `ieadapt sites MODEL` lists all {len(sites)} sites"
