"""What happens in the steps of an edit: the source is held on its trajectory, rows are guided, changes are masked.

The words of the prompts pair off, weigh, and say where the edit may change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import AttentionCall, AttentionSite, DenoiserCall, DenoiserWrapper, StepWindow
from ieadapt.errors import FailureError, UsageError
from ieadapt.functional.map_rows import map_sums
from ieadapt.interventions.prompt_to_prompt import TokenMapping
from ieadapt.models.noise_schedule import NoiseSchedule
from ieadapt.models.scheduler_wrapper import StepFunction, StepFunctionWrapper
from ieadapt.models.video_latents import Latents
from ieadapt.tasks.maps.record import PromptWords, prompt_words

Grid = Float[Tensor, "target frame height width"]

STRONGEST = 0.98
"""The quantile of the evidence that counts as 1: single outliers do not set the scale."""


@dataclass(frozen=True)
class SourceTrajectory:
    """Where the source is. Between the end of one step and the beginning of the next it may take another noise.

    Attributes:
        begin: latents at the beginning of a step; after the last step, the clean ones.
        end: latents at the end of a step, with the noise that they began with.
    """

    begin: Callable[[int], Latents]
    end: Callable[[int], Latents]

    @classmethod
    def recorded(cls, trajectory: Float[Tensor, "step ..."], first: int) -> SourceTrajectory:
        """The trajectory that an inversion recorded.

        Args:
            trajectory: latents at the beginning of every step from `first`, and the clean ones last.
            first: the step at which it begins.

        Raises:
            UsageError: a step before the first is requested.
        """

        def begin(step: int) -> Latents:
            if step < first:
                raise UsageError(
                    "the inversion begins later than the edit",
                    expected=f"a start at step {first} or later",
                    got=f"step {step}",
                    remedy="invert again with the edit's start",
                )
            return trajectory[step - first][None]

        return cls(begin, lambda step: begin(step + 1))

    @classmethod
    def noised(cls, schedule: NoiseSchedule, clean: Latents, seed_of: Callable[[int], int]) -> SourceTrajectory:
        """The clean latents with noise, the same at every step or a fresh one at each (FlowEdit, arXiv 2412.08629).

        Args:
            schedule: gives the levels.
            clean: the clip's latents.
            seed_of: the seed of each step's noise.
        """

        def noise(step: int) -> Tensor:
            generator = torch.Generator().manual_seed(seed_of(step))
            return torch.randn(clean.shape, generator=generator).to(clean)

        def begin(step: int) -> Latents:
            return clean if step == len(schedule) else schedule.levels[step].mix(clean, noise(step))

        def end(step: int) -> Latents:
            return clean if step == len(schedule) - 1 else schedule.ends[step].mix(clean, noise(step))

        return cls(begin, end)


def source_anchored(source: SourceTrajectory, residual: float, mask: ChangeMask | None) -> StepFunction:
    """Steps of a batch [source, target, ...]: the source goes where it must, the targets where they are led.

    After a step the source is put back on its trajectory. What that took, times `residual`, is added to the targets: it
    is the part of the step's error that both share. With a noised source and `residual` 1 this is FlowEdit, written as
    the difference of target and source. Outside the mask the targets take the source's latents.

    Args:
        source: where the source must be.
        residual: 0..1.
        mask: what may change, or None.
    """

    def step_function(schedule: NoiseSchedule, step: int, latents: Latents, prediction: Latents) -> Latents:
        stepped = schedule.forward(step, latents, prediction)
        end, following = source.end(step).to(latents), source.begin(step + 1).to(latents)
        targets = stepped[1:] + residual * (end - stepped[:1]) + (following - end)
        if mask is not None:
            changing = mask.as_latents().to(latents)
            targets = changing * targets + (1 - changing) * following
        return torch.cat([following, targets])

    return step_function


class RowGuidance:
    """Gives every row of a batch its own weight of classifier-free guidance, whatever the pipeline's is.

    The pipeline computes `u + w (c - u)`. For a row with weight v the unconditional prediction u is replaced by
    `(u (1 - v) + (v - w) c) / (1 - w)`, which makes that sum `u + v (c - u)`.

    Args:
        scheduler: knows the step.
        pipeline_scale: w, above 1.
        weights: v of each row of a branch.
        window: the part of the whole run in which they hold; outside v is 1.
    """

    def __init__(
        self, scheduler: StepFunctionWrapper, pipeline_scale: float, weights: list[float], window: StepWindow
    ) -> None:
        self._scheduler, self._scale, self._weights, self._window = scheduler, pipeline_scale, weights, window
        self._cond: Tensor | None = None
        self._cond_step = -1

    def __call__(self, call: DenoiserCall, prediction: Tensor) -> Tensor | None:
        """The prediction with its unconditional rows changed, or None."""
        guided = self._window.contains(self._scheduler.step_index, len(self._scheduler.schedule))
        weights = [weight if guided else 1.0 for weight in self._weights]
        cond, uncond = (call.rows.denoiser_rows((branch,)) for branch in ("cond", "uncond"))
        if cond:
            self._cond, self._cond_step = prediction[cond], call.step
        if not uncond or all(weight == self._scale for weight in weights):
            return None
        if self._cond is None or self._cond_step != call.step:
            raise FailureError(
                "the unconditional call came before the conditional one",
                where=f"step {call.step} of {type(call.pipeline).__name__}",
                remedy="edit with a pipeline that calls cond first, as Wan and HunyuanVideo do",
            )
        v = torch.tensor(weights, device=prediction.device).view(-1, *[1] * (prediction.ndim - 1))
        changed = prediction.clone()
        mixed = prediction[uncond].float() * (1 - v) + (v - self._scale) * self._cond.float()
        changed[uncond] = (mixed / (1 - self._scale)).to(prediction.dtype)
        return changed

    def __repr__(self) -> str:
        return f"guidance {self._weights} by row"


class ChangeMask:
    """Where an edit may change: the mean of the evidence so far, smoothed, scaled to its strongest, cut at a threshold.

    Args:
        shape: (target, channel, frame, height, width) of the latents' grid.
        ungrid: from a grid with channels to latents in the pipeline's own form.
        threshold: 0..1.
    """

    def __init__(self, shape: torch.Size, ungrid: Callable[[Tensor], Latents], threshold: float) -> None:
        self._shape, self._ungrid, self._threshold = shape, ungrid, threshold
        self._sum = torch.zeros(shape[0], *shape[2:])
        self._seen = 0

    def add(self, evidence: Grid) -> None:
        """Add what one step, or one attention site, shows; resized to the latents' grid, whatever its scale."""
        grid = F.interpolate(evidence.float().cpu()[:, None], size=self._sum.shape[1:], mode="trilinear")[:, 0]
        self._sum += grid / grid.flatten(1).mean(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        self._seen += 1

    def grid(self) -> Grid:
        """1 where the edit may change, 0 elsewhere, on the grid of the latents."""
        if not self._seen:
            raise FailureError("the mask has seen nothing", remedy="use another mask, or a wider window")
        smooth = F.avg_pool3d(self._sum[:, None], (1, 3, 3), stride=1, padding=(0, 1, 1), count_include_pad=False)[:, 0]
        smooth = smooth - smooth.flatten(1).min(dim=1).values.view(-1, 1, 1, 1)
        strongest = smooth.flatten(1).quantile(STRONGEST, dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        return (smooth / strongest >= self._threshold).float()

    def as_latents(self) -> Latents:
        """The same mask in the pipeline's own form of latents."""
        return self._ungrid(self.grid()[:, None].expand(self._shape))

    def pixels(self, size: tuple[int, int, int]) -> Grid:
        """The mask at (frames, height, width) of the clip."""
        return F.interpolate(self.grid()[:, None], size=size, mode="nearest")[:, 0]


def difference_evidence(
    scheduler: StepFunctionWrapper, mask: ChangeMask, to_grid: Callable[[Latents], Tensor]
) -> DenoiserWrapper:
    """Add to a mask how far the clean video that a target's prediction amounts to lies from the source's.

    Args:
        scheduler: knows schedule, step and latents.
        mask: gets the evidence.
        to_grid: from latents to (video, channel, frame, height, width).

    Source: DiffEdit, arXiv 2210.11427, for the difference of two predictions; here it is gathered during the edit.
    """

    def look(call: DenoiserCall, prediction: Tensor) -> None:
        rows = call.rows.denoiser_rows(("cond",))
        if rows:
            schedule, latents = scheduler.schedule, scheduler.latents
            clean = to_grid(schedule.clean(scheduler.step_index, latents, prediction[rows].float()))
            mask.add((clean[1:] - clean[:1]).abs().mean(dim=1))

    return look


def word_control(
    pipe: DiffusionPipeline, source: str, target: str, *, replace: bool, factors: Mapping[str, float]
) -> TokenMapping:
    """What a target prompt does with its words.

    Equal words take the source's maps; words that stand in the place of others take theirs (a ball becomes a star where
    the ball was); words that were added keep their own.

    Args:
        pipe: the pipeline, with its tokenizer.
        source: the source prompt.
        target: the target prompt.
        replace: whether maps are taken at all.
        factors: weight by word of the target prompt.

    Raises:
        UsageError: a word to be weighed is not in the target prompt.
    """
    own, foreign = prompt_words(pipe, target), prompt_words(pipe, source)
    _require_known(factors, [own], "the word to be weighed is not in the target prompt")
    weighed = {token: factor for word, factor in factors.items() for token in _tokens(own, [word])}
    lengths = (_length(own), _length(foreign))
    return TokenMapping(_token_mapping(own, foreign) if replace else (), weighed, lengths)


def _token_mapping(own: PromptWords, foreign: PromptWords) -> tuple[tuple[int, int], ...]:
    """Pairs of tokens (target, source), those before the first word among them."""
    first = min(own.tokens[0][0], foreign.tokens[0][0]) if own.words and foreign.words else 0
    pairs = [(token, token) for token in range(first)]
    foreign_words, own_words = ([word.lower() for word in prompt.words] for prompt in (foreign, own))
    matcher = SequenceMatcher(None, foreign_words, own_words, autojunk=False)
    for kind, start, stop, own_start, own_stop in matcher.get_opcodes():
        if kind in ("equal", "replace"):
            theirs = [token for tokens in foreign.tokens[start:stop] for token in tokens]
            mine = [token for tokens in own.tokens[own_start:own_stop] for token in tokens]
            pairs += [(token, theirs[index * len(theirs) // len(mine)]) for index, token in enumerate(mine)]
    return tuple(pairs)


def _length(prompt: PromptWords) -> int:
    """Text tokens up to the last word's."""
    return max((token for tokens in prompt.tokens for token in tokens), default=-1) + 1


class WordEvidence:
    """Adds to a mask where its words look, in the source's prompt and in each target's.

    Args:
        mask: gets the evidence.
        prompts: the words of the source prompt and of each target prompt.
        words: those that count.

    Raises:
        UsageError: a word is in none of the prompts.
    """

    def __init__(self, mask: ChangeMask, prompts: Sequence[PromptWords], words: Sequence[str]) -> None:
        _require_known(words, prompts, "the mask's word is in no prompt")
        self._mask = mask
        self._tokens = [_tokens(prompt, words) for prompt in prompts]

    def __call__(self, call: AttentionCall) -> None:
        """Look at one call: where the source or the target looks at the words, the edit may change."""
        if not call.of_text:
            return
        calls = (*call.earlier, call)
        looks = {each.rows.video[row]: self._looks(each, row) for each in calls for row in range(len(each.rows))}
        if len(looks) == len(self._tokens):
            source, *targets = (looks[video] for video in range(len(self._tokens)))
            self._mask.add(torch.stack([torch.maximum(source, target) for target in targets]))

    def _looks(self, call: AttentionCall, row: int) -> Float[Tensor, "frame height width"]:
        """How much each token of a video looks at its prompt's words, 0..1."""
        own, layout = call.restricted([row]), call.layout
        if layout is None:
            raise FailureError("the model's tokens are not known", where=call.site.name)
        first_text_key = 0  # of cross-attention; in joint attention text comes before or after the video
        if call.site.kind == "joint" and not layout.start:
            first_text_key = layout.tokens - layout.text
        columns = [first_text_key + token for token in self._tokens[call.rows.video[row]]]
        groups = torch.zeros(own.key.shape[-2], 1)
        groups[[column for column in columns if column < len(groups)]] = 1.0
        sums = map_sums(own.attention, groups).mean(dim=1)[..., 0]
        return sums[:, layout.video.slice].reshape(-1, layout.height, layout.width)

    def __repr__(self) -> str:
        return "mask from the attention to words"


def text_sites(sites: Sequence[AttentionSite]) -> list[AttentionSite]:
    """The sites at which video tokens look at text: cross-attention, or joint attention where there is none."""
    cross = [site for site in sites if site.kind == "cross"]
    return cross or [site for site in sites if site.kind == "joint"]


def _tokens(prompt: PromptWords, words: Collection[str]) -> list[int]:
    """The tokens of some words of a prompt, whatever their case."""
    lowered = {word.lower() for word in words}
    pairs = zip(prompt.words, prompt.tokens, strict=True)
    return [token for word, tokens in pairs if word.lower() in lowered for token in tokens]


def _require_known(words: Collection[str], prompts: Sequence[PromptWords], problem: str) -> None:
    known = {word.lower() for prompt in prompts for word in prompt.words}
    unknown = [word for word in words if word.lower() not in known]
    if unknown:
        raise UsageError(problem, expected=f"one of {sorted(known)}", got=unknown[0])
