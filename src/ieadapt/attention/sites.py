"""Where, when and on which rows: attention sites, windows of steps, guidance branches, and how they are named."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from ieadapt.errors import UsageError
from ieadapt.notation import counted

Kind = Literal["spatial", "temporal", "joint", "cross", "text", "unknown"]

KINDS: tuple[Kind, ...] = get_args(Kind)


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


class SiteList(list[AttentionSite]):
    """Attention sites in order of execution: a list that prints as a table and can be counted.

    Example:
        >>> SiteList([AttentionSite("mid.attn1", "spatial", order=3, heads=8)]).assert_count_is(1)
        1 attention site: spatial (1)
           3 spatial  mid.attn1, 8 heads
    """

    def assert_count_is(self, count: int) -> SiteList:
        """The same list.

        Raises:
            UsageError: there are more or fewer sites than expected.
        """
        if len(self) != count:
            raise UsageError("another number of attention sites", expected=count, got=repr(self))
        return self

    def __repr__(self) -> str:
        rows = (f"{site.order:4} {site.kind:8} {site.name}, {site.heads} heads" for site in self)
        return "\n".join([f"{counted(len(self), 'attention site')}: {_kinds_of(self)}", *rows])


Selection = str | AttentionSite | Sequence[str | AttentionSite] | Callable[[AttentionSite], bool] | None


def select_sites(sites: Sequence[AttentionSite], selection: Selection = None) -> SiteList:
    """The sites that a selection names, in order of execution.

    Args:
        sites: the sites of one model, as `find_sites` returns them.
        selection: None for all; a kind (`"temporal"`), a name, a number as reports print it (`"#28"`), a shell pattern
            (`"up_blocks.*"`), a site, a sequence of these, a comma-separated string of these, or a predicate over
            sites.

    Raises:
        UsageError: an entry matches no site; near names and the kinds that the model has are listed.

    Example:
        >>> a, b = AttentionSite("down.attn1", "spatial", 0, 2), AttentionSite("up.attn1", "temporal", 1, 2)
        >>> select_sites([a, b], "temporal")
        1 attention site: temporal (1)
           1 temporal up.attn1, 2 heads
    """
    if selection is None:
        return SiteList(sites)
    if callable(selection):
        chosen = {site for site in sites if selection(site)}
        if not chosen:
            raise UsageError("the selection matches no attention site", got=selection, remedy=_what_there_is(sites))
    else:
        chosen = {site for entry in _entries(selection) for site in _matching(sites, entry)}
    return SiteList(site for site in sites if site in chosen)


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
    matches = [
        site for site in sites if name in (site.kind, site.name, f"#{site.order}") or fnmatchcase(site.name, name)
    ]
    if not matches:
        near = difflib.get_close_matches(name, [site.name for site in sites], n=3, cutoff=0.3)
        raise UsageError(
            "the selection matches no attention site",
            got=repr(name),
            expected=f"a name or pattern such as {', '.join(near)}" if near else None,
            remedy=_what_there_is(sites),
        )
    return matches


def _kinds_of(sites: Sequence[AttentionSite]) -> str:
    return ", ".join(f"{kind} ({n})" for kind in KINDS if (n := sum(site.kind == kind for site in sites)))


def _what_there_is(sites: Sequence[AttentionSite]) -> str:
    return f"this model has the kinds {_kinds_of(sites)}; `ieadapt sites MODEL` lists all {counted(len(sites), 'site')}"


Guidance = Literal["uncond", "cond", "weak", "unknown"]
"""What a row of the batch computes: the unconditional or the conditional prediction, or one of an extra, weak pass.

`unknown` are rows of which a pipeline does not say what they are; only `all` hands them out.
"""

GuidanceChoice = Guidance | Literal["all"] | Sequence[Guidance]
Stream = Literal["source", "target", "none"]

_FORM = "fractions 0 <= start < stop <= 1, as text START:STOP"


def guidance_branches(choice: GuidanceChoice | object) -> tuple[Guidance, ...]:
    """The branches that a choice names; `all` are all but the weak passes.

    Raises:
        UsageError: an unknown branch, or none.

    Example:
        >>> guidance_branches("all")
        ('uncond', 'cond', 'unknown')
    """
    named: Any = ("uncond", "cond", "unknown") if choice == "all" else (choice,) if isinstance(choice, str) else choice
    known = get_args(Guidance)
    if not isinstance(named, Sequence) or not named or any(branch not in known for branch in named):
        raise UsageError(
            "not a choice of guidance", expected=f"{', '.join(known)}, all, or a tuple of branches", got=repr(choice)
        )
    return tuple(named)


@dataclass(frozen=True)
class StepWindow:
    """A part of a denoising run: the steps with start <= step / number of steps < stop.

    Attributes:
        start: fraction of the run at which it begins.
        stop: fraction at which it ends; 1 includes the last step.

    Raises:
        UsageError: unless 0 <= start < stop <= 1.

    Example:
        >>> [step for step in range(4) if StepWindow(0.5).contains(step, 4)]
        [2, 3]
    """

    start: int | float = 0.0
    stop: int | float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.start < self.stop <= 1.0:
            raise UsageError("not a window of steps", expected=_FORM, got=str(self))

    @classmethod
    def of(cls, steps: StepWindow | Sequence[int | float] | str, where: str | None = None) -> StepWindow:
        """Read a window, a pair of fractions, or its text `START:STOP`; `where` is named in the error.

        Raises:
            UsageError: something else.

        Example:
            >>> StepWindow.of("0:0.8")
            StepWindow(start=0.0, stop=0.8)
        """
        if isinstance(steps, StepWindow):
            return steps
        edges: Any = steps.split(":") if isinstance(steps, str) else steps
        try:
            start, stop = (float(edge) for edge in edges)
            return cls(start, stop)
        except (TypeError, ValueError, UsageError):
            raise UsageError("not a window of steps", expected=_FORM, got=repr(steps), where=where) from None

    @property
    def whole(self) -> bool:
        """Whether every step is in it."""
        return (self.start, self.stop) == (0.0, 1.0)

    def contains(self, step: int, steps: int | None) -> bool:
        """Whether a step acts; every step does where their number is not known."""
        return steps is None or self.start <= step / steps < self.stop

    def steps(self, steps: int) -> range:
        """The steps that act in a run of so many.

        Raises:
            UsageError: no step begins inside the window.
        """
        inside = [step for step in range(steps) if self.contains(step, steps)]
        if not inside:
            raise UsageError(
                "no denoising step begins inside the window",
                got=f"window {self} of {steps} steps",
                remedy="take more steps or a wider window",
            )
        return range(inside[0], inside[-1] + 1)

    def after(self, first: int, steps: int, where: str | None = None) -> StepWindow:
        """The same window for a run that leaves out the first of so many steps, and counts from its own beginning.

        Raises:
            UsageError: none of the remaining steps begins inside it.

        Example:
            >>> StepWindow(0.0, 0.75).after(2, 8)
            StepWindow(start=0.0, stop=0.6666666666666666)
        """
        inside, left = self.steps(steps), steps - first
        if inside.stop <= first:
            raise UsageError(
                "no denoising step begins inside the window",
                got=f"window {self} of {steps} steps, of which the first {first} are left out",
                where=where,
                remedy="take a wider window, or begin earlier",
            )
        return StepWindow(max(inside.start - first, 0) / left, (inside.stop - first) / left)

    def __str__(self) -> str:
        return f"{self.start:g}:{self.stop:g}"
