"""The grid of a study: every set of sites, with every perturbation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ieadapt.attention import AttentionSite
from ieadapt.errors import UsageError
from ieadapt.tasks.measure.layer_choice import SiteChoice
from ieadapt.tasks.study.config import StudyConfig


@dataclass(frozen=True)
class Condition:
    """One column of the grid: what is perturbed, and how.

    Attributes:
        sites: names of the sites that are perturbed together.
        kind: their kind.
        perturbation: `identity`, `uniform`, `mix:WEIGHT`, `temperature:T`.
        head: the one head that is perturbed; None for all.
        rank: `top` or `bottom` where sites were taken by EP, else `each`.

    Example:
        >>> print(Condition(("mid.attn1",), "spatial", "identity", head=2))
        identity at mid.attn1, head 2
    """

    sites: tuple[str, ...]
    kind: str
    perturbation: str
    head: int | None = None
    rank: str = "each"

    def __str__(self) -> str:
        sites = self.sites[0] if len(self.sites) == 1 else f"{self.rank} {len(self.sites)} {self.kind} sites"
        return f"{self.perturbation} at {sites}" + ("" if self.head is None else f", head {self.head}")


@dataclass(frozen=True)
class Cell:
    """One perturbed video: a condition, a prompt and a seed."""

    condition: Condition
    prompt: str
    seed: int


def conditions(config: StudyConfig, sites: Sequence[AttentionSite], ep: Mapping[str, float]) -> list[Condition]:
    """Every condition of a study of a model with these sites, in order of execution.

    Args:
        config: what is asked.
        sites: the model's attention sites.
        ep: entropy percentage by site name.

    Raises:
        UsageError: the selection matches no site, or identity alone is asked for at cross-attention alone.

    Example:
        >>> sites = [AttentionSite("a", "spatial", 0, 2), AttentionSite("b", "cross", 1, 2)]
        >>> [str(condition) for condition in conditions(StudyConfig(), sites, {"a": 50.0, "b": 60.0})]
        ['identity at a', 'uniform at a', 'uniform at b']
    """
    chosen = SiteChoice.parse(config.sites).choose(sites, ep) if config.sites else list(sites)
    groups = {"each": _each, "cumulative": _cumulative, "per-head": _per_head}[config.mode]
    made = [
        Condition(tuple(site.name for site in group), group[0].kind, perturbation, head, rank)
        for group, head, rank in groups(chosen, ep)
        for perturbation in config.perturbations
        if perturbation != "identity" or group[0].kind != "cross"
    ]
    if not made:
        raise UsageError(
            "cross-attention has no identity map",
            got=f"identity at {len(chosen)} cross-attention sites only",
            remedy="add uniform to the perturbations, or choose other sites",
        )
    return made


Group = tuple[Sequence[AttentionSite], int | None, str]


def _each(sites: Sequence[AttentionSite], ep: Mapping[str, float]) -> Iterator[Group]:
    for site in sites:
        yield [site], None, "each"


def _per_head(sites: Sequence[AttentionSite], ep: Mapping[str, float]) -> Iterator[Group]:
    for site in sites:
        for head in range(site.heads):
            yield [site], head, "each"


def _cumulative(sites: Sequence[AttentionSite], ep: Mapping[str, float]) -> Iterator[Group]:
    for kind in dict.fromkeys(site.kind for site in sites):
        ranked = sorted((site for site in sites if site.kind == kind), key=lambda site: (-ep[site.name], site.order))
        for count in growing(len(ranked)):
            yield ranked[:count], None, "top"
            yield ranked[-count:], None, "bottom"


def growing(number: int) -> list[int]:
    """1, 2, 4, ... and all of them.

    Example:
        >>> growing(10)
        [1, 2, 4, 8, 10]
    """
    return [*(2**power for power in range(number.bit_length()) if 2**power < number), number]
