"""Which words of a target prompt correspond to which of the source prompt, in the denoiser's text tokens."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import SequenceMatcher

from diffusers import DiffusionPipeline

from ieadapt.errors import UsageError
from ieadapt.interventions.prompt_to_prompt import TokenMapping
from ieadapt.tasks.maps.words import PromptWords, prompt_words


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
    known = [word.lower() for word in own.words]
    unknown = [word for word in factors if word.lower() not in known]
    if unknown:
        raise UsageError(
            "the word to be weighed is not in the target prompt",
            expected=f"one of {sorted(set(known))}",
            got=unknown[0],
        )
    wanted = {word.lower(): factor for word, factor in factors.items()}
    weighed = {
        token: wanted[word]
        for word, tokens in zip(known, own.tokens, strict=True)
        if word in wanted
        for token in tokens
    }
    return TokenMapping(_pairs(own, foreign) if replace else (), weighed, (_length(own), _length(foreign)))


def _pairs(own: PromptWords, foreign: PromptWords) -> tuple[tuple[int, int], ...]:
    """Pairs of tokens (target, source), those before the first word among them."""
    first = min(own.tokens[0][0], foreign.tokens[0][0]) if own.words and foreign.words else 0
    pairs = [(token, token) for token in range(first)]
    words = SequenceMatcher(
        None, [word.lower() for word in foreign.words], [word.lower() for word in own.words], autojunk=False
    )
    for kind, start, stop, own_start, own_stop in words.get_opcodes():
        if kind in ("equal", "replace"):
            theirs = [token for tokens in foreign.tokens[start:stop] for token in tokens]
            mine = [token for tokens in own.tokens[own_start:own_stop] for token in tokens]
            pairs += [(token, theirs[at * len(theirs) // len(mine)]) for at, token in enumerate(mine)]
    return tuple(pairs)


def _length(prompt: PromptWords) -> int:
    """Text tokens up to the last word's."""
    return max((token for tokens in prompt.tokens for token in tokens), default=-1) + 1
