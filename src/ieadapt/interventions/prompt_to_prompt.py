"""Prompt-to-prompt: words of the target are looked at from where the source's words are, and weigh more or less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ieadapt.attention import AttentionCall
from ieadapt.errors import UsageError
from ieadapt.functional import prompt_to_prompt_output
from ieadapt.interventions.inject import source_row


@dataclass(frozen=True)
class TokenMapping:
    """Which text tokens of a target prompt take the cross-attention maps of which source tokens, and their weights.

    Attributes:
        taken: pairs (text token, text token of the source) whose map it takes; tokens beyond both prompts pair off.
        factors: weight of a text token; 1 for those not named.
        lengths: number of text tokens of the target and of the source, without padding.
    """

    taken: tuple[tuple[int, int], ...]
    factors: Mapping[int, float]
    lengths: tuple[int, int]

    def columns(self, keys: int, source_keys: int) -> tuple[Int[Tensor, " key"], Float[Tensor, " key"]]:
        """The source's key for each key (-1 for its own), and the weight of each."""
        taken, factors = torch.full((keys,), -1), torch.ones(keys)
        for own, foreign in self.taken:
            if own < keys and foreign < source_keys:
                taken[own] = foreign
        if self.taken:
            own, foreign = self.lengths
            padding = min(keys - own, source_keys - foreign)
            if padding > 0:
                taken[own : own + padding] = torch.arange(foreign, foreign + padding)
        for token, factor in self.factors.items():
            if token < keys:
                factors[token] = factor
        return taken, factors


@dataclass(frozen=True)
class PromptToPrompt:
    """Give the target rows of cross-attention the source's columns of shared words, and weigh words.

    As in `Inject`, source and target run in one batch and nothing is stored.

    Attributes:
        mappings: by video of the batch, 0 being the source.

    Raises:
        UsageError: the site is no cross-attention, or the batch has no source row.

    Source: prompt-to-prompt, arXiv 2208.01626.

    Example:
        >>> PromptToPrompt({1: TokenMapping(taken=((1, 1),), factors={2: 2.0}, lengths=(3, 3))})
        PromptToPrompt(1 target)
    """

    mappings: Mapping[int, TokenMapping]

    def __call__(self, call: AttentionCall) -> Tensor | None:
        """The output with the target rows replaced, or None if the call holds no target row or its keys are no text."""
        if call.site.kind != "cross":
            raise UsageError(
                "prompt-to-prompt needs cross-attention",
                got=f"{call.site.kind} attention",
                where=call.site.name,
                remedy="choose a model with cross-attention, such as AnimateDiff, ModelScope, Wan or LTX",
            )
        if not call.of_text:
            return None
        parts = []
        for index in call.rows.denoiser_rows(stream=("target",)):
            source = call.restricted([source_row(call, call.rows.guidance[index])])
            own = call.restricted([index])
            mapping = self.mappings[call.rows.video[index]]
            taken, factors = mapping.columns(own.key.shape[-2], source.key.shape[-2])
            output = prompt_to_prompt_output(own.attention, source=source.attention, taken=taken, factors=factors)
            parts.append((own, output))
        return call.replaced(parts) if parts else None

    def __repr__(self) -> str:
        return f"PromptToPrompt({len(self.mappings)} target{'s' if len(self.mappings) != 1 else ''})"
