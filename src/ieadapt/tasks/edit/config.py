"""The settings of an edit: how a video is edited, the published methods by name, and the fields of a run."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ieadapt.attention import StepWindow
from ieadapt.errors import UsageError, require_types
from ieadapt.runs.flags import setting
from ieadapt.runs.inputs import inputs_field
from ieadapt.runs.settings import GenerationConfig, Hardware, SourceConfig, check_seeds
from ieadapt.tasks.edit.jobs import EditJob, read_jobs
from ieadapt.tasks.measure.layer_choice import SiteChoice

AUTO = "auto"
"""What is best on the testbed, as far as the model has the sites for it; see `EditConfig.resolved`."""
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
        >>> choice = EditConfig(inject="spatial:bottom=0.5", start=0.4).injection
        >>> choice.rule, choice.amount, choice.kind
        ('bottom', 0.5, 'spatial')
    """

    method: str = setting(
        "flowedit",
        "inversion, noise-path, flowedit or sdedit",
        choices=("inversion", "noise-path", "flowedit", "sdedit"),
    )
    start: float = setting(0.1, "fraction of the steps skipped; higher keeps more", range=(0.0, 0.99))
    residual: float = setting(1.0, "0..1, the source's own correction given to the target", range=(0.0, 1.0))
    guidance_scale: int | float = setting(3.0, "guidance of the edit; 1 is none", range=(1.0, 100.0))
    guidance_window: str = setting("0:1", "START:STOP, the guided part of the steps")
    source_guidance: int | float = setting(1.0, "guidance of the source branch", range=(1.0, 100.0))
    negative: str = setting(
        "empty", "guide away from: empty, or the source prompt (source)", choices=("empty", "source")
    )
    inject: str = setting(AUTO, "source's maps at: auto, none, all, coarse, [KIND:]bottom=N, top=N, random=N, or names")
    inject_window: str = setting("0:0.5", "START:STOP, the steps with injection")
    inject_branch: str = setting("both", "inject into cond rows, or both guidance branches", choices=("cond", "both"))
    mask: str = setting("none", "what may change: none, difference, or cross:WORD")
    mask_threshold: float = setting(0.3, "0..1 of the mask's maximum; higher changes less", range=(0.0, 1.0))
    words: str = setting(AUTO, "cross-attention by words: auto, none, replace, WORD=FACTOR, with commas")
    words_window: str = setting("0:0.8", "START:STOP, the steps with word control")
    inversion_prompt: str = setting("source", "prompt of the inversion: source or empty", choices=("empty", "source"))
    iterations: int = setting(10, "most corrections of one inversion step; 0 is none", range=(0, 100))
    tolerance: float = setting(3e-4, "relative change at which the correction of a step ends", range=(0.0, 1.0))
    seed: int = setting(0, "seed of noise and of a random choice of sites")

    def __post_init__(self) -> None:
        require_types(self)
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if value not in item.metadata.get("choices", (value,)):
                expected = ", ".join(item.metadata["choices"])
                raise UsageError(f"unknown {item.name} of an edit", expected=expected, got=value)
            low, high = item.metadata.get("range", (value, value))
            if not low <= value <= high:
                raise UsageError(f"{item.name} of an edit is out of range", expected=f"{low:g}..{high:g}", got=value)
        for name in ("guidance_window", "inject_window", "words_window"):
            StepWindow.of(getattr(self, name), name)
        if self.mask not in ("none", "difference") and not self.mask_words:
            raise UsageError("unknown mask of an edit", expected="none, difference or cross:WORD", got=self.mask)
        if self.method == "sdedit" and {self.inject, self.mask, self.words} - {"none", AUTO}:
            raise UsageError(
                "sdedit has no source branch, so nothing can be taken from it",
                expected="inject, mask and words none",
                got=f"inject {self.inject}, mask {self.mask}, words {self.words}",
                remedy="choose another method, such as noise-path",
            )
        _parse_injection(self.inject, self.seed)
        _parse_factors(self._word_entries)

    def resolved(self, kinds: Collection[str]) -> EditConfig:
        """The same with `auto` replaced by what it stands for.

        Args:
            kinds: of the sites at which `auto` may act.

        Example:
            >>> EditConfig().resolved(["joint", "cross"]).words, EditConfig().resolved(["temporal"]).inject
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
        return _parse_injection(self.inject, self.seed)

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
        return _parse_factors(self._word_entries)

    @property
    def controls_words(self) -> bool:
        """Whether cross-attention is controlled by words at all."""
        return self.replaces_words or bool(self.reweighted)

    @property
    def _word_entries(self) -> list[str]:
        return [entry.strip() for entry in self.words.split(",") if entry.strip()]


def _parse_injection(text: str, seed: int) -> SiteChoice | None:
    if text in ("none", AUTO):
        return None
    return SiteChoice() if text in ("all", "coarse") else SiteChoice.parse(text, seed)


def _parse_factors(entries: Collection[str]) -> dict[str, float]:
    factors = {}
    for entry in entries:
        match = _REWEIGHT.fullmatch(entry)
        if match:
            factors[match["word"]] = float(match["factor"])
        elif entry not in ("none", "replace", AUTO):
            raise UsageError("unknown word control", expected="auto, none, replace or WORD=FACTOR", got=entry)
    return factors


_PLAIN = EditConfig("inversion", start=0.0, residual=0.0, inject="none", inject_branch="cond", words="none")
"""The whole run from the inverted noise, source not corrected, nothing kept: what the injecting methods start from."""
_MOST = dataclasses.replace(_PLAIN, inject="all", inject_window="0:0.8")

EDIT_PRESETS: Mapping[str, EditConfig] = {
    "default": EditConfig(),
    "inversion": _PLAIN,
    "sdedit-0.4": EditConfig("sdedit", start=0.6),
    "sdedit-0.6": EditConfig("sdedit", start=0.4),
    "sdedit-0.8": EditConfig("sdedit", start=0.2),
    "uniedit": dataclasses.replace(_PLAIN, inject="spatial/joint", inject_window="0:0.4", inject_branch="both"),
    "all": _MOST,
    "fpe": dataclasses.replace(_MOST, inject="coarse"),
    "high-ep": dataclasses.replace(_MOST, inject="top=0.5"),
    "low-ep": dataclasses.replace(_MOST, inject="bottom=0.5"),
    "random": dataclasses.replace(_MOST, inject="random=0.5"),
    "prompt-to-prompt": dataclasses.replace(
        _PLAIN, words="replace", words_window="0:0.8", inject="spatial/joint", inject_window="0:0.4"
    ),
    "flowedit": EditConfig(
        "flowedit", start=0.34, inject="none", words="none", source_guidance=1.5, guidance_scale=5.5
    ),
}
"""Sources: SDEdit arXiv 2108.01073; UniEdit arXiv 2402.13185 (all spatial self-attention, 20 of 50 steps); FPE arXiv
2403.03431 (self-attention below the finest resolution, 80 % of the steps, conditional rows); prompt-to-prompt arXiv
2208.01626 (80 % of the steps for words, 40 % for self-attention); FlowEdit arXiv 2412.08629 (33 of 50 steps, weights as
on Flux). `low-ep` is the reconstruction of the paper's editing; `high-ep` and `random` are its controls. All but
SDEdit and FlowEdit take the same refined inversion with the source prompt, so that they differ in nothing else.
"""


def edit_preset(name: str) -> EditConfig:
    """The configuration of that name.

    Raises:
        UsageError: there is none.

    Example:
        >>> edit_preset("low-ep").inject
        'bottom=0.5'
    """
    if name not in EDIT_PRESETS:
        raise UsageError("unknown preset of an edit", expected=", ".join(EDIT_PRESETS), got=name)
    return EDIT_PRESETS[name]


_SOURCE = {item.name: item.metadata for item in dataclasses.fields(SourceConfig)}


@dataclass(frozen=True)
class Sampling:
    """Steps and size of an edit; None means the model's own.

    Raises:
        UsageError: a number is not positive.
    """

    num_inference_steps: int = setting(25, "denoising steps")
    num_frames: int | None = setting(None, "frames per video")
    height: int | None = setting(None, "height in pixels")
    width: int | None = setting(None, "width in pixels")
    batch_size: int = setting(4, "target prompts that run as one batch")
    call: Mapping[str, Any] = inputs_field(image="picture that the pipeline is given beside the source")

    def __post_init__(self) -> None:
        object.__setattr__(self, "call", GenerationConfig(**vars(self)).call)

    @property
    def generation(self) -> GenerationConfig:
        """The same settings, as `generate` and `edit` take them."""
        return GenerationConfig(**vars(self))


@dataclass(frozen=True)
class EditRun:
    """The settings of an edit run: one source with target prompts, or a file of such jobs.

    Attributes:
        model: a bundled name, a folder or a hub id.
        prompts: targets; every one gives an edit of the same source.
        video: file of the source.
        source_prompt: what the source shows.
        source_seed: generates the source from its prompt instead of reading a file.
        jobs: a YAML or CSV file of jobs instead of all four.
        start: see `SourceConfig`.
        fps: see `SourceConfig`.
        size: see `SourceConfig`.
        strict: see `SourceConfig`.
        edit: how it is edited; None = as the preset says, or the default.
        preset: the name of an edit configuration, from which the flags of an edit start.
        profile: folder of a measure run, where sites are chosen by entropy; without one the source's own inversion is
            measured.
        sampling: steps and size.
        cache: folder in which inversions are kept.
        hardware: device and precision.

    Raises:
        UsageError: no source, or several; no target; an unknown preset.
    """

    model: str
    prompts: tuple[str, ...] = ()
    video: Path | None = setting(None, "the source: any video file, or a folder of frames")
    source_prompt: str = setting("", "what the source shows; makes edits keep more")
    source_seed: int | None = setting(None, "generate the source from --source-prompt with this seed instead")
    jobs: Path | None = setting(None, "YAML or CSV file of jobs: video, source, targets")
    start: int | float = field(default=0.0, metadata=_SOURCE["start"])
    fps: int | float | None = field(default=None, metadata=_SOURCE["fps"])
    size: str = field(default="crop", metadata=_SOURCE["size"])
    strict: bool = field(default=False, metadata=_SOURCE["strict"])
    edit: EditConfig | None = field(default=None, metadata={"base": edit_preset})
    preset: str | None = setting(None, "a named edit configuration; flags beside it win", choices=tuple(EDIT_PRESETS))
    profile: Path | None = setting(None, "folder of a measure run; without one the inversion is measured")
    sampling: Sampling = field(default_factory=Sampling)
    cache: Path | None = setting(None, "folder where inversions are kept")
    hardware: Hardware = field(default_factory=Hardware)

    def __post_init__(self) -> None:
        given = [name for name in ("video", "source_seed", "jobs") if getattr(self, name) is not None]
        if len(given) != 1:
            raise UsageError(
                "an edit has one source",
                expected="--video FILE, --source-seed N or --jobs FILE",
                got=" and ".join("--" + name.replace("_", "-") for name in given) or "none",
            )
        if self.jobs is not None and (self.prompts or self.source_prompt):
            raise UsageError("a file of jobs brings its own prompts", got="--prompt or --source-prompt beside --jobs")
        check_seeds(self.config.seed)
        self.source_config()
        if self.jobs is None:
            self.list_jobs()

    def source_config(self) -> SourceConfig:
        """Which frames of a file are taken."""
        return SourceConfig(self.start, self.fps, self.size, self.strict)

    @property
    def config(self) -> EditConfig:
        """How it is edited: the settings themselves, the preset, or the default."""
        return self.edit or (EditConfig() if self.preset is None else edit_preset(self.preset))

    def list_jobs(self) -> list[EditJob]:
        """The jobs: those of the file, or the one that the flags say.

        Raises:
            UsageError: something that is no job.
        """
        if self.jobs is not None:
            return read_jobs(self.jobs)
        name = "source" if self.video is None else self.video.stem
        return [EditJob(name, self.prompts, self.source_prompt, self.video, self.source_seed)]
