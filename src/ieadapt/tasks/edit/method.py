"""Editing: change what a sentence says about a clip and nothing else, with no training and no stored maps.

RECONSTRUCTION. The paper (arXiv 2504.12027) edits videos by an "entropy-aware" choice of attention layers; its method
could not be read. Here source and target run in one batch, the chosen sites give the target the source's maps (as
Free-Prompt-Editing does for images, arXiv 2403.03431), and what keeps the rest of the clip in place are a late start,
the source's own correction (direct inversion, arXiv 2310.01506; FlowEdit, arXiv 2412.08629) and a mask.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import (
    AttentionSite,
    DenoiserWrapper,
    StepWindow,
    Stream,
    active_sites,
    denoisers_of,
    family_of,
    intercept,
)
from ieadapt.errors import UsageError
from ieadapt.interventions import Inject
from ieadapt.interventions.prompt_to_prompt import PromptToPrompt
from ieadapt.models.video_latents import latents_of
from ieadapt.tasks.edit.change_mask import ChangeMask, DifferenceEvidence, WordEvidence, text_sites
from ieadapt.tasks.edit.clip_check import check_clip
from ieadapt.tasks.edit.config import EditConfig
from ieadapt.tasks.edit.inversion import Clip, Inversion, counter, invert, source_profile
from ieadapt.tasks.edit.noise_path import Latents
from ieadapt.tasks.edit.path_run import PathPipeline, PathScheduler, forwards
from ieadapt.tasks.edit.sites import SELF_ATTENTION, coarse_sites
from ieadapt.tasks.edit.source_path import FRESH, Noised, Recorded, SourcePath
from ieadapt.tasks.edit.steps import RowGuidance, Tied
from ieadapt.tasks.edit.word_pairing import word_control
from ieadapt.tasks.generate import GenerationConfig, Progress, check_length
from ieadapt.tasks.maps.words import prompt_words
from ieadapt.tasks.measure.profile import EntropyProfile


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
    source: Clip = field(repr=False)
    reconstruction: Clip = field(repr=False)
    edited: Float[Tensor, "video frame channel height width"] = field(repr=False)
    mask: Float[Tensor, "video frame height width"] | None = field(repr=False)
    sites: tuple[AttentionSite, ...]
    profile: EntropyProfile | None
    inversion: Inversion = field(repr=False)
    notes: tuple[str, ...]


def edit(
    pipe: DiffusionPipeline,
    frames: Clip,
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
        >>> pipe = ieadapt.load("shapes")  # doctest: +SKIP
        >>> ieadapt.edit(pipe, frames, "a blue ball on grass", source_prompt="a red ball on grass")  # doctest: +SKIP
    """
    config, generation = config or EditConfig(), generation or GenerationConfig()
    prompts = (prompt,) if isinstance(prompt, str) else tuple(prompt)
    check_clip(pipe, frames)
    check_edit_prompts(pipe, prompts, source_prompt)
    inversion = inversion or invert(pipe, frames, source_prompt, config, generation, progress)
    _check_inversion(inversion, frames, config, generation)
    return run_edit(pipe, prompts, source_prompt, config, generation, inversion, profile, progress)


def run_edit(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    source_prompt: str,
    config: EditConfig,
    generation: GenerationConfig,
    inversion: Inversion,
    profile: EntropyProfile | None = None,
    progress: Progress | None = None,
) -> EditResult:
    """Edit an inverted clip; `edit` checks what it is given before it comes here."""
    runner = PathPipeline.of(pipe, inversion.source, generation.num_inference_steps)
    editor = _Editor(runner, source_prompt, config, inversion, profile)
    batches = [prompts[at : at + generation.batch_size] for at in range(0, len(prompts), generation.batch_size)]
    done = counter(progress, len(batches) * (inversion.steps - editor.first))
    editor.runner = dataclasses.replace(runner, done=done)
    found = [editor.run(batch) for batch in batches]
    masks = [mask for _, mask in found if mask is not None]
    return EditResult(
        prompts=tuple(prompts),
        source=inversion.source,
        reconstruction=inversion.reconstruction,
        edited=torch.cat([frames for frames, _ in found]),
        mask=torch.cat(masks) if masks else None,
        sites=tuple(editor.sites),
        profile=editor.profile,
        inversion=inversion,
        notes=(*inversion.notes, *editor.notes),
    )


