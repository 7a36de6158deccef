"""Editing: change what a sentence says about a clip and nothing else, with no training and no stored maps.

RECONSTRUCTION. The paper (arXiv 2504.12027) edits videos by an "entropy-aware" choice of attention layers; its method
could not be read. Here source and target run in one batch, the chosen sites give the target the source's maps (as
Free-Prompt-Editing does for images, arXiv 2403.03431), and what keeps the rest of the clip in place are a late start,
the source's own correction (direct inversion, arXiv 2310.01506; FlowEdit, arXiv 2412.08629) and a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import (
    AttentionSite,
    StepWindow,
    Stream,
    active_sites,
    family_of,
    first_denoiser,
    intercept,
    wrap_denoiser,
)
from ieadapt.errors import UsageError
from ieadapt.interventions import Inject, Record
from ieadapt.interventions.prompt_to_prompt import PromptToPrompt
from ieadapt.models.noise_schedule import NoiseSchedule
from ieadapt.models.scheduler_wrapper import StepFunctionWrapper
from ieadapt.models.video_latents import Latents, latents_of
from ieadapt.notation import counted
from ieadapt.runs.settings import GenerationConfig
from ieadapt.runs.videos import Video
from ieadapt.tasks.edit.config import EditConfig
from ieadapt.tasks.edit.inversion import Inversion, invert, step_counter
from ieadapt.tasks.edit.jobs import check_targets
from ieadapt.tasks.edit.pipeline_run import PipelineRunner
from ieadapt.tasks.edit.steps import (
    ChangeMask,
    RowGuidance,
    SourceTrajectory,
    WordEvidence,
    difference_evidence,
    source_anchored,
    text_sites,
    word_control,
)
from ieadapt.tasks.generate import Progress, check_prompt
from ieadapt.tasks.maps.record import prompt_words
from ieadapt.tasks.measure.profile import EntropyProfile

SELF_ATTENTION = ("spatial", "temporal", "joint")
"""Kinds of sites that injection chooses among unless sites are named."""


@dataclass(frozen=True)
class EditResult:
    """A clip and what became of it; float32 on the CPU, in [0, 1].

    Attributes:
        prompts: of the edits.
        source: the clip.
        reconstruction: what the model gives back of it without an edit.
        edited: one video per prompt.
        mask: per prompt, 1 where the edit was allowed to change; None without a mask.
        sites: where the targets took the source's maps.
        profile: the entropies behind that choice, where it needed any.
        inversion: of the clip; another edit may use it.
        notes: what was chosen and what to beware of, in sentences.
    """

    prompts: tuple[str, ...]
    source: Video = field(repr=False)
    reconstruction: Video = field(repr=False)
    edited: Float[Tensor, "video frame channel height width"] = field(repr=False)
    mask: Float[Tensor, "video frame height width"] | None = field(repr=False)
    sites: tuple[AttentionSite, ...]
    profile: EntropyProfile | None
    inversion: Inversion = field(repr=False)
    notes: tuple[str, ...]


def edit(
    pipe: DiffusionPipeline,
    frames: Video,
    prompt: str | Sequence[str],
    *,
    source_prompt: str = "",
    config: EditConfig | None = None,
    generation: GenerationConfig | None = None,
    inversion: Inversion | None = None,
    profile: EntropyProfile | None = None,
    progress: Progress | None = None,
) -> EditResult:
    """Change a clip to what one or several prompts say.

    Args:
        pipe: a text-to-video pipeline of a known family; it is left as it was.
        frames: the clip in [0, 1], of a size that the pipeline takes.
        prompt: what the edited video shows; several prompts share one inversion.
        source_prompt: what the clip shows; may be empty.
        config: how; see `EditConfig` and `EDIT_PRESETS`.
        generation: number of steps, and how many edits run as one batch.
        inversion: of this clip and prompt, from `invert` or an earlier edit; None inverts first.
        profile: entropies for a choice of sites by entropy; None takes those of the source's own run.
        progress: called with (steps done, steps in all), for the inversion and again for the edit.

    Raises:
        UsageError: a clip, prompt or setting that cannot be.
        FailureError: frames that are not finite, or a site that never fired.

    Example:
        >>> pipe = ieadapt.load("scenes")  # doctest: +SKIP
        >>> ieadapt.edit(pipe, frames, "a blue ball on grass", source_prompt="a red ball on grass")  # doctest: +SKIP
    """
    config, generation = config or EditConfig(), generation or GenerationConfig()
    prompts = (prompt,) if isinstance(prompt, str) else tuple(prompt)
    check_targets(prompts, source_prompt)
    for each in (*prompts, source_prompt):
        check_prompt(pipe, each)
    inversion = inversion or invert(pipe, frames, source_prompt, config, generation, progress)
    _check_inversion(inversion, frames, generation)
    return Editor(pipe, source_prompt, config, generation, inversion, profile).edit(prompts, progress)


class Editor:
    """One inverted clip and one configuration, with sites, windows and the source's trajectory resolved.

    Attributes:
        first: the step at which the edit begins.
        sites: where the targets take the source's maps.
        profile: the entropies behind that choice, where it needs any.
    """

    def __init__(
        self,
        pipe: DiffusionPipeline,
        source_prompt: str,
        config: EditConfig,
        generation: GenerationConfig,
        inversion: Inversion,
        profile: EntropyProfile | None = None,
    ) -> None:
        self._pipe, self._inversion, self._batch_size = pipe, inversion, generation.batch_size
        self._runner = PipelineRunner(pipe, inversion.source, generation.num_inference_steps, generation.call)
        self._clean = inversion.clean.to(pipe._execution_device)
        self._schedule = self._runner.schedule_for(self._clean)
        self.first = self._schedule.first(config.start)
        self._reached = active_sites(pipe, self._schedule.timesteps[self.first :].tolist())
        self._config = config.resolved(self._free_kinds(config))
        self._source = self._source_trajectory()
        self._negative = source_prompt if config.negative == "source" else ""
        self.profile = profile
        self._check_words()
        self.sites = self._choose_sites()

    def edit(self, prompts: Sequence[str], progress: Progress | None = None) -> EditResult:
        """Edit the clip to what each prompt says; arguments as of `edit`, which checks them."""
        size = self._batch_size
        batches = [prompts[begin : begin + size] for begin in range(0, len(prompts), size)]
        done = step_counter(progress, len(batches) * (len(self._schedule) - self.first))
        edits = [self._edit_batch(batch, done) for batch in batches]
        masks = [mask for _, mask in edits if mask is not None]
        return EditResult(
            prompts=tuple(prompts),
            source=self._inversion.source,
            reconstruction=self._inversion.reconstruction,
            edited=torch.cat([frames for frames, _ in edits]),
            mask=torch.cat(masks) if masks else None,
            sites=tuple(self.sites),
            profile=self.profile,
            inversion=self._inversion,
            notes=(*self._inversion.notes, *self._notes()),
        )

    def _edit_batch(
        self, prompts: Sequence[str], done: Callable[[], None]
    ) -> tuple[Float[Tensor, "video ..."], Float[Tensor, "video ..."] | None]:
        """The edited videos of some prompts, and their masks; `done` is called after each step."""
        config, steps = self._config, range(self.first, len(self._schedule))
        source_rows = [] if config.method == "sdedit" else [self._inversion.prompt]  # SDEdit runs the target alone
        rows = [*source_rows, *prompts]
        weights = [float(config.source_guidance)] * len(source_rows) + [float(config.guidance_scale)] * len(prompts)
        mask = None if config.mask == "none" else self._empty_mask(len(prompts))
        step_function = source_anchored(self._source, config.residual, mask) if source_rows else NoiseSchedule.forward
        begin = self._source.begin(self.first).to(self._clean)
        latents = begin.expand(len(rows), *begin.shape[1:]).clone()
        scheduler = StepFunctionWrapper(self._runner.scheduler, latents, steps, step_function, done)
        with ExitStack() as stack:
            for context in self._interventions(scheduler, rows, weights, mask):
                stack.enter_context(context)
            latents = self._runner.run(scheduler, rows, max(weights), self._negative)
        edited = self._runner.decode(latents[len(source_rows) :])
        return edited, None if mask is None else mask.pixels(self._runner.size)

    def _interventions(
        self, scheduler: StepFunctionWrapper, rows: Sequence[str], weights: list[float], mask: ChangeMask | None
    ) -> Iterator[AbstractContextManager[Any]]:
        """Everything that acts on the denoiser and at its attention sites during one batch."""
        config, pipe = self._config, self._pipe
        streams: list[Stream] = ["source", *["target"] * (len(rows) - 1)]  # type: ignore[list-item]
        if mask is not None and config.mask == "difference":
            yield wrap_denoiser(pipe, difference_evidence(scheduler, mask, self._grid))
        if max(weights) > 1:
            window = StepWindow.of(config.guidance_window)
            yield wrap_denoiser(pipe, RowGuidance(scheduler, max(weights), weights, window))
        if self.sites:
            window, both = self._window("inject_window"), config.inject_branch == "both"
            yield intercept(pipe, Inject(), self.sites, window, guidance="all" if both else "cond", streams=streams)
        if config.controls_words:
            cross = [site for site in self._reached if site.kind == "cross"]
            replace, factors = config.replaces_words, config.reweighted
            targets = enumerate(rows[1:], start=1)
            controls = {
                video: word_control(pipe, rows[0], prompt, replace=replace, factors=factors)
                for video, prompt in targets
            }
            yield intercept(pipe, PromptToPrompt(controls), cross, self._window("words_window"), streams=streams)
        if mask is not None and config.mask_words:
            words = [prompt_words(pipe, prompt) for prompt in rows]
            evidence = WordEvidence(mask, words, config.mask_words)
            yield intercept(pipe, evidence, text_sites(self._reached), streams=streams)

    def _free_kinds(self, config: EditConfig) -> set[str]:
        """The kinds of sites at which the editor may act of its own accord: within their windows, on shared words."""
        kinds: set[str] = set() if config.method == "sdedit" else {site.kind for site in self._reached}
        if not self._inversion.prompt.strip() or not self._reaches(config.words_window):
            kinds.discard("cross")
        if not self._reaches(config.inject_window):
            kinds.discard("temporal")
        return kinds

    def _check_words(self) -> None:
        """Refuse word control that would have no site or no step."""
        if not self._config.controls_words:
            return
        self._window("words_window")
        if not any(site.kind == "cross" for site in self._reached):
            raise UsageError(
                "this model has no cross-attention, so words cannot be controlled",
                got=family_of(first_denoiser(self._pipe)).name,
                remedy='leave words at "none"; a mask cross:WORD works on this model too',
            )

    def _source_trajectory(self) -> SourceTrajectory:
        config, inversion = self._config, self._inversion
        if config.method == "flowedit":
            return SourceTrajectory.noised(self._schedule, self._clean, lambda step: config.seed * 1000 + step)
        if config.method != "inversion":
            return SourceTrajectory.noised(self._schedule, self._clean, lambda step: config.seed)
        if inversion.trajectory is None:
            raise UsageError(
                "this inversion has no trajectory",
                expected='one made with method="inversion"',
                remedy="invert again with the edit's config",
            )
        return SourceTrajectory.recorded(inversion.trajectory, inversion.first)

    def _choose_sites(self) -> list[AttentionSite]:
        choice = self._config.injection
        if choice is None:
            return []
        self._window("inject_window")
        own = [site for site in self._reached if site.kind in SELF_ATTENTION or choice.names]
        if self._config.inject == "coarse":
            own = coarse_sites(self._pipe, own)
        if choice.needs_entropy and self.profile is None:
            self.profile = self._measure_source()
        return choice.choose(own, **(self.profile.statistics if self.profile else {}))

    def _measure_source(self) -> EntropyProfile:
        """The entropies of the source's own run, from where its trajectory begins."""
        prompt, first = self._inversion.prompt, self._inversion.first
        begin = self._source.begin(first).to(self._clean)
        free_run = StepFunctionWrapper(self._runner.scheduler, begin, range(first, len(self._schedule)))
        reached = active_sites(self._pipe, self._schedule.timesteps[first:].tolist())
        with intercept(self._pipe, Record(), reached, guidance="all") as record:
            self._runner.run(free_run, [prompt])
        return EntropyProfile.from_rows(record.records(), {"measured": "on the source", "prompt": prompt})

    def _window(self, name: str) -> StepWindow:
        """A window of the whole run as the edit counts it, which may begin late; by the name of its field."""
        return StepWindow.of(getattr(self._config, name)).after(self.first, len(self._schedule), name)

    def _reaches(self, window: str) -> bool:
        total = len(self._schedule)
        return any(StepWindow.of(window).contains(step, total) for step in range(self.first, total))

    def _empty_mask(self, targets: int) -> ChangeMask:
        shape = torch.Size((targets, *self._grid(self._clean).shape[1:]))
        row, pipe = latents_of(self._pipe), self._pipe
        return ChangeMask(shape, lambda grid: row.ungrid(pipe, grid), self._config.mask_threshold)

    def _grid(self, latents: Latents) -> Tensor:
        return latents_of(self._pipe).grid(self._pipe, latents, self._runner.size)

    def _notes(self) -> tuple[str, ...]:
        """What was chosen, in sentences."""
        total = len(self._schedule)
        notes = [f"the edit runs {total - self.first} of {counted(total, 'step')}, from step {self.first}"]
        if self.sites:
            kinds = ", ".join(sorted({site.kind for site in self.sites}))
            notes.append(f"the source's maps are injected at {counted(len(self.sites), 'site')} ({kinds})")
        if self._config.replaces_words:
            notes.append("words that both prompts share keep the source's cross-attention maps")
        return tuple(notes)


