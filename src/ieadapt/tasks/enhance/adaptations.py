"""Adaptations: the ways in which an enhancement can change a model, and what of a config each of them reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ieadapt.errors import UsageError
from ieadapt.interventions import Perturbation, parse_perturbation

if TYPE_CHECKING:
    from ieadapt.tasks.enhance.config import EnhanceConfig


@dataclass(frozen=True)
class Adaptation:
    """One way to change a model.

    Attributes:
        name: its row in the table.
        modes: the modes of an enhancement that have it.
        check: refuses a configuration that it cannot carry out.
        told: what is changed, in words, with `{change}` for the perturbation and `{sites}` for the sites.
        acts_on: the chosen attention `sites`, or the `network` as a whole.
    """

    name: str
    modes: tuple[str, ...]
    check: Callable[[EnhanceConfig], object]
    told: str
    acts_on: Literal["sites", "network"] = "sites"


def map_change(config: EnhanceConfig) -> Perturbation:
    """What the chosen maps become."""
    return parse_perturbation(config.perturbation, scope=config.scope)  # type: ignore[arg-type]


def amounts(config: EnhanceConfig, number: int) -> tuple[float, ...]:
    """The amounts of a perturbation that is no map, all positive.

    Raises:
        UsageError: there are not so many, or one is no positive number.
    """
    name, *texts = config.perturbation.split(":")
    try:
        found = tuple(float(text) for text in texts)
    except ValueError:
        found = ()
    if len(found) != number or not all(math.isfinite(amount) and amount > 0 for amount in found):
        wanted = f"{name} and {number} positive numbers with colons" if number else name
        raise UsageError("the perturbation's amount is missing or wrong", expected=wanted, got=config.perturbation)
    return found


def _whole_sites(config: EnhanceConfig, number: int) -> None:
    _ = amounts(config, number)
    for name, plain in (("heads", "all"), ("weighting", "even"), ("scope", "video"), ("sharpen", 1.0)):
        if getattr(config, name) != plain:
            raise UsageError(
                f"{config.perturbation.partition(':')[0]} has no {name}",
                expected=f"{name}={plain}",
                got=getattr(config, name),
            )


def _every_step(config: EnhanceConfig) -> None:
    _whole_sites(config, 4)
    plain = {"start": 0.0, "stop": 1.0, "schedule": "constant", "branch": "both", "entropy": "profile"}
    changed = [name for name, value in plain.items() if getattr(config, name) != value]
    if changed or config.scale not in (0, 1):
        name = changed[0] if changed else "scale"
        raise UsageError(
            "freeu acts on both branches in every step",
            expected=f"{name}={plain.get(name, '0 or 1')}",
            got=getattr(config, name),
        )


ADAPTATIONS: Mapping[str, Adaptation] = {
    row.name: row
    for row in (
        Adaptation("maps", ("guidance", "direct"), map_change, "the attention maps became {change} at {sites}"),
        Adaptation(
            "skip-block",
            ("guidance",),
            lambda config: _whole_sites(config, 0),
            "the transformer blocks around {sites} were left out",
        ),
        Adaptation(
            "cross-frame",
            ("direct",),
            lambda config: _whole_sites(config, 1),
            "attention counted for more where frames look at each other ({change}) at {sites}",
        ),
        Adaptation(
            "freeu",
            ("direct",),
            _every_step,
            "backbone and skip connections of the U-Net were reweighted ({change})",
            acts_on="network",
        ),
    )
}
