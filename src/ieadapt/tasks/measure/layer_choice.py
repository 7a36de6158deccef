"""Layer choice: which attention sites, and which of their heads, to act on: by entropy, by name, or at random."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from ieadapt.attention import KINDS, AttentionSite, select_sites
from ieadapt.errors import UsageError

Rule = Literal["all", "top", "bottom", "at-least", "at-most", "random", "middle"]
Ranking = Literal["ep", "energy", "depth", "structure", "quality", "motion", "flicker"]
Within = Literal["kind", "resolution"]
Item = TypeVar("Item")
Head = tuple[str, int]
"""Name of a site and number of one of its heads."""

SCREENED: tuple[Ranking, ...] = ("structure", "quality", "motion", "flicker")
"""What `ieadapt screen` predicts of a site: larger is more damage by replacing its map."""

_KIND = "|".join(KINDS)
_BY = "|".join(by for by in get_args(Ranking) if by != "ep")
_RULE = rf"(?P<rule>{'|'.join(rule for rule in get_args(Rule) if rule != 'all')})=(?P<amount>[\d.]+)"
_GRAMMAR = re.compile(rf"(?:(?P<kind>(?:{_KIND}|[+/])+):)?(?P<within>level-|resolution-)?(?:(?P<by>{_BY})-)?{_RULE}")
_CONTROL = "random-as:"
_HEADS = re.compile(_RULE)
_NAMED_HEAD = re.compile(r"(?:(?P<site>.+):)?(?P<head>\d+)")


@dataclass(frozen=True)
class SiteChoice:
    """A rule that picks attention sites, kind by kind, in order of execution.

    Attributes:
        rule: `top` and `bottom` rank by EP; `at-least` and `at-most` compare EP with a threshold; `random` draws;
            `middle` takes the sites around the mid block of a U-Net, or the middle of a transformer; `all` takes
            everything.
        amount: for ranks, draws and the middle a share (below 1, rounded up) or a number of sites (1 or more); for
            thresholds a percentage.
        kind: only sites of this kind; `a+b` are both kinds, `a/b` the first of them that the model has; None applies
            the rule within each kind.
        names: names, patterns or kinds to choose among, as `select_sites` understands them; None for all.
        seed: of the random draw.
        by: what ranks: `ep`; or, for `top` and `bottom` only, `energy`, `depth` (order of execution; the trivial
            control), or an effect that `ieadapt screen` predicts: `structure`, `quality`, `motion`, `flicker`.
        within: what the rule is applied within: each `kind`, or each `resolution`, the sites of one kind that work on
            as many tokens per frame. In a U-Net EP and resolution go together; within one resolution they cannot.
        control_of: with `random`, another choice: as many sites are drawn at each resolution as it takes there.

    Example:
        >>> SiteChoice.parse("temporal:top=3")
        SiteChoice(rule='top', amount=3.0, kind='temporal', names=None, seed=0, by='ep', within='kind', control_of=None)
    """

    rule: Rule = "all"
    amount: int | float = 0.0
    kind: str | None = None
    names: tuple[str, ...] | None = None
    seed: int = 0
    by: Ranking = "ep"
    within: Within = "kind"
    control_of: SiteChoice | None = None

    def __post_init__(self) -> None:
        if self.control_of is None:
            _check_amount(self.rule, self.amount)
        ranks = self.rule in ("top", "bottom")
        if self.by != "ep" and not ranks:
            expected = f"{self.by}-top or {self.by}-bottom"
            raise UsageError(f"only ranks go by {self.by}", expected=expected, got=self.rule)
        if self.within == "resolution" and not (ranks or self.rule == "random"):
            expected = "top, bottom or random"
            raise UsageError("only ranks and draws go resolution by resolution", expected=expected, got=self.rule)

    @classmethod
    def parse(cls, text: str, seed: int = 0) -> SiteChoice:
        """Read `[KIND:][resolution-][MEASURE-]RULE=AMOUNT`, `random-as:` before another choice, or names.

        Such as `temporal:top=3`, `spatial:at-least=50`, `random=3`, `spatial/joint:middle=1`, `structure-top=3`,
        `temporal:resolution-top=0.5` (earlier `level-top`), `temporal/joint` (all sites of the first kind there is),
        `random-as:temporal:top=3` (at each resolution as many sites as that takes there, at random).
        """
        if text.strip().startswith(_CONTROL):
            return cls("random", seed=seed, control_of=cls.parse(text.strip().removeprefix(_CONTROL), seed))
        match = _GRAMMAR.fullmatch(text.strip())
        if match is not None:
            rule, amount = match["rule"], float(match["amount"])
            by, within = match["by"] or "ep", "resolution" if match["within"] else "kind"
            return cls(rule, amount, match["kind"], None, seed, by, within)  # type: ignore[arg-type]
        if re.fullmatch(rf"(?:{_KIND})(?:[+/](?:{_KIND}))+", text.strip()):
            return cls(kind=text.strip(), seed=seed)
        return cls(names=tuple(part.strip() for part in text.split(",")), seed=seed)

    @property
    def needs_entropy(self) -> bool:
        """Whether the rule needs measured statistics (EP, energy or resolution), so that a profile must be at hand."""
        ranks = self.rule in ("top", "bottom", "at-least", "at-most") and self.by != "depth"
        return ranks or self.within == "resolution" or self.control_of is not None

    def candidates(self, sites: Sequence[AttentionSite]) -> list[AttentionSite]:
        """The sites among which the rule chooses.

        Raises:
            UsageError: there are none.
        """
        if self.control_of is not None:
            return self.control_of.candidates(sites)
        among = select_sites(sites, list(self.names) if self.names else None)
        if self.kind is None:
            return among
        there = {site.kind for site in among}
        groups = [group.split("+") for group in self.kind.split("/")]
        group = next((group for group in groups if there & set(group)), groups[0])
        present = [kind for kind in group if kind in there] or group
        return select_sites(among, list(present))

    def choose(
        self,
        sites: Sequence[AttentionSite],
        ep: Mapping[str, int | float] | None = None,
        energy: Mapping[str, int | float] | None = None,
        resolution: Mapping[str, int | float] | None = None,
        **screened: Mapping[str, int | float],
    ) -> list[AttentionSite]:
        """The chosen sites, in order of execution.

        Args:
            sites: the sites to choose among.
            ep: entropy percentage by site name; needed for the rules that compare it.
            energy: energy by site name, where it ranks.
            resolution: tokens per frame by site name, where the rule is applied within one resolution.
            screened: effects by site name, where one of them ranks.

        Raises:
            UsageError: nothing matches, or a site has no measured statistic that the rule needs.
        """
        among = self.candidates(sites)
        if self.control_of is not None:
            return self._control(self.control_of.choose(sites, ep, energy, resolution, **screened), among, resolution)
        depth = {site.name: site.order for site in sites}
        statistic = {"ep": ep, "energy": energy, "depth": depth, **screened}.get(self.by)
        if self.rule in ("top", "bottom", "at-least", "at-most"):
            _require(among, statistic, "entropy" if self.by == "ep" else self.by)
        if self.within == "resolution":
            _require(among, resolution, "resolution")
        values, sizes = statistic or {}, (resolution or {}) if self.within == "resolution" else {}
        groups = _grouped(among, sizes)
        chosen = {site for group in groups for site in self._from_group(group, values)}
        if not chosen:
            ep_of = {group[0].kind: _range([values[site.name] for site in group]) for group in groups}
            ranges = ", ".join(f"{kind} {each}" for kind, each in ep_of.items())
            raise UsageError(f"no site has EP {self.rule} {self.amount:g}", got=f"EP of {ranges}")
        return [site for site in among if site in chosen]

    def _control(
        self,
        chosen: Sequence[AttentionSite],
        among: Sequence[AttentionSite],
        resolution: Mapping[str, int | float] | None,
    ) -> list[AttentionSite]:
        """As many sites of each kind and resolution as another choice took, at random."""
        _require(among, resolution, "resolution")
        drawn, choice = set[AttentionSite](), random.Random(self.seed)  # noqa: S311 (a control, not a secret)
        for group in _grouped(among, resolution or {}):
            drawn.update(choice.sample(group, sum(site in group for site in chosen)))
        return [site for site in among if site in drawn]

    def _from_group(self, group: list[AttentionSite], values: Mapping[str, int | float]) -> list[AttentionSite]:
        if self.rule == "middle":
            return _around_the_middle(group, _number(self.amount, len(group)))
        return _by_rule(self.rule, self.amount, group, lambda site: values[site.name], self.seed)


@dataclass(frozen=True)
class HeadChoice:
    """A rule that picks heads by their EP among all heads of some sites, kind by kind; or heads by their number.

    Attributes:
        rule: `top`, `bottom`, `at-least`, `at-most` or `random`, as in `SiteChoice`; `all` takes those named.
        amount: a share or a number of heads, or a percentage.
        seed: of the random draw.
        named: heads by number: name, pattern or number of a site, or None for every site, and which of its heads.

    Example:
        >>> site = AttentionSite("mid.attn1", "temporal", order=0, heads=2)
        >>> HeadChoice.parse("top=1").choose([site], {("mid.attn1", 0): 40.0, ("mid.attn1", 1): 90.0})
        {'mid.attn1': (1,)}
    """

    rule: Rule
    amount: int | float
    seed: int = 0
    named: tuple[tuple[str | None, int], ...] = ()

    def __post_init__(self) -> None:
        _check_amount(self.rule, self.amount)

    @classmethod
    def parse(cls, text: str, seed: int = 0) -> HeadChoice:
        """Read `RULE=AMOUNT`, or with commas `HEAD` and `SITE:HEAD`, such as `0,3` or `#5:0,#7:3`.

        Raises:
            UsageError: it is nothing of the kind.
        """
        named = [_NAMED_HEAD.fullmatch(part.strip()) for part in text.split(",")]
        if all(named):
            return cls("all", 0, named=tuple((each["site"], int(each["head"])) for each in named if each))
        match = _HEADS.fullmatch(text.strip())
        if match is None or match["rule"] == "middle":
            raise UsageError(
                "unknown choice of heads",
                expected="all, top=N, bottom=N, at-least=EP, at-most=EP, random=N, or heads as in 0,3 or '#5:0,#7:3'",
                got=text,
            )
        return cls(match["rule"], float(match["amount"]), seed)  # type: ignore[arg-type]

    @property
    def needs_entropy(self) -> bool:
        """Whether heads are ranked or drawn, so that a profile must be at hand."""
        return not self.named

    def choose(self, sites: Sequence[AttentionSite], ep: Mapping[Head, int | float]) -> dict[str, tuple[int, ...]]:
        """The chosen heads by site name; sites without one are left out.

        Args:
            sites: the chosen sites.
            ep: entropy percentage by site name and head; not read where heads are named.

        Raises:
            UsageError: a head has no EP, a site has no such head, or none is chosen.
        """
        chosen = self._named(sites)
        for kind in dict.fromkeys(site.kind for site in sites if self.needs_entropy):
            heads = [(site.name, head) for site in sites if site.kind == kind for head in range(site.heads)]
            for site, head in heads:
                if (site, head) not in ep:
                    raise UsageError("the choice of heads needs their entropy", got=f"none of head {head}", where=site)
            chosen.update(_by_rule(self.rule, self.amount, heads, ep.__getitem__, self.seed))
        if not chosen:
            raise UsageError(f"no head has EP {self.rule} {self.amount:g}", got=f"EP of {_range(ep.values())}")
        kept = {site.name: tuple(head for head in range(site.heads) if (site.name, head) in chosen) for site in sites}
        return {name: heads for name, heads in kept.items() if heads}

    def _named(self, sites: Sequence[AttentionSite]) -> set[Head]:
        chosen = [(site, head) for name, head in self.named for site in select_sites(sites, name)]
        for site, head in chosen:
            if head >= site.heads:
                raise UsageError(
                    "the site has no such head", expected=f"0..{site.heads - 1}", got=head, where=site.name
                )
        return {(site.name, head) for site, head in chosen}


def _grouped(sites: Sequence[AttentionSite], sizes: Mapping[str, int | float]) -> list[list[AttentionSite]]:
    """The sites of each kind and, where it is known, resolution."""
    groups: dict[tuple[str, int | float], list[AttentionSite]] = {}
    for site in sites:
        groups.setdefault((site.kind, sizes.get(site.name, 0.0)), []).append(site)
    return list(groups.values())


def _check_amount(rule: Rule, amount: int | float) -> None:
    threshold = rule in ("at-least", "at-most")
    if threshold and not 0 <= amount <= 100:
        raise UsageError("an EP threshold is a percentage", expected="0..100", got=amount)
    if rule in ("top", "bottom", "random", "middle") and amount <= 0:
        raise UsageError("a choice of no sites", expected="a share in (0, 1) or a number >= 1", got=amount)


def _number(amount: int | float, there: int) -> int:
    return math.ceil(amount * there) if amount < 1 else min(int(amount), there)


def _by_rule(
    rule: Rule, amount: int | float, group: list[Item], statistic: Callable[[Item], int | float], seed: int
) -> list[Item]:
    if rule == "all":
        return group
    if rule == "at-least":
        return [item for item in group if statistic(item) >= amount]
    if rule == "at-most":
        return [item for item in group if statistic(item) <= amount]
    count = _number(amount, len(group))
    if rule == "random":
        return random.Random(seed).sample(group, count)  # noqa: S311 (a control, not a secret)
    return sorted(group, key=statistic, reverse=rule == "top")[:count]


def _around_the_middle(group: list[AttentionSite], count: int) -> list[AttentionSite]:
    """The sites nearest to the mid block of a U-Net, or to the middle of the list."""
    mid = [index for index, site in enumerate(group) if site.name.split(".")[0] == "mid_block"]
    centre = sum(mid) / len(mid) if mid else (len(group) - 1) / 2
    nearest = sorted(range(len(group)), key=lambda index: abs(index - centre))
    return [group[index] for index in nearest[:count]]


def _require(among: Sequence[AttentionSite], statistics: Mapping[str, int | float] | None, what: str) -> None:
    unknown = [site.name for site in among if statistics is None or site.name not in statistics]
    if unknown:
        remedy, without = "measure this model first and pass the profile, or name the sites", "no profile"
        if what in SCREENED:
            remedy, without = "pass the folder of `ieadapt screen` as the profile, or name the sites", "no screen"
        raise UsageError(
            f"the choice of sites needs their {what}",
            got=without if statistics is None else f"a profile without {unknown[0]} and {len(unknown) - 1} more",
            remedy=remedy,
        )


def _range(values: Collection[int | float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"