def coarse_sites(pipe: DiffusionPipeline, sites: Sequence[AttentionSite]) -> list[AttentionSite]:
    """Of some sites, the spatial ones below the finest resolution of a U-Net.

    Raises:
        UsageError: the denoiser has one resolution only.

    Source: Free-Prompt-Editing, arXiv 2403.03431: at most 32 x 32 tokens where the finest resolution has 64 x 64.
    """
    denoiser = first_denoiser(pipe)
    family = family_of(denoiser)
    if family.skips == "none":
        raise UsageError(
            "this model has one resolution, so no coarse sites",
            got=family.name,
            remedy="inject all, or a choice by entropy",
        )
    stages = family.stages(denoiser)
    finest = {name for name, module in denoiser.named_modules() if module in (stages[0], stages[-1])}
    return [
        site
        for site in sites
        if site.kind == "spatial" and not any(site.name.startswith(f"{name}.") for name in finest)
    ]


def _check_inversion(inversion: Inversion, frames: Video, generation: GenerationConfig) -> None:
    same = inversion.source.shape == frames.shape and torch.equal(inversion.source, frames.float().cpu())
    if not same or inversion.steps != generation.num_inference_steps:
        raise UsageError(
            "the inversion is of another clip or number of steps",
            expected=f"this clip in {generation.num_inference_steps} steps",
            got=("this clip" if same else "another clip") + f" in {inversion.steps} steps",
            remedy="invert this clip with these settings, or pass no inversion",
        )
