"""What an enhancement is asked: which maps change, where, when and how strongly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from ieadapt.attention import AttentionSite, GuidanceChoice, StepWindow
from ieadapt.errors import UsageError, require_types
from ieadapt.functional import Scope
from ieadapt.interventions import AMOUNTS, PERTURBATIONS
from ieadapt.tasks.enhance.adaptations import ADAPTATIONS, Adaptation
from ieadapt.tasks.enhance.schedules import Schedule
from ieadapt.tasks.measure.layer_choice import HeadChoice, SiteChoice
from ieadapt.tasks.measure.profile import EntropyProfile

Mode = Literal["guidance", "direct"]
Weighting = Literal["even", "ep"]

AUTO = "temporal/joint:top=0.5"
"""What `sites="auto"` means."""
ONLINE_STEPS = 2

_VALUES: Mapping[str, Sequence[str]] = {
    "mode": get_args(Mode),
    "weighting": get_args(Weighting),
    "scope": get_args(Scope),
    "branch": ("both", "cond"),
}


def _option(default: Any, help_text: str, choices: Sequence[str] = ()) -> Any:
    return field(default=default, metadata={"help": help_text, "choices": choices})


@dataclass(frozen=True, repr=False)
class EnhanceConfig:
    """How a video is enhanced.

    Attributes:
        mode: `guidance`: a second, weak pass with changed maps, and the prediction pushed away from it; `direct`: one
            pass, with the maps themselves changed.
        perturbation: what the chosen maps become: `identity`, `uniform`, `mix:WEIGHT`, `temperature:T`,
            `blur:SIGMA` (`blur:inf`), `skip`; in `guidance` also `skip-block` (the weak pass leaves out the transformer
            block around each chosen site); in `direct` also `cross-frame:WEIGHT` (Enhance-A-Video) and
            `freeu:S1:S2:B1:B2`.
        sites: which maps, as `SiteChoice` reads them: `[KIND:]RULE=AMOUNT` or names. `auto` is
            `temporal/joint:top=0.5`.
        heads: which heads of the chosen sites: `all`, or `RULE=AMOUNT` over all of them, kind by kind, as in
            `top=0.25`.
        entropy: where EP comes from: `profile` (saved, or measured beforehand) or `online[:N]` (the first N steps of
            the same run, 2 unless told; the enhancement begins after them).
        weighting: `even`: every chosen map changes as told; `ep`: only by the share EP / 100 of its site.
        scope: which part of a joint map changes: `video`, `video-renormalised` (identity only), `all`.
        branch: in `direct`, whose maps change: `both` guidance branches or `cond` alone.
        scale: in `guidance`, s in `eps + s (eps_cond - eps_weak)`; in `direct`, the share l of the new map in
            `(1 - l) A + l A'`, at most 1. 0 changes nothing.
        schedule: factor on the scale by step: `constant`, `linear:A:B`, `cosine[:A:B]` (1 to 0 unless told), or one
            factor per step with commas.
        start: fraction of the steps at which it begins; early steps decide what a video shows, late ones how well.
        stop: fraction of the steps at which it ends.
        rescale: in `guidance`, 0..1, how far the guided prediction gets back the standard deviation that it has without
            the shift.
        sharpen: in `direct`, temperature of further sites whose maps are sharpened; 1 leaves them.
        sharpen_sites: those sites; a site that is in `sites` too is not sharpened.
        seed: of a random choice of sites or heads.

    Raises:
        UsageError: a value out of range, an unknown word, or values that exclude each other.

    Example:
        >>> config = EnhanceConfig(scale=0.5, sites="temporal:top=3")
        >>> config, config.passes(20)
        (EnhanceConfig(sites='temporal:top=3', scale=0.5), 50)
    """

    mode: str = _option("guidance", "guidance (a weak pass to push away from) or direct (one pass)", _VALUES["mode"])
    perturbation: str = _option(
        "identity", f"identity, uniform, {AMOUNTS}, skip, skip-block, cross-frame:WEIGHT, freeu:S1:S2:B1:B2"
    )
    sites: str = _option("auto", "auto, names, or [KIND:][level-][energy-]RULE=AMOUNT, as in temporal:top=3")
    heads: str = _option("all", "all, or heads of the sites by EP, as in top=0.25 or at-least=90")
    entropy: str = _option("profile", "profile, or online[:N]: measured in the first N steps of the same run")
    weighting: str = _option("even", "even, or ep: every map changes by the share EP / 100 only", _VALUES["weighting"])
    scope: str = _option("video", "part of a joint map that changes: video, video-renormalised, all", _VALUES["scope"])
    branch: str = _option("both", "direct mode: both guidance branches, or cond alone", _VALUES["branch"])
    scale: int | float = _option(1.0, "guidance scale, or in direct mode the share of the new map; 0 changes nothing")
    schedule: str = _option("constant", "factor on the scale: constant, linear:A:B, cosine[:A:B], or one per step")
    start: int | float = _option(0.5, "fraction of the steps at which enhancement begins")
    stop: int | float = _option(1.0, "fraction of the steps at which it ends")
    rescale: int | float = _option(0.0, "0..1: give the guided prediction its unshifted standard deviation back")
    sharpen: int | float = _option(1.0, "direct mode: temperature below 1 of further sites; 1 leaves them")
    sharpen_sites: str = _option("temporal/joint:bottom=0.5", "direct mode: the sites that are sharpened")
    seed: int = _option(0, "seed of a random choice of sites or heads")

    def __post_init__(self) -> None:
        require_types(self)
        for name, known in _VALUES.items():
            if getattr(self, name) not in known:
                raise UsageError(
                    f"unknown {name} of an enhancement", expected=", ".join(known), got=getattr(self, name)
                )
        limit = 1 if self.mode == "direct" else 100
        if not 0.0 <= self.scale <= limit:
            raise UsageError(
                "the enhancement scale is out of range", expected=f"0..{limit} in {self.mode} mode", got=self.scale
            )
        self._check_direct()
        _ = self.window, self.adaptation, self.factors, self.online_steps, self.head_choice

    def _check_direct(self) -> None:
        if not 0.0 <= self.rescale <= 1.0:
            raise UsageError("the rescale is out of range", expected="0..1", got=self.rescale)
        if not 0.0 < self.sharpen <= 1.0:
            raise UsageError("the temperature of sharpened maps is out of range", expected="0..1", got=self.sharpen)
        if self.sharpen == 1.0 and self.sharpen_sites != _DEFAULTS["sharpen_sites"]:
            got = f"sharpen_sites={self.sharpen_sites}"
            raise UsageError(
                "nothing is sharpened at these sites", got=got, remedy="pass a --sharpen below 1 with them"
            )
        foreign = {"guidance": ("sharpen", "branch"), "direct": ("rescale",)}[self.mode]
        changed = [name for name in foreign if getattr(self, name) != _DEFAULTS[name]]
        if changed:
            raise UsageError(f"{self.mode} mode has no {changed[0]}", got=f"{changed[0]}={getattr(self, changed[0])}")

    @property
    def adaptation(self) -> Adaptation:
        """How the perturbation is applied.

        Raises:
            UsageError: an unknown perturbation, a wrong amount, or one that this mode does not have.
        """
        name = self.perturbation.partition(":")[0]
        found = ADAPTATIONS.get("maps" if name in PERTURBATIONS else name)
        if found is None:
            raise UsageError(
                "unknown perturbation",
                expected=", ".join([*PERTURBATIONS, *list(ADAPTATIONS)[1:]]),
                got=self.perturbation,
            )
        if self.mode not in found.modes:
            raise UsageError(
                f"{self.mode} mode has no {name}",
                expected=f"mode={found.modes[0]}",
                got=f"perturbation={self.perturbation}",
            )
        found.check(self)
        return found

    @property
    def window(self) -> StepWindow:
        """When the enhancement acts."""
        return StepWindow(self.start, self.stop)

    @property
    def guidance(self) -> GuidanceChoice:
        """The rows whose maps change: those of weak passes, or in direct mode of the chosen branches."""
        return "weak" if self.mode == "guidance" else "all" if self.branch == "both" else "cond"

    @property
    def factors(self) -> Schedule:
        """The factor on the scale, step by step."""
        return Schedule.parse(self.schedule)

    @property
    def online_steps(self) -> int:
        """Steps of the run in which EP is measured before the enhancement begins; 0 with a profile."""
        name, _, number = self.entropy.partition(":")
        if name == "profile" and not number:
            return 0
        steps = ONLINE_STEPS if not number else int(number) if number.isdecimal() else 0
        if name != "online" or steps < 1:
            raise UsageError("unknown source of entropy", expected="profile, online or online:STEPS", got=self.entropy)
        return steps

    @property
    def head_choice(self) -> HeadChoice | None:
        """The rule behind `heads`; None for all heads."""
        return None if self.heads == "all" else HeadChoice.parse(self.heads, self.seed)

    @property
    def choice(self) -> SiteChoice:
        """The rule behind `sites`."""
        return SiteChoice.parse(AUTO if self.sites == "auto" else self.sites, self.seed)

    @property
    def sharpened(self) -> SiteChoice | None:
        """The rule behind `sharpen_sites`; None where nothing is sharpened."""
        return None if self.sharpen == 1.0 else SiteChoice.parse(self.sharpen_sites, self.seed)

    @property
    def needs_profile(self) -> bool:
        """Whether a profile must be at hand before the run begins."""
        if self.adaptation.acts_on == "network":
            return False
        by_entropy = self.choice.needs_entropy or self.heads != "all" or self.weighting == "ep"
        sharpened = self.sharpened is not None and self.sharpened.needs_entropy
        return not self.online_steps and self.scale > 0 and (by_entropy or sharpened)

    def choose(self, sites: Sequence[AttentionSite], profile: EntropyProfile | None) -> list[AttentionSite]:
        """The sites that this configuration changes in a model with these sites."""
        if self.adaptation.acts_on == "network":
            return []
        return self.choice.choose(sites, **(profile.figures if profile else {}))

    def passes(self, steps: int, *, guided: bool = True) -> int:
        """Network passes per video in a run of so many steps: one per branch and step, and the weak ones.

        A weak pass counts whole, though the blocks before the first changed site are replayed.
        """
        own = steps * (2 if guided else 1)
        if self.mode == "direct" or self.scale == 0:
            return own
        factors = self.factors.factors(steps)
        window = (step for step in range(self.online_steps, steps) if self.window.contains(step, steps))
        return own + sum(factors[step] > 0 for step in window)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> EnhanceConfig:
        """A method of the literature by name, see `ieadapt.tasks.PRESETS`, with some values changed.

        Raises:
            UsageError: no such preset.

        Example:
            >>> EnhanceConfig.preset("pag", scale=2).sites
            'spatial/joint:middle=1'
        """
        from ieadapt.tasks.enhance.presets import preset

        return replace(preset(name), **changes)

    def _own(self) -> dict[str, Any]:
        """What is not at its default."""
        return {name: value for name, default in _DEFAULTS.items() if (value := getattr(self, name)) != default}

    def __repr__(self) -> str:
        return f"EnhanceConfig({', '.join(f'{name}={value!r}' for name, value in self._own().items())})"


_DEFAULTS = {each.name: each.default for each in fields(EnhanceConfig)}