class _Editor:
    """One clip and one configuration, run for batches of prompts."""

    def __init__(
        self,
        runner: PathPipeline,
        source_prompt: str,
        config: EditConfig,
        inversion: Inversion,
        profile: EntropyProfile | None,
    ) -> None:
        self.runner, self._inversion = runner, inversion
        self._clean = inversion.clean.to(runner.pipe._execution_device)
        self._path = runner.path_of(self._clean)
        self.first = self._path.first(config.start)
        self._reached = active_sites(runner.pipe, self._path.timesteps[self.first :].tolist())
        self._config = config.settled(self._free_kinds(config, inversion.prompt))
        self._source = self._source_path()
        self._source_prompt = inversion.prompt
        self._negative = source_prompt if config.negative == "source" else ""
        self.profile = profile or inversion.profile
        self._check_words()
        self.sites = self._choose_sites()
        self.notes = self._notes()

    def run(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "video ..."], Tensor | None]:
        """The edited videos of a batch of prompts, and their masks."""
        config = self._config
        begin = self._source.begin(self.first).to(self._clean)
        alone = config.method == "sdedit"
        rows = [*prompts] if alone else [self._source_prompt, *prompts]
        mask = self._mask(len(prompts))
        scale = max(config.guidance_scale, 1.0 if alone else config.source_guidance)
        weights = [float(config.guidance_scale)] * len(rows)
        if not alone:
            weights[0] = float(config.source_guidance)
        guided = StepWindow.of(config.guidance_window)

        def wrapping(scheduler: PathScheduler) -> list[DenoiserWrapper]:
            wrappers: list[DenoiserWrapper] = []
            if mask is not None and config.mask == "difference":
                wrappers.append(DifferenceEvidence(scheduler, mask, self._grid))
            return [*wrappers, RowGuidance(scheduler, scale, weights, guided)] if scale > 1 else wrappers

        found = self.runner.run(
            begin.expand(len(rows), *begin.shape[1:]).clone(),
            rows,
            self.first,
            advance=forwards if alone else Tied(self._source, config.residual, mask),
            guidance_scale=scale,
            negative=self._negative,
            wrapping=wrapping,
            within=lambda scheduler: self._interventions(scheduler, rows, mask),
        )
        edited = self.runner.decode(found if alone else found[1:])
        return edited, None if mask is None else mask.pixels(self.runner.size)

    @contextmanager
    def _interventions(self, scheduler: PathScheduler, rows: Sequence[str], mask: ChangeMask | None) -> Iterator[None]:
        """Everything that acts at attention sites during one batch."""
        config, pipe = self._config, self.runner.pipe
        streams: list[Stream] = ["source", *["target"] * (len(rows) - 1)]  # type: ignore[list-item]
        with ExitStack() as stack:
            if self.sites:
                steps, guidance = self._during("inject_window"), config.injected_guidance
                inject = intercept(pipe, Inject(), self.sites, steps, guidance=guidance, streams=streams)
                stack.enter_context(inject)
            if config.controls_words:
                cross = [site for site in self._reached if site.kind == "cross"]
                steps = self._during("words_window")
                stack.enter_context(intercept(pipe, self._word_maps(rows), cross, steps, streams=streams))
            if mask is not None and config.mask_words:
                words = [prompt_words(pipe, prompt) for prompt in rows]
                evidence = WordEvidence(mask, words, config.mask_words)
                stack.enter_context(intercept(pipe, evidence, text_sites(self._reached), streams=streams))
            yield

    def _word_maps(self, rows: Sequence[str]) -> PromptToPrompt:
        config, pipe = self._config, self.runner.pipe
        return PromptToPrompt(
            {
                video: word_control(
                    pipe, rows[0], rows[video], replace=config.replaces_words, factors=config.reweighted
                )
                for video in range(1, len(rows))
            }
        )

    def _free_kinds(self, config: EditConfig, source_prompt: str) -> set[str]:
        """The kinds of sites at which the editor may act of its own accord: within their windows, on shared words."""
        kinds: set[str] = set() if config.method == "sdedit" else {site.kind for site in self._reached}
        if not source_prompt.strip() or not self._reaches(config.words_window):
            kinds.discard("cross")
        if not self._reaches(config.inject_window):
            kinds.discard("temporal")
        return kinds

    def _check_words(self) -> None:
        """Refuse word control that would have no site or no step."""
        if not self._config.controls_words:
            return
        self._during("words_window")
        if not any(site.kind == "cross" for site in self._reached):
            raise UsageError(
                "this model has no cross-attention, so words cannot be controlled",
                got=family_of(next(iter(denoisers_of(self.runner.pipe).values()))).name,
                remedy='leave words at "none"; a mask cross:WORD works on this model too',
            )

    def _source_path(self) -> SourcePath:
        config, inversion = self._config, self._inversion
        if config.method != "inversion":
            return Noised(self._path, self._clean, config.seed, FRESH[config.method])
        if inversion.trajectory is None:
            raise UsageError(
                "this inversion has no trajectory",
                expected='one made with method="inversion"',
                remedy="invert again with the edit's config",
            )
        return Recorded(inversion.trajectory, inversion.first)

    def _choose_sites(self) -> list[AttentionSite]:
        choice = self._config.injection
        if choice is None:
            return []
        self._during("inject_window")
        own = [site for site in self._reached if site.kind in SELF_ATTENTION or choice.names]
        if self._config.inject == "coarse":
            own = coarse_sites(self.runner.pipe, own)
        if choice.needs_entropy and self.profile is None:
            begin = self._source.begin(self._inversion.first).to(self._clean)
            self.profile = source_profile(self.runner, self._inversion, begin)
        return choice.choose(own, **(self.profile.figures if self.profile else {}))

    def _during(self, name: str) -> StepWindow:
        """A window of the whole run as the edit counts it, which may begin late; by the name of its field."""
        return StepWindow.of(getattr(self._config, name)).after(self.first, len(self._path), name)

    def _reaches(self, window: str) -> bool:
        return any(StepWindow.of(window).contains(step, len(self._path)) for step in range(self.first, len(self._path)))

    def _mask(self, targets: int) -> ChangeMask | None:
        if self._config.mask == "none":
            return None
        like = torch.Size((targets, *self._grid(self._clean).shape[1:]))
        row, pipe = latents_of(self.runner.pipe), self.runner.pipe
        return ChangeMask(like, lambda grid: row.ungrid(pipe, grid), self._config.mask_threshold)

    def _grid(self, latents: Latents) -> Tensor:
        return latents_of(self.runner.pipe).grid(self.runner.pipe, latents, self.runner.size)

    def _notes(self) -> tuple[str, ...]:
        total = len(self._path)
        notes = [f"the edit runs {total - self.first} of {total} steps, from step {self.first}"]
        if self.sites:
            kinds = ", ".join(sorted({site.kind for site in self.sites}))
            notes.append(f"the source's maps are injected at {len(self.sites)} sites ({kinds})")
        if self._config.replaces_words:
            notes.append("words that both prompts share keep the source's cross-attention maps")
        return tuple(notes)


