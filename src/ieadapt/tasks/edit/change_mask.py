"""A mask of what an edit may change, gathered while it runs: where predictions differ, or where words look."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import AttentionCall, AttentionSite, DenoiserCall
from ieadapt.errors import FailureError, UsageError
from ieadapt.functional.map_rows import map_sums
from ieadapt.tasks.edit.noise_path import Latents
from ieadapt.tasks.edit.path_run import PathScheduler
from ieadapt.tasks.maps.words import PromptWords

Grid = Float[Tensor, "target frame height width"]

STRONGEST = 0.98
"""The quantile of the evidence that counts as 1: single outliers do not set the scale."""


class ChangeMask:
    """The mean of what was seen so far, smoothed, scaled to its strongest place and cut at a threshold.

    Args:
        like: shape (target, channel, frame, height, width) of the latents' grid.
        ungrid: from a grid with channels to latents in the pipeline's own form.
        threshold: 0..1.
    """

    def __init__(self, like: torch.Size, ungrid: Callable[[Tensor], Latents], threshold: float) -> None:
        self._like, self._ungrid, self._threshold = like, ungrid, threshold
        self._sum = torch.zeros(like[0], *like[2:])
        self._seen = 0

    def add(self, evidence: Grid) -> None:
        """Add what one step, or one attention site, says; resized to the latents' grid, whatever its scale."""
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

    def now(self) -> Latents:
        """The same mask in the pipeline's own form of latents."""
        return self._ungrid(self.grid()[:, None].expand(self._like))

    def pixels(self, size: tuple[int, int, int]) -> Grid:
        """The mask at (frames, height, width) of the clip."""
        return F.interpolate(self.grid()[:, None], size=size, mode="nearest")[:, 0]


class DifferenceEvidence:
    """Tells a mask how far the clean video that a target's prediction amounts to lies from the source's.

    Args:
        scheduler: knows path, step and latents.
        mask: to be told.
        to_grid: from latents to (video, channel, frame, height, width).

    Source: DiffEdit, arXiv 2210.11427, for the difference of two predictions; here it is gathered during the edit.
    """

    def __init__(self, scheduler: PathScheduler, mask: ChangeMask, to_grid: Callable[[Latents], Tensor]) -> None:
        self._scheduler, self._mask, self._to_grid = scheduler, mask, to_grid

    def __call__(self, call: DenoiserCall, prediction: Tensor) -> None:
        """Look at the conditional rows [source, target, ...]."""
        rows = call.rows.denoiser_rows(("cond",))
        if not rows:
            return
        path, step, latents = self._scheduler.path, self._scheduler.step_index, self._scheduler.latents
        clean = self._to_grid(path.clean(step, latents, prediction[rows].float()))
        self._mask.add((clean[1:] - clean[:1]).abs().mean(dim=1))

    def __repr__(self) -> str:
        return "mask from the difference of predictions"


class WordEvidence:
    """Tells a mask where the words of a mask look, in the source's prompt and in each target's.

    Args:
        mask: to be told.
        prompts: the words of the source prompt and of each target prompt.
        words: those that count.

    Raises:
        UsageError: a word is in none of the prompts.
    """

    def __init__(self, mask: ChangeMask, prompts: Sequence[PromptWords], words: Sequence[str]) -> None:
        self._mask = mask
        self._tokens = [_tokens(prompt, words) for prompt in prompts]
        known = {word.lower() for prompt in prompts for word in prompt.words}
        unknown = [word for word in words if word.lower() not in known]
        if unknown:
            raise UsageError("the mask's word is in no prompt", expected=f"one of {sorted(known)}", got=unknown[0])

    def __call__(self, call: AttentionCall) -> None:
        """Look at one call: where the source or the target looks at the words, the edit may change."""
        if not call.of_text:
            return
        calls = (*call.earlier, call)
        found = {each.rows.video[row]: self._looks(each, row) for each in calls for row in range(len(each.rows))}
        if len(found) == len(self._tokens):
            source, *targets = (found[video] for video in range(len(self._tokens)))
            self._mask.add(torch.stack([torch.maximum(source, target) for target in targets]))

    def _looks(self, call: AttentionCall, row: int) -> Float[Tensor, "frame height width"]:
        """How much each place of a video looks at its prompt's words, 0..1."""
        own, layout = call.restricted([row]), call.layout
        if layout is None:
            raise FailureError("the model's tokens are not known", where=call.site.name)
        keys = own.key.shape[-2]
        groups = torch.zeros(keys, 1)
        first = _first_text_key(call)
        groups[[first + token for token in self._tokens[call.rows.video[row]] if first + token < keys]] = 1.0
        sums = map_sums(own.attention, groups).mean(dim=1)[..., 0]
        return sums[:, layout.video.slice].reshape(-1, layout.height, layout.width)

    def __repr__(self) -> str:
        return "mask from the attention to words"


def _tokens(prompt: PromptWords, words: Sequence[str]) -> list[int]:
    wanted = {word.lower() for word in words}
    return [
        token
        for word, tokens in zip(prompt.words, prompt.tokens, strict=True)
        if word.lower() in wanted
        for token in tokens
    ]


def _first_text_key(call: AttentionCall) -> int:
    """Where text begins among the keys: at 0 in cross-attention, before or after the video in joint attention."""
    if call.site.kind != "joint" or call.layout is None:
        return 0
    return 0 if call.layout.start else call.layout.tokens - call.layout.text


def text_sites(sites: Sequence[AttentionSite]) -> list[AttentionSite]:
    """The sites at which video tokens look at text: cross-attention, or joint attention where there is none."""
    cross = [site for site in sites if site.kind == "cross"]
    return cross or [site for site in sites if site.kind == "joint"]
