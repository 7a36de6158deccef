"""Layer choice: which attention sites to act on, by entropy, by name, or at random as the control."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ieadapt.attention import KINDS, AttentionSite, select_sites
from ieadapt.errors import UsageError

Rule = Literal["all", "top", "bottom", "at-least", "at-most", "random"]

_GRAMMAR = re.compile(rf"(?:(?P<kind>{'|'.join(KINDS)}):)?(?P<rule>{'|'.join(get_args(Rule))})=(?P<amount>[\d.]+)")


@dataclass(frozen=True)
class SiteChoice:
    """A rule that picks attention sites, kind by kind, in order of execution.

    Attributes:
        rule: `top` and `bottom` rank by EP; `at-least` and `at-most` compare EP with a threshold; `random` draws;
            `all` takes everything.
        amount: for ranks and draws a share (below 1, rounded up) or a number of sites (1 or more); for thresholds a
            percentage.
        kind: only sites of this kind; None applies the rule within each kind.
        names: names, patterns or kinds to choose among, as `select_sites` understands them; None for all.
        seed: of the random draw.

    Example:
        >>> SiteChoice.parse("temporal:top=3")
        SiteChoice(rule='top', amount=3.0, kind='temporal', names=None, seed=0)
    """

    rule: Rule = "all"
    amount: int | float = 0.0
    kind: str | None = None
    names: tuple[str, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        threshold = self.rule in ("at-least", "at-most")
        if threshold and not 0 <= self.amount <= 100:
            raise UsageError("an EP threshold is a percentage", expected="0..100", got=self.amount)
        if self.rule in ("top", "bottom", "random") and self.amount <= 0:
            raise UsageError("a choice of no sites", expected="a share in (0, 1) or a number >= 1", got=self.amount)

    @classmethod
    def parse(cls, text: str, seed: int = 0) -> SiteChoice:
        """Read `[KIND:]RULE=AMOUNT` (as in `temporal:top=3`, `spatial:at-least=50`, `random=3`), or names."""
        match = _GRAMMAR.fullmatch(text.strip())
        if match is None:
            return cls(names=tuple(part.strip() for part in text.split(",")), seed=seed)
        return cls(match["rule"], float(match["amount"]), match["kind"], seed=seed)  # type: ignore[arg-type]

    @property
    def needs_entropy(self) -> bool:
        """Whether the rule compares EP, so that a profile must be at hand."""
        return self.rule in ("top", "bottom", "at-least", "at-most")

    def choose(
        self, sites: Sequence[AttentionSite], ep: Mapping[str, int | float] | None = None
    ) -> list[AttentionSite]:
        """The chosen sites, in order of execution.

        Args:
            sites: the sites to choose among.
            ep: entropy percentage by site name; needed for the rules that compare it.

        Raises:
            UsageError: nothing matches, or a site has no EP.
        """
        among = select_sites(sites, list(self.names) if self.names else None)
        among = select_sites(among, self.kind) if self.kind else among
        if self.needs_entropy:
            self._require_entropy(among, ep)
        ep = ep or {}
        kinds = {site.kind: [other for other in among if other.kind == site.kind] for site in among}
        chosen = {site for group in kinds.values() for site in self._from_group(group, ep)}
        if not chosen:
            values = ", ".join(f"{kind} {_range(group, ep)}" for kind, group in kinds.items())
            raise UsageError(f"no site has EP {self.rule} {self.amount:g}", got=f"EP of {values}")
        return [site for site in among if site in chosen]

    def _require_entropy(self, among: Sequence[AttentionSite], ep: Mapping[str, int | float] | None) -> None:
        unknown = [site.name for site in among if ep is None or site.name not in ep]
        if unknown:
            raise UsageError(
                "the choice of sites needs their entropy",
                got="no profile" if ep is None else f"a profile without {unknown[0]} and {len(unknown) - 1} more",
                remedy="measure this model first and pass the profile, or name the sites",
            )

    def _from_group(self, group: list[AttentionSite], ep: Mapping[str, int | float]) -> list[AttentionSite]:
        if self.rule == "all":
            return group
        if self.rule == "at-least":
            return [site for site in group if ep[site.name] >= self.amount]
        if self.rule == "at-most":
            return [site for site in group if ep[site.name] <= self.amount]
        count = math.ceil(self.amount * len(group)) if self.amount < 1 else min(int(self.amount), len(group))
        if self.rule == "random":
            return random.Random(self.seed).sample(group, count)  # noqa: S311 (a control, not a secret)
        ranked = sorted(group, key=lambda site: ep[site.name], reverse=self.rule == "top")
        return ranked[:count]


def _range(group: Sequence[AttentionSite], ep: Mapping[str, int | float]) -> str:
    values = [ep[site.name] for site in group]
    return f"{min(values):.1f} to {max(values):.1f}"
