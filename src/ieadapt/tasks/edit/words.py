"""What the words of the prompts do in an edit: they pair off, weigh, and say where the edit may change."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import SequenceMatcher

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import AttentionCall, AttentionSite
from ieadapt.errors import FailureError, UsageError
from ieadapt.functional.map_rows import map_sums
from ieadapt.interventions.prompt_to_prompt import TokenMapping
from ieadapt.tasks.edit.steps import ChangeMask
from ieadapt.tasks.maps.record import PromptWords, prompt_words


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