def check_edit_prompts(pipe: DiffusionPipeline, prompts: Sequence[str], source_prompt: str) -> None:
    """Refuse prompts that no edit can be made from.

    Raises:
        UsageError: no prompt, a blank one, one equal to the source prompt, or one too long for the text encoder.
    """
    if not prompts or not all(prompt.strip() for prompt in prompts):
        raise UsageError("an edit needs a prompt", expected="at least one prompt with text in it", got=list(prompts))
    for prompt in prompts:
        if " ".join(prompt.split()).lower() == " ".join(source_prompt.split()).lower():
            raise UsageError(
                "source and target prompt are the same, so there is nothing to change",
                got=repr(prompt),
                remedy="say in the target prompt what shall be different",
            )
    for prompt in (*prompts, source_prompt):
        check_length(pipe, prompt)


def _check_inversion(inversion: Inversion, frames: Clip, config: EditConfig, generation: GenerationConfig) -> None:
    same = inversion.source.shape == frames.shape and torch.equal(inversion.source, frames.float().cpu())
    if not same or inversion.steps != generation.num_inference_steps:
        raise UsageError(
            "the inversion is of another clip or number of steps",
            expected=f"this clip in {generation.num_inference_steps} steps",
            got=("this clip" if same else "another clip") + f" in {inversion.steps} steps",
            remedy="invert this clip with these settings, or pass no inversion",
        )
