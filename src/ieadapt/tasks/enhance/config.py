"""The config of an enhancement: which maps change, where, when and how strongly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ieadapt.attention import GuidanceChoice, StepWindow
from ieadapt.errors import UsageError, require_types
from ieadapt.files import read_record
from ieadapt.notation import PERTURBATION_FORMS, Scope, parse_term
from ieadapt.runs.flags import setting
from ieadapt.runs.settings import PromptRun, check_perturbation, check_seeds
from ieadapt.tasks.enhance.presets import ADAPTATIONS, COMBINATION_FORMS, PRESETS, Adaptation
from ieadapt.tasks.enhance.schedule import Schedule
from ieadapt.tasks.measure.layer_choice import HeadChoice, SiteChoice

if TYPE_CHECKING:
    from ieadapt.interventions import Perturbation
    from ieadapt.tasks.pairs import PairTask

Mode = Literal["guidance", "direct", "combine"]
Weighting = Literal["even", "ep"]

AUTO = "temporal/joint:top=0.5"
"""What `sites="auto"` means."""
ONLINE_STEPS = 2
FORMS = (
    *PERTURBATION_FORMS,
    *("skip-block", "random-block:AMOUNT", "average-queries:BETA", "cross-frame:WEIGHT", "freeu:S1:S2:B1:B2"),
    *COMBINATION_FORMS,
)
"""How a perturbation is written."""
ENTROPY_FORMS = ("profile", "online", "online:STEPS")

_VALUES: Mapping[str, Sequence[str]] = {
    "mode": get_args(Mode),
    "weighting": get_args(Weighting),
    "scope": get_args(Scope),
    "branch": ("both", "cond"),
}


@dataclass(frozen=True, repr=False)
class EnhanceConfig:
    """How a video is enhanced.

    Attributes:
        mode: `guidance`: a second, weak pass with changed maps, and the prediction pushed away from it; `direct`: one
            pass, with the maps themselves changed; `combine`: no pass and no map, only the sum of the conditional and
            the unconditional prediction.
        perturbation: what the chosen maps become: `identity[:WEIGHT]`, `uniform`, `mix:WEIGHT`, `temperature:T`,
            `blur:SIGMA` (`blur:inf`), `shuffle[:SEED]`, `skip`; in `guidance` also `skip-block` (the weak pass leaves
            out the transformer block around each chosen site) and `random-block:AMOUNT` (it leaves out a share or a
            number of these blocks, kind by kind, drawn anew in every step) and `average-queries:BETA` (at that one of
            the sites where queries have moved most, they become their running average); in `direct` also
            `cross-frame:WEIGHT` (Enhance-A-Video) and `freeu:S1:S2:B1:B2`; in `combine` instead `interval`,
            `apg:RADIUS:ETA:MOMENTUM`, `cfg-zero:STEPS` or `fdg:LOW:HIGH`.
        sites: which maps, as `SiteChoice` reads them: `[KIND:]RULE=AMOUNT` or names. `auto` is
            `temporal/joint:top=0.5`.
        heads: which heads of the chosen sites: `all`; `RULE=AMOUNT` over all of them, kind by kind, as in `top=0.25`;
            or heads by number with commas, `HEAD` of every chosen site or `SITE:HEAD`, as in `0,3` or `#5:0,#7:3`.
        entropy: where EP comes from: `profile` (saved, or measured beforehand) or `online[:N]` (the first N steps of
            the same run, 2 by default; the enhancement begins after them).
        weighting: `even`: every chosen map changes in full; `ep`: only by the share EP / 100 of its site.
        scope: which part of a joint map changes: `video`, `video-renormalised` (identity only), `all`.
        branch: in `direct`, whose maps change: `both` guidance branches or `cond` alone.
        scale: in `guidance`, s in `eps + s (eps_cond - eps_weak)`; in `direct`, the share l of the new map in
            `(1 - l) A + l A'`, at most 1. 0 changes nothing.
        schedule: factor on the scale by step: `constant`, `linear:A:B`, `cosine[:A:B]` (1 to 0 by default), or one
            factor per step with commas.
        start: fraction of the steps at which it begins; early steps decide what a video shows, late ones how well.
        stop: fraction of the steps at which it ends.
        rescale: in `guidance`, 0..1, how far the guided prediction gets back the standard deviation that it has without
            the shift.
        sharpen: in `direct`, temperature of further sites whose maps are sharpened; 1 leaves them.
        sharpen_sites: those sites; a site that is in `sites` too is not sharpened.
        seed: of a random choice of sites, heads or blocks.

    Raises:
        UsageError: a value out of range, an unknown word, or values that exclude each other.

    Example:
        >>> config = EnhanceConfig(scale=0.5, sites="temporal:top=3")
        >>> config, config.passes(20)
        (EnhanceConfig(sites='temporal:top=3', scale=0.5), 50)
    """

    mode: str = setting(
        "guidance",
        "guidance (a weak pass), direct (maps change), combine (the sum of the branches)",
        choices=_VALUES["mode"],
    )
    perturbation: str = setting("identity", ", ".join(FORMS))
    sites: str = setting("auto", "auto, names, or [KIND:][resolution-][energy-]RULE=AMOUNT, as in temporal:top=3")
    heads: str = setting("all", "all, heads by EP as in top=0.25, or by number: 0,3 of each site, '#5:0,#7:3'")
    entropy: str = setting("profile", "profile, or online[:N]: measured in the first N steps of the same run")
    weighting: str = setting(
        "even", "even, or ep: every map changes by the share EP / 100 only", choices=_VALUES["weighting"]
    )
    scope: str = setting(
        "video", "part of a joint map that changes: video, video-renormalised, all", choices=_VALUES["scope"]
    )
    branch: str = setting("both", "direct mode: both guidance branches, or cond alone", choices=_VALUES["branch"])
    scale: int | float = setting(1.0, "guidance scale, or in direct mode the share of the new map; 0 changes nothing")
    schedule: str = setting("constant", "factor on the scale: constant, linear:A:B, cosine[:A:B], or one per step")
    start: int | float = setting(0.5, "fraction of the steps at which enhancement begins")
    stop: int | float = setting(1.0, "fraction of the steps at which it ends")
    rescale: int | float = setting(0.0, "0..1: give the guided prediction its unshifted standard deviation back")
    sharpen: int | float = setting(1.0, "direct mode: temperature below 1 of further sites; 1 leaves them")
    sharpen_sites: str = setting("temporal/joint:bottom=0.5", "direct mode: the sites that are sharpened")
    seed: int = setting(0, "seed of a random choice of sites, heads or blocks")

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
        if not 0.0 <= self.rescale <= 1.0:
            raise UsageError("the rescale is out of range", expected="0..1", got=self.rescale)
        if not 0.0 < self.sharpen <= 1.0:
            raise UsageError("the temperature of sharpened maps is out of range", expected="0..1", got=self.sharpen)
        if self.sharpen == 1.0 and self.sharpen_sites != _DEFAULTS["sharpen_sites"]:
            got = f"sharpen_sites={self.sharpen_sites}"
            raise UsageError(
                "nothing is sharpened at these sites", got=got, remedy="pass a --sharpen below 1 with them"
            )
        self._refuse_changed(self.mode, {name: _DEFAULTS[name] for name in _OF_OTHER_MODES[self.mode]})
        self._check_perturbation()
        StepWindow(self.start, self.stop)
        Schedule.parse(self.schedule)
        _read_online_steps(self.entropy)
        SiteChoice.parse(self.sites)
        SiteChoice.parse(self.sharpen_sites)
        if self.heads != "all":
            HeadChoice.parse(self.heads)

    def _check_perturbation(self) -> None:
        name, amounts = parse_term(self.perturbation, FORMS, "perturbation")
        if self.mode not in self.adaptation.modes:
            raise UsageError(
                f"{self.mode} mode has no {name}",
                expected=f"mode={self.adaptation.modes[0]}",
                got=f"perturbation={self.perturbation}",
            )
        if name not in ADAPTATIONS:
            check_perturbation(self.perturbation)
        elif name == "average-queries":
            from ieadapt.interventions import AverageQueries

            AverageQueries(*amounts)
        elif not all(math.isfinite(amount) and (amount > 0 or self.mode == "combine") for amount in amounts):
            expected = "finite numbers" if self.mode == "combine" else "> 0"
            raise UsageError(f"an amount of {name} is out of range", expected=expected, got=self.perturbation)
        self._refuse_changed(name, self.adaptation.fixed)
        if self.adaptation.acts_on == "network" and self.scale not in (0, 1):
            raise UsageError(f"{name} has no share", expected="scale=0 or 1", got=self.scale)

    def _refuse_changed(self, owner: str, fixed: Mapping[str, Any]) -> None:
        """Refuse options that a mode or a perturbation does not read, rather than ignore them."""
        for name, value in fixed.items():
            if getattr(self, name) != value:
                where = "mode " if owner == self.mode else ""
                raise UsageError(
                    f"{owner} {where}has no {name}", expected=f"{name}={value}", got=f"{name}={getattr(self, name)}"
                )

    @property
    def perturbation_name(self) -> str:
        """The perturbation without its numbers."""
        return self.perturbation.partition(":")[0]

    @property
    def adaptation(self) -> Adaptation:
        """How the perturbation is applied."""
        return ADAPTATIONS.get(self.perturbation_name, ADAPTATIONS["maps"])

    @property
    def map_change(self) -> Perturbation:
        """What the chosen maps become."""
        from ieadapt.interventions import parse_perturbation

        return parse_perturbation(self.perturbation, scope=self.scope)  # type: ignore[arg-type]

    @property
    def amounts(self) -> tuple[float, ...]:
        """The numbers of the perturbation."""
        return parse_term(self.perturbation, FORMS, "perturbation")[1]

    @property
    def window(self) -> StepWindow:
        """When the enhancement acts."""
        return StepWindow(self.start, self.stop)

    @property
    def guidance(self) -> GuidanceChoice:
        """The rows whose maps change: those of weak passes, or in direct mode of the chosen branches."""
        return "weak" if self.mode == "guidance" else "all" if self.branch == "both" else "cond"

    def factors(self, steps: int) -> list[int | float]:
        """The factor on the scale for every step of a run of so many.

        Raises:
            UsageError: one factor per step was given, and not for so many steps.
        """
        return Schedule.parse(self.schedule).factors(steps)

    def strength(self, step: int, steps: int | None) -> int | float:
        """Scale times schedule at a step of a run, inside the window; 0 outside it."""
        if steps is None:
            return self.scale
        return self.scale * self.factors(steps)[step] if self.window.contains(step, steps) else 0.0

    @property
    def online_steps(self) -> int:
        """Steps of the run in which EP is measured before the enhancement begins; 0 with a profile."""
        return _read_online_steps(self.entropy)

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
        heads = self.head_choice is not None and self.head_choice.needs_entropy
        by_entropy = self.choice.needs_entropy or heads or self.weighting == "ep"
        sharpened = self.sharpened is not None and self.sharpened.needs_entropy
        return not self.online_steps and self.scale > 0 and (by_entropy or sharpened)

    def passes(self, steps: int, *, guided: bool = True) -> int:
        """Network passes per video in a run of so many steps: one per branch and step, and the weak ones.

        A weak pass counts whole, though the blocks before the first changed site are replayed.
        """
        own = steps * (2 if guided else 1)
        if self.mode != "guidance" or self.scale == 0:
            return own
        return own + sum(self.strength(step, steps) > 0 for step in range(self.online_steps, steps))

    def matched_steps(self, steps: int, *, guided: bool = True) -> int:
        """Steps of a plain run with as many network passes as this configuration needs for so many steps.

        Example:
            >>> EnhanceConfig().matched_steps(20)
            25
        """
        return round(self.passes(steps, guided=guided) / (2 if guided else 1))

    @classmethod
    def preset(cls, name: str, **changes: Any) -> EnhanceConfig:
        """A method of the literature by name, or what `ieadapt tune` wrote as `preset.json`, with some values changed.

        Args:
            name: one of `ieadapt.tasks.enhance.presets.PRESETS`, or the path of a JSON file.
            changes: values that win over the preset's.

        Raises:
            UsageError: no such preset, or the file holds none.

        Example:
            >>> EnhanceConfig.preset("pag", scale=2).sites
            'spatial/joint:middle=1'
        """
        if name in PRESETS:
            return cls(**{**PRESETS[name].settings, **changes})
        if not name.endswith(".json"):
            raise UsageError("unknown preset", expected=f"{', '.join(PRESETS)}, or a .json file", got=name)
        return cls(**{**_read_preset(Path(name)), **changes})

    def __repr__(self) -> str:
        changed = {name: value for name, default in _DEFAULTS.items() if (value := getattr(self, name)) != default}
        return f"EnhanceConfig({', '.join(f'{name}={value!r}' for name, value in changed.items())})"


def _read_preset(path: Path) -> dict[str, Any]:
    """The settings in a preset file."""
    remedy = "`ieadapt tune` writes one"
    try:
        settings = read_record(path, {"format": int, "enhance": dict[str, Any]}, what="the preset", remedy=remedy)
    except FileNotFoundError as error:
        raise UsageError("no such preset file", where=path, remedy=remedy) from error
    unknown = sorted(set(settings["enhance"]) - set(_DEFAULTS))
    if unknown:
        raise UsageError("the preset holds settings that an enhancement has not", got=", ".join(unknown), where=path)
    return dict(settings["enhance"])


_DEFAULTS = {each.name: each.default for each in fields(EnhanceConfig)}
_OF_OTHER_MODES = {
    "guidance": ("sharpen", "branch"),
    "direct": ("rescale",),
    "combine": ("sharpen", "branch", "rescale"),
}


def _read_online_steps(text: str) -> int:
    name, numbers = parse_term(text, ENTROPY_FORMS, "source of entropy")
    steps = {"profile": 0, "online": ONLINE_STEPS}[name] if not numbers else numbers[0]
    if not float(steps).is_integer() or (name == "online" and steps < 1):
        raise UsageError("not a number of steps to measure", expected="online:STEPS, 1 or more", got=text)
    return int(steps)


@dataclass(frozen=True)
class EnhanceRun(PromptRun):
    """The settings of an enhance run, beside those of every run with prompts.

    Attributes:
        enhancement: which maps change, where, when and how strongly; None = as the preset says, or the default.
        profile: folder of a measure run of this model; without one, and if the choice of sites needs it, the model is
            measured first on a few prompts and steps.
        seeds: videos of each prompt; their seeds count up over the prompts first, then over the repeats.
        preset: a method by name (`ieadapt.tasks.enhance.presets.PRESETS`), from which the flags of an enhancement
            start.
        force: go on with a profile of another model or size.

    Raises:
        UsageError: no prompt, a blank one, no video of each, an unknown preset, or a schedule of another length.
    """

    enhancement: EnhanceConfig | None = field(default=None, metadata={"base": EnhanceConfig.preset})
    profile: Path | None = setting(None, "folder of a measure run; without one it measures first")
    seeds: int = setting(1, "videos of each prompt")
    preset: str | None = setting(
        None,
        f"a method by name ({', '.join(PRESETS)}), or the preset.json of a tune",
        choices=tuple(PRESETS),  # of the form: a page must not name files
    )
    force: bool = setting(False, "go on with a profile of another model or size")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seeds(self.seed, len(self.prompts) * self.seeds)
        if self.seeds < 1:
            raise UsageError("an enhance run needs seeds", expected=">= 1", got=self.seeds, where="--seeds")
        self.method.factors(self.generation.num_inference_steps)

    @property
    def method(self) -> EnhanceConfig:
        """The enhancement, the preset, or the default."""
        return self.enhancement or (EnhanceConfig() if self.preset is None else EnhanceConfig.preset(self.preset))

    @property
    def tasks(self) -> list[PairTask]:
        """The pairs of videos to be made."""
        from ieadapt.tasks.pairs import pair_tasks  # which needs torch

        return pair_tasks(self.prompts, self.seed, self.seeds)
