"""What an edit is asked: where its source trajectory comes from, what is injected, what must stay."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from ieadapt.attention import GuidanceChoice, StepWindow
from ieadapt.errors import UsageError, require_types
from ieadapt.tasks.measure.layer_choice import SiteChoice

Method = Literal["inversion", "noise-path", "flowedit", "sdedit"]
Negative = Literal["empty", "source"]
Branch = Literal["cond", "both"]

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "method": get_args(Method),
    "negative": get_args(Negative),
    "inject_branch": get_args(Branch),
    "inversion_prompt": get_args(Negative),
}
AUTO = "auto"
"""What is best on the testbed, as far as the model has the sites for it; see `EditConfig.settled`."""

_REWEIGHT = re.compile(r"(?P<word>[^=]+?)\s*=\s*(?P<factor>\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class EditConfig:
    """How a video is edited. Source and target run side by side; everything here says what ties them together.

    Attributes:
        method: where the source's noisy latents come from. `inversion`: the model's own trajectory, run backwards;
            `noise-path`: the clip with one fixed noise at every level, no inversion; `flowedit`: a fresh noise at every
            step; `sdedit`: the clip with noise at the start, then the target alone (no source branch).
        start: fraction of the steps that is skipped; the edit begins there. Higher keeps more.
        residual: 0..1, how much of the correction that puts the source back on its trajectory the target gets too.
        guidance_scale: classifier-free guidance of the target; 1 is none.
        guidance_window: `start:stop`, the part of the steps that is guided; outside it the weight is 1.
        source_guidance: classifier-free guidance of the source branch; it matters where `residual` is above 0.
        negative: what guidance pushes away from: the `empty` prompt or the `source` prompt.
        inject: sites whose maps the target takes from the source: `auto` (the temporal ones, none where there are
            none), `none`, `all`, `coarse` (spatial, below the finest resolution), or a choice such as
            `spatial:bottom=0.5`, `temporal:top=3`, `random=4`, names or patterns.
        inject_window: `start:stop`, the part of the steps at which maps are injected.
        inject_branch: `cond` rows alone, or `both` guidance branches.
        mask: what may change: `none` (everything), `difference` (where the two predictions differ), `cross:WORD`
            (where the prompt's words look; several with `+`). Outside it the target takes the source's latents.
        mask_threshold: 0..1 of the mask's strongest place; higher changes less.
        words: control of cross-attention by words: `none`, `replace` (words that both prompts share keep the source's
            maps), and `WORD=FACTOR` entries that reweight words of the target, with commas; `auto` is `replace` where
            the model has cross-attention and the source a prompt, else `none`.
        words_window: `start:stop`, the part of the steps at which `words` acts.
        inversion_prompt: prompt of the inversion and of the source branch: the `source` prompt or the `empty` one.
        iterations: most corrections of one inversion step, by Anderson acceleration; 0 is plain inversion.
        tolerance: refinement of a step ends when the latents move by less than this, relative to their size.
        seed: of noise paths and of a random choice of sites.

    Raises:
        UsageError: an unknown value, or a number out of range.

    Example:
        >>> EditConfig(inject="spatial:bottom=0.5", start=0.4).injection
        SiteChoice(rule='bottom', amount=0.5, kind='spatial', names=None, seed=0, by='ep', within='kind')
    """

    method: str = field(
        default="flowedit",
        metadata={"help": "inversion, noise-path, flowedit or sdedit", "choices": _CHOICES["method"]},
    )
    start: float = field(default=0.1, metadata={"help": "fraction of the steps skipped; higher keeps more"})
    residual: float = field(default=1.0, metadata={"help": "0..1, the source's own correction given to the target"})
    guidance_scale: int | float = field(default=3.0, metadata={"help": "guidance of the edit; 1 is none"})
    guidance_window: str = field(default="0:1", metadata={"help": "START:STOP, the guided part of the steps"})
    source_guidance: int | float = field(default=1.0, metadata={"help": "guidance of the source branch"})
    negative: str = field(
        default="empty",
        metadata={"help": "guide away from: empty, or the source prompt (source)", "choices": _CHOICES["negative"]},
    )
    inject: str = field(
        default=AUTO,
        metadata={"help": "source's maps at: auto, none, all, coarse, [KIND:]bottom=N, top=N, random=N, or names"},
    )
    inject_window: str = field(default="0:0.5", metadata={"help": "START:STOP, the steps with injection"})
    inject_branch: str = field(
        default="both",
        metadata={"help": "inject into cond rows, or both guidance branches", "choices": _CHOICES["inject_branch"]},
    )
    mask: str = field(default="none", metadata={"help": "what may change: none, difference, or cross:WORD"})
    mask_threshold: float = field(default=0.3, metadata={"help": "0..1 of the mask's maximum; higher changes less"})
    words: str = field(
        default=AUTO, metadata={"help": "cross-attention by words: auto, none, replace, WORD=FACTOR, with commas"}
    )
    words_window: str = field(default="0:0.8", metadata={"help": "START:STOP, the steps with word control"})
    inversion_prompt: str = field(
        default="source",
        metadata={"help": "prompt of the inversion: source or empty", "choices": _CHOICES["inversion_prompt"]},
    )
    iterations: int = field(default=10, metadata={"help": "most corrections of one inversion step; 0 is none"})
    tolerance: float = field(default=3e-4, metadata={"help": "relative change at which the correction of a step ends"})
    seed: int = field(default=0, metadata={"help": "seed of noise and of a random choice of sites"})

    def __post_init__(self) -> None:
        require_types(self)
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise UsageError(f"unknown {name} of an edit", expected=", ".join(known), got=getattr(self, name))
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise UsageError(
                    f"{name} of an edit is out of range", expected=f"{low:g}..{high:g}", got=getattr(self, name)
                )
        for name in ("guidance_window", "inject_window", "words_window"):
            StepWindow.of(getattr(self, name), name)
        if self.mask not in ("none", "difference") and not self.mask_words:
            raise UsageError("unknown mask of an edit", expected="none, difference or cross:WORD", got=self.mask)
        tied = {self.inject, self.mask, self.words} - {"none", AUTO}
        if self.method == "sdedit" and tied:
            raise UsageError(
                "sdedit has no source branch, so nothing can be taken from it",
                expected="inject, mask and words none",
                got=f"inject {self.inject}, mask {self.mask}, words {self.words}",
                remedy="choose another method, such as noise-path",
            )
        _ = self.injection, self.reweighted

    def settled(self, kinds: Collection[str]) -> EditConfig:
        """The same with `auto` replaced by what it stands for.

        Args:
            kinds: of the sites at which `auto` may act.

        Example:
            >>> EditConfig().settled(["joint", "cross"]).words, EditConfig().settled(["temporal"]).inject
            ('replace', 'temporal')
        """
        words = "replace" if "cross" in kinds else "none"
        inject = "temporal" if "temporal" in kinds else "none"
        return dataclasses.replace(
            self,
            words=words if self.words == AUTO else self.words,
            inject=inject if self.inject == AUTO else self.inject,
        )

    @property
    def injection(self) -> SiteChoice | None:
        """The choice of sites that get the source's maps, or None; for `coarse`, a choice among the coarse sites."""
        if self.inject in ("none", AUTO):
            return None
        return SiteChoice() if self.inject in ("all", "coarse") else SiteChoice.parse(self.inject, self.seed)

    @property
    def injected_guidance(self) -> GuidanceChoice:
        """The rows of which guidance get the source's maps."""
        return "cond" if self.inject_branch == "cond" else "all"

    @property
    def mask_words(self) -> tuple[str, ...]:
        """Words of a cross-attention mask; empty for the other masks."""
        kind, _, words = self.mask.partition(":")
        return tuple(word.strip() for word in words.split("+") if word.strip()) if kind == "cross" else ()

    @property
    def replaces_words(self) -> bool:
        """Whether shared words keep the source's maps."""
        return "replace" in self._word_entries

    @property
    def reweighted(self) -> dict[str, float]:
        """Factor by word of the target prompt."""
        entries = [entry for entry in self._word_entries if entry not in ("none", "replace", AUTO)]
        matches = [(entry, _REWEIGHT.fullmatch(entry)) for entry in entries]
        wrong = [entry for entry, match in matches if match is None]
        if wrong:
            raise UsageError("unknown word control", expected="auto, none, replace or WORD=FACTOR", got=wrong[0])
        return {match["word"]: float(match["factor"]) for _, match in matches if match}

    @property
    def controls_words(self) -> bool:
        """Whether cross-attention is controlled by words at all."""
        return self.replaces_words or bool(self.reweighted)

    @property
    def _word_entries(self) -> list[str]:
        return [entry.strip() for entry in self.words.split(",") if entry.strip()]


_RANGES: Mapping[str, tuple[float, float]] = {
    "start": (0.0, 0.99),
    "residual": (0.0, 1.0),
    "guidance_scale": (1.0, 100.0),
    "source_guidance": (1.0, 100.0),
    "mask_threshold": (0.0, 1.0),
    "iterations": (0, 100),
    "tolerance": (0.0, 1.0),
}
